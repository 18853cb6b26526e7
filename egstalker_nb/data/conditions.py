"""What frames are drawn from."""
from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Callable, Optional

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """What B frames are drawn from; made by `Head.conditions` for frames of the clip, or from anything else.

    Attributes:
        mouth: [B, 8] float32 mouth coefficients, see `Mouth`.
        eyes: [B, 7] float32 lids, brows and gaze, see `upper_face`.
        w2c: [B, 4, 4] float32 world-to-camera, OpenCV axes: the camera.
        pose: [B, 4, 4] float32, the head pose that the network is conditioned on. The same as `w2c` unless given: a
            camera outside the clip's range would make the network extrapolate.
    """

    mouth: Tensor
    eyes: Tensor
    w2c: Tensor
    pose: Optional[Tensor] = None

    def __post_init__(self) -> None:
        if self.pose is None:
            object.__setattr__(self, "pose", self.w2c)

    def __len__(self) -> int:
        return len(self.w2c)

    def __getitem__(self, part: slice | Tensor | list[int]) -> Conditions:
        """Some of the frames."""
        return self.map(lambda x: x[part])

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditions:
        """The same with every tensor replaced by what `function` makes of it."""
        return Conditions(*(function(getattr(self, f.name)) for f in fields(self)))

    def to(self, device: torch.device) -> Conditions:
        """The same on a device."""
        return self.map(lambda x: x.to(device))

    def copy_(self, other: Conditions) -> None:
        """Overwrite the tensors in place, as a recorded CUDA graph that reads them needs."""
        for f in fields(self):
            getattr(self, f.name).copy_(getattr(other, f.name))
