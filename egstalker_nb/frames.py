"""Training frames on the device, as bytes; streamed from disk where they do not fit."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, paste_torso
from .progress import progress

BYTES_PER_PIXEL = 7                                   # frame 3, background 3, head mask 1
CPU_BUDGET = 1 << 30                                  # keep all frames in memory up to this many bytes


class Frames:
    """Serves batches of frames, backgrounds and masks of some frames of a dataset.

    Args:
        ds: the dataset. ids: the frame numbers that will be asked for. device: where batches go.
        keep: hold all frames in memory; None decides by size.
    """

    def __init__(self, ds: Dataset, ids: Sequence[int], device: torch.device, keep: Optional[bool] = None):
        self.ds, self.device, self.size = ds, torch.device(device), ds.size
        self.blink = torch.from_numpy(ds.blink).to(self.device)
        self.w2c = torch.from_numpy(ds.w2c).to(self.device)
        self.features = torch.from_numpy(ds.features).to(self.device)
        self.lip_rect = torch.from_numpy(ds.lip_rect.astype(np.int64)).to(self.device)
        if keep is None:
            free = torch.cuda.mem_get_info(self.device)[0] // 2 if self.device.type == "cuda" else CPU_BUDGET
            keep = len(ids) * ds.size ** 2 * BYTES_PER_PIXEL <= free
        self.pool = ThreadPoolExecutor(8 if self.device.type == "cuda" else 2)
        self.ahead: dict[int, Future] = {}
        self.rows = torch.zeros(ds.num_frames, dtype=torch.long)
        self.rows[list(ids)] = torch.arange(len(ids))
        self.rows = self.rows.to(self.device)
        self.pictures = self._load(list(ids)) if keep else None

    def _read(self, i: int) -> np.ndarray:
        """Frame, background and head mask of frame i: [S, S, 7] uint8."""
        frame, mask = self.ds.frame(i), self.ds.mask(i)
        return np.concatenate([frame, paste_torso(self.ds.plate, frame, mask), mask[..., :1]], -1)

    def _load(self, ids: list[int]) -> Tensor:
        kept = torch.empty(len(ids), self.size, self.size, BYTES_PER_PIXEL, dtype=torch.uint8, device=self.device)
        for picture, row in zip(progress(self.pool.map(self._read, ids), "load frames", len(ids)), kept):
            row.copy_(torch.from_numpy(picture))
        return kept

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Copy without waiting for the device, which an ordinary copy from pageable memory does."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def prefetch(self, ids: Sequence[int]) -> None:
        """Begin to read the frames of the next batch (nothing to do where all are in memory)."""
        if self.pictures is None:
            self.ahead = {i: self.ahead.get(i) or self.pool.submit(self._read, i) for i in set(ids)}

    def batch(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """frame, background [B, S, S, 3], head, lips [B, S, S, 1] 0...1; blink [B]; w2c [B, 4, 4]; ids [B]."""
        index = self._to_device(torch.tensor(list(ids)))
        if self.pictures is not None:
            bytes_ = self.pictures[self.rows[index]]
        else:
            loaded = [self.ahead[i].result() if i in self.ahead else self._read(i) for i in ids]
            bytes_ = self._to_device(torch.from_numpy(np.stack(loaded)))
        frame, background, head = (bytes_.float() / 255).split((3, 3, 1), -1)
        return {"ids": index, "frame": frame.contiguous(), "background": background, "head": head,
                "lips": self._rect(self.lip_rect[index]), "blink": self.blink[index], "w2c": self.w2c[index]}

    def _rect(self, rect: Tensor) -> Tensor:
        """Rectangles [B, 4] (x0, y0, x1, y1) as 0/1 pictures [B, S, S, 1]."""
        at = torch.arange(self.size, device=self.device)
        inside = (at >= rect[:, :2, None]) & (at < rect[:, 2:, None])  # [B, 2, S]: along x, along y
        return (inside[:, 1, :, None] & inside[:, 0, None, :])[..., None].float()
