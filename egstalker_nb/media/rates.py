"""The kit's one time grid: 25 video frames and 16,000 audio samples a second."""
from __future__ import annotations

SAMPLE_RATE = 16_000


FPS = 25


SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
