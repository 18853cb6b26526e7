"""Protects: the time line of a live head, by a fake clock: order, interruptions, left-out frames, drift, bounds."""
import numpy as np
import pytest
from faults.made import copy_run
from hypothesis import given, settings
from hypothesis import strategies as st

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.live import soundtrack
from egstalker_nb.live.idle_motion import IdleMotion
from egstalker_nb.live.pcm import PcmStream, arrays_of
from egstalker_nb.live.performer import MAX_LAG, Performer
from egstalker_nb.live.soundtrack import FADE, FAR_AHEAD, FAR_BEHIND, QUIET, SoundTrack
from egstalker_nb.media.live_audio import mono_16khz
from egstalker_nb.rendering.motion import mean_pose, pose_vectors
from egstalker_nb.rendering.renderer import Renderer

LOOK_AHEAD = 2640
RATE = 16_000


class StandIn:
    """A head that draws nothing, in no time or in `seconds` of a fake clock."""

    def __init__(self, stage, seconds=0.0):
        self.stage, self.seconds, self.frame, self.samples = stage, seconds, 0, 0

    def hear(self, samples):
        self.samples += len(samples)

    @property
    def due(self):
        return max(0, (self.samples - LOOK_AHEAD) // 640 + 1 - self.frame)

    @property
    def needed(self):
        return 640 * self.frame + LOOK_AHEAD

    def skip(self):
        self.frame += 1

    def draw(self):
        self.frame += 1
        self.stage.now += self.seconds
        return b"jpeg", True


class Stage:
    """A performer whose clock the test sets."""

    def __init__(self, seconds=0.0, watched=True):
        self.now, self.watched, self.frames = 0.0, watched, []
        self.track, self.head = SoundTrack(), StandIn(self, seconds)
        self.performer = Performer(self.head, self.track, self.frames.append, lambda: self.watched, lambda: self.now)

    def run(self, seconds, step=None):
        """Let time pass; by default until each time at which the performer wants to look."""
        end = self.now + seconds
        while self.now < end:
            pause = step or max(self.performer.pause, 0.001)
            self.now = min(end, self.now + pause)
            self.performer.step()

    @property
    def sound(self):
        return np.concatenate([frame.sound for frame in self.frames])


def tone(seconds, level=0.5, seed=0):
    """Loud audio, no sample of which is near zero."""
    rng = np.random.default_rng(seed)
    return (level * rng.uniform(0.5, 1, round(seconds * RATE)) * rng.choice([-1, 1], round(seconds * RATE))
            ).astype(np.float32)


def as_int16(wave):
    return (wave * 32767).round().astype(np.int16)


# ---- time ----

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["wait", "say", "after", "stop", "feed", "slow", "open", "close"]),
                          st.floats(0.001, 1.5)), max_size=25))
def test_time_is_never_left_out(actions):
    """Whatever happens: frames are numbered without a gap, each has its sound, and the last is that of the clock."""
    stage = Stage()
    stage.run(0.5)
    for action, value in actions:
        if action == "say":
            stage.track.say(tone(value))
        elif action == "after" and stage.track.queued < 10:
            stage.track.say(tone(value), interrupt=False)
        elif action == "stop":
            stage.track.stop()
        elif action == "feed":
            stage.track.begin().add(tone(value))
        elif action == "slow":
            stage.head.seconds = value / 10
        elif action == "open":
            stage.track.open_microphone("me")
        elif action == "close":
            stage.track.close_microphone("me")
        else:
            stage.run(value)
    stage.head.seconds = 0.0
    stage.run(0.3)
    assert [frame.number for frame in stage.frames] == list(range(len(stage.frames)))
    late = stage.now * RATE - stage.track.length
    assert -1 <= late <= FAR_BEHIND + 0.1 * RATE, "a microphone may let it wait"
    assert len(stage.frames) == (stage.track.length - LOOK_AHEAD) // 640 + 1
    assert all(frame.sound.shape == (640,) for frame in stage.frames)


