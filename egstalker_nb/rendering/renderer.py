"""Renders one head: batches of frames, from scripts or from the frames of its clip."""
from __future__ import annotations

import time
from typing import Iterator, Optional, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.cuda_graph import Captured
from ..core.device import memory_limits
from ..core.errors import DatasetError, InputError
from ..core.progress import Progress
from ..data.conditions import Conditions
from ..data.dataset import Dataset
from ..model.head import Head
from ..rasterizer.capacity import IsectCapacity
from ..training.run import Run
from .backdrop import Backdrop
from .script import Script

SMALLER = "Use a smaller batch, or close other programs."


def check_mouth_driven(audio_token: str, what: str) -> None:
    """Whether a head's audio token is made of mouth coefficients (see `Config.audio_token`), which `what` needs.

    Raises:
        InputError: audio features drive it, see `WindowedMouth`.
    """
    if audio_token != "mouth":
        raise InputError(f"a head that mouth coefficients drive, for {what}", f"audio_token '{audio_token}'",
                         "Train one with the preset 'production'; egs.render takes this one and a whole audio file.")


class Renderer:
    """Renders one head. `from_run` makes one from a trained run.

    Args:
        head: on the device to render on.
        ds: the clip that it was trained on.
        deform: False for a head of the coarse stage, which has no deformation.

    Attributes:
        device: the device of the head.
        K: [3, 3] float32 intrinsics of the clip, on the device.
        seconds: time spent in `batch` so far, the device waited for on CUDA.
    """

    def __init__(self, head: Head, ds: Dataset, deform: bool = True):
        self.head, self.ds, self.deform = head, ds, deform
        self.device = next(head.parameters()).device
        self.K = ds.K.to(self.device)
        self.seconds = 0.0
        self._spatial: Optional[tuple[Tensor, Tensor]] = None
        self._render = Captured(self._device_work, self.device)
        self._inputs: Optional[Conditions] = None
        self._capacity = IsectCapacity()

    @classmethod
    def from_run(cls, run: Run, iteration: Optional[int] = None,
                 device: Optional[str | torch.device] = None) -> Renderer:
        """A renderer of a trained run.

        Args:
            run: see `load_run`.
            iteration: checkpoint, default the newest.
            device: default CUDA, else the CPU.

        Raises:
            DatasetError: no such checkpoint, or a damaged one; the dataset is missing or was changed.
            InputError: the device cannot render.
        """
        number = run.pick(iteration)
        head, ds = run.load_head(number, device), run.dataset
        if (len(head.w2c), head.torso.size) != (len(ds), ds.size):
            raise DatasetError(f"a head of {len(ds)} frames of {ds.size} px, as the dataset of the run",
                               f"one of {len(head.w2c)} frames of {head.torso.size} px in checkpoint "
                               f"iteration_{number}", "The checkpoint is of another run: restore it, or train again.")
        return cls(head, ds, deform=run.config.stage(number) == "fine")

    @property
    def w2c(self) -> np.ndarray:
        """The poses of all frames of the clip that the head was trained with, [N, 4, 4] float32, see `Head.w2c`."""
        return self.head.w2c.cpu().numpy()

    def steady(self, w2c: np.ndarray, source: Optional[np.ndarray]) -> np.ndarray:
        """Poses w2c [F, 4, 4] of the clip's frames `source` [F] as the reference view of a camera that moves shows
        them, see `Torso.steadied`."""
        torso = self.head.torso
        if torso.views is None or source is None:
            return w2c
        poses = torch.from_numpy(np.ascontiguousarray(w2c, np.float32)).to(self.device)
        return torso.steadied(poses, torso.views[source]).cpu().numpy()

    def conditions(self, ids: Sequence[int]) -> Conditions:
        """The inputs from which frames `ids` of the clip are rendered, on the device."""
        index = torch.as_tensor(list(ids), device=self.device)
        return self.head.conditions(index, torch.from_numpy(self.ds.eyes).to(self.device)[index])

    @torch.no_grad()
    def batch(self, given: Conditions, background: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """Render B frames.

        Args:
            given: what they are rendered from, on the device.
            background: [B, S, S, 3] 0...1 on the device; black if None.

        Returns:
            rgb [B, S, S, 3] 0...1 and alpha [B, S, S, 1], on the device.

        Raises:
            MemoryLimitError: too little memory.
        """
        with memory_limits(f"rendering {len(given)} frames at a time", SMALLER):
            return self._batch(given, background)

    def _batch(self, given: Conditions, background: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        began = time.perf_counter()
        if self.deform and self._spatial is None:
            self._spatial = self.head.spatial()
        self._copy_inputs(given)
        splats, alpha, num_isects = self._render()
        alpha = alpha.clone()  # the next rendering writes into the same memory
        rgb = splats.clone() if background is None else torch.addcmul(splats, 1 - alpha, background)
        rgb.clamp_(0, 1)
        if self.device.type == "cuda":
            count = int(num_isects)  # waits for the device
            if not self._capacity.fits(count):
                self._capacity.grow(count)
                if self._render.recorded:  # some Gaussians were left out: render again, with a larger capacity
                    self._render.reset()
                    return self._batch(given, background)
        self.seconds += time.perf_counter() - began
        return rgb, alpha

    def _copy_inputs(self, given: Conditions) -> None:
        """Copy a batch into the tensors that the captured CUDA graph reads."""
        if self._inputs is None or len(given) != len(self._inputs):
            self._inputs, self._capacity = given.clone(), IsectCapacity()
            self._render.reset()
        self._inputs.copy_(given)

    def _device_work(self) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        assert self._inputs is not None  # `batch` copies them first
        rgb, alpha, info = self.head.render(self._inputs, self.K, self.ds.size, None, self.deform, self._spatial,
                                            self._capacity.value if self._render.recording else None)
        return rgb, alpha, info.get("num_isects")

    def mouth_coefficients(self, script: Script) -> Tensor:
        """What the audio token takes in each frame: mouth coefficients [F, 8], predicted from the audio features, or
        the clip's own in a replay; or windows of the features, see `WindowedMouth`."""
        if script.features is None:
            return self.head.mouth.of_frames(torch.as_tensor(script.source, device=self.device))
        features, silent = (torch.from_numpy(x).to(self.device) for x in (script.features, script.silent))
        return self.head.mouth.of_audio(features, silent)

    def conditions_of(self, script: Script) -> Conditions:
        """The inputs from which the frames of a script are rendered, on the device."""
        eyes, w2c, pose = (torch.from_numpy(x).to(self.device) for x in (script.eyes, script.w2c, script.pose))
        return Conditions(self.mouth_coefficients(script), eyes, w2c, pose)

    def torso_codes(self, script: Script) -> Tensor:
        """Torso codes [F, C] of each frame: the clip's own if the script has `source` frames, else from the pose, and
        in the reference view of a camera that moves."""
        torso = self.head.torso
        if script.source is not None:
            return torso.codes[script.source]
        return torso.codes_of(torch.from_numpy(script.pose).to(self.device))

    def frames(self, script: Script, batch: int, bar: Optional[Progress] = None, compare: bool = False,
               backdrop: Optional[Backdrop] = None, offset: int = 0) -> Iterator[np.ndarray]:
        """Render a script frame by frame.

        Args:
            script: of any length.
            batch: frames rendered at a time.
            bar: if given, is updated after each batch.
            compare: put the ground truth beside each frame; for scripts with `source` frames.
            backdrop: see `render_frames`; that of a video may be shorter or longer than the script.
            offset: number of the script's first frame in the whole output, for the backdrop.

        Yields:
            [S, S, 3] uint8, or [S, 2S, 3] with `compare`; [S, S, 4] if `backdrop` is transparent.
        """
        for first in range(0, len(script), batch):
            part = script.part(first, first + batch)
            behind = backdrop and backdrop.part(offset + first, len(part))
            for i, frame in enumerate(self.render_frames(part, behind)):
                if compare and part.source is not None:
                    frame = _side_by_side(frame, self.ds.frame(part.source[i]))
                yield frame
            if bar:
                bar.update(len(part))

    @torch.no_grad()
    def render_frames(self, script: Script, backdrop: Optional[Backdrop] = None) -> np.ndarray:
        """Render all frames of a short script as one batch.

        Args:
            script: of F frames.
            backdrop: what replaces the clean plate behind head and torso, of a video F frames; None: the plate.

        Returns:
            [F, S, S, 3] uint8; [F, S, S, 4] with straight alpha if `backdrop` is transparent.
        """
        with memory_limits(f"rendering {len(script)} frames at a time", SMALLER):
            given, codes, torso = self.conditions_of(script), self.torso_codes(script), self.head.torso
            if backdrop is None:
                rgb, _ = self.batch(given, torso(codes))
                if script.source is not None:
                    rgb = self.exposed(rgb, script.source)
            else:
                colour, opacity = torso.cut_out(codes)
                if backdrop.image is None:
                    rgb = self._straight(given, colour, opacity)
                else:
                    plate = torch.from_numpy(backdrop.image).to(self.device).float() / 255
                    rgb, _ = self.batch(given, torch.lerp(plate.expand_as(colour), colour, opacity))
            return (rgb * 255).round().byte().cpu().numpy()

    def exposed(self, rgb: Tensor, ids: Sequence[int] | np.ndarray) -> Tensor:
        """Images [B, S, S, 3] 0...1 in the exposure that the camera had in frames `ids` of the clip."""
        if not self.ds.exposes:
            return rgb
        gains = torch.from_numpy(self.ds.gains[list(ids)]).to(self.device)
        return (rgb * gains[:, None, None]).clamp(0, 1)

    def _straight(self, given: Conditions, colour: Tensor, opacity: Tensor) -> Tensor:
        """Head over torso [B, S, S, 3] and its opacity [B, S, S, 1] as RGBA [B, S, S, 4] 0...1 with straight alpha.

        Over black, the rendering is premultiplied; dividing by alpha gives edges their own colour, without a fringe.
        """
        rgb, head = self.batch(given, colour * opacity)
        alpha = (head + (1 - head) * opacity).clamp(0, 1)
        return torch.cat([(rgb / alpha.clamp(min=1e-4)).clamp(0, 1), alpha], -1)


def _side_by_side(render: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two images [S, S, 3] side by side, [S, 2S, 3] uint8, labelled in their upper left corners."""
    size, both = len(render), np.ascontiguousarray(np.concatenate([render, truth], 1))
    for n, name in enumerate(("render", "ground truth")):
        at = (n * size + size // 40, size // 14)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(both, name, at, cv2.FONT_HERSHEY_SIMPLEX, size / 700, colour, width, cv2.LINE_AA)
    return both
