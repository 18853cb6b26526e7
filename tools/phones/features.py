"""Training data of the phone encoder: log-mel power of synthesised speech with phone labels, and of real speech.

    python tools/phones/features.py SHARDS DATA.npz

SHARDS: folder that synthesize.py wrote; the last shard is held out. The real speech is that of Debian's packages
asterisk-core-sounds-*-g722 (see README.md here).
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.speech.phones import BANDS, log_power

PROMPTS = Path("/usr/share/asterisk/sounds")
MIN_SECONDS = 1.0              # shorter prompts are skipped
#: natural log of power in 8 bits, from below the encoder's floor: value = -21 + 0.25 * code
MIN_LOG_POWER, QUANTUM = -21.0, 0.25
UNKNOWN = 255                  # label of real speech


def coded(wave: np.ndarray) -> np.ndarray:
    """Log-mel power of a 16 kHz wave [samples] as uint8 [ceil(samples / 160), 40], 10 ms apart."""
    log = log_power(wave).numpy()[:-(-len(wave) // 160)]
    return np.clip(np.rint((log - MIN_LOG_POWER) / QUANTUM), 0, 255).astype(np.uint8)


def synthesised(shard: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Codes [T, 40] and classes [T] of each utterance of a shard."""
    with np.load(shard) as data:
        waves = np.split(data["sound"], np.cumsum(data["samples"])[:-1])
        labels = np.split(data["labels"], np.cumsum(data["frames"])[:-1])
    for wave, classes in zip(waves, labels):
        yield coded(wave.astype(np.float32) / 32768), classes


def real() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Codes [T, 40] of each prompt, and labels [T] that are all `UNKNOWN`."""
    for path in sorted(PROMPTS.glob("*/**/*.g722")):
        if path.stat().st_size == 0:
            continue
        wave = load_audio(path)
        if len(wave) >= MIN_SECONDS * SAMPLE_RATE:
            codes = coded(wave)
            yield codes, np.full(len(codes), UNKNOWN, np.uint8)


def save(path: Path, parts: Sequence[tuple[np.ndarray, np.ndarray]], held_out: np.ndarray) -> None:
    """Write the concatenated codes and labels of all utterances, and their lengths.

    Codes are stored as differences from the previous step (modulo 256), which makes the file a fifth smaller.

    Args:
        path: file to write.
        parts: codes [T, 40] and labels [T] of each utterance.
        held_out: [N] bool, which utterances are held out.
    """
    codes = np.concatenate([codes for codes, _ in parts])
    np.savez_compressed(path, differences=np.diff(codes, axis=0, prepend=0 * codes[:1]), held_out=held_out,
                        labels=np.concatenate([labels for _, labels in parts]),
                        lengths=np.array([len(labels) for _, labels in parts]))


def load(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Concatenated codes [T, 40] and labels [T], lengths [N] of the utterances, and which are held out [N]."""
    with np.load(path) as data:
        codes = np.cumsum(data["differences"], axis=0, dtype=np.uint8)
        if codes.shape[1:] != (BANDS,):
            raise InputError(f"log power in {BANDS} bands", f"{list(codes.shape)} in {path}", "Run features.py again.")
        return codes, data["labels"], data["lengths"], data["held_out"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    shards = sorted(args.shards.glob("shard*.npz"))
    if len(shards) < 2:
        raise InputError("two shards or more", f"{len(shards)} in {args.shards}", "Run synthesize.py first.")
    training = [part for shard in shards[:-1] for part in synthesised(shard)]
    held, prompts = list(synthesised(shards[-1])), list(real())
    if not prompts:
        raise InputError(f"prompts in {PROMPTS}", "none", "Install the packages that tools/phones/README.md lists.")
    held_out = np.zeros(len(training) + len(held) + len(prompts), bool)
    held_out[:len(held)] = True
    save(args.out, [*held, *training, *prompts], held_out)
    for name, parts in (("synthesised", training), ("synthesised and held out", held), ("real", prompts)):
        print(f"{name}: {sum(len(labels) for _, labels in parts) / 360_000:.2f} h, {len(parts)} utterances")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
