"""Protects: the video fits its sound, poses never jump, and features that do not belong are refused."""
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.audio import encoder_spec, extract_features, load_audio, save_wav
from egstalker_nb.errors import DatasetError, InputError
from egstalker_nb.rendering import Renderer, _orbit_path, cycle, middle_frame
from egstalker_nb.video import probe, read_frames

CFG = dict(iterations=30, coarse_iterations=10, batch_size=2, plane_resolution=[8, 16])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), folder, device="cpu")


@pytest.fixture
def speech(tmp_path):
    """1.3 s: longer than the dataset (12 frames), and not a whole number of frames."""
    rng = np.random.default_rng(0)
    save_wav(tmp_path / "speech.wav", (0.2 * rng.standard_normal(20900)).astype(np.float32))
    return tmp_path / "speech.wav"


@pytest.mark.parametrize("poses", ["cycle", "static", "orbit"])
def test_video_of_a_sound_longer_than_the_clip(run, speech, tmp_path, poses):
    video = egs.render(run, speech, tmp_path / "v.mp4", poses=poses, batch=5, device="cpu")
    info = probe(video.path)
    assert (info.width, info.height, info.has_audio) == (64, 64, True)
    assert video.frames == info.num_frames == 33
    assert abs(len(load_audio(video.path)) / 16000 - 33 / 25) <= 0.02
    assert video.render_fps >= video.total_fps > 0 and "device waited for" in str(video)


def test_batches_do_not_change_the_picture(run, tiny_dataset):
    renderer = Renderer(run.load_head(device="cpu"), tiny_dataset)
    ds = tiny_dataset
    args = [torch.from_numpy(a) for a in (ds.features, np.arange(4), ds.eyes[:4], ds.w2c[:4])]
    whole, _ = renderer.batch(*args)
    single = torch.cat([renderer.batch(args[0], *[a[i:i + 1] for a in args[1:]])[0] for i in range(4)])
    # products of other shapes round differently; a step of 8 bits is forty times as much
    torch.testing.assert_close(whole, single, atol=1e-4, rtol=0)


def test_start_and_duration_cut_the_same_frames(run, speech, tmp_path):
    egs.render(run, speech, tmp_path / "all.mp4", poses="static", device="cpu")
    part = egs.render(run, speech, tmp_path / "part.mp4", poses="static", start=0.4, duration=0.6, device="cpu")
    assert part.frames == 15
    whole, cut = list(read_frames(tmp_path / "all.mp4")), list(read_frames(part.path))
    differences = [np.abs(whole[10 + i].astype(int) - cut[i]).mean() for i in (0, 7, 14)]
    assert max(differences) < 2.0, "features are those of the whole sound, not computed anew from the part"


@pytest.mark.parametrize("start, duration", [(-1, None), (0, 9), (1.4, None), (0.5, 0)])
def test_parts_outside_the_sound_are_refused(run, speech, start, duration):
    with pytest.raises(InputError, match="inside 0 ... 1.3"):
        egs.render(run, speech, start=start, duration=duration, device="cpu")


def test_given_features_must_fit_the_sound(run, speech, tmp_path):
    features = extract_features(load_audio(speech))
    np.save(tmp_path / "f.npy", features)
    egs.render(run, speech, tmp_path / "v.mp4", features=tmp_path / "f.npy", duration=0.2, device="cpu")
    np.save(tmp_path / "f.npy", features[:20])
    with pytest.raises(InputError, match="33 frames.*20 frames"):
        egs.render(run, speech, tmp_path / "w.mp4", features=tmp_path / "f.npy", device="cpu")
    assert not (tmp_path / "w.mp4").exists()


def test_sound_for_a_head_trained_on_foreign_features_is_refused(run, speech):
    other = egs.Run(run.root, run.config, {**run.manifest, "encoder": {"name": "external"}})
    with pytest.raises(InputError, match=r"external.*features=....npy"):
        egs.render(other, speech, device="cpu")
    assert run.manifest["encoder"] == encoder_spec()


def test_compare_shows_the_clip_beside_the_render(run, tiny_dataset, tmp_path):
    video = egs.render(run, out=tmp_path / "v.mp4", split="train", compare=True, device="cpu")
    frames = list(read_frames(video.path))
    assert len(frames) == 10 and frames[0].shape == (64, 128, 3)
    error = np.abs(frames[3][16:, 64:].astype(int) - tiny_dataset.frame(3)[16:]).mean()
    assert error < 6, "the right half is the clip's own frame"
    with pytest.raises(InputError, match="no ground truth"):
        egs.render(run, "x.wav", compare=True)


@pytest.mark.parametrize("wrong, error", [
    (dict(poses="spin"), InputError), (dict(start=float("nan")), InputError), (dict(batch=0), InputError),
    (dict(iteration=7), DatasetError)])
def test_wrong_choices_are_refused(run, speech, wrong, error):
    with pytest.raises(error):
        egs.render(run, speech, device="cpu", **wrong)


@pytest.mark.parametrize("name", ["speech.wav", "talk.avi", "talk", "folder.mp4", "speech.wav/talk.mp4"])
def test_a_place_that_cannot_take_the_video_is_refused(run, speech, tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    before = speech.read_bytes()
    with pytest.raises(InputError):
        egs.render(run, speech, tmp_path / name, device="cpu")
    assert speech.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["folder.mp4", "speech.wav"]


def test_features_without_their_sound_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="audio together with features"):
        egs.render(run, features=tmp_path / "f.npy", device="cpu")


def test_cycle_never_jumps():
    assert cycle(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert cycle(1, 3).tolist() == [0, 0, 0] and cycle(2, 4).tolist() == [0, 1, 0, 1]
    assert np.abs(np.diff(cycle(7, 100))).max() == 1


def test_orbit_keeps_the_distance_and_turns(tiny_dataset):
    _, w2c = _orbit_path(tiny_dataset, 100)
    turns = w2c[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)[None].repeat(100, 0), atol=1e-5)
    np.testing.assert_allclose(w2c[:, :3, 3], w2c[:1, :3, 3].repeat(100, 0), atol=1e-6)
    start = tiny_dataset.w2c[middle_frame(tiny_dataset)][:3, :3]
    angles = [np.degrees(np.arccos(np.clip((np.trace(m[:3, :3].T @ start) - 1) / 2, -1, 1))) for m in w2c]
    assert angles[0] < 0.1 and 14 < max(angles) < 17
