"""The inputs from which frames are rendered."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """The inputs from which B frames are rendered. `Head.conditions` makes them for frames of the clip.

    Attributes:
        mouth: float32, what the audio token takes: [B, 8] mouth coefficients, see `Mouth`, or [B, 8, 16, 29] windows of
            audio features, see `WindowedMouth`.
        eyes: [B, 7] float32 eyelids, brows and gaze, see `upper_face`.
        w2c: [B, 4, 4] float32 world-to-camera, OpenCV axes: the camera.
        pose: [B, 4, 4] float32, the head pose that the network is conditioned on; None: `w2c`. To be given where the
            camera leaves the clip's range of poses: the network would extrapolate.
    """

    mouth: Tensor
    eyes: Tensor
    w2c: Tensor
    pose: Optional[Tensor] = None

    @property
    def network_pose(self) -> Tensor:
        """[B, 4, 4]: `pose`, or `w2c` where it is not given."""
        return self.w2c if self.pose is None else self.pose

    def __len__(self) -> int:
        """B."""
        return len(self.w2c)

    def __getitem__(self, part: slice | Tensor | list[int]) -> Conditions:
        """A subset of the frames, as indexing a tensor gives."""
        pose = None if self.pose is None else self.pose[part]
        return Conditions(self.mouth[part], self.eyes[part], self.w2c[part], pose)

    def clone(self) -> Conditions:
        """A copy with tensors of its own, `pose` included."""
        return Conditions(self.mouth.clone(), self.eyes.clone(), self.w2c.clone(), self.network_pose.clone())

    def copy_(self, other: Conditions) -> None:
        """Overwrite the tensors of a `clone` in place, for a captured CUDA graph that reads them."""
        for own, given in ((self.mouth, other.mouth), (self.eyes, other.eyes), (self.w2c, other.w2c),
                           (self.network_pose, other.network_pose)):
            own.copy_(given)
