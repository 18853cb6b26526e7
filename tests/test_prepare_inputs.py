"""Videos that are not one person in one opaque shot: whom and what a dataset is made of."""
import av
import numpy as np
import pytest
import undrawn

import egstalker_nb as egs
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation import overlay, quality

FRAMES, SIZE = 100, 128


@pytest.fixture(scope="module")
def portraits(sample_clip):
    """The sample's first frames, [256, 256, 3] uint8 each, and their audio."""
    return list(read_frames(sample_clip, stop=FRAMES)), load_audio(sample_clip)[:FRAMES * 640]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Half a second of each of these datasets."""
    monkeypatch.setattr(overlay, "write_curves", undrawn.write_curves)


# ---- two people

@pytest.fixture(scope="module")
def two_people(portraits, tmp_path_factory):
    """side -> a video of the sample, who speaks on that side, beside somebody who looks on and does not."""
    images, wave = portraits
    silent = [np.ascontiguousarray(images[10][:, ::-1])] * FRAMES
    folder, made = tmp_path_factory.mktemp("two"), {}
    for side, pair in (("left", (images, silent)), ("right", (silent, images))):
        made[side] = write_video(folder / f"{side}.mp4", (np.hstack(both) for both in zip(*pair)), wave)
    return made


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mouth_that_moves_with_the_audio_is_found(two_people, tmp_path, side):
    ds = egs.prepare(two_people[side], tmp_path / "ds", size=64, face="speaking")
    x0, _, edge = ds.meta["crop"]
    assert (x0 + edge / 2 < 256) == (side == "left")
    assert ds.found.all() and ds.aperture.std() > 0.005
    assert any("speaking" in warning for warning in ds.report["warnings"]), "somebody else is in view"


@pytest.mark.parametrize("face, moves", [("left", True), ("right", False)])
def test_the_side_is_the_viewers(two_people, tmp_path, face, moves):
    ds = egs.prepare(two_people["left"], tmp_path / "ds", size=64, face=face)
    assert (ds.aperture.std() > 0.005) == moves


def test_a_mouth_that_hardly_follows_the_audio_is_reported():
    from test_prepare_parts import GOOD

    assert quality.find_problems({**GOOD, "face": "speaking", "follows": [0.1, 0.5]}) == []
    [told] = quality.find_problems({**GOOD, "face": "speaking", "follows": [0.1, 0.15]})
    assert "None of the mouths" in told


# ---- cuts

def test_the_longest_shot_is_used_with_its_own_audio(portraits, tmp_path):
    images, wave = portraits
    cut = [np.full_like(images[0], 230)] * 33 + images[33:]
    video = write_video(tmp_path / "cut.mp4", cut, wave)
    ds = egs.prepare(video, tmp_path / "ds", size=64)
    assert ds.num_frames == FRAMES - 33 and ds.found.all()
    found = ds.report["account"]
    assert found["used"] == [33, 100] and found["other_shots"] == [[0, 33]]
    assert found["missing"] == {"could not be decoded": 0, "in another shot": 33}
    whole, own = load_audio(video), ds.audio()
    shift = round(ds.report["sound"]["moved_s"] * 16000)
    expected = whole[33 * 640 + shift:][:len(own)]
    np.testing.assert_allclose(own[:len(expected)], expected, atol=2e-4)
    assert [w for w in ds.report["warnings"] if "2 shots" in w]
    everything = egs.prepare(video, tmp_path / "all", size=64, scenes="all")
    assert everything.num_frames == FRAMES and everything.report["cuts"] == [33]


def test_own_features_of_a_video_with_cuts_are_those_of_the_shot(portraits, tmp_path):
    images, wave = portraits
    video = write_video(tmp_path / "cut.mp4", [np.full_like(images[0], 230)] * 33 + images[33:], wave)
    given = np.random.default_rng(0).normal(size=(FRAMES, 16, 29)).astype(np.float32)
    np.save(tmp_path / "own.npy", given)
    ds = egs.prepare(video, tmp_path / "ds", size=64, features=tmp_path / "own.npy")
    np.testing.assert_array_equal(ds.features, given[33:])
    np.testing.assert_allclose(ds.audio(), load_audio(video)[33 * 640:FRAMES * 640], atol=2e-4)


# ---- alpha

def test_alpha_is_the_mask_and_hidden_colours_never_appear(portraits, sample_dataset, tmp_path):
    images, wave = portraits
    path, count = tmp_path / "alpha.mov", 40
    alphas = []
    with av.open(str(path), "w") as out:
        picture = out.add_stream("qtrle", rate=25)
        picture.width = picture.height = SIZE
        picture.pix_fmt = "argb"
        sound = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for i in range(count):
            alpha = 255 - sample_dataset.mask(i)[..., 2]
            image = np.dstack([sample_dataset.frame(i), alpha])
            image[alpha == 0, :3] = (0, 255, 0)
            alphas.append(alpha)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="argb")))
        samples = (wave[None, :count * 640] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        for stream in (picture, sound):
            out.mux(stream.encode(None))
    ds = egs.prepare(path, tmp_path / "ds", size=SIZE)
    assert ds.report["source"]["alpha"] and ds.meta["crop"] == [0, 0, SIZE]
    for i in range(count):
        np.testing.assert_allclose(255 - ds.mask(i)[..., 2].astype(int), alphas[i], atol=1)
        clear = alphas[i] == 0
        assert np.abs(ds.frame(i)[clear].astype(int) - 128).mean() < 3
    seen = np.min(alphas, axis=0) == 0
    assert np.abs(ds.plate[seen].astype(int) - 128).mean() < 3


# ---- audio

def test_another_audio_track_is_taken_and_remembered(portraits, tmp_path):
    images, wave = portraits
    path = tmp_path / "tracks.mkv"
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=25, options={"crf": "12"})
        picture.width = picture.height = 256
        picture.pix_fmt = "yuv420p"
        tracks = [out.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        for image in images[:50]:
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for k, track in enumerate(tracks):
            samples = np.int16(wave[None, :50 * 640] * 32767 * k) if k else np.full((1, 50 * 640), 50, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 16000
            out.mux(track.encode(frame))
        for stream in (picture, *tracks):
            out.mux(stream.encode(None))
    first = egs.prepare(path, tmp_path / "first", size=64)
    assert any("2 audio tracks" in warning for warning in first.report["warnings"])
    second = egs.prepare(path, tmp_path / "second", size=64, track=2)
    assert second.report["sound"]["level_dbfs"] > first.report["sound"]["level_dbfs"] + 6
    with pytest.raises(egs.EgsError, match="track None there, 2 now"):
        egs.prepare(path, first.root, size=64, track=2)


@pytest.mark.parametrize("wrong", [{"face": "middle"}, {"scenes": "shortest"}, {"track": 3}])
def test_words_and_numbers_that_do_not_exist_are_refused_before_anything_is_written(sample_clip, tmp_path, wrong):
    with pytest.raises(egs.EgsError, match=next(iter(wrong))):
        egs.prepare(sample_clip, tmp_path / "ds", **wrong)
    assert not (tmp_path / "ds").exists()
