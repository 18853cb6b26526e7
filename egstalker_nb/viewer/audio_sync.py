"""HTML that keeps the sound in the browser at the frame that is shown.

viser has no audio of its own, but its panel shows HTML. The sound lies in the page as one audio element; with every
few frames a short piece of HTML follows, whose image runs the script when it is loaded. As it travels in the same
connection as the frames, the sound follows what the page shows, however slow the connection: it is corrected where it
is off, and paused where nothing comes any more.
"""
from __future__ import annotations

import base64
import io
import wave as wave_file
from html import escape

import numpy as np

from ..media.rates import SAMPLE_RATE

NUDGE, JUMP = 0.04, 0.25  # s between sound and frames: above, the sound's speed is changed by 5 %, or it is set anew
SILENCE_AFTER = 1500  # ms without a message, after which the sound pauses
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
# `lag` is what the sound was off by at the last message, for tests and for whoever looks
_SCRIPT = """
const sound = document.getElementById('egs-sound');
if (sound) {
  clearTimeout(window.egsSilence);
  const [at, rate, playing] = [%(at)f, %(rate)f, %(playing)s];
  const hint = document.getElementById('egs-sound-blocked');
  const off = sound.currentTime - at;
  if (Math.abs(off) > %(jump)f || !playing) sound.currentTime = at;
  sound.playbackRate = rate * (off > %(nudge)f ? 0.95 : off < -%(nudge)f ? 1.05 : 1);
  sound.dataset.lag = off;
  if (!playing) sound.pause();
  else {
    if (sound.paused) sound.play().then(() => hint.hidden = true, () => hint.hidden = false);
    window.egsSilence = setTimeout(() => sound.pause(), %(silence)d);
  }
}
"""


def sound_html(wave: np.ndarray) -> str:
    """The audio element.

    Args:
        wave: [T] float32 -1...1, 16 kHz.
    """
    data = base64.b64encode(_wav(wave)).decode()
    return (f'<audio id="egs-sound" preload="auto" src="data:audio/wav;base64,{data}"></audio>'
            '<button id="egs-sound-blocked" hidden style="margin: 0 1em" onclick="document.getElementById('
            "'egs-sound').play(); this.hidden = true\">Switch on the sound</button>")


def sync_html(position: float, rate: float, playing: bool) -> str:
    """What sets the audio element right when it arrives.

    Args:
        position: of the frame that is shown, in seconds.
        rate: seconds of sound per second.
        playing: whether the sound plays.
    """
    script = _SCRIPT % {"at": position, "rate": rate, "playing": str(playing).lower(), "jump": JUMP, "nudge": NUDGE,
                        "silence": SILENCE_AFTER}
    return f'<img hidden src="{_PIXEL}" onload="{escape(script)}">'


def _wav(wave: np.ndarray) -> bytes:
    """A WAV file of 16 bits."""
    memory = io.BytesIO()
    with wave_file.open(memory, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((np.clip(wave, -1, 1) * 32767).round().astype("<i2").tobytes())
    return memory.getvalue()
