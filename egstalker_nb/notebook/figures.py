"""Figures of datasets, heads and renderings. Each function returns a Figure; save it with `plots.finish`."""
from __future__ import annotations

from dataclasses import replace
from typing import Optional, Sequence, cast

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..analysis import mouth_prediction
from ..data.dataset import Dataset
from ..face.landmarks import LIPS
from ..face.pose_math import euler
from ..media.audio import steps_of
from ..media.rates import FPS, SAMPLES_PER_FRAME
from ..metrics.image_metrics import psnr
from ..metrics.landmark_metrics import correlation_and_lag
from ..model.gaussians import SH_C0
from ..rendering.inspection import crop_mouth, mean_faces, offsets, project_points, render_frames, render_values
from ..rendering.motion import middle_frame
from ..rendering.renderer import Renderer
from ..speech.encoders import channel_names
from ..speech.prior import built_in_prior
from . import plots

LIGHT = 0.92                # grey of a plain background
MASK_COLOURS = np.array([(230, 120, 60), (70, 120, 210), (90, 90, 90)], np.float32)  # head, torso, background
INNER_LIPS = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]


# ---- the dataset ----

def anatomy(ds: Dataset, i: int) -> Figure:
    """One frame with its landmarks, masks and background plate, and the targets of torso layer and head."""
    frame, mask = ds.frame(i), ds.mask(i)
    share = mask[..., None].astype(np.float32) / 255                                # [S, S, 3, 1]
    tinted = 0.45 * frame + 0.55 * (share * MASK_COLOURS).sum(2)
    head, torso = ((share[:, :, k] * frame + (1 - share[:, :, k]) * 255 * LIGHT).astype(np.uint8) for k in (0, 1))
    images = [frame, frame, tinted.astype(np.uint8), ds.plate, torso, head]
    names = [f"frame {i}", "landmarks, mouth, eyes", "masks: head, torso, rest", "background plate",
             "target of the torso layer", "target of the head"]
    figure = plots.image_grid(images, names, columns=3)
    axis = figure.axes[1]
    x, y = ds.landmarks[i, :, :2].T - 0.5
    axis.scatter(x, y, s=1.5, c="#00e0a0", linewidths=0)
    for x0, y0, x1, y1 in (ds.lip_rect[i], ds.eye_rect[i]):
        axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#ffd23f", linewidth=1)
    axis.set(xlim=(-0.5, ds.size - 0.5), ylim=(ds.size - 0.5, -0.5))
    return figure


