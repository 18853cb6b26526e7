"""Protects: any number of frames, any split into chunks, any rate and any length give the same as the plain way.

Examples are found by hypothesis, the same ones at every run; `EGS_FUZZ=1` tries many and other ones.
"""
from __future__ import annotations

import functools
import os
import tempfile
import wave as wavefile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import egstalker_nb as egs
from egstalker_nb.config import densification_steps
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.media import audio
from egstalker_nb.media.audio import frames_of, load_audio, save_wav, steps_of, windows_of
from egstalker_nb.media.live_audio import mono_16khz
from egstalker_nb.media.video_reader import probe, read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation import steps
from egstalker_nb.rendering.motion import cycle, eased_cycle
from egstalker_nb.rendering.script import Script, _frame_range
from egstalker_nb.rendering.streaming import LiveFeatures, _frame_features

LONG = bool(os.environ.get("EGS_FUZZ"))
FRAMES = st.integers(1, 20_000)


def examples(count: int):
    """Settings of a property: so many examples."""
    more = dict(max_examples=20 * count) if LONG else dict(max_examples=count, derandomize=True,
                                                           phases=(Phase.explicit, Phase.generate, Phase.shrink))
    return settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **more)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp())


@functools.cache
def speech() -> np.ndarray:
    """Noise in bursts, 6 s at 16 kHz: what encoders take for somebody speaking."""
    rng = np.random.default_rng(0)
    bursts = np.repeat(rng.uniform(size=30) > 0.3, 3200)
    return (bursts * rng.normal(0, 0.1, 96_000)).clip(-1, 1).astype(np.float32)


