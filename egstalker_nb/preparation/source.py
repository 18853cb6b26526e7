"""The frames of the part of a video that becomes the dataset."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np

from ..core.errors import UnfinishedError
from ..media.video_reader import read_frames


@dataclass(frozen=True)
class Source:
    """Frames of a video on its 25 fps timeline.

    Attributes:
        video: the file.
        first: number on the timeline of frame 0 here.
        num_frames: N.
        alpha: the video has an alpha channel.
    """

    video: Path
    first: int
    num_frames: int
    alpha: bool = False

    def frames(self, start: int, stop: int, alpha: bool = False) -> Iterator[np.ndarray]:
        """Frames start ... stop - 1, [H, W, 3] uint8 RGB; with `alpha` [H, W, 4].

        Without the reader's warnings about damage, which the first pass has already reported.

        Raises:
            UnfinishedError: the file has fewer frames than in the first pass.
        """
        images = read_frames(self.video, start=self.first + start, stop=self.first + stop, alpha=alpha)
        for i in range(start, stop):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                image = next(images, None)
            if image is None:
                raise UnfinishedError(f"frame {self.first + i} of {self.video}, which the first pass could read",
                                      "none", "Do not change the file while it is prepared; run it again.")
            yield image