def _audio(axes: Sequence[Axes], wave: np.ndarray, features: np.ndarray, encoder: dict) -> None:
    """Waveform and audio features over time; the features three times as high, for the names of the channels."""
    end, strip = len(features) / FPS, steps_of(features).T
    stride = max(1, len(wave) // 20_000)
    plots.curve(axes[0], np.arange(0, len(wave), stride) / (FPS * SAMPLES_PER_FRAME), wave[::stride], linewidth=0.5)
    plots.label(axes[0], "time (s)", "amplitude", "audio")
    low, high = np.percentile(strip, (1, 99))
    axes[1].imshow(strip, aspect="auto", origin="lower", extent=(0, end, 0, len(strip)), vmin=low,
                   vmax=max(high, low + 1e-6), cmap="magma", interpolation="nearest")
    axes[1].set(xlabel="time (s)", ylabel="channel", title="audio features (bright: strong)")
    names = channel_names(encoder, len(strip))
    axes[1].set_yticks(np.arange(len(names)) + 0.5, names, fontsize=6)
    grid = axes[1].get_gridspec()
    if grid is not None:
        grid.set_height_ratios([3 if axis is axes[1] else 1 for axis in axes[0].figure.axes])
    for axis in axes:
        axis.set_xlim(0, end)


def signals(ds: Dataset, axes: Optional[Sequence[Axes]] = None) -> Figure:
    """Audio, features, mouth opening and blink of the whole clip over time; validation frames shaded.

    Args:
        ds: the dataset.
        axes: four axes to draw into; default: those of a new figure.
    """
    axes = plots.subplots(4, height=2.3)[1].tolist() if axes is None else axes
    time = np.arange(len(ds)) / FPS
    _audio(axes[:2], ds.audio(), ds.features, ds.encoder)
    plots.curve(axes[2], time, ds.aperture)
    plots.label(axes[2], "time (s)", "lip gap /\nface height", "mouth opening")
    plots.curve(axes[3], time, ds.blink, style=1)
    plots.label(axes[3], "time (s)", "0 open,\n1 closed", "eyelids")
    for axis in axes:
        axis.set_xlim(0, len(ds) / FPS)
        axis.axvspan(ds.num_train / FPS, len(ds) / FPS, color="#3d8f6e", alpha=0.2)
    axes[0].set_title("audio (shaded: validation frames)")
    return cast(Figure, axes[0].figure)


def head_pose(ds: Dataset) -> Figure:
    """Yaw, pitch and roll of the head over time, and the reprojection error of the rigid landmarks."""
    figure, axes = plots.subplots(2, height=2.0)
    time = np.arange(len(ds)) / FPS
    for k, name in enumerate(("yaw (to the right)", "pitch (downwards)", "roll (to the right)")):
        plots.curve(axes[0], time, euler(ds.w2c)[:, k], name, k)
    plots.label(axes[0], "time (s)", "angle (degrees)", "head pose")
    axes[0].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    plots.curve(axes[1], time, ds.reprojection)
    plots.label(axes[1], "time (s)", f"error (px of {ds.size})", "reprojection error of the rigid landmarks")
    axes[1].set_ylim(0)
    return figure


# ---- a head ----

def gaussians_on_frame(renderer: Renderer, i: int) -> Figure:
    """Frame i, the centres of the canonical Gaussians on it, their scales and colours, and the rendering."""
    head, ds = renderer.head, renderer.ds
    pixels, depth = project_points(ds, renderer.w2c[i], head.gaussians["means"])
    colours = (0.5 + SH_C0 * head.gaussians["sh0"][:, 0].detach().cpu().numpy()).clip(0, 1)
    radius = head.gaussians["scales"].detach().cpu().exp().mean(1).numpy() * ds.focal / depth
    shown = render_frames(renderer, [i])[0]
    figure = plots.image_grid([ds.frame(i)] * 2 + [np.full_like(shown, 255), shown],
                              [f"frame {i}", "centres", "one standard deviation", "rendering"], edge=2.8)
    x, y = pixels.T - 0.5
    figure.axes[1].scatter(x, y, s=3, c="#00e0a0", linewidths=0)
    axis = figure.axes[2]
    axis.scatter(x, y, s=(2.8 * 72 * 2 * radius / ds.size) ** 2, c=colours, alpha=0.6, linewidths=0)
    for axis in figure.axes[1:3]:
        axis.set(xlim=(-0.5, ds.size - 0.5), ylim=(ds.size - 0.5, -0.5))
    return figure


def against_truth(truth: np.ndarray, shown: np.ndarray, names: Sequence[str]) -> Figure:
    """Rows of ground truth, rendering and error: the mean over the colour channels, on one scale for all rows.

    Args:
        truth, shown: [R, S, S, 3] uint8, frames of the clip and renderings.
        names: one per row.
    """
    error = np.abs(shown.astype(np.float32) - truth).mean(-1) / 255
    high = max(float(np.percentile(error, 99.5)), 1e-3)
    figure, axes = plots.subplots(len(truth), 3, width=9.2, height=2.9)
    for row, name in enumerate(names):
        cells = axes[3 * row:3 * row + 3]
        cells[0].imshow(truth[row])
        cells[1].imshow(shown[row])
        mappable = cells[2].imshow(error[row], vmin=0, vmax=high, cmap="inferno")
        for axis, title in zip(cells, (f"{name}: video", f"rendering, {psnr(shown[row], truth[row]):.1f} dB", "error")):
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    figure.colorbar(mappable, ax=list(axes[2::3]), label="absolute error (0 ... 1)", shrink=0.8)
    return figure


def views(renderer: Renderer, degrees: Sequence[float] = (-40, -20, 0, 20, 40)) -> Figure:
    """The canonical head on a plain background from several angles (degrees of yaw around the middle pose)."""
    ds, device, i = renderer.ds, renderer.device, middle_frame(renderer.ds)
    turns = np.stack([cv2.Rodrigues(np.array([0, np.radians(d), 0]))[0] for d in degrees])
    w2c = np.repeat(renderer.w2c[i:i + 1], len(degrees), 0)
    w2c[:, :3, :3] = w2c[:, :3, :3] @ turns.astype(np.float32)
    n = len(degrees)
    plain = torch.full((n, ds.size, ds.size, 3), LIGHT, device=device)
    given = replace(renderer.conditions([i] * n), w2c=torch.from_numpy(w2c).to(device))
    rgb, _ = Renderer(renderer.head, ds, deform=False).batch(given, plain)
    return plots.image_grid(list(rgb.cpu().numpy()), [f"{d:+g} degrees" if d else "front" for d in degrees], edge=2.1)


# ---- the deformation ----

def paintings(renderer: Renderer, i: int, named: dict[str, Tensor], unit: str) -> Figure:
    """Values per Gaussian rendered over frame i in grey, one panel and colour scale each.

    Args:
        renderer: of the head.
        i: frame number.
        named: name -> [N] values.
        unit: label of the colour scales.
    """
    grey = cv2.cvtColor(renderer.ds.frame(i), cv2.COLOR_RGB2GRAY)
    images = render_values(renderer, i, torch.stack(list(named.values()), 1))
    figure, axes = plots.subplots(1, len(named), width=3.1 * len(named), height=3.1)
    for k, (axis, (name, values)) in enumerate(zip(axes, named.items())):
        seen = images[..., k][np.isfinite(images[..., k])]
        low, high = np.percentile(seen, (1, 99)) if len(seen) else (0, 1)
        axis.imshow(grey, cmap="gray", vmin=0, vmax=400)
        mappable = axis.imshow(images[..., k], vmin=low, vmax=max(high, low + 1e-6), cmap="viridis", alpha=0.85)
        axis.set_title(f"{name}, mean {float(values.mean()):.3g}", fontsize=9)
        axis.axis("off")
        figure.colorbar(mappable, ax=axis, label=unit, shrink=0.8, format="%.3g")
    return figure


def movement(renderer: Renderer, ids: Sequence[int], i: int) -> Figure:
    """Standard deviation of the offsets of each Gaussian over frames `ids`, rendered on frame i."""
    moved = offsets(renderer, ids)
    named = {"position": moved["means"].std(0).norm(dim=-1), "scale": moved["scales"].std(0).mean(-1),
             "opacity": moved["opacities"].std(0).mean(-1), "colour": moved["sh"].std(0).mean(-1)}
    return paintings(renderer, i, named, "standard deviation over frames")


# ---- mouth and audio ----

def faces_and_mouths(shown: dict[str, np.ndarray], rects: np.ndarray, names: Sequence[str]) -> Figure:
    """A row of faces and a row of enlarged mouths for each kind of image.

    Args:
        shown: kind -> [C, S, S, 3] uint8.
        rects: [C, 4] lip rectangles, px.
        names: one per column.
    """
    corners = np.asarray(rects).reshape(-1, 2, 2)
    half = np.median((corners[:, 1] - corners[:, 0]).max(1)) / 2  # one scale for all mouths
    rects = np.concatenate([corners.mean(1) - half, corners.mean(1) + half], 1)
    faces = [list(images) for images in shown.values()]
    mouths = [[crop_mouth(image, rect) for image, rect in zip(images, rects)] for images in shown.values()]
    titles = [f"{kind}, {name}{part}" for part in ("", ": mouth") for kind in shown for name in names]
    return plots.image_grid([p for row in faces + mouths for p in row], titles, columns=len(names), edge=1.9)


def mouth_space(renderer: Renderer, count: int = 4) -> Figure:
    """The first components of the mouth space that all speakers share, on this face: lip outlines at +-2 std.

    One standard deviation is that of other speakers, if they moved as much as this one does in all. A head without a
    speaker prior gets the package's.
    """
    prior = mouth_prediction.prior_of(renderer) or built_in_prior()
    mean = renderer.head.mouth.mean.cpu()
    step = mouth_prediction.clip_size(renderer) * prior.spread[:, None].cpu() * prior.basis.cpu()
    faces = [mouth_prediction.faces_of_shapes(renderer.ds, mean + torch.outer(mean.new_tensor((-2, 0, 2)), step[k]))
             for k in range(count)]
    share = prior.spread.square() / prior.basis.shape[1]  # of motion of unit variance in every number
    titles = [f"component {k + 1}: {share[k]:.0%} of all motion" for k in range(count)]
    if r := mouth_prediction.new_speakers_r(prior):
        titles = [f"{title},\nr = {r[k]:.2f} on new speakers" for k, title in enumerate(titles)]
    return _outlines(faces, titles)


def mouth_modes(renderer: Renderer, count: int = 4) -> Figure:
    """The first principal components of the mouth: lip outlines of the mean and at +-2 standard deviations."""
    basis = renderer.head.mouth
    share = basis.spread.square() / basis.spread.square().sum()
    codes = torch.eye(len(share)).to(share)[:, None] * share.new_tensor((-2, 0, 2))[:, None]
    return _outlines([mean_faces(renderer, codes[k]) for k in range(count)],
                     [f"mode {k + 1}: {share[k]:.0%} of all motion,\npredicted with r = "
                      f"{basis.cross_validated_r[k]:.2f}" for k in range(count)])


def _outlines(faces: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """A panel with lip outlines for each [3, 478, 2] faces: at -2 std, the mean, at +2 std."""
    figure, axes = plots.subplots(1, len(faces), width=3.1 * len(faces), height=2.9)
    for axis, three, title in zip(axes, faces, titles):
        for style, face in enumerate(three):
            for outline in (LIPS, INNER_LIPS):
                x, y = face[[*outline, outline[0]]].T
                plots.curve(axis, x, y, style=style)
        plots.label(axis, "right (head units)", "down (head units)", title)
        axis.invert_yaxis()
        axis.set_aspect("equal", "datalim")
    figure.legend(axes[0].lines[::2], ("- 2 std", "mean", "+ 2 std"), loc="outside lower center", ncols=3)
    return figure


def predicted_openings(renderer: Renderer, around: int = 250) -> Figure:
    """Tracked and predicted mouth opening of the clip, with r on training and on validation frames (shaded).

    Args:
        renderer: of the head.
        around: frames that are shown before and after the first validation frame; r is computed over all.
    """
    ds, found = renderer.ds, mouth_prediction.openings(renderer)
    figure, (axis,) = plots.subplots(height=3.2)
    shown = slice(max(0, ds.num_train - around), ds.num_train + around)
    time = np.arange(len(ds))[shown] / FPS
    for style, (name, opening) in enumerate(found.items()):
        if name != "tracked":
            train, val = (correlation_and_lag(opening[part], ds.aperture[part], 0)[0]
                          for part in (slice(ds.num_train), slice(ds.num_train, None)))
            name += f": r = {train:.2f} (training), {val:.2f} (validation)"
        plots.curve(axis, time, opening[shown], name, style)
    plots.label(axis, "time (s)", "lip gap /\nface height", "mouth opening (shaded: validation frames)")
    axis.axvspan(ds.num_train / FPS, (time[-1] if len(time) else 0) + 1 / FPS, color="#3d8f6e", alpha=0.2)
    axis.set_xlim(time[0], time[-1] + 1 / FPS)
    axis.set_ylim(top=axis.get_ylim()[0] + 1.45 * np.ptp(axis.get_ylim()))  # space for the legend
    axis.legend(frameon=False, loc="upper left")
    return figure


def speech_and_mouth(level: np.ndarray, opening: np.ndarray, predicted: np.ndarray) -> Figure:
    """Loudness and mouth opening over time.

    Args:
        level: [F] loudness, dB.
        opening: [F] tracked on the rendering, lip gap over face height; NaN where no face was found.
        predicted: [F] predicted from the audio, lip gap over face height.
    """
    figure, axes = plots.subplots(2, height=1.8)
    time = np.arange(len(level)) / FPS
    plots.curve(axes[0], time, level)
    plots.label(axes[0], "time (s)", "level (dB)", "loudness of the audio")
    plots.curve(axes[1], time, predicted, "predicted from the audio")
    plots.curve(axes[1], time, opening, "tracked on the rendering", 1, marker=".", markersize=3)
    plots.label(axes[1], "time (s)", "lip gap /\nface height", "mouth opening")
    axes[1].legend(frameon=False, ncols=2, loc="upper left")
    axes[1].set_ylim(0, 1.35 * np.nanmax([*opening, *predicted, 1e-3]))  # space for the legend
    for axis in axes:
        axis.set_xlim(0, len(level) / FPS)
    return figure
