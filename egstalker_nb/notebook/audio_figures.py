"""Figures of driving audio: predicted mouth opening over time and by sound, attention, lip sync."""
from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..analysis.audio_curves import ATTENTION_PARTS, PART_LABELS, AudioCurves
from ..evaluation.lip_sync import SyncScore
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..model.deformation import TOKENS
from . import plots

SHUT_SOUNDS = "sil", "b", "m"  # classes of phones (b also stands for p), drawn hatched


def audio_figure(curves: AudioCurves, frame: int) -> Figure:
    """Waveform, audio features and predicted mouth opening over time, with a cursor at `frame`."""
    figure, axes = plots.subplots(3, height=2.4)
    end = len(curves) / FPS
    plots.curve(axes[0], *curves.outline(), linewidth=0.6)
    plots.label(axes[0], "time (s)", "amplitude", "audio")
    _, strip = curves.strip()
    axes[1].imshow(strip, aspect="auto", origin="lower", extent=(0, end, 0, len(strip)), cmap="magma", vmin=0, vmax=1,
                   interpolation="nearest")
    axes[1].set_yticks(np.arange(len(strip)) + 0.5, curves.channels, fontsize=6)
    axes[1].set(xlabel="time (s)", ylabel="channel", title="audio features (bright: strong)")
    plots.curve(axes[2], curves.time, curves.opening)
    axes[2].fill_between(curves.time, 0, 1, where=curves.silent > 0.5, transform=axes[2].get_xaxis_transform(),
                         color="#7f7f7f", alpha=0.25, linewidth=0, label="silence")
    plots.label(axes[2], "time (s)", "lip gap /\nface height", "predicted mouth opening")
    axes[0].get_gridspec().set_height_ratios([1, 2.6, 1])
    for axis, colour in zip(axes, ("#222222", "white", "#222222")):
        axis.set_xlim(0, end)
        axis.axvline(frame / FPS, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    return figure


def sound_figure(curves: AudioCurves) -> Figure:
    """The predicted mouth by sound: mean opening and width over the frames in which the sound is the strongest.

    Sounds are sorted by their opening, those that shut the lips are hatched, and the number of frames stands on each
    bar. Sounds with few frames are left out, see `AudioCurves.by_sound`.
    """
    means = curves.by_sound()
    names = [mean.sound for mean in means]
    figure, axes = plots.subplots(2, height=2.5)
    for axis, values, base in ((axes[0], [mean.opening for mean in means], 0.0),
                               (axes[1], [mean.width for mean in means], float(curves.width.mean()))):
        bars = axis.bar(range(len(names)), np.subtract(values, base), color=plots.STYLES[0][0])
        for bar, name in zip(bars, names):
            if name in SHUT_SOUNDS:
                bar.set(facecolor="white", edgecolor=plots.STYLES[1][0], hatch="///")
        axis.set_xticks(range(len(names)), names)
        axis.set_axisbelow(True)
    axes[0].bar_label(axes[0].containers[0], [str(mean.frames) for mean in means], fontsize=7, padding=1)
    axes[0].axhline(curves.shut, color="#222222", linewidth=1, linestyle="--", label="closed mouth of the clip")
    plots.label(axes[0], "sound (hatched: shuts the lips)", "lip gap /\nface height",
                "mean predicted mouth opening, with the number of frames")
    axes[0].legend(frameon=False, loc="upper left")
    axes[0].margins(y=0.15)
    plots.label(axes[1], "sound", "width / face height,\nless the mean", "mean predicted mouth width (up: wide)")
    return figure


def attention_figure(curves: AudioCurves, frame: int) -> Figure:
    """Attention of mouth, eyes and the rest of the head to the tokens over time, with a cursor at `frame`."""
    figure, axes = plots.subplots(len(ATTENTION_PARTS), height=1.9)
    for axis, part in zip(axes, PART_LABELS):
        for style, token in enumerate(TOKENS):
            plots.curve(axis, curves.time, curves.attention[:, ATTENTION_PARTS.index(part), style], token, style)
        plots.label(axis, "time (s)", "attention\n(0 ... 1)", PART_LABELS[part])
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="token")
        axis.set(xlim=(0, len(curves) / FPS), ylim=(0, 1))
        axis.axvline(frame / FPS, color="#222222", linewidth=1.2, linestyle=(0, (4, 2)))
    return figure


def lip_sync_figure(score: SyncScore) -> Figure:
    """The audio (silence shaded), and the mouth opening of the rendering and of the speaker, over time."""
    figure, axes = plots.subplots(2, height=1.9)
    time, end = np.arange(score.frames) / FPS, score.frames / FPS
    stride = max(1, len(score.wave) // 20_000)
    plots.curve(axes[0], np.arange(0, len(score.wave), stride) / (FPS * SAMPLES_PER_FRAME), score.wave[::stride],
                linewidth=0.5)
    plots.label(axes[0], "time (s)", "amplitude", f"audio of {score.sound} (shaded: silence)")
    plots.curve(axes[1], time, score.driven, f"rendering of {score.head}")
    plots.curve(axes[1], time, score.own, score.sound, 1)
    r = "not measured" if score.r is None else f"r = {score.r:.2f}"
    plots.label(axes[1], "time (s)", "lip gap /\nface height", f"mouth opening ({r})")
    axes[1].legend(frameon=False, ncols=2, loc="upper left")
    axes[1].set_ylim(0, 1.35 * axes[1].dataLim.ymax)  # space for the legend
    for axis in axes:
        axis.set_xlim(0, end)
        for begin, stop in np.flatnonzero(np.diff(np.pad(score.silent, 1))).reshape(-1, 2) / FPS:
            axis.axvspan(begin, stop, color="#3d8f6e", alpha=0.2)
    return figure
