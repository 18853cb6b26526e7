"""The rates of the package: 25 video frames and 16,000 audio samples per second."""
from __future__ import annotations

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
