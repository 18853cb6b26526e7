"""How well the mouth of a trained head follows a sound, its own or a stranger's, and how still the head is."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import numpy as np
import torch

from ..core.errors import InputError
from ..core.progress import Progress
from ..core.table import Table, attributes
from ..data.dataset import Dataset
from ..face.landmarks import NUM_LANDMARKS, RIGID
from ..media.audio import frames_of, save_wav
from ..media.rates import FPS, SAMPLE_RATE
from ..metrics import landmark_metrics
from ..rendering.renderer import Renderer, Script, audio_script, replay_script
from ..speech.voice_activity import passages
from ..training.run import Run

MAX_LAG = 5            # frames searched to either side
MIN_SILENCE = 0.3    # seconds, less is not scored
SHUT = 1e-4            # share of face height: a mouth that stays below never opens

#: value -> what it is
ABOUT = {
    "r": "correlation of the mouth opening on the render with the speaker's own, frame by frame",
    "best_r": f"the highest within {MAX_LAG} frames of lag",
    "lag": "frames, the lag at that correlation; positive: the render is late",
    "leak": "correlation of the mouth opening on the render with that of the frames that lent the pose; 0 is right",
    "movement": "how far the mouth moves (standard deviation) against the clip that the head learned from",
    "silence": "mouth opening where the sound is silent over its mean in speech; 0: shut, 1: no difference",
    "silence_own": "the same of the speaker, who may well breathe with an open mouth",
    "silence_seconds": "s of silence in the sound, the mouth's own closing and opening not counted",
    "pause": "as silence, on the render, where digital silence was appended to the sound",
    "jitter": "trembling of rigid landmarks on the render against the clip's own frames; 1: no difference",
    "frames": "frames rendered", "frames_tracked": "of these, frames in which a face was found",
}


@dataclass
class SyncScore:
    """How one head followed one sound; shows itself as a table. A value is None where it could not be measured.

    Attributes:
        head: name of the run. sound: name of the dataset that spoke. foreign: not the head's own validation frames.
        iteration: of the checkpoint. r, best_r, lag, leak, movement, silence, silence_own, silence_seconds, pause,
            jitter, frames, frames_tracked: see `ABOUT`.
        driven: [F] mouth opening (inner lip gap over face height) on the render; own: [F] the speaker's. NaN: no
            face found. silent: [F] bool, see `passages`. wave: [F * 640] float32, the sound at 16 kHz.
    """

    head: str
    sound: str
    foreign: bool
    iteration: int
    frames: int
    frames_tracked: int
    r: Optional[float]
    best_r: Optional[float]
    lag: Optional[int]
    leak: Optional[float]
    movement: Optional[float]
    silence: Optional[float]
    silence_own: Optional[float]
    silence_seconds: float
    pause: Optional[float]
    jitter: Optional[float]
    driven: np.ndarray
    own: np.ndarray
    silent: np.ndarray
    wave: np.ndarray

    @property
    def table(self) -> Table:
        kind = "" if self.foreign else " (own voice, validation frames)"
        return attributes(self, ABOUT, f"{self.head}, iteration {self.iteration}, driven by {self.sound}{kind}")

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def as_dict(self) -> dict[str, Any]:
        """Everything but the sound, ready for JSON (NaN becomes None)."""
        def plain(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if value.dtype == bool:
                return np.flatnonzero(value).tolist()
            return [round(float(x), 5) if np.isfinite(x) else None for x in value]

        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "wave"}


# ---- the measure ----

def sync_score(run: Run, other: Optional[Dataset] = None, device: Optional[str | torch.device] = None,
               pause: float = 2.0) -> SyncScore:
    """Drive a head with a sound, find the mouth on the render, and compare it with the speaker's.

    With `other`, the whole clip speaks: the head never saw it. The head's own poses are played back and forth.
    Without, the head's own validation frames are replayed; there are few of them (a tenth of the clip), so that r
    is uncertain by about 1 / sqrt(frames) and `best_r` is flattered by its choice of lag.

    Silence is scored on the plain opening, with nothing subtracted: the inner lips of a closed mouth touch, so
    that shut is 0 for every face. It is measured in the sound's own pauses (None where they last less than 0.3 s
    together), and in a second video of the same sound with a pause appended. Trust the second one: speakers keep
    their mouth open in short pauses to breathe (compare `silence_own`), and many clips have none. That pause is
    of zeros, quieter than any recording, and shifts what an encoder takes for the sound's mean.

    Args:
        run: see `load_run`; its newest checkpoint is used. other: a prepared clip of the foreign speaker.
        pause: seconds of digital silence appended for `pause`; 0 leaves that second video out.

    Raises:
        InputError: `other` is not a Dataset, a negative pause, a sound that does not suit the run's encoder.
        MissingPackageError: mediapipe is not installed. DatasetError: no checkpoint, dataset gone or changed.
    """
    if other is not None and not isinstance(other, Dataset):
        raise InputError("a Dataset as other", repr(other), "Open the folder with egs.load_dataset(folder).")
    if not 0 <= pause < 60:
        raise InputError("a pause of 0 ... 60 s", str(pause), "Use about 2 s, or 0 for none.")
    ds, number, speaker = run.dataset, run.pick(), other or run.dataset
    renderer = Renderer.from_run(run, number, device)
    script = _script(renderer, other)
    name = f"{run.root.name} < {speaker.root.name}"
    landmarks = _tracked(_pictures(renderer, script, name), len(script))
    driven = landmark_metrics.aperture(landmarks)
    own = _own_aperture(speaker, np.arange(len(script)) if other is not None else script.source)
    silent, speech = passages(script.wave, len(script))
    enough = silent.sum() >= MIN_SILENCE * FPS
    r, best, lag = landmark_metrics.correlation_and_lag(driven, own, MAX_LAG)
    return SyncScore(
        head=run.root.name, sound=speaker.root.name, foreign=other is not None, iteration=number, frames=len(script),
        frames_tracked=int(np.isfinite(driven).sum()), r=_number(r), best_r=_number(best),
        lag=None if np.isnan(lag) else int(lag), leak=_leak(ds, script, driven) if other is not None else None,
        movement=_ratio(_deviation(driven), _deviation(ds.aperture[ds.found])),
        silence=openness(driven, silent, speech) if enough else None,
        silence_own=openness(own, silent, speech) if enough else None,
        silence_seconds=float(silent.sum() / FPS), pause=_pause_score(renderer, other, pause, name),
        jitter=_jitter(ds, script, landmarks), driven=driven, own=own, silent=silent, wave=script.wave)


def _script(renderer: Renderer, other: Optional[Dataset], sound: Optional[Path] = None, start: float = 0.0) -> Script:
    """What is rendered: a foreign clip or a WAV on the head's poses, or the head's own validation frames."""
    if other is None and sound is None:
        return replay_script(renderer, "val")
    return audio_script(renderer, sound or other.root / "audio.wav", poses="cycle", start=start)


def _pictures(renderer: Renderer, script: Script, name: str) -> Iterator[np.ndarray]:
    with Progress(len(script), name, "frame") as bar:
        yield from renderer.pictures(script, 8, bar)


def _tracked(pictures: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Landmarks of consecutive pictures, [count, 478, 3] float32 px; NaN where no face was found."""
    from ..face.tracker import WARM_UP, FaceTracker

    landmarks, tracker = np.full((count, NUM_LANDMARKS, 3), np.nan, np.float32), FaceTracker()
    for i, picture in enumerate(pictures):
        for _ in range(WARM_UP if i == 0 else 0):
            tracker(picture)
        points = tracker(picture)
        if points is not None:
            landmarks[i] = points
    return landmarks


