"""Protects: the presets. They train, resume, render and are evaluated, with nothing changed but the number of
iterations; and a part of the audio gives that part of the whole video."""
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.rates import FPS, SAMPLES_PER_FRAME
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.speech.encoders import DEFAULT_ENCODER, load_encoder
from egstalker_nb.training import checkpoint

SHORT = {  # quick_test, extended_test without densification, is what all other tests train
    "extended_test": dict(coarse_iterations=3, iterations=8, densify_from_iter=2, densify_until_iter=7,
                          densification_interval=2),
    "production": dict(coarse_iterations=5, iterations=14, densify_from_iter=2, densify_until_iter=12,
                       densification_interval=3),
}


def short(name):
    return egs.load_config(name, **SHORT[name])


@pytest.fixture(scope="module", params=SHORT)
def run(request, tiny_dataset, tmp_path_factory):
    """One uninterrupted run of each preset."""
    return egs.train(tiny_dataset, short(request.param), tmp_path_factory.mktemp("p") / request.param, device="cpu")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """1.5 s and a fraction of a frame."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    save_wav(path, (0.2 * np.random.default_rng(0).standard_normal(24100)).astype(np.float32))
    return path


@pytest.mark.slow
def test_an_interrupted_preset_ends_in_the_same_head(run, tiny_dataset, tmp_path):
    cfg, last = run.config, run.config.iterations
    for until in (cfg.coarse_iterations - 1, cfg.coarse_iterations, cfg.coarse_iterations + 2, None):
        again = egs.train(tiny_dataset, cfg, tmp_path / "run", until=until, device="cpu")
    heads = [checkpoint.load(r.root, last, checkpoint.HEAD) for r in (run, again)]
    assert heads[0].keys() == heads[1].keys()
    assert [k for k in heads[0] if not torch.equal(heads[0][k], heads[1][k])] == []


@pytest.mark.slow
def test_a_preset_renders_and_is_evaluated(run, speech, tmp_path):
    video = egs.render(run, speech, tmp_path / "talk.mp4", start=0.5, duration=0.4, device="cpu")
    info, frames = probe(video.path), np.stack(list(read_frames(video.path)))
    assert (info.num_frames, info.has_audio, frames.shape) == (10, True, (10, 64, 64, 3))
    assert frames.std((1, 2)).min() > 5, "an image, not one colour"
    scores = egs.evaluate(run, "val", device="cpu")
    assert scores["frames"] == len(run.dataset.val_ids)
    assert np.isfinite([scores[k] for k in ("psnr_composite", "psnr_head", "ssim_head")]).all()


@pytest.mark.parametrize("first, count", [(0, 1), (1, 5), (7, 24), (37, 1), (0, 38)])
@pytest.mark.parametrize("run", ["extended_test"], indirect=True)
def test_any_part_is_that_part_of_the_whole(run, speech, first, count):
    """Also for times between frames, and for the last frame, which the audio does not fill."""
    renderer = egs.Renderer.from_run(run, device="cpu")
    whole = audio_script(renderer, speech)
    for shift in (-0.4, 0.0, 0.4):
        start = max(0.0, (first + shift) / FPS)
        part = audio_script(renderer, speech, start=start, duration=count / FPS)
        np.testing.assert_array_equal(part.features, whole.features[first:first + count])
        samples = slice(first * SAMPLES_PER_FRAME, (first + count) * SAMPLES_PER_FRAME)
        np.testing.assert_array_equal(part.wave, whole.wave[samples])
        assert len(part.w2c) == len(part.eyes) == count


@pytest.mark.parametrize("splits", [(1,), (37,), (2, 3, 20), (12, 25)])
def test_audio_cut_anywhere_and_joined_is_the_whole(speech, tmp_path, splits):
    wave = load_audio(speech)
    windows = load_encoder(DEFAULT_ENCODER).features(wave)
    np.save(tmp_path / "whole.npy", windows)
    edges = [0, *splits, len(windows)]
    pieces = [egs.trim(speech, tmp_path / "whole.npy", a / FPS, (b - a) / FPS, tmp_path / f"part{a}")
              for a, b in zip(edges, edges[1:])]
    np.testing.assert_array_equal(np.concatenate([np.load(npy) for _, npy in pieces]), windows)
    joined = np.concatenate([load_audio(path) for path, _ in pieces])
    np.testing.assert_allclose(joined[:len(wave)], wave, atol=2 / 32768)
    assert len(joined) == len(windows) * SAMPLES_PER_FRAME