def test_a_slow_machine_leaves_frames_out_and_never_the_time():
    stage = Stage(seconds=0.13)
    stage.run(0.2)
    stage.track.say(wave := tone(4))
    stage.run(6)
    drawn = sum(bool(frame.picture) for frame in stage.frames)
    assert 0.8 * 6.2 / 0.13 < drawn < 1.01 * 6.2 / 0.13
    assert drawn == stage.performer.drawn and drawn + stage.performer.left_out == len(stage.frames)
    assert (stage.now - stage.frames[-1].number / 25) < 0.165 + 0.13 + 0.04
    sound = stage.sound
    first = np.flatnonzero(sound)[0]
    np.testing.assert_array_equal(sound[first:first + len(wave)], as_int16(wave))


def test_nobody_looks_and_nothing_is_drawn():
    stage = Stage(watched=False)
    stage.run(1)
    assert stage.performer.drawn == stage.performer.left_out == 0 and len(stage.frames) > 20
    stage.watched = True
    stage.run(1)
    assert stage.performer.drawn > 20 and not stage.performer.left_out


def test_a_computer_that_slept_goes_on_in_the_present():
    stage = Stage()
    stage.run(1)
    count = len(stage.frames)
    stage.now += 3600
    stage.performer.step()
    assert len(stage.frames) - count <= 1
    stage.run(1)
    assert 24 <= len(stage.frames) - count <= 26
    stage.now += MAX_LAG - 1
    stage.performer.step()
    assert len(stage.frames) - count > 25 * (MAX_LAG - 1), "an interruption that is not sleep is caught up with"


# ---- utterances ----

def test_utterances_follow_one_another_without_a_gap():
    stage, waves = Stage(), [tone(0.31, seed=1), tone(0.77, seed=2), tone(0.05, seed=3)]
    stage.run(0.3)
    for wave in waves:
        stage.track.say(wave, interrupt=False)
    stage.run(2)
    said = stage.sound
    first, last = np.flatnonzero(said)[[0, -1]]
    np.testing.assert_array_equal(said[first:last + 1], as_int16(np.concatenate(waves)))
    assert stage.track.queued == 0


def test_an_utterance_interrupts_those_before_it_with_a_short_fade():
    stage, first, third = Stage(), tone(5, 0.3, seed=1), tone(0.5, 0.9, seed=3)
    stage.track.say(first)
    stage.track.say(tone(5, 0.6, seed=2), interrupt=False)
    stage.run(1)
    spoken = stage.track.length
    utterance = stage.track.say(third)
    stage.run(1.5)
    said = stage.sound
    np.testing.assert_array_equal(said[:spoken], as_int16(first[:spoken]))
    fade = said[spoken:spoken + FADE] / as_int16(first[spoken:spoken + FADE])
    assert (np.diff(fade) < 1e-3).all() and fade[0] > 0.99 and abs(fade[-1]) < 0.01
    np.testing.assert_array_equal(said[spoken + FADE:][:len(third)], as_int16(third))
    assert not said[spoken + FADE + len(third):].any() and not utterance.stopped


def test_stop_ends_all_and_unblocks_who_feeds():
    stage = Stage()
    utterance = stage.track.begin()
    utterance.add(tone(9))
    assert utterance.full
    stage.track.say(tone(1), interrupt=False)
    stage.run(0.5)
    assert utterance.full and not utterance.wait_for_room(0)
    stage.track.stop()
    assert not utterance.full and utterance.stopped
    utterance.add(tone(1))
    at = stage.track.length
    stage.run(0.5)
    assert not stage.sound[at + FADE:].any() and stage.track.queued == 0