def _own_aperture(speaker: Dataset, ids: np.ndarray) -> np.ndarray:
    """The speaker's mouth opening in frames `ids`; NaN where no face was found, or beyond the clip's last frame."""
    known = np.append(np.where(speaker.found, speaker.aperture, np.nan), np.nan)
    return known[np.minimum(ids, len(speaker))].astype(np.float32)


def _leak(ds: Dataset, script: Script, driven: np.ndarray) -> Optional[float]:
    """A foreign sound knows nothing of the head's own clip: what follows that clip's mouth came another way."""
    return _number(landmark_metrics.correlation_and_lag(driven, _own_aperture(ds, script.source), 0)[0])


def _jitter(ds: Dataset, script: Script, landmarks: np.ndarray) -> Optional[float]:
    """Jitter of rigid landmarks on the render over that of the same landmarks in the frames that lent their poses.

    Both are found by the same tracker in pictures of the same size and order, so that its own noise does not tell
    them apart. Only frames that follow on from the one before count: where the poses turn back, frames repeat.
    """
    truth = _tracked((ds.frame(i) for i in script.source), len(script))
    unusable = np.isnan(landmarks).any((1, 2)) | np.isnan(truth).any((1, 2))
    unusable |= np.diff(script.source, prepend=script.source[0] - 1) != 1
    shown, truth = (np.where(unusable[:, None, None], np.nan, x[:, RIGID]) for x in (landmarks, truth))
    return _ratio(landmark_metrics.temporal_jitter(shown), landmark_metrics.temporal_jitter(truth))


