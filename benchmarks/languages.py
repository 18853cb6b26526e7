"""The mouth against the phones of synthesised speech in seven languages, before anything is drawn; see `prior.py`."""
from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from intervals import correlation, row
from prior_speech import PER_FRAME, VARIANTS, Head, analysed, synthesize

from egstalker_nb.media.audio import frames_of
from egstalker_nb.speech import phones

OPENNESS = np.array([phones.OPENNESS[name] for name in phones.CLASSES], np.float32)
WIDTH = 10                     # intervals of 10 ms over which the openness of a frame is averaged
#: language -> voice of espeak-ng, and the Universal Declaration of Human Rights, article 1
SPOKEN = {
    "English": ("en-us", "All human beings are born free and equal in dignity and rights. They are endowed with reason "
                "and conscience and should act towards one another in a spirit of brotherhood."),
    "German": ("de", "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
               "Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen."),
    "French": ("fr", "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de "
               "raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité."),
    "Spanish": ("es", "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de "
                "razón y conciencia, deben comportarse fraternalmente los unos con los otros."),
    # in kana: espeak-ng does not read kanji
    "Japanese": ("ja", "すべてのにんげんは、うまれながらにしてじゆうであり、かつ、そんげんとけんりとについて"
                 "びょうどうである。にんげんは、りせいとりょうしんとをさずけられており、たがいにどうほうの"
                 "せいしんをもってこうどうしなければならない。"),
    "Mandarin": ("cmn", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"),
    "Arabic": ("ar", "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم "
               "بعضا بروح الإخاء."),
}


def at_frames(openness: np.ndarray, frames: int) -> np.ndarray:
    """Openness of 10 ms intervals [T] -> mean of the 0.1 s around each frame [frames], 0 outside the audio."""
    padded = np.zeros(PER_FRAME * frames + WIDTH, np.float32)
    used = openness[:len(padded) - WIDTH // 2]
    padded[WIDTH // 2:WIDTH // 2 + len(used)] = used
    return np.lib.stride_tricks.sliding_window_view(padded, WIDTH)[::PER_FRAME][:frames].mean(1)


def predicted_openness(wave: np.ndarray, frames: int) -> np.ndarray:
    """Openness of the phones that the built-in encoder predicts, at each frame: [frames]."""
    steps = phones.steps(wave) ** 2 @ OPENNESS
    return at_frames(np.repeat(steps, 2)[1:], frames)  # a step covers 10 ms before and after its time


def languages(heads: Sequence[Head]) -> list[dict[str, Any]]:
    """Correlation with the openness of the phones spoken (`phones.OPENNESS`, smoothed over 0.1 s, at 25 fps).

    Args:
        heads: whose mouths are driven; their correlations are averaged.

    Returns:
        for each language a row for the phones that the encoder predicts, and one for the mouth; voices count as
        speakers.
    """
    espeak, rows = synthesize.Espeak(), []
    for language, (voice, text) in SPOKEN.items():
        encoder, mouth, names = [], [], []
        for variant in VARIANTS:
            wave, labels = espeak(text, voice + variant)
            wave = np.clip(wave, -1, 1)
            audio = analysed(wave)
            truth = at_frames(OPENNESS[labels], frames_of(len(wave)))
            encoder.append(correlation(predicted_openness(wave, len(truth)), truth))
            mouth.append(float(np.mean([correlation(head.driven(audio)[:, 0], truth) for head in heads])))
            names.append(voice + variant)
        rows += [row("openness that the encoder predicts", language, encoder, names),
                 row("opening of the mouth", language, mouth, names)]
    return rows
