"""Diagrams of the method: boxes and arrows for each stage."""
from __future__ import annotations

from dataclasses import dataclass, field

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ..core.errors import InputError
from . import plots

#: kind of box -> fill: inputs white, computed steps blue, learned parts orange, results green
FILLS = {"data": "#ffffff", "step": "#dce6f4", "learned": "#fbe3d3", "result": "#d9efe4"}
BOX_WIDTH, BOX_HEIGHT = 0.84, 0.66


@dataclass(frozen=True)
class Diagram:
    """Boxes in a grid, and arrows between them.

    Attributes:
        boxes: name -> (column, row, kind, text).
        arrows: (from, to) each.
        back: the same, drawn dashed: gradients.
    """

    boxes: dict[str, tuple[float, float, str, str]]
    arrows: tuple[tuple[str, str], ...]
    back: tuple[tuple[str, str], ...] = field(default=())


METHODS = {
    "preparation": Diagram(
        {"video": (0, 2, "data", "video, any\nsize and rate"),
         "frames": (1, 1, "step", "frames\n25 fps, square crop"), "sound": (1, 3, "step", "audio\n16 kHz mono"),
         "landmarks": (2, 0.5, "step", "478 landmarks\nper frame"), "masks": (2, 2, "step", "masks\nhead, torso, rest"),
         "pose": (3, 0, "step", "head pose, mean\nface, focal length"),
         "eyes": (3, 1, "step", "lids, brows, gaze,\nmouth shape"), "plate": (3, 2, "step", "clean\nbackground plate"),
         "offset": (2, 3, "step", "audio aligned\nwith the lips"),
         "features": (3, 3, "step", "encoder: phones\n[N, 16, 29]"),
         "dataset": (4, 1.5, "result", "dataset folder\nand its report")},
        (("video", "frames"), ("video", "sound"), ("frames", "landmarks"), ("frames", "masks"), ("landmarks", "pose"),
         ("landmarks", "eyes"), ("masks", "plate"), ("sound", "offset"), ("offset", "features"),
         ("pose", "dataset"), ("plate", "dataset"), ("eyes", "dataset"), ("features", "dataset"))),
    "coarse": Diagram(
        {"face": (0, 0, "data", "mean face\n478 landmarks"),
         "gaussians": (1, 0, "learned", "Gaussians: position,\nscale, rotation,\nopacity, colour"),
         "pose": (0, 1, "data", "camera\n(head pose)"), "raster": (2, 0.5, "step", "rasteriser"),
         "plate": (1, 2, "learned", "torso layer over\nbackground plate"),
         "composite": (3, 0.5, "step", "rendering +\n(1 - alpha) x\nbackground"),
         "frame": (3, 2, "data", "video frame"),
         "loss": (4, 0.5, "result", "loss: L1, D-SSIM,\nmask")},
        (("face", "gaussians"), ("gaussians", "raster"), ("pose", "raster"), ("raster", "composite"),
         ("plate", "composite"), ("composite", "loss"), ("frame", "loss")), (("loss", "gaussians"),)),
    "fine": Diagram(
        {"means": (0, 0, "learned", "Gaussians of the\ncoarse head"),
         "plane": (2, 0, "learned", "tri-plane:\nfeature = query"), "sound": (0, 1, "data", "audio features\n(phones)"),
         "mouth": (1, 1, "learned", "mouth coefficients\n(PCA; tracked ones\nin training)"),
         "audio": (2, 1, "learned", "audio token"), "blink": (0, 2, "data", "eyes and\ncamera"),
         "tokens": (2, 2, "learned", "eye, camera and\nnull token"),
         "esaa": (3, 1, "learned", "attention (ESAA)\nof Gaussians\nto tokens"),
         "heads": (4, 1, "learned", "offsets of position,\nscale, rotation,\nopacity, colour"),
         "torso": (4, 0, "learned", "torso layer,\nwarped by the pose"),
         "raster": (5, 0, "step", "rasteriser:\nGaussians + offsets,\nover the torso layer"),
         "loss": (5, 2, "result", "loss: coarse terms\nand lips")},
        (("means", "plane"), ("sound", "mouth"), ("mouth", "audio"), ("blink", "tokens"), ("plane", "esaa"),
         ("audio", "esaa"), ("tokens", "esaa"), ("esaa", "heads"), ("heads", "raster"), ("torso", "raster"),
         ("raster", "loss")), (("loss", "heads"),)),
    "rendering": Diagram(
        {"sound": (0, 0, "data", "any speech:\nWAV, MP3, video"),
         "features": (1, 0, "step", "the dataset's\nencoder: phones"),
         "mouth": (2, 0, "learned", "speaker prior:\nmouth coefficients,\nclosed in silence"),
         "dataset": (0, 1, "data", "dataset's motion,\nor your own"),
         "script": (1, 1, "step", "head poses, blinks,\nbrows and gaze"), "run": (0, 2, "data", "run folder"),
         "head": (1, 2, "learned", "trained head"), "layers": (2, 2, "learned", "Gaussians\nand torso layer"),
         "frames": (3, 1, "step", "deform, rasterise,\ncomposite"),
         "video": (4, 1, "step", "H.264 video\n+ AAC audio"), "result": (5, 1, "result", "MP4")},
        (("sound", "features"), ("features", "mouth"), ("dataset", "script"), ("run", "head"), ("head", "layers"),
         ("mouth", "frames"), ("script", "frames"), ("layers", "frames"), ("frames", "video"), ("video", "result"))),
}


def method(name: str) -> Figure:
    """Draw one of `METHODS`: preparation, coarse, fine or rendering."""
    if name not in METHODS:
        raise InputError(f"one of {', '.join(METHODS)}", repr(name), "Use one of them.")
    diagram = METHODS[name]
    columns = 1 + max(box[0] for box in diagram.boxes.values())
    rows = 1 + max(box[1] for box in diagram.boxes.values())
    figure, (axis,) = plots.subplots(width=2.05 * columns, height=1.0 * rows)
    patches = {}
    for key, (column, row, kind, words) in diagram.boxes.items():
        corner = (column - BOX_WIDTH / 2, -row - BOX_HEIGHT / 2)
        patches[key] = FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.06",
                                      facecolor=FILLS[kind], edgecolor="#444444")
        axis.add_patch(patches[key])
        axis.text(column, -row, words, ha="center", va="center", fontsize=9, color="black")
    for pairs, style in ((diagram.arrows, {"linestyle": "-"}),
                         (diagram.back, {"linestyle": "--", "connectionstyle": "arc3,rad=0.3", "color": "#c1440e"})):
        for start, end in pairs:
            axis.add_patch(_arrow(diagram, patches, start, end, style))
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(-rows + 0.5, 0.8 if diagram.back else 0.45))
    axis.axis("off")
    return figure


def _arrow(diagram: Diagram, patches: dict, start: str, end: str, style: dict) -> FancyArrowPatch:
    a, b = (diagram.boxes[key][:2] for key in (start, end))
    look = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "#444444", "shrinkA": 1, "shrinkB": 1, **style}
    return FancyArrowPatch((a[0], -a[1]), (b[0], -b[1]), patchA=patches[start], patchB=patches[end], **look)