def _pause_score(renderer: Renderer, other: Optional[Dataset], pause: float, name: str) -> Optional[float]:
    """Mouth opening in a pause after the sound over its mean in that video's speech."""
    speaker = other or renderer.ds
    if pause == 0:
        return None
    spoken, first = speaker.audio(), 0 if other is not None else speaker.num_train
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "pause.wav"
        save_wav(sound, np.concatenate([spoken, np.zeros(round(pause * SAMPLE_RATE), np.float32)]))
        script = _script(renderer, other, sound, first / FPS)
    driven = landmark_metrics.aperture(_tracked(_pictures(renderer, script, f"{name}, pause"), len(script)))
    silent, speech = passages(script.wave, len(script))
    silent[:frames_of(len(spoken)) - first] = False  # the clip's own pauses have a score of their own
    return openness(driven, silent, speech)


def openness(aperture: np.ndarray, silent: np.ndarray, speech: np.ndarray) -> Optional[float]:
    """Mean aperture [F] of silent frames over that of speech; None without either, or if the mouth never opens."""
    silent, speech = (aperture[which & np.isfinite(aperture)] for which in (silent, speech))
    if not len(silent) or not len(speech) or speech.mean() < SHUT:
        return None
    return float(silent.mean() / speech.mean())


def _deviation(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) else float("nan")


def _ratio(top: float, bottom: float) -> Optional[float]:
    return _number(top / bottom) if bottom > 0 else None


def _number(value: float) -> Optional[float]:
    return float(value) if np.isfinite(value) else None


# ---- many pairs ----

COLUMNS = ("r", "best_r", "lag", "leak", "movement", "silence", "silence_own", "pause", "jitter")


@dataclass(repr=False)
class SyncTable(Table):
    """A table of scores; `scores` are what it shows, in the same order, without the means."""

    scores: list[SyncScore] = field(default_factory=list)


def sync_table(runs: Sequence[Run], others: Sequence[Dataset] = (), device: Optional[str | torch.device] = None
               ) -> SyncTable:
    """Score every head on every other head's clip and on its own validation frames.

    Args:
        runs: one head a clip. others: further clips whose sound drives every head.

    Returns:
        a row for each pair, with means of the foreign and of the own voices (of a lag: of its size). A head is not
        driven by a clip with the same sound as its own.

    Raises: see `sync_score`.
    """
    speakers = [*[run.dataset for run in runs], *others]
    foreign = [sync_score(run, speaker, device) for run in runs for speaker in speakers
               if not np.array_equal(speaker.features, run.dataset.features)]
    return tabulate([*foreign, *[sync_score(run, None, device) for run in runs]])


def tabulate(scores: Sequence[SyncScore]) -> SyncTable:
    """Scores as rows, foreign voices first, each kind with its means."""
    rows, shown = [], []
    for foreign, kind in ((True, "foreign"), (False, "own")):
        chosen = [s for s in scores if s.foreign is foreign]
        shown += chosen
        rows += [(s.head, s.sound, kind, *[_short(getattr(s, c)) for c in COLUMNS]) for s in chosen]
        if chosen:
            rows.append(("mean", f"{len(chosen)}", kind, *[_short(_mean(chosen, c)) for c in COLUMNS]))
    return SyncTable(("head", "sound", "voice", *COLUMNS), rows, "Mouth and sound (see sync.ABOUT); means of a lag are "
                     "of its size", shown)


def _mean(scores: Sequence[SyncScore], column: str) -> Optional[float]:
    known = [getattr(s, column) for s in scores if getattr(s, column) is not None]
    return float(np.mean(np.abs(known) if column == "lag" else known)) if known else None


def _short(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value


