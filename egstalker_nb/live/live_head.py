"""A trained head that draws the frames of a live time line."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch

from ..media.image_io import encode_jpeg
from ..media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ..media.synthetic import mark_image
from ..rendering.renderer import Renderer
from ..rendering.streaming import LiveFeatures, check_streamed, warm_up
from ..training.run import Run
from .idle_motion import IdleMotion

#: Seconds, instead of 0.2 (see `rendering.streaming.LOOK_AHEAD`): 35 ms less latency. Correlation of the first four
#: mouth coefficients with offline ones (1 head, 7 voices): 0.982 instead of 0.984; silence differs by 0.012 instead of
#: 0.007 on average.
LOOK_AHEAD = 0.165
QUALITY = 85  # of the JPEGs


class LiveHead:
    """Audio in, JPEGs out, one frame after another.

    Args:
        run: see `load_run`; of the encoder `phones`.
        iteration: checkpoint, default the newest.
        device: default CUDA, else the CPU.

    Attributes:
        size: px of the frames' sides.

    Raises:
        InputError: another encoder; the device cannot render.
        DatasetError: no such checkpoint.
    """

    def __init__(self, run: Run, iteration: Optional[int] = None, device: Optional[str | torch.device] = None):
        check_streamed(run)
        self._renderer = Renderer.from_run(run, iteration, device)
        warm_up(self._renderer)
        self._features = LiveFeatures(self._renderer.ds.audio(), LOOK_AHEAD)
        self._motion = IdleMotion(self._renderer)
        self.size: int = self._renderer.ds.size

    @property
    def frame(self) -> int:
        """Number of the next frame."""
        return self._features.frame

    def hear(self, samples: np.ndarray) -> None:
        """Append audio, float32 [samples] at 16 kHz."""
        self._features.append(samples)

    @property
    def due(self) -> int:
        """Number of frames that can be drawn or skipped."""
        return self._features.due

    @property
    def needed(self) -> int:
        """Number of samples, from the start, that the next frame waits for."""
        return self.frame * SAMPLES_PER_FRAME + round(LOOK_AHEAD * SAMPLE_RATE)

    def skip(self) -> None:
        """Leave the next frame out; neither network nor rasteriser runs."""
        self._features.skip()

    def draw(self) -> tuple[bytes, bool]:
        """The next frame as a JPEG that is marked as synthetic, and whether the head speaks in it."""
        number = self.frame
        features, silent = self._features.next()
        image = self._renderer.render_frames(self._motion.script(number, features, silent))[0]
        return mark_image(encode_jpeg(image, QUALITY)), silent < 0.5

    def still(self) -> bytes:
        """The head at rest as a JPEG that is marked as synthetic."""
        ahead = np.zeros(round(LOOK_AHEAD * SAMPLE_RATE), np.float32)
        features, silent = next(LiveFeatures(self._renderer.ds.audio(), LOOK_AHEAD).push(ahead))
        image = self._renderer.render_frames(IdleMotion(self._renderer).script(0, features, silent))[0]
        return mark_image(encode_jpeg(image, QUALITY))
