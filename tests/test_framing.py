"""Protects: a head is put back where its clip was cropped from, in whatever order frames are played; a window of an
aspect ratio is steady, inside the frame and as large as it can be; nothing is pasted into another video."""
import numpy as np
import pytest

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError, InputError
from egstalker_nb.core.reading import digest
from egstalker_nb.media.audio import save_wav
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.rendering import paste_back as pasting
from egstalker_nb.rendering.framing import Framing, Window, choose_framing, window_around
from egstalker_nb.rendering.motion import eased_cycle
from egstalker_nb.rendering.paste_back import PasteBack, SourceFrames, feathered, paste_back

FIRST, CROP, SHAPE = 3, (50, 16, 96), (128, 200)
CFG = dict(iterations=30, coarse_iterations=10, batch_size=2, plane_resolution=[8, 16])


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """20 frames of slowly moving noise, one key frame: decoding backwards must begin at the first one."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 255, (16, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return write_video(tmp_path_factory.mktemp("v") / "source.mp4", [np.roll(coarse, 3 * i, 1)[:, :200]
                                                                     for i in range(20)])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


@pytest.fixture
def cropped(run, video):
    """The run of a dataset that says that it was cropped from `video`."""
    opened = egs.load_run(run.root)
    opened.dataset.meta = {**opened.dataset.meta, "crop": list(CROP), "settings": {"video": digest(video)}}
    opened.dataset.report = {"source": {"width": SHAPE[1], "height": SHAPE[0], "path": str(video)},
                             "account": {"used": [FIRST, FIRST + 12]}, "warnings": []}
    return opened


@pytest.fixture
def speech(tmp_path):
    save_wav(tmp_path / "speech.wav", (0.2 * np.random.default_rng(0).standard_normal(20900)).astype(np.float32))
    return tmp_path / "speech.wav"


@pytest.mark.parametrize("room", [2, 5, 250])
def test_frames_of_the_source_in_any_order(video, monkeypatch, room):
    monkeypatch.setattr(pasting, "_CACHE_FRAMES", room)
    truth, frames = list(read_frames(video))[FIRST:], SourceFrames(video, FIRST, SHAPE)
    order = [*np.rint(eased_cycle(12, 40)).astype(int), *np.random.default_rng(room).integers(0, 17, 15)]
    for i in order:
        np.testing.assert_array_equal(frames[int(i)], truth[i])
        assert len(frames._cache) <= room, "memory is bounded"
    with pytest.raises(InputError, match="source.mp4.*none"):
        frames[20]


def test_the_source_is_opened_few_times_however_it_is_played(video, monkeypatch):
    monkeypatch.setattr(pasting, "_CACHE_FRAMES", 5)
    begun = []
    monkeypatch.setattr(pasting, "read_frames",
                        lambda path, start: begun.append(start) or read_frames(path, start=start))
    frames = SourceFrames(video, 0, SHAPE)
    for i in [*range(17), *range(15, -1, -1), *range(1, 17)]:
        frames[i]
    assert begun[0] == 0 and len(begun) <= 1 + 3 + 1, "once forwards, then groups of 5 backwards"


@pytest.mark.parametrize("crop", [(50, 16, 96), (0, 0, 128), (72, 30, 98), (104, 0, 96)])
@pytest.mark.parametrize("size", [64, 96, 160])
def test_only_the_crop_is_changed_and_the_seam_is_smooth(video, crop, size):
    x0, y0, side = crop
    given = np.full((size, size, 3), 200, np.uint8)
    (made,) = PasteBack(video, 0, SHAPE, crop).frames([given], [4])
    truth = list(read_frames(video))[4]
    outside = np.ones(SHAPE, bool)
    outside[y0:y0 + side, x0:x0 + side] = False
    np.testing.assert_array_equal(made[outside], truth[outside])
    seam = int(np.ceil(side * pasting.FEATHER))
    assert (made[y0 + seam:y0 + side - seam, x0 + seam:x0 + side - seam] == 200).all()
    weight = feathered(crop, SHAPE)[..., 0]
    assert np.abs(np.diff(weight, axis=0)).max() < 2 / seam and np.abs(np.diff(weight, axis=1)).max() < 2 / seam
    middle = side // 2
    for at_border, value in ((x0 == 0, weight[middle, 0]), (x0 + side == SHAPE[1], weight[middle, -1]),
                             (y0 == 0, weight[0, middle]), (y0 + side == SHAPE[0], weight[-1, middle])):
        assert value == 1 if at_border else value < 0.1, "no seam at the border of the source itself"


def test_a_window_is_the_largest_inside_and_steady():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape, ratio = tuple(rng.integers(300, 2200, 2)), tuple(int(x) for x in rng.integers(1, 6, 2))
        centre = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        at = window_around(centre, ratio, shape)
        assert at.width % 2 == at.height % 2 == 0 and abs(at.width / ratio[0] - at.height / ratio[1]) < 2
        assert 0 <= at.x0 <= shape[1] - at.width and 0 <= at.y0 <= shape[0] - at.height
        assert at.width > shape[1] - 2 or at.height > shape[0] - 2
        for start, side, middle, room in ((at.x0, at.width, centre[0], shape[1]),
                                          (at.y0, at.height, centre[1], shape[0])):
            assert abs(start + side / 2 - middle) <= 0.5 or start in (0, room - side)


def test_the_head_in_its_source(cropped, speech, video, tmp_path):
    """33 frames of a clip of 12: the source is played back and forth with the poses."""
    made = egs.render(cropped, speech, tmp_path / "v.mp4", background="source", device="cpu")
    square = egs.render(cropped, speech, tmp_path / "s.mp4", device="cpu")
    frames, squares, truth = (list(read_frames(path)) for path in (made.path, square.path, video))
    assert len(frames) == 33 and frames[0].shape == (*SHAPE, 3)
    x0, y0, side = CROP
    for n, i in enumerate(np.rint(eased_cycle(12, 33)).astype(int)):
        others = [np.abs(frames[n][:, :x0 - 2].astype(int) - image[:, :x0 - 2]).mean() for image in truth]
        assert int(np.argmin(others)) == FIRST + i, "the frame of the source that the pose is from"
    inner = frames[20][y0 + 24:y0 + 72, x0 + 24:x0 + 72][::3, ::3].astype(int)
    assert np.abs(inner - squares[20][16:48:2, 16:48:2]).mean() < 8


@pytest.mark.parametrize("background, aspect, size", [
    ("clip", "9:16", (36, 64)), ("clip", "16:9", (64, 36)), ("source", "9:16", (72, 128)),
    ("source", "1:1", (128, 128))])
def test_the_size_of_a_video_by_its_aspect(cropped, speech, tmp_path, background, aspect, size):
    made = egs.render(cropped, speech, tmp_path / "v.mp4", background=background, aspect=aspect, duration=0.2,
                      device="cpu")
    info = probe(made.path)
    assert (info.width, info.height, info.num_frames) == (*size, 5)


def test_the_window_follows_the_head_into_the_source(cropped, tiny_dataset):
    square = choose_framing(cropped.dataset, "clip", "cycle", "1:2").window
    full = choose_framing(cropped.dataset, "source", "cycle", "1:2").window
    assert isinstance(square, Window) and isinstance(full, Window)
    scale = CROP[2] / tiny_dataset.size
    assert abs(CROP[0] + scale * (square.x0 + square.width / 2) - (full.x0 + full.width / 2)) <= 2
    assert choose_framing(cropped.dataset, "clip", "orbit") == Framing(tiny_dataset.size)


def test_only_the_video_of_the_clip_will_do(cropped, video, tmp_path):
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(video.read_bytes())
    ds = cropped.dataset
    assert paste_back(ds, moved).video == moved
    ds.report["source"]["path"] = str(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match="gone.mp4.*source="):
        paste_back(ds)
    moved.write_bytes(video.read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed"):
        paste_back(ds, moved)
    del ds.report["source"]["path"]
    with pytest.raises(InputError, match="source="):
        paste_back(ds)
    small = {"width": 120, "height": 128}
    for broken in ({"account": {}}, {"account": {"used": [0, 5]}}, {"source": small}, {"source": 3}):
        ds.report = {**cropped.dataset.report, **broken}
        with pytest.raises(DatasetError, match="Prepare the clip again"):
            paste_back(ds, video)
