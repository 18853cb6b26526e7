"""Protects: a video is as long as its audio, shows what was asked for, and unusable inputs are refused."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import DatasetError, InputError
from egstalker_nb.core.progress import Progress
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.speech.encoders import DEFAULT_ENCODER, load_encoder

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
def test_video_of_audio_longer_than_the_clip(run, speech, tmp_path, poses):
    video = egs.render(run, speech, tmp_path / "v.mp4", poses=poses, batch=5, device="cpu")
    info = probe(video.path)
    assert (info.width, info.height, info.has_audio) == (64, 64, True)
    assert video.frames == info.num_frames == 33
    assert abs(len(load_audio(video.path)) / 16000 - 33 / 25) <= 0.02
    assert video.render_fps >= video.total_fps > 0 and "device waited for" in str(video)


def test_the_batch_size_does_not_change_the_frames(run):
    renderer = Renderer.from_run(run, device="cpu")
    given = renderer.conditions(range(4))
    whole, _ = renderer.batch(given)
    single = torch.cat([renderer.batch(given[i:i + 1])[0] for i in range(4)])
    # products of other shapes round differently; one 8-bit level is forty times as much
    torch.testing.assert_close(whole, single, atol=1e-4, rtol=0)


def test_start_and_duration_cut_the_same_frames(run, speech, tmp_path):
    egs.render(run, speech, tmp_path / "all.mp4", poses="static", device="cpu")
    part = egs.render(run, speech, tmp_path / "part.mp4", poses="static", start=0.4, duration=0.6, device="cpu")
    assert part.frames == 15
    whole, cut = list(read_frames(tmp_path / "all.mp4")), list(read_frames(part.path))
    differences = [np.abs(whole[10 + i].astype(int) - cut[i]).mean() for i in (0, 7, 14)]
    assert max(differences) < 2.0, "features are those of the whole audio, not of the part"


@pytest.mark.parametrize("start, duration", [(-1, None), (0, 9), (1.4, None), (0.5, 0)])
def test_parts_outside_the_audio_are_refused(run, speech, start, duration):
    with pytest.raises(InputError, match="inside 0 ... 1.3"):
        egs.render(run, speech, start=start, duration=duration, device="cpu")


def test_given_features_must_fit_the_audio(run, speech, tmp_path):
    features = load_encoder(DEFAULT_ENCODER).features(load_audio(speech))
    np.save(tmp_path / "f.npy", features)
    egs.render(run, speech, tmp_path / "v.mp4", features=tmp_path / "f.npy", duration=0.2, device="cpu")
    np.save(tmp_path / "f.npy", features[:20])
    with pytest.raises(InputError, match="33 frames.*20 frames"):
        egs.render(run, speech, tmp_path / "w.mp4", features=tmp_path / "f.npy", device="cpu")
    assert not (tmp_path / "w.mp4").exists()


def test_audio_for_a_head_trained_on_external_features_is_refused(run, speech):
    other = egs.load_run(run.root)
    other.dataset.encoder = {"name": "external"}
    with pytest.raises(InputError, match=r"external.*features=....npy"):
        egs.render(other, speech, device="cpu")
    assert run.manifest["encoder"] == load_encoder(DEFAULT_ENCODER).spec


def test_compare_shows_the_clip_beside_the_render(run, tiny_dataset, tmp_path):
    video = egs.replay(run, "train", tmp_path / "v.mp4", compare=True, device="cpu")
    frames = list(read_frames(video.path))
    assert len(frames) == 10 and frames[0].shape == (64, 128, 3)
    error = np.abs(frames[3][16:, 64:].astype(int) - tiny_dataset.frame(3)[16:]).mean()
    assert error < 6, "the right half is the clip's own frame"


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


def test_the_network_is_conditioned_on_the_script(run, speech):
    renderer, calls = Renderer.from_run(run, device="cpu"), []
    script = audio_script(renderer, speech, poses="orbit", blink=np.linspace(0, 1, 33), duration=0.2)
    renderer.batch = lambda *given: calls.append(given) or (torch.zeros(5, 64, 64, 3), None)
    list(renderer.frames(script, 5, Progress(5, "x")))
    given = calls[0][0]
    torch.testing.assert_close(given.mouth, renderer.mouth_coefficients(script))
    for got, wanted in ((given.eyes, script.eyes), (given.w2c, script.w2c), (given.pose, script.pose)):
        np.testing.assert_array_equal(got.numpy(), wanted)
    assert not np.array_equal(script.w2c, script.pose)


@pytest.mark.parametrize("command, option", [("render", ["--poses", "cycle"]), ("render", ["--split", "val"]),
                                             ("replay", ["--audio", "a.wav"]), ("replay", ["--blink", "17"])])
def test_command_line_keeps_render_and_replay_apart(run, command, option, capsys):
    """A replay has the clip's own motion, and other audio has no ground truth: mixtures are refused, not ignored."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, str(run.root), *option])
    assert stopped.value.code == 2 and ("--audio" in (message := capsys.readouterr().err) or option[0] in message)


def test_command_line_replays_the_clip(run, tmp_path):
    assert cli.main(["replay", str(run.root), "--split", "train", "--compare", "--out", str(tmp_path / "v.mp4"),
                     "--duration", "0.2"]) == 0
    assert probe(tmp_path / "v.mp4").num_frames == 5


def test_command_line_takes_a_dataset_and_a_rate(run, speech, tmp_path):
    out, place = tmp_path / "v.mp4", str(run.dataset.root)
    assert cli.main(["render", str(run.root), "--audio", str(speech), "--out", str(out), "--duration", "0.2",
                     "--poses", place, "--blink", "20"]) == 0
    assert probe(out).num_frames == 5


def test_the_camera_and_the_pose_that_the_network_gets_stay_apart(run):
    """Batches with and without a separate pose pass through the same input tensors."""
    renderer = Renderer.from_run(run, device="cpu")
    given = renderer.conditions(range(2))
    turned = replace(given, w2c=given.w2c.flip(0), pose=given.w2c)
    apart = [Renderer.from_run(run, device="cpu").batch(some)[0] for some in (given, turned)]
    for some, wanted in zip((given, turned, given), (*apart, apart[0])):
        assert torch.equal(renderer.batch(some)[0], wanted)
    assert not torch.equal(*apart)


def test_subtitles_of_the_part_that_is_rendered(run, speech, tmp_path):
    given = dict(start=0.4, duration=0.6, device="cpu")
    beside = speech.with_suffix(".srt")
    text = "1\n00:00:00,500 --> 00:00:02,000\nHello\n\n2\n00:00:00,000 --> 00:00:00,300\nBefore it\n"
    beside.write_text(text)
    video = egs.render(run, speech, tmp_path / "v.mp4", **given)
    assert video.subtitles == tmp_path / "v.srt" and "v.srt" in str(video)
    assert video.subtitles.read_text() == "1\n00:00:00,100 --> 00:00:00,600\nHello\n"
    with pytest.raises(InputError, match="speech.srt"):
        egs.render(run, speech, tmp_path / "speech.mp4", **given)
    assert beside.read_text() == text and not (tmp_path / "speech.mp4").exists()
    beside.write_text(text.replace("2,000", "?"))
    with pytest.warns(UserWarning, match="line 2"):
        assert egs.render(run, speech, tmp_path / "w.mp4", **given).subtitles is None
    assert (tmp_path / "w.mp4").exists() and not (tmp_path / "w.srt").exists()
