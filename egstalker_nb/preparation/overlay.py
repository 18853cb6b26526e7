"""Pictures of the report: a sheet of overlaid frames, and the plate with the clip's curves."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from . import bundle
from .crop import read_rgb, write_jpeg
from .face import JAW, LIPS, OVAL, RIGID

TINTS = np.float32([[255, 90, 60], [60, 120, 255], [40, 200, 90]])
#: drawn at twice this picture's size at most, so that thin marks stay visible
TILE = 512


def draw_frame(image: np.ndarray, mask: np.ndarray, landmarks: np.ndarray, w2c: np.ndarray, focal: float,
               mean_face: np.ndarray, rects: dict[str, np.ndarray], label: str) -> np.ndarray:
    """One frame with mask colours, landmarks, the projected rigid shape, the head's axes and the rectangles.

    Args:
        image, mask: [S, S, 3] uint8. landmarks: [478, 3] px. w2c: [4, 4]. focal: px. mean_face: [478, 3].
        rects: colourless boxes (x0, y0, x1, y1). label: text.

    Returns:
        [512, 512, 3] uint8: head tinted red, torso blue, background green; landmarks white, rigid shape yellow.
    """
    size = image.shape[0]
    zoom = TILE / size
    tint = (mask.astype(np.float32) / 255) @ TINTS
    mixed = cv2.resize((0.65 * image + 0.35 * tint).astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    for k in np.concatenate([OVAL, JAW, LIPS]):
        _dot(mixed, landmarks[k, :2] * zoom, (255, 255, 255))
    rotation, translation = w2c[None, :3, :3].astype(np.float64), w2c[None, :3, 3].astype(np.float64)
    for point in bundle.project(rotation, translation, mean_face[RIGID].astype(np.float64), focal)[0] + size / 2:
        _dot(mixed, point * zoom, (255, 230, 0))
    ends = bundle.project(rotation, translation, np.concatenate([np.zeros((1, 3)), np.eye(3)]), focal)[0] + size / 2
    for end, colour in zip(ends[1:], ((255, 0, 0), (0, 255, 0), (60, 60, 255))):
        cv2.line(mixed, _px(ends[0] * zoom), _px(end * zoom), colour, 2, cv2.LINE_AA)
    for rect in rects.values():
        cv2.rectangle(mixed, _px(rect[:2] * zoom), _px(rect[2:] * zoom - 1), (255, 255, 255), 1)
    cv2.putText(mixed, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(mixed, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return mixed


def _px(point: np.ndarray) -> tuple[int, int]:
    return int(round(float(point[0]))), int(round(float(point[1])))


def _dot(image: np.ndarray, point: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.circle(image, _px(point), 1, colour, -1, cv2.LINE_AA)


def write_sheet(root: Path, tracking: dict[str, np.ndarray], focal: float) -> None:
    """`report/overlays.jpg`: eight frames spread over the clip."""
    n = len(tracking["found"])
    tiles = []
    for i in np.linspace(0, n - 1, 8).round().astype(int):
        rects = {"lips": tracking["lip_rect"][i], "eyes": tracking["eye_rect"][i]}
        label = f"frame {i}  {tracking['reprojection'][i]:.2f} px" + ("" if tracking["found"][i] else "  no face")
        tiles.append(draw_frame(read_rgb(root / "frames" / f"{i:06d}.jpg"), read_rgb(root / "masks" / f"{i:06d}.png"),
                                tracking["landmarks"][i], tracking["w2c"][i], focal, tracking["mean_face"], rects,
                                label))
    write_jpeg(root / "report" / "overlays.jpg", np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])]))


def write_curves(root: Path, tracking: dict[str, np.ndarray], angles: np.ndarray, wave: np.ndarray) -> None:
    """`report/curves.jpg`: the clean plate, and head angles, mouth, eyes, reprojection and loudness over time.

    Args:
        root: dataset folder. tracking: arrays of `tracking.npz`. angles: [N, 3] degrees. wave: 16 kHz mono.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(angles)
    time = np.arange(n) / 25
    level = np.sqrt((np.resize(wave, n * 640).reshape(n, 640).astype(np.float64) ** 2).mean(axis=1))
    figure = Figure(figsize=(14, 8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 2, width_ratios=[1, 1.4])
    picture = figure.add_subplot(grid[:, 0])
    picture.imshow(read_rgb(root / "background.png"))
    picture.set_title("clean background")
    picture.axis("off")
    rows = [("head angle (degrees)", [("yaw", angles[:, 0]), ("pitch", angles[:, 1]), ("roll", angles[:, 2])]),
            ("share", [("blink", tracking["blink"])]),
            ("share of face height", [("mouth aperture", tracking["aperture"]),
                                      ("sound level (scaled)", level / max(level.max(), 1e-6)
                                       * max(float(tracking["aperture"].max()), 1e-6))]),
            ("error (px)", [("reprojection", tracking["reprojection"])])]
    for k, (label, curves) in enumerate(rows):
        axes = figure.add_subplot(grid[k, 1])
        for name, values in curves:
            axes.plot(time, values, label=name, linewidth=1)
        axes.set_ylabel(label)
        axes.legend(loc="upper right", fontsize=8)
    axes.set_xlabel("time (s)")
    canvas.draw()
    write_jpeg(root / "report" / "curves.jpg", np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