def test_speech_that_comes_in_is_said_as_it_comes(monkeypatch):
    """A gap in the stream becomes a pause; a stream that has died gives way after some time."""
    now = 0.0
    monkeypatch.setattr(soundtrack.time, "monotonic", lambda: now)
    stage, wave = Stage(), tone(1)
    utterance = stage.track.begin()
    utterance.add(wave[:4000])
    stage.run(0.5)
    utterance.add(wave[4000:])
    stage.track.say(tone(0.1, seed=5), interrupt=False)
    stage.run(2)
    said = stage.sound
    np.testing.assert_array_equal(said[said != 0], as_int16(wave))
    assert not said[4000:8000].any() and stage.track.queued > 0
    now = soundtrack.MAX_STALL + 1
    stage.run(0.5)
    assert stage.track.queued == 0


def test_what_waits_is_bounded():
    track = SoundTrack()
    with pytest.raises(InputError, match="600 s"):
        track.say(np.zeros(601 * RATE, np.float32))
    for _ in range(soundtrack.MAX_QUEUE):
        track.begin(interrupt=False)
    track.begin(interrupt=False)
    with pytest.raises(InputError, match="utterances that wait"):
        track.begin(interrupt=False)
    track.begin()
    track.open_microphone("me")
    for k in range(500):
        track.hear("me", 160 * k, tone(0.01))
    assert track._waiting <= soundtrack.MAX_MICROPHONE


# ---- the microphone ----

class Voice:
    """A microphone with a clock of its own: speech of 4 s, pauses of 1 s, in chunks."""

    def __init__(self, ppm=0.0, chunk=640, origin=0.0):
        self.rate, self.chunk, self.origin, self.count = RATE * (1 + ppm / 1e6), chunk, origin, 0
        self.loud, self.hush = tone(chunk / RATE), np.full(chunk, QUIET / 2, np.float32)

    def deliver(self, track, now):
        """What has been captured until now."""
        while self.origin + (self.count + self.chunk) / self.rate <= now:
            pause = self.count / RATE % 5 > 4
            track.hear("me", self.count, self.hush if pause else self.loud)
            self.count += self.chunk


def test_an_hour_of_a_drifting_microphone():
    """Its clock is half a second off after half an hour, then the other way round; the time line stays at the
    computer's, no word is cut, and nothing grows."""
    stage = Stage()
    stage.track.open_microphone("me")
    worst, cut = 0, 0
    for ppm, end in ((300, 1800), (-300, 3600)):
        voice, heard = Voice(ppm, origin=stage.now), -1
        while stage.now < end:
            stage.now += 0.04
            voice.deliver(stage.track, stage.now)
            stage.performer.step()
            for frame in stage.frames:
                in_speech = 0.1 < frame.heard / RATE % 5 < 3.9
                cut += bool(frame.owner) and heard >= 0 and in_speech and frame.heard - heard != 640
                heard = frame.heard
            stage.frames.clear()
            worst = max(worst, abs(stage.track.length - stage.now * RATE))
            assert len(stage.track._tape) < 20 and len(stage.track._heard) < 5
        assert abs(voice.count - 1800 * RATE) > RATE / 2, "what it would be off"
    assert worst <= 0.13 * RATE and cut == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.6), min_size=5, max_size=40), st.integers(1, 1600))
def test_an_unsteady_microphone_stays_near_the_clock(delays, chunk):
    """Chunks that come late and at once, of any length: the track is neither far ahead of nor far behind the clock."""
    stage, voice = Stage(), Voice(chunk=chunk)
    stage.track.open_microphone("me")
    for delay in delays:
        stage.run(delay, 0.01)
        voice.deliver(stage.track, stage.now)
        stage.performer.step()
        assert -FAR_BEHIND - 160 <= stage.track.length - stage.now * RATE <= FAR_AHEAD
    assert [frame.number for frame in stage.frames] == list(range(len(stage.frames)))


def test_a_frame_says_which_sample_it_shows():
    stage, voice = Stage(), Voice(chunk=160)
    stage.track.open_microphone("me")
    for _ in range(200):
        stage.now += 0.01
        voice.deliver(stage.track, stage.now)
        stage.performer.step()
    shown = [frame for frame in stage.frames if frame.owner == "me"]
    assert len(shown) > 40 and all(frame.heard == shown[0].heard + 640 * k for k, frame in enumerate(shown))
    newest = stage.track.length - 640 * stage.frames[-1].number
    assert 0 <= newest - LOOK_AHEAD < 640, "as soon as its look-ahead is there"


