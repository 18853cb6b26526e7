"""The work of the harness, done once without a fault."""
import time

import pytest
from test_prepare_chunks import make_video

from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video

from . import harness, works
from .harness import Undisturbed

REAL_FRAMES = 12  # of the sample, prepared with MediaPipe


@pytest.fixture(scope="session")
def undisturbed(tiny_dataset, sample_clip, tmp_path_factory):
    """work -> `Undisturbed`, made once."""
    folder, made = tmp_path_factory.mktemp("undisturbed"), {}

    def arguments(work) -> tuple:
        if work is works.train:
            return (tiny_dataset.root,)
        if work is works.prepare:
            return make_video(folder / "numbered.mp4", works.CLIP_FRAMES), tiny_dataset.landmarks[0]
        if work is works.prepare_for_real:
            frames, wave = list(read_frames(sample_clip, stop=REAL_FRAMES)), load_audio(sample_clip)
            return (write_video(folder / "real.mp4", frames, wave[:REAL_FRAMES * 640]),)
        get(works.train)
        return (folder / "train" / "run",)

    def get(work) -> Undisturbed:
        if work not in made:
            args, began = arguments(work), time.perf_counter()
            outcome = harness.succeed(work, folder / work.__name__, *args, log=folder / "log")
            seconds = time.perf_counter() - began
            made[work] = Undisturbed(args, outcome, seconds, folder / work.__name__,
                                     harness.state(folder / work.__name__))
        return made[work]

    return get
