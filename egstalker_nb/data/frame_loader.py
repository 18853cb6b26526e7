"""Batches of frames for training, stored on the device, in host memory, or on disk, depending on their size."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional, Protocol, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.device import available_memory
from ..core.progress import progress
from .conditions import Conditions
from .dataset import Dataset

FRAME_CHANNELS = 3, 1, 3      # bytes per pixel: frame, head mask, background
BYTES_PER_PIXEL = sum(FRAME_CHANNELS)
MAX_GPU_BYTES = 8 << 30       # of frames on the GPU, which leaves memory for the model
MAX_CPU_BYTES = 1 << 30       # of frames in memory, on a computer without a GPU
MEMORY_SHARE = 2              # frames take at most the available memory divided by this


class HeadLike(Protocol):
    """The part of a `Head` that batches depend on."""

    w2c: Tensor

    def background(self, ids: Tensor) -> Tensor:
        """Background of frames [B] behind the Gaussians: [B, S, S, 3] 0...1."""

    def conditions(self, ids: Tensor, eyes: Tensor) -> Conditions:
        """The inputs from which frames [B] are rendered."""


class Frames:
    """Serves batches of a dataset's frames and masks, and with a head also the background behind it.

    Args:
        ds: the dataset.
        ids: the frame numbers that will be requested.
        device: of the batches.
        place: where frames are stored: `device`, `host` (pinned memory of a computer with a GPU) or `disk`; None:
            decided by size.

    Attributes:
        head: the head whose poses and background are used, see `for_head`. None: poses are as tracked, and batches have
            no background.
    """

    def __init__(self, ds: Dataset, ids: Sequence[int], device: torch.device, place: Optional[str] = None):
        self.ds, self.device, self.size = ds, torch.device(device), ds.size
        self.eyes = torch.from_numpy(ds.eyes).to(self.device)
        self.tracked = torch.from_numpy(ds.w2c).to(self.device)
        self.gains = torch.from_numpy(ds.gains).to(self.device) if ds.exposes else None
        self.lip_rect = torch.from_numpy(ds.lip_rect.astype(np.int64)).to(self.device)
        self.place = place or self._choose(len(ids) * ds.size ** 2 * BYTES_PER_PIXEL)
        self.pool = ThreadPoolExecutor(16 if self.device.type == "cuda" else 2)
        self.prefetched: dict[int, Future] = {}
        self.head: Optional[HeadLike] = None
        self.row = {i: row for row, i in enumerate(ids)}
        self.stored = None if self.place == "disk" else self._load(list(ids))

    def _choose(self, needed: int) -> str:
        """Where to store this many bytes."""
        fits = needed <= available_memory() // MEMORY_SHARE
        if self.device.type != "cuda":
            return "device" if fits and needed <= MAX_CPU_BYTES else "disk"
        if needed <= min(MAX_GPU_BYTES, torch.cuda.mem_get_info(self.device)[0] // 2):
            return "device"
        return "host" if fits else "disk"

    def _load(self, ids: list[int]) -> Tensor:
        shape = len(ids), self.size ** 2 * BYTES_PER_PIXEL
        on_device = self.place == "device"
        stored = torch.empty(shape, dtype=torch.uint8, device=self.device if on_device else "cpu",
                             pin_memory=not on_device)
        for packed, row in zip(progress(self.pool.map(self.ds.packed, ids), "load frames", len(ids)), stored):
            row[:len(packed)].copy_(torch.from_numpy(packed))
        return stored

    @property
    def w2c(self) -> Tensor:
        """Poses of all frames of the dataset, [N, 4, 4]: the head's, or without a head, as tracked."""
        return self.tracked if self.head is None else self.head.w2c

    def for_head(self, head: HeadLike) -> Frames:
        """Use the poses and the background of a head (on the same device); batches then have a `background`.

        Call it again after the head's torso has changed.

        Returns:
            This object.
        """
        self.head = head
        if self.stored is not None:
            for i, row in self.row.items():
                background = self._backgrounds(head, torch.tensor([i], device=self.device))[0]
                self.stored[row, -len(background):] = background.to(self.stored.device)
        return self

    @torch.no_grad()
    def _backgrounds(self, head: HeadLike, index: Tensor) -> Tensor:
        """Backgrounds of frames [B] as bytes, [B, 3 S S]."""
        return (head.background(index) * 255).round().byte().flatten(1)

    def conditions(self, index: Tensor) -> Conditions:
        """The inputs from which frames [B] are rendered, with the head's poses; see `for_head`."""
        assert self.head is not None, "call for_head first"
        return self.head.conditions(index, self.eyes[index])

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Copy through pinned memory, as a copy from pageable memory would synchronise."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def prefetch(self, ids: Sequence[int]) -> None:
        """Start reading the frames of the next batch, if they are on disk."""
        if self.place == "disk":
            self.prefetched = {i: self.prefetched.get(i) or self.pool.submit(self.ds.packed, i) for i in set(ids)}

    def fetch(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Transfer frames to the device without synchronising.

        Args:
            ids: B frame numbers.

        Returns:
            Frame numbers [B] int64 and bytes [B, 7 S S] uint8 on the device, for `unpack`. From disk without a head:
            [B, 4 S S].
        """
        index = self._to_device(torch.tensor(list(ids)))
        if self.stored is None:
            loaded = [self.prefetched[i].result() if i in self.prefetched else self.ds.packed(i) for i in ids]
            packed = self._to_device(torch.from_numpy(np.stack(loaded)))
            return index, packed if self.head is None else torch.cat([packed, self._backgrounds(self.head, index)], 1)
        rows = [self.stored[self.row[i]] for i in ids]
        return index, torch.stack([row.to(self.device, non_blocking=True) for row in rows])

    def unpack(self, index: Tensor, bytes_: Tensor) -> dict[str, Tensor]:
        """Convert the result of `fetch` to images.

        Args:
            index, bytes_: see `fetch`.

        Returns:
            `frame`, in the reference exposure of the camera, and, with a head, `background` [B, S, S, 3]; masks `head`
            and `lips` [B, S, S, 1]; all float32 0...1. `ids` [B].
        """
        names = ("frame", "head") if self.head is None else ("frame", "head", "background")
        channels = dict(zip(names, FRAME_CHANNELS))
        ends = np.cumsum([0, *channels.values()]) * self.size ** 2
        parts = {name: bytes_[:, a:b] for name, a, b in zip(channels, ends, ends[1:])}
        images = {k: x.float().div_(255).view(len(index), self.size, self.size, -1) for k, x in parts.items()}
        if self.gains is not None:
            images["frame"] = (images["frame"] / self.gains[index][:, None, None]).clamp_(max=1)
        return {"ids": index, **images, "lips": self._rect(self.lip_rect[index])}

    def batch(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """A batch of frames, see `unpack`."""
        return self.unpack(*self.fetch(ids))

    def _rect(self, rect: Tensor) -> Tensor:
        """Rectangles [B, 4] (x0, y0, x1, y1) px as masks [B, S, S, 1]."""
        at = torch.arange(self.size, device=self.device)
        inside = (at >= rect[:, :2, None]) & (at < rect[:, 2:, None])  # [B, 2, S]: along x, along y
        return (inside[:, 1, :, None] & inside[:, 0, None, :])[..., None].float()
