"""Training data of the phone encoder: log-mel power of synthesised speech with phone labels, and of real speech with
the teacher's posteriors.

    python tools/phones/features.py SHARDS DATA.npz --unpacked FOLDER

SHARDS: folder that synthesize.py wrote; the last shard is held out. The real speech is that of Debian's packages
asterisk-core-sounds-*-g722, asterisk-prompt-* and klettres-data (see README.md here). Needs hama (see teacher.py).
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np
import teacher

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.speech.phones import BANDS, log_power

#: folders of real speech, in the root folder or in that of unpacked packages
PROMPTS, LETTERS = Path("usr/share/asterisk/sounds"), Path("usr/share/klettres")
PROMPT_FILES = (".g722", ".wav", ".gsm")
JOINED = 12                    # files of one folder of letters and syllables that make one utterance
MIN_SECONDS, MAX_SECONDS = 1.0, 40.0  # other recordings are skipped
MAX_JOINED_SECONDS = 30        # the rest is cut
PEAK = 0.7                     # of each recording, after scaling
#: natural log of power in 8 bits, from below the encoder's floor: value = -21 + 0.25 * code
MIN_LOG_POWER, QUANTUM = -21.0, 0.25
UNKNOWN = 255                  # label of real speech

Labelled = tuple[np.ndarray, np.ndarray]
Real = tuple[np.ndarray, np.ndarray, np.ndarray]


class Data(NamedTuple):
    """All utterances, concatenated.

    Attributes:
        codes: uint8 [T, 40], see `coded`.
        labels: uint8 [T], classes of synthesised speech, and `UNKNOWN`.
        lengths: [N] steps of each utterance.
        held_out: [N] bool, which are held out.
        targets: uint8 [S, 2, 4] of the utterances of real speech, every 20 ms; see `teacher.targets`.
    """

    codes: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    held_out: np.ndarray
    targets: np.ndarray


def coded(wave: np.ndarray) -> np.ndarray:
    """Log-mel power of a 16 kHz wave [samples] as uint8 [ceil(samples / 160), 40], 10 ms apart."""
    log = log_power(wave).numpy()[:-(-len(wave) // 160)]
    return np.clip(np.rint((log - MIN_LOG_POWER) / QUANTUM), 0, 255).astype(np.uint8)


def synthesised(shard: Path) -> Iterator[Labelled]:
    """Codes [T, 40] and classes [T] of each utterance of a shard."""
    with np.load(shard) as data:
        waves = np.split(data["sound"], np.cumsum(data["samples"])[:-1])
        labels = np.split(data["labels"], np.cumsum(data["frames"])[:-1])
    for wave, classes in zip(waves, labels):
        yield coded(wave.astype(np.float32) / 32768), classes


def recordings(root: Path) -> list[list[Path]]:
    """The files of each utterance of real speech below a root folder: a prompt, or several letters of one voice."""
    # links of languages lead to the same files
    prompts = sorted({path.resolve() for path in (root / PROMPTS).glob("*/**/*")
                      if path.suffix in PROMPT_FILES and path.stat().st_size})
    letters = [sorted(folder.glob("*.ogg")) for folder in sorted((root / LETTERS).glob("*/*"))]
    return [[path] for path in prompts] + [files[at:at + JOINED] for files in letters
                                           for at in range(0, len(files), JOINED)]


def real(files: Sequence[Path]) -> Optional[Real]:
    """Codes [T, 40] of a recording, labels [T] that are all `UNKNOWN`, and the teacher's targets [ceil(T / 2), 2, 4].

    None if no file can be decoded (two prompts are damaged), or the recording is too short or too long.
    """
    waves = []
    for path in files:
        try:
            waves.append(load_audio(path))
        except InputError as error:
            print(f"skipped: {error}", flush=True)
    wave = np.concatenate(waves or [np.zeros(0, np.float32)])
    if len(files) > 1:
        wave = wave[:MAX_JOINED_SECONDS * SAMPLE_RATE]
    if not MIN_SECONDS <= len(wave) / SAMPLE_RATE <= MAX_SECONDS:
        return None
    wave = (wave * (PEAK / max(1e-4, np.abs(wave).max()))).astype(np.float32)
    codes = coded(wave)
    return codes, np.full(len(codes), UNKNOWN, np.uint8), teacher.targets(teacher.posteriors(wave), len(wave))


def save(path: Path, labelled: Sequence[Labelled], held_out: np.ndarray, recorded: Sequence[Real]) -> None:
    """Write the concatenated codes, labels and targets of all utterances, and their lengths.

    Codes are stored as differences from the previous step (modulo 256), which makes the file a fifth smaller.

    Args:
        path: file to write.
        labelled: codes [T, 40] and labels [T] of each synthesised utterance.
        held_out: [len(labelled)] bool, which of them are held out.
        recorded: codes, labels and targets of each utterance of real speech; see `real`.
    """
    parts = [*labelled, *(part[:2] for part in recorded)]
    codes = np.concatenate([codes for codes, _ in parts])
    np.savez_compressed(path, differences=np.diff(codes, axis=0, prepend=0 * codes[:1]),
                        held_out=np.append(held_out, np.zeros(len(recorded), bool)),
                        labels=np.concatenate([labels for _, labels in parts]),
                        lengths=np.array([len(labels) for _, labels in parts]),
                        targets=np.concatenate([targets for *_, targets in recorded]))


def load(path: Path) -> Data:
    """Read what `save` wrote.

    Raises:
        InputError: the file is of an earlier version.
    """
    with np.load(path) as data:
        codes = np.cumsum(data["differences"], axis=0, dtype=np.uint8)
        if codes.shape[1:] != (BANDS,) or "targets" not in data:
            raise InputError(f"log power in {BANDS} bands and a teacher's targets",
                             f"{', '.join(data)} with {list(codes.shape)} in {path}", "Run features.py again.")
        return Data(codes, data["labels"], data["lengths"], data["held_out"], data["targets"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unpacked", type=Path, help="folder of packages that were unpacked instead of installed")
    args = parser.parse_args()
    teacher.recogniser()  # fails early if hama is missing
    shards = sorted(args.shards.glob("shard*.npz"))
    if len(shards) < 2:
        raise InputError("two shards or more", f"{len(shards)} in {args.shards}", "Run synthesize.py first.")
    roots = [Path("/")] + ([args.unpacked] if args.unpacked else [])
    found = [files for root in roots for files in recordings(root)]
    if not found:
        raise InputError(f"recordings in {PROMPTS} or {LETTERS} below {' or '.join(map(str, roots))}", "none",
                         "Install the packages that tools/phones/README.md lists.")
    training = [part for shard in shards[:-1] for part in synthesised(shard)]
    held = list(synthesised(shards[-1]))
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        recorded = [part for part in pool.imap(real, found, 16) if part is not None]
    save(args.out, [*held, *training], np.arange(len(held) + len(training)) < len(held), recorded)
    for name, parts in (("synthesised", training), ("synthesised and held out", held), ("real", recorded)):
        print(f"{name}: {sum(len(part[1]) for part in parts) / 360_000:.2f} h, {len(parts)} utterances")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
