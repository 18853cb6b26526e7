"""Images of the report: a sheet of annotated frames, and the background with curves over time."""
from __future__ import annotations

from pathlib import Path
from typing import Collection, Optional, Sequence

import cv2
import numpy as np

from ..face import pose_math
from ..face.landmarks import JAW, LIPS, OVAL, RIGID
from ..media.image_io import read_rgb, write_jpeg
from ..media.rates import FPS, SAMPLES_PER_FRAME

#: RGB of head, torso and background
TINTS = np.array([[255, 90, 60], [60, 120, 255], [40, 200, 90]], np.float32)
#: side of a frame on the sheet, px
TILE_SIDE = 512
#: layers on the sheet, and the landmarks that outline a face
SHEET_LAYERS = ("masks", "landmarks", "rigid", "axes")
OUTLINE = np.concatenate([OVAL, JAW, LIPS])


def draw_frame(image: np.ndarray, mask: np.ndarray, landmarks: np.ndarray, w2c: np.ndarray, focal: float,
               mean_face: np.ndarray, rects: dict[str, np.ndarray], caption: str,
               layers: Collection[str] = SHEET_LAYERS, window: Optional[tuple[int, int, int]] = None,
               points: Sequence[int] | np.ndarray = OUTLINE,
               side: int = TILE_SIDE) -> np.ndarray:
    """One frame with mask colours, landmarks, the projected rigid shape, the head's axes and the rectangles.

    Args:
        image, mask: [S, S, 3] uint8.
        landmarks: [478, 3] px.
        w2c: [4, 4] world-to-camera.
        focal: px.
        mean_face: [478, 3], head frame.
        rects: boxes (x0, y0, x1, y1) px, drawn white.
        caption: text in the upper left corner.
        layers: what to draw, of `masks`, `landmarks`, `rigid`, `axes` and `letters` (at the ends of the axes).
        window: the square x0, y0, edge (px) to show enlarged; None: the whole frame.
        points: which landmarks.
        side: of the result, px.

    Returns:
        [side, side, 3] uint8: head tinted red, torso blue, background green; landmarks white, rigid shape yellow.
    """
    x0, y0, edge = window or (0, 0, image.shape[0])
    zoom, corner, middle = side / edge, np.array([x0, y0]), image.shape[0] / 2
    radius = 1 if edge > image.shape[0] / 2 else 3
    mixed, mask = (x[y0:y0 + edge, x0:x0 + edge] for x in (image, mask))
    if "masks" in layers:
        mixed = (0.65 * mixed + 0.35 * ((mask.astype(np.float32) / 255) @ TINTS)).astype(np.uint8)
    mixed = cv2.resize(mixed, (side, side), interpolation=cv2.INTER_CUBIC)
    if "landmarks" in layers:
        for k in points:
            _dot(mixed, (landmarks[k, :2] - corner) * zoom, (255, 255, 255), radius)
    rotation, translation = w2c[None, :3, :3].astype(np.float64), w2c[None, :3, 3].astype(np.float64)
    if "rigid" in layers:
        rigid = pose_math.project(rotation, translation, mean_face[RIGID].astype(np.float64), focal)[0]
        for point in rigid + middle:
            _dot(mixed, (point - corner) * zoom, (255, 230, 0), radius)
    ends = pose_math.project(rotation, translation, np.concatenate([np.zeros((1, 3)), np.eye(3)]), focal)[0] + middle
    ends = (ends - corner) * zoom
    if "axes" in layers:
        for end, colour in zip(ends[1:], ((255, 0, 0), (0, 255, 0), (60, 60, 255))):
            cv2.line(mixed, _px(ends[0]), _px(end), colour, 2, cv2.LINE_AA)
    for rect in rects.values():
        cv2.rectangle(mixed, _px((rect[:2] - corner) * zoom), _px((rect[2:] - corner) * zoom - 1), (255, 255, 255), 1)
    if "letters" in layers:
        for end, letter in zip(ends[1:], "xyz"):
            _write(mixed, letter, (end[0] + 4, end[1] + 4))
    _write(mixed, caption, (8, 20))
    return mixed


def _write(image: np.ndarray, text: str, position: tuple[float, float]) -> None:
    """White letters with a dark border, readable on any image."""
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(image, text, _px(position), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, width, cv2.LINE_AA)


def _px(point: Sequence[float] | np.ndarray) -> tuple[int, int]:
    return int(round(float(point[0]))), int(round(float(point[1])))


def _dot(image: np.ndarray, point: np.ndarray, colour: tuple[int, int, int], radius: int) -> None:
    cv2.circle(image, _px(point), radius, colour, -1, cv2.LINE_AA)


def write_sheet(root: Path, tracking: dict[str, np.ndarray], focal: float) -> None:
    """`report/overlays.jpg`: eight frames spread over the clip."""
    n = len(tracking["found"])
    tiles = []
    for i in np.linspace(0, n - 1, 8).round().astype(int):
        rects = {"lips": tracking["lip_rect"][i], "eyes": tracking["eye_rect"][i]}
        caption = f"frame {i}  {tracking['reprojection'][i]:.2f} px" + ("" if tracking["found"][i] else "  no face")
        tiles.append(draw_frame(read_rgb(root / "frames" / f"{i:06d}.jpg"), read_rgb(root / "masks" / f"{i:06d}.png"),
                                tracking["landmarks"][i], tracking["w2c"][i], focal, tracking["mean_face"], rects,
                                caption))
    write_jpeg(root / "report" / "overlays.jpg", np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])]))


def write_curves(root: Path, tracking: dict[str, np.ndarray], angles: np.ndarray, wave: np.ndarray) -> None:
    """`report/curves.jpg`: the background, and head angles, mouth, eyes, reprojection and audio level over time.

    Args:
        root: dataset folder.
        tracking: arrays of `tracking.npz`.
        angles: [N, 3] degrees.
        wave: 16 kHz mono.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(angles)
    time = np.arange(n) / FPS
    samples = np.resize(wave, n * SAMPLES_PER_FRAME).reshape(n, SAMPLES_PER_FRAME)
    level = np.sqrt((samples.astype(np.float64) ** 2).mean(axis=1))
    figure = Figure(figsize=(14, 8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 2, width_ratios=[1, 1.4])
    background = figure.add_subplot(grid[:, 0])
    background.imshow(read_rgb(root / "background.png"))
    background.set_title("clean background")
    background.axis("off")
    rows = [("head angle (degrees)", [("yaw", angles[:, 0]), ("pitch", angles[:, 1]), ("roll", angles[:, 2])]),
            ("share", [("blink", tracking["blink"])]),
            ("share of face height", [("mouth aperture", tracking["aperture"]),
                                      ("audio level (scaled)", level / max(level.max(), 1e-6)
                                       * max(float(tracking["aperture"].max()), 1e-6))]),
            ("error (px)", [("reprojection", tracking["reprojection"])])]
    for k, (quantity, curves) in enumerate(rows):
        axes = figure.add_subplot(grid[k, 1])
        for name, values in curves:
            axes.plot(time, values, label=name, linewidth=1)
        axes.set_ylabel(quantity)
        axes.legend(loc="upper right", fontsize=8)
    axes.set_xlabel("time (s)")
    canvas.draw()
    write_jpeg(root / "report" / "curves.jpg", np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
