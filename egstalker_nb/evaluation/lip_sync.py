"""How well the mouth of a trained head follows audio, of its clip or of another speaker, and how stable the head is."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Sequence

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
from ..rendering.renderer import Renderer
from ..rendering.script import Script, audio_script, replay_script
from ..speech.voice_activity import passages
from ..training.run import Run

MAX_LAG = 5            # frames searched in both directions
MIN_SILENCE = 0.3      # seconds of silence from which it is scored
MIN_OPENING = 1e-4     # mean mouth opening (share of face height) below which the mouth counts as closed throughout

#: score -> meaning
SCORE_MEANINGS = {
    "r": "correlation of the mouth opening on the rendering with the speaker's, frame by frame",
    "best_r": f"the highest within {MAX_LAG} frames of lag",
    "lag": "frames, the lag at that correlation; positive: the rendering is late",
    "leak": "correlation of the mouth opening on the rendering with that in the frames of the poses used; 0: ideal",
    "movement": "standard deviation of the mouth opening over that in the training clip",
    "silence": "mean mouth opening in silence over that in speech; 0: closed, 1: no difference",
    "silence_own": "the same for the speaker, whose mouth may be open to breathe",
    "silence_seconds": "s of silence in the audio, without the time in which the mouth closes and opens",
    "pause": "as silence, on a rendering of the audio with digital silence appended",
    "jitter": "jitter of rigid landmarks on the rendering over that in the clip; 1: no difference",
    "frames": "frames rendered", "frames_tracked": "rendered frames in which a face was found",
}


@dataclass
class SyncScore:
    """How well one head follows one audio; shows itself as a table. None: could not be measured.

    Attributes:
        head: name of the run.
        sound: name of the dataset that the audio is from.
        foreign: the audio is not that of the head's own validation frames.
        iteration: of the checkpoint.
        frames, frames_tracked, r, best_r, lag, leak, movement, silence, silence_own, silence_seconds, pause, jitter:
            see `SCORE_MEANINGS`.
        driven: [F] mouth opening (inner lip gap over face height) on the rendering; NaN: no face found.
        own: [F] the speaker's; NaN: no face found.
        silent: [F] bool, see `passages`.
        wave: [F * 640] float32, the audio at 16 kHz.
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
        """All values with their meanings."""
        kind = "" if self.foreign else " (own voice, validation frames)"
        caption = f"{self.head}, iteration {self.iteration}, driven by {self.sound}{kind}"
        return attributes(self, SCORE_MEANINGS, caption)

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def as_dict(self) -> dict[str, Any]:
        """Everything but the audio, JSON-able (NaN becomes None)."""
        def plain(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            if value.dtype == bool:
                return np.flatnonzero(value).tolist()
            return [round(float(x), 5) if np.isfinite(x) else None for x in value]

        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "wave"}


# ---- one head, one audio ----

def sync_score(run: Run, other: Optional[Dataset] = None, device: Optional[str | torch.device] = None,
               pause: float = 2.0) -> SyncScore:
    """Drive a head with audio, track the mouth on the rendering, and compare it with the speaker's.

    With `other`, its whole clip is the audio, which the head was not trained on; the head's own poses are played back
    and forth. Without, the head's own validation frames are replayed. They are few (a tenth of the clip), so that the
    standard error of `r` is about 1 / sqrt(frames), and `best_r` is biased upwards by the choice of the lag.

    Silence is scored on the mouth opening as it is: the inner lips of a closed mouth touch, so that 0 is closed for
    every face. It is measured in the pauses of the audio (None if they last less than 0.3 s together), and in a second
    rendering, of the same audio with a pause appended. The second one is more reliable: speakers keep their mouth open
    in short pauses to breathe (compare `silence_own`), and many clips have none. The appended pause consists of zeros,
    quieter than any recording, and changes the mean by which an encoder normalises.

    Args:
        run: see `load_run`; its newest checkpoint is used.
        other: a prepared clip of another speaker.
        device: cpu or cuda; by default cuda where available.
        pause: seconds of digital silence appended for `pause`; 0 skips the second rendering.

    Raises:
        InputError: `other` is not a Dataset, a negative pause, audio that does not suit the run's encoder.
        MissingPackageError: mediapipe is not installed.
        DatasetError: no checkpoint, dataset missing or changed.
    """
    if other is not None and not isinstance(other, Dataset):
        raise InputError("a Dataset as other", repr(other), "Open the folder with egs.load_dataset(folder).")
    if not 0 <= pause < 60:
        raise InputError("a pause of 0 ... 60 s", str(pause), "Use about 2 s, or 0 for none.")
    ds, number, speaker = run.dataset, run.pick(), other or run.dataset
    renderer = Renderer.from_run(run, number, device)
    script, source, wave = _script(renderer, other)
    name = f"{run.root.name} < {speaker.root.name}"
    landmarks = tracked_landmarks(rendered_frames(renderer, script, name), len(script))
    driven = landmark_metrics.aperture(landmarks)
    own = _own_aperture(speaker, np.arange(len(script)) if other is not None else source)
    silent, speech = passages(wave, len(script))
    enough = silent.sum() >= MIN_SILENCE * FPS
    r, best, lag = landmark_metrics.correlation_and_lag(driven, own, MAX_LAG)
    return SyncScore(
        head=run.root.name, sound=speaker.root.name, foreign=other is not None, iteration=number, frames=len(script),
        frames_tracked=int(np.isfinite(driven).sum()), r=_finite_or_none(r), best_r=_finite_or_none(best),
        lag=None if np.isnan(lag) else int(lag), leak=_leak(ds, source, driven) if other is not None else None,
        movement=_ratio_or_none(_deviation(driven), _deviation(ds.aperture[ds.found])),
        silence=opening_in_silence(driven, silent, speech) if enough else None,
        silence_own=opening_in_silence(own, silent, speech) if enough else None,
        silence_seconds=float(silent.sum() / FPS), pause=_pause_score(renderer, other, pause, name),
        jitter=_jitter(ds, source, landmarks), driven=driven, own=own, silent=silent, wave=wave)