def split(wave: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """A wave in pieces of these lengths, and the rest."""
    ends = np.minimum(np.cumsum(lengths), len(wave))
    return np.split(wave, ends)


# ---- frames and chunks ----

@examples(100)
@given(FRAMES)
def test_chunks_hold_every_frame_once_and_in_order(count):
    found = steps.chunks(count)
    assert [i for part in found for i in part] == list(range(count))
    assert all(len(part) == steps.CHUNK for part in found[:-1]) and 0 < len(found[-1]) <= steps.CHUNK


@examples(30)
@given(st.integers(1, 3000), st.sets(st.integers(0, 11)))
def test_missing_chunks_are_those_that_are_not_there(count, done):
    step = SimpleNamespace(chunk=lambda number: SimpleNamespace(is_file=lambda: number in done))
    found = steps.missing_chunks(step, count)
    assert [number for number, _ in found] == [k for k in range(-(-count // steps.CHUNK)) if k not in done]
    assert all(list(ids) == list(range(count))[k * steps.CHUNK:(k + 1) * steps.CHUNK] for k, ids in found)


@examples(60)
@given(st.integers(1, 300), st.integers(0, 700))
def test_windows_are_cut_around_each_frame(num_frames, num_steps):
    values = np.arange(1, num_steps * 29 + 1, dtype=np.float32).reshape(num_steps, 29)
    windows = windows_of(values, num_frames)
    padded = np.concatenate([np.zeros((8, 29)), values, np.zeros((2 * num_frames + 8, 29))])
    assert windows.shape == (num_frames, 16, 29)
    for i in {0, num_frames // 2, num_frames - 1}:
        np.testing.assert_array_equal(windows[i], padded[2 * i:2 * i + 16])
    whole = np.zeros((2 * num_frames, 29), np.float32)
    whole[:num_steps] = values[:2 * num_frames]
    np.testing.assert_array_equal(steps_of(windows), whole)


@examples(100)
@given(st.integers(1, 10 ** 9))
def test_the_number_of_frames_of_audio_is_the_nearest(samples):
    count = frames_of(samples)
    assert count == max(1, (samples + 320) // 640) and frames_of(640 * count) == count
    assert abs(samples - 640 * count) <= 320 or count == 1


@functools.cache
def clip(count: int, rate: Fraction) -> Path:
    path = folder() / f"{count}_{rate.numerator}_{rate.denominator}.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), np.uint8)
    return write_video(path, (np.kron(image, np.ones((8, 8, 1), np.uint8)) for image in noise), None, float(rate))


RATES = st.sampled_from([Fraction(25), Fraction(24), Fraction(30), Fraction(30_000, 1001), Fraction(24_000, 1001),
                         Fraction(60), Fraction(50), Fraction(15), Fraction(12), Fraction(10)])


@examples(14)
@given(st.integers(1, 70), RATES, st.sampled_from([25.0, 25.0, 30.0]), st.integers(0, 80), st.integers(0, 80))
def test_part_of_a_clip_is_the_slice_of_the_whole(count, rate, fps, start, length):
    """Of any frame rate. Frames at the ends of chunks have been lost before."""
    whole = list(read_frames(clip(count, rate), fps))
    exact = count / rate * Fraction(fps)
    assert len(whole) == probe(clip(count, rate)).frames_at(fps)
    assert abs(len(whole) - exact) <= 0.5 + 1e-6 or (exact < 0.5 and len(whole) == 1)
    part = list(read_frames(clip(count, rate), fps, start, start + length))
    assert len(part) == len(whole[start:start + length])
    assert all(np.array_equal(a, b) for a, b in zip(part, whole[start:start + length]))


@examples(6)
@given(st.integers(1, 70), RATES, st.integers(1, 30))
def test_chunks_of_a_clip_are_the_whole(count, rate, size):
    path = clip(count, rate)
    whole = list(read_frames(path))
    parts = [image for a in range(0, len(whole), size) for image in read_frames(path, start=a, stop=a + size)]
    assert len(parts) == len(whole) and all(np.array_equal(a, b) for a, b in zip(parts, whole))
    assert list(read_frames(path, start=len(whole))) == []


@examples(15)
@given(ids=st.lists(st.integers(0, 11), min_size=1, max_size=6), ahead=st.lists(st.integers(0, 11), max_size=4),
       place=st.sampled_from(["device", "disk"]))
def test_a_batch_holds_the_frames_that_it_asks_for(tiny_dataset, ids, ahead, place):
    frames = Frames(tiny_dataset, range(12), torch.device("cpu"), place)
    frames.prefetch(ahead)
    batch = frames.batch(ids)
    assert batch["ids"].tolist() == ids
    for i, image in zip(ids, batch["frame"]):
        np.testing.assert_array_equal((255 * image).round().numpy(), tiny_dataset.frame(i))


# ---- audio ----

@examples(25)
@given(st.integers(1, 3000), st.integers(0, 2 ** 32 - 1))
def test_a_wave_is_read_as_it_was_saved(length, seed):
    wave = (np.random.default_rng(seed).integers(-32768, 32768, length) / 32768).astype(np.float32)
    np.testing.assert_array_equal(load_audio(save_wav(folder() / "a.wav", wave)), wave)


@examples(25)
@given(st.sampled_from([8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000]) | st.integers(4000, 192_000),
       st.integers(64, 20_000), st.sampled_from([1, 2]))
def test_audio_of_any_rate_keeps_its_length(rate, length, channels):
    """From 4 ms on: of less than its filter is long, the resampler leaves less, or nothing."""
    path = folder() / "rate.wav"
    with wavefile.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((10_000 * np.ones(length * channels)).astype("<i2").tobytes())
    exact = Fraction(length * 16_000, rate)
    assume(exact >= 64)
    samples = len(load_audio(path))
    assert abs(samples - exact) <= 1, f"{samples} instead of {float(exact)}"


@examples(25)
@given(st.integers(2, 50), st.integers(0, 640), st.integers(0, 60), st.integers(1, 60), st.floats(-0.4, 0.4))
def test_a_trimmed_part_is_the_slice_of_the_whole(count, missing, first, length, off):
    """Exact to the frame, for any start and duration, also where the audio ends before its last frame does."""
    assume(first + length <= count)
    wave = speech()[:count * 640 - missing]
    windows = np.arange(count * 16 * 29, dtype=np.float32).reshape(count, 16, 29)
    np.save(folder() / "f.npy", windows)
    start, duration = max(0.0, (first + off) / 25), (length + off / 2) / 25
    wav, npy = egs.trim(save_wav(folder() / "w.wav", wave), folder() / "f.npy", start, duration, folder() / "part")
    np.testing.assert_array_equal(np.load(npy), windows[first:first + length])
    expected = np.pad(load_audio(folder() / "w.wav"), (0, missing))[first * 640:(first + length) * 640]
    np.testing.assert_array_equal(load_audio(wav), expected)


@examples(60)
@given(st.integers(1, 1000), st.integers(0, 1100), st.none() | st.integers(-5, 1100), st.floats(-0.4, 0.4))
def test_a_part_of_a_script_lies_within_it_or_is_an_error(total, first, length, off):
    start, duration = (first + off) / 25, None if length is None else length / 25
    good = first < total and (length is None or 0 < length <= total - first)
    if good:
        assert _frame_range(total, start, duration) == (first, total if length is None else first + length)
    else:
        with pytest.raises(egs.EgsError):
            _frame_range(total, start, duration)


@examples(20)
@given(st.lists(st.integers(0, 4000), max_size=12), st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000, 12_345.6]))
def test_a_stream_of_any_rate_is_the_same_in_any_split(lengths, rate):
    wave = speech()[:20_000]
    whole, parts = (np.concatenate(list(mono_16khz(chunks, rate))) for chunks in ([wave], split(wave, lengths)))
    np.testing.assert_array_equal(parts, whole)
    assert abs(len(whole) - 20_000 * 16_000 / rate) <= 2


@functools.cache
def streamed(length: int) -> list[tuple[np.ndarray, float]]:
    return list(_frame_features(LiveFeatures(speech()), iter([speech()[:length]])))


@examples(4)
@given(st.sampled_from([1, 639, 960, 12_345, 18_000]), st.lists(st.integers(0, 9000), max_size=8))
def test_frames_of_a_stream_are_the_same_in_any_split(length, lengths):
    """Features and silence of every frame, which are all that a frame depends on besides its number."""
    parts = list(_frame_features(LiveFeatures(speech()), iter(split(speech()[:length], lengths))))
    assert len(parts) == len(streamed(length)) == frames_of(length)
    for (features, silent), (expected, expected_silent) in zip(parts, streamed(length)):
        np.testing.assert_allclose(features, expected, atol=1e-5)
        assert abs(silent - expected_silent) < 1e-6


# ---- motion, schedules ----

@examples(100)
@given(st.integers(1, 400), st.integers(1, 3000))
def test_playback_back_and_forth_shows_every_frame_and_never_jumps(num_frames, count):
    found, eased = cycle(num_frames, count), eased_cycle(num_frames, count)
    assert len(found) == len(eased) == count and found[0] == eased[0] == 0
    assert np.abs(np.diff(found)).max(initial=0) <= 1 and np.abs(np.diff(eased)).max(initial=0) <= 1 + 1e-9
    assert found.min() >= 0 and found.max() == min(num_frames, count) - 1
    assert eased.min() >= 0 and eased.max() <= num_frames - 1
    period = max(1, 2 * num_frames - 2)
    np.testing.assert_array_equal(found[period:], found[:-period] if count > period else [])
    assert np.abs(eased - found).max() <= 2.5 + 1e-9


@examples(40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_parts_of_a_script_are_the_whole(lengths, replay):
    total = sum(lengths)
    frames = np.arange(total)
    given_ = None if replay else frames
    script = Script(given_, given_, frames, frames, frames, frames if replay else None, np.zeros(640 * total))
    ends = np.cumsum([0, *lengths])
    parts = [script.part(a, b) for a, b in zip(ends, ends[1:])]
    assert [len(part) for part in parts] == lengths and all(part.wave is None for part in parts)
    for name in ("features", "silent", "eyes", "w2c", "pose", "source"):
        if getattr(script, name) is not None:
            np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), frames)


@examples(60)
@given(st.integers(1, 600), st.integers(0, 500), st.integers(0, 500), st.integers(1, 120))
def test_densification_steps_are_those_of_the_plain_rule(iterations, start, length, interval):
    cfg = egs.load_config("quick_test", iterations=iterations, coarse_iterations=1, densify_from_iter=start,
                          densify_until_iter=start + length, densification_interval=interval)
    plain = [i for i in range(1, iterations + 1) if start < i < start + length and i % interval == 0]
    assert list(densification_steps(cfg)) == plain


def test_the_constants_that_these_properties_are_stated_with():
    assert (audio.SAMPLES_PER_FRAME, audio.WINDOW_STEPS, audio.FEATURE_CHANNELS) == (640, 16, 29)