def test_one_microphone_at_a_time_and_utterances_go_first():
    stage, track = Stage(), None
    track = stage.track
    assert track.open_microphone("me") and not track.open_microphone("you") and track.open_microphone("me")
    track.hear("you", 0, tone(0.1))
    stage.run(0.4)
    assert not stage.sound.any(), "only its owner is heard"
    track.say(wave := tone(0.5, seed=4))
    voice = Voice(origin=stage.now)
    for _ in range(100):
        stage.now += 0.01
        voice.deliver(track, stage.now)
        stage.performer.step()
    said = stage.sound
    first = np.flatnonzero(said)[0]
    np.testing.assert_array_equal(said[first:first + len(wave)], as_int16(wave))
    assert stage.frames[-1].owner == "me"
    track.close_microphone("you")
    assert track.owner == "me"
    track.close_microphone("me")
    stage.run(1)
    assert stage.frames[-1].owner is None and not stage.frames[-1].sound.any()


# ---- raw audio ----

@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.sampled_from([8000, 16_000, 24_000, 44_100]),
       st.sampled_from([1, 2]))
def test_how_raw_audio_is_cut_does_not_change_the_sound(cuts, rate, channels):
    data = as_int16(tone(0.3)).tobytes() + b"\x01"

    def converted(pieces):
        stream = PcmStream(rate, channels)
        return np.concatenate([*(stream.add(piece) for piece in pieces), stream.end()])

    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at:at + cut])
        at += cut
    pieces.append(data[at:])
    expected = converted([data])
    np.testing.assert_array_equal(converted(pieces), expected)
    assert abs(len(expected) - 0.3 / channels * RATE * RATE / rate) < 3
    if channels == 1:
        np.testing.assert_array_equal(np.concatenate(list(mono_16khz(arrays_of(pieces), rate))), expected)


@pytest.mark.parametrize("rate, channels", [(0, 1), (float("nan"), 1), (1e9, 1), (24_000, 0), (24_000, 99)])
def test_impossible_raw_audio_is_refused(rate, channels):
    with pytest.raises(InputError):
        PcmStream(rate, channels)


# ---- motion ----

def test_it_rests_breathes_and_stays_within_the_clip(tmp_path):
    renderer = Renderer.from_run(egs.load_run(copy_run(tmp_path)), device="cpu")
    known = renderer.w2c[:renderer.ds.num_train]
    mean = mean_pose(known)
    low, high = (f(pose_vectors(mean, known), 0) for f in (np.min, np.max))
    features = np.zeros((16, 29), np.float32)

    def vectors(silent, frames):
        motion = IdleMotion(renderer, 60)
        scripts = [motion.script(i, features, silent) for i in frames]
        return (np.concatenate([pose_vectors(mean, script.w2c) for script in scripts]),
                np.stack([script.eyes[0, 0] for script in scripts]))

    rest, eyes = vectors(1.0, range(300))
    speech, _ = vectors(0.0, range(300))
    for found in (rest, speech):
        assert (found >= low - 1e-6).all() and (found <= high + 1e-6).all()
    assert np.abs(np.diff(rest, axis=0)).max() < 0.7 * np.abs(np.diff(speech, axis=0)).max()
    assert (np.abs(np.diff(rest[50:], axis=0)).max(1) > 0).all(), "never quite still"
    assert eyes.max() - np.median(eyes) > 0.3 * (renderer.ds.eyes[:, 0].max() - np.median(eyes)) > 0, "it blinks"
    some, _ = vectors(0.0, range(0, 300, 7))
    assert np.abs(some - speech[::7]).max() < 0.2 * np.ptp(speech, 0).max(), "left-out frames change nothing much"