def _script(renderer: Renderer, other: Optional[Dataset], audio: Optional[Path] = None, start: float = 0.0
            ) -> tuple[Script, np.ndarray, np.ndarray]:
    """What to render: the audio of another clip or of a WAV with the head's poses, or the head's validation frames.

    Returns:
        the script; [F] int, the frames of the head's clip that the poses are from; the audio [samples].
    """
    if audio is None and other is not None:
        audio = other.root / "audio.wav"
    script = (replay_script(renderer, "val") if audio is None else
              audio_script(renderer, audio, poses="cycle", start=start))
    assert script.source is not None and script.wave is not None  # both kinds of script have them
    return script, script.source, script.wave


def rendered_frames(renderer: Renderer, script: Script, name: str) -> Iterator[np.ndarray]:
    """The frames of a script, [S, S, 3] uint8 each, with a progress line."""
    with Progress(len(script), name, "frame") as bar:
        yield from renderer.frames(script, 8, bar)


def tracked_landmarks(images: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Landmarks of `count` consecutive images, [count, 478, 3] float32 px; NaN where no face was found."""
    from ..face.tracker import WARM_UP, FaceTracker

    landmarks, tracker = np.full((count, NUM_LANDMARKS, 3), np.nan, np.float32), FaceTracker()
    for i, image in enumerate(images):
        for _ in range(WARM_UP if i == 0 else 0):
            tracker(image)
        points = tracker(image)
        if points is not None:
            landmarks[i] = points
    return landmarks


def _own_aperture(speaker: Dataset, ids: np.ndarray) -> np.ndarray:
    """The speaker's mouth opening in frames `ids`; NaN where no face was found, and beyond the end of the clip."""
    known = np.append(np.where(speaker.found, speaker.aperture, np.nan), np.nan)
    return known[np.minimum(ids, len(speaker))].astype(np.float32)


def _leak(ds: Dataset, source: np.ndarray, driven: np.ndarray) -> Optional[float]:
    """Correlation with the mouth of the head's own clip: other audio has no information on it, so that any correlation
    comes from another input, such as the pose."""
    return _finite_or_none(landmark_metrics.correlation_and_lag(driven, _own_aperture(ds, source), 0)[0])


def _jitter(ds: Dataset, source: np.ndarray, landmarks: np.ndarray) -> Optional[float]:
    """Jitter of rigid landmarks on the rendering over that of the same landmarks in the frames that the poses are from.

    Both are tracked in images of the same size and order by the same tracker, so that its noise affects both alike.
    Only frames that follow their predecessor in the clip count: where the poses reverse, frames repeat.

    Args:
        ds: the head's clip.
        source: [F] int, its frames that the poses are from.
        landmarks: [F, 478, 3] px on the rendering, NaN without a face.
    """
    truth = tracked_landmarks((ds.frame(i) for i in source), len(source))
    unusable = np.isnan(landmarks).any((1, 2)) | np.isnan(truth).any((1, 2))
    unusable |= np.diff(source, prepend=source[0] - 1) != 1
    rendered, truth = (np.where(unusable[:, None, None], np.nan, x[:, RIGID]) for x in (landmarks, truth))
    return _ratio_or_none(landmark_metrics.temporal_jitter(rendered), landmark_metrics.temporal_jitter(truth))


def _pause_score(renderer: Renderer, other: Optional[Dataset], pause: float, name: str) -> Optional[float]:
    """Mean mouth opening in a pause appended to the audio, over that in the speech of the same rendering."""
    speaker = other or renderer.ds
    if pause == 0:
        return None
    spoken, first = speaker.audio(), 0 if other is not None else speaker.num_train
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "pause.wav"
        save_wav(audio, np.concatenate([spoken, np.zeros(round(pause * SAMPLE_RATE), np.float32)]))
        script, _, wave = _script(renderer, other, audio, first / FPS)
    images = rendered_frames(renderer, script, f"{name}, pause")
    driven = landmark_metrics.aperture(tracked_landmarks(images, len(script)))
    silent, speech = passages(wave, len(script))
    silent[:frames_of(len(spoken)) - first] = False  # pauses of the clip itself are scored by `silence`
    return opening_in_silence(driven, silent, speech)


def opening_in_silence(aperture: np.ndarray, silent: np.ndarray, speech: np.ndarray) -> Optional[float]:
    """Mean mouth opening in silent frames over that in speech.

    Args:
        aperture: [F], NaN where unknown.
        silent, speech: [F] bool.

    Returns:
        the ratio; None without silence or speech, or if the mouth never opens.
    """
    silent, speech = (aperture[which & np.isfinite(aperture)] for which in (silent, speech))
    if not len(silent) or not len(speech) or speech.mean() < MIN_OPENING:
        return None
    return float(silent.mean() / speech.mean())


def _deviation(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std()) if len(values) else float("nan")


def _ratio_or_none(top: float, bottom: float) -> Optional[float]:
    return _finite_or_none(top / bottom) if bottom > 0 else None


def _finite_or_none(value: float) -> Optional[float]:
    return float(value) if np.isfinite(value) else None


# ---- many pairs ----

SCORE_COLUMNS = ("r", "best_r", "lag", "leak", "movement", "silence", "silence_own", "pause", "jitter")


@dataclass(repr=False)
class SyncTable(Table):
    """A table of scores.

    Attributes:
        scores: those in the rows, in the same order, without the means.
    """

    scores: list[SyncScore] = field(default_factory=list)


def sync_table(runs: Sequence[Run], others: Sequence[Dataset] = (), device: Optional[str | torch.device] = None
               ) -> SyncTable:
    """Score every head on every other head's clip and on its own validation frames.

    Args:
        runs: one head for each clip.
        others: further clips whose audio drives every head.
        device: cpu or cuda; by default cuda where available.

    Returns:
        a row for each pair, with means over other speakers' and over own audio (of a lag: of its absolute value). A
        head is not driven by a clip with the same audio as its own.

    Raises:
        EgsError: see `sync_score`.
    """
    speakers = [*[run.dataset for run in runs], *others]
    foreign = [sync_score(run, speaker, device) for run in runs for speaker in speakers
               if not np.array_equal(speaker.features, run.dataset.features)]
    return tabulate([*foreign, *[sync_score(run, None, device) for run in runs]])


def tabulate(scores: Sequence[SyncScore]) -> SyncTable:
    """Scores as rows, those with other speakers' audio first, each group with its means."""
    rows: list[tuple] = []
    ordered: list[SyncScore] = []
    for foreign, kind in ((True, "foreign"), (False, "own")):
        chosen = [s for s in scores if s.foreign is foreign]
        ordered += chosen
        rows += [(s.head, s.sound, kind, *[_two_decimals(getattr(s, c)) for c in SCORE_COLUMNS]) for s in chosen]
        if chosen:
            rows.append(("mean", f"{len(chosen)}", kind, *[_two_decimals(_mean(chosen, c)) for c in SCORE_COLUMNS]))
    caption = "Lip sync (columns as in the table of egs.sync_score); means of lags are of absolute values"
    return SyncTable(("head", "sound", "voice", *SCORE_COLUMNS), rows, caption, ordered)


def _mean(scores: Sequence[SyncScore], column: str) -> Optional[float]:
    known = [getattr(s, column) for s in scores if getattr(s, column) is not None]
    return float(np.mean(np.abs(known) if column == "lag" else known)) if known else None


def _two_decimals(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value
