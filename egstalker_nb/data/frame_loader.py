"""Training frames as bytes: on the device, streamed from the host's memory, or from disk, by their size."""
from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional, Protocol, Sequence

import numpy as np
import torch
from torch import Tensor

from ..core.progress import progress
from .conditions import Conditions
from .dataset import Dataset

CHANNELS = 3, 1, 3                                    # bytes of a pixel: frame, head mask, background
BYTES_PER_PIXEL = sum(CHANNELS)
GPU_BUDGET = 8 << 30                                  # bytes of frames on the GPU: leaves room on small cards
CPU_BUDGET = 1 << 30                                  # and in the memory of a computer without one


class Posed(Protocol):
    """What a batch takes of a head, see `Head`."""

    w2c: Tensor

    def background(self, ids: Tensor) -> Tensor:
        """What lies behind the splats in frames [B]: [B, S, S, 3] 0...1."""

    def conditions(self, ids: Tensor, eyes: Tensor) -> Conditions:
        """What frames [B] are drawn from."""


class Frames:
    """Serves batches of frames and masks of some frames of a dataset; for a head also the background behind it.

    Args:
        ds: the dataset. ids: the frame numbers that will be asked for. device: where batches go.
        place: where the frames wait: `device`, `host` (pinned memory beside a GPU) or `disk`; None decides by size.

    Attributes:
        head: whose poses and torso are served, see `for_head`; None: poses are as tracked, and there is no background.
    """

    def __init__(self, ds: Dataset, ids: Sequence[int], device: torch.device, place: Optional[str] = None):
        self.ds, self.device, self.size = ds, torch.device(device), ds.size
        self.eyes = torch.from_numpy(ds.eyes).to(self.device)
        self.tracked = torch.from_numpy(ds.w2c).to(self.device)
        self.lip_rect = torch.from_numpy(ds.lip_rect.astype(np.int64)).to(self.device)
        self.place = place or self._choose(len(ids) * ds.size ** 2 * BYTES_PER_PIXEL)
        self.pool = ThreadPoolExecutor(16 if self.device.type == "cuda" else 2)
        self.ahead: dict[int, Future] = {}
        self.head: Optional[Posed] = None
        self.row = {i: row for row, i in enumerate(ids)}
        self.pictures = None if self.place == "disk" else self._load(list(ids))

    def _choose(self, needed: int) -> str:
        if self.device.type != "cuda":
            return "device" if needed <= CPU_BUDGET else "disk"
        if needed <= min(GPU_BUDGET, torch.cuda.mem_get_info(self.device)[0] // 2):
            return "device"
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return "host" if needed <= memory // 2 else "disk"

    def _load(self, ids: list[int]) -> Tensor:
        shape = len(ids), self.size ** 2 * BYTES_PER_PIXEL
        there = self.place == "device"
        kept = torch.empty(shape, dtype=torch.uint8, device=self.device if there else "cpu", pin_memory=not there)
        for picture, row in zip(progress(self.pool.map(self.ds.packed, ids), "load frames", len(ids)), kept):
            row[:len(picture)].copy_(torch.from_numpy(picture))
        return kept

    @property
    def w2c(self) -> Tensor:
        """Poses of all frames of the dataset, [N, 4, 4]: the head's, or before there is one, as tracked."""
        return self.tracked if self.head is None else self.head.w2c

    def for_head(self, head: Posed) -> Frames:
        """Serve frames as this head (on the same device) is drawn in them: batches have its poses and, as `background`,
        its torso from now on. To be called again when its torso has changed. Returns itself."""
        self.head = head
        if self.pictures is not None:
            for i, row in self.row.items():
                background = self._painted(torch.tensor([i], device=self.device))[0]
                self.pictures[row, -len(background):] = background.to(self.pictures.device)
        return self

    @torch.no_grad()
    def _painted(self, index: Tensor) -> Tensor:
        """Backgrounds of frames [B] as bytes, [B, 3 S S]."""
        return (self.head.background(index) * 255).round().byte().flatten(1)

    def conditions(self, index: Tensor) -> Conditions:
        """What frames [B] are drawn from: for the head, with its poses."""
        return self.head.conditions(index, self.eyes[index])

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Copy without waiting for the device, which an ordinary copy from pageable memory does."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def prefetch(self, ids: Sequence[int]) -> None:
        """Begin to read the frames of the next batch from disk."""
        if self.place == "disk":
            self.ahead = {i: self.ahead.get(i) or self.pool.submit(self.ds.packed, i) for i in set(ids)}

    def fetch(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Frame numbers [B] int64 and bytes [B, 7 S S] uint8 on the device, for `unpack`; without waiting for it.
        Read from disk before there is a head: [B, 4 S S]."""
        index = self._to_device(torch.tensor(list(ids)))
        if self.place == "disk":
            loaded = [self.ahead[i].result() if i in self.ahead else self.ds.packed(i) for i in ids]
            there = self._to_device(torch.from_numpy(np.stack(loaded)))
            return index, there if self.head is None else torch.cat([there, self._painted(index)], 1)
        rows = [self.pictures[self.row[i]] for i in ids]
        return index, torch.stack([row.to(self.device, non_blocking=True) for row in rows])

    def unpack(self, index: Tensor, bytes_: Tensor) -> dict[str, Tensor]:
        """frame, background (with a head) [B, S, S, 3]; head, lips [B, S, S, 1] 0...1; ids [B]."""
        shown = dict(zip(("frame", "head") if self.head is None else ("frame", "head", "background"), CHANNELS))
        ends = np.cumsum([0, *shown.values()]) * self.size ** 2
        parts = {name: bytes_[:, a:b] for name, a, b in zip(shown, ends, ends[1:])}
        pictures = {k: x.float().div_(255).view(len(index), self.size, self.size, -1) for k, x in parts.items()}
        return {"ids": index, **pictures, "lips": self._rect(self.lip_rect[index])}

    def batch(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """The frames of `ids`, see `unpack`."""
        return self.unpack(*self.fetch(ids))

    def _rect(self, rect: Tensor) -> Tensor:
        """Rectangles [B, 4] (x0, y0, x1, y1) as 0/1 pictures [B, S, S, 1]."""
        at = torch.arange(self.size, device=self.device)
        inside = (at >= rect[:, :2, None]) & (at < rect[:, 2:, None])  # [B, 2, S]: along x, along y
        return (inside[:, 1, :, None] & inside[:, 0, None, :])[..., None].float()
