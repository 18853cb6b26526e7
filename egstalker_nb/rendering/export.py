"""A trained head as files for other programs: the frames of a sequence as images or deformed Gaussians, or its
canonical Gaussians in one file."""
from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Literal, Optional

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.files import atomic_folder, foreign_files, make_folder, replacing, short_name, shortened, write_json
from ..core.progress import Progress
from ..core.reading import Unreadable, read_json, shown
from ..data.conditions import Conditions
from ..media.audio import save_wav
from ..media.image_io import encode_jpeg, encode_png
from ..media.rates import FPS
from ..media.synthetic import COMMENT, mark_image
from ..model.gaussian_files import file_writer, read_gaussians
from ..model.gaussians import NAMES
from ..model.head import Head
from ..rasterizer import rasterize
from ..training.run import Run
from . import motion
from .backdrop import CLIP, load_backdrop
from .renderer import Renderer
from .script import Script, audio_script

INDEX = "export.json"  # marks a folder as an export, which a new one may replace
SOUND = "sound.wav"
IMAGES = {"png": (".png", encode_png), "jpeg": (".jpg", encode_jpeg)}
GAUSSIANS = ("ply", "spz")


@dataclass
class Exported:
    """A finished export: a folder of numbered files.

    Attributes:
        folder: contains `files`, their audio as `sound.wav`, and `export.json` with cameras, intrinsics and settings.
        files: one per frame at 25 fps, in order.
        bytes: size of the folder.
    """

    folder: Path
    files: list[Path]
    bytes: int

    def __str__(self) -> str:
        names = f"{self.files[0].name} ... {self.files[-1].name}"
        return (f"{self.folder}: {len(self.files)} frames, {len(self.files) / FPS:.2f} s, {names}, "
                f"{self.bytes / 2 ** 20:.1f} MiB in all")

    __repr__ = __str__


def export_frames(run: Run, audio: str | Path, out: Optional[str | Path] = None,
                  format: Literal["png", "jpeg", "ply", "spz"] = "png", iteration: Optional[int] = None, batch: int = 8,
                  device: Optional[str | torch.device] = None, background: str | Path = "clip",
                  **script: Any) -> Exported:
    """Drive a trained head with audio and write every video frame: an image, or the deformed Gaussians.

    Each image says in its metadata that it is synthetic (see `media.synthetic`).

    Gaussians are those of the head, without torso and background, which are not made of Gaussians. The head does not
    move in its frame: its motion is that of the camera, `w2c` of each frame in `export.json`. A PLY has the common 3DGS
    layout in the head frame (OpenCV axes: x right, y down, z away from a camera in front of the face): logits of
    opacities, logarithms of scales, wxyz quaternions (not normalised), 248 bytes per Gaussian. An SPZ is in the RUB
    axes of its format (y up, z towards the viewer) and rounded, see `save_spz`; `egs.read_gaussians` turns it back.

    Args:
        run, audio: as for `egs.render`.
        out: the folder to write; default: a name in the run's `renders/`. An older export in it is replaced when the
            new one is complete.
        format: `png` (lossless), `jpeg`, `ply`, or `spz` (needs the extra `models`).
        iteration, batch, device: as for `egs.render`; Gaussians are written one frame at a time.
        background: of images: as for `egs.render`, or `transparent`: PNGs with the straight alpha of head and torso.
        script: `features`, `poses`, `blink`, `start` and `duration` of `egs.render`.

    Returns:
        The export, with `frame_000000.png` and so on.

    Raises:
        InputError: as for `egs.render`; another format; JPEG with alpha; a folder with other files in it.
        DatasetError: as for `egs.render`.
        MissingPackageError: `spz` without the package gsply.
    """
    if format not in (*IMAGES, *GAUSSIANS):
        raise InputError(f"format as one of {', '.join((*IMAGES, *GAUSSIANS))}", repr(format), "Choose one of them.")
    if format in GAUSSIANS and background != CLIP:
        raise InputError("a background with images", f"format={format!r}", "Gaussians have none: leave it out.")
    write = file_writer(f"frame.{format}") if format in GAUSSIANS else None  # raises an error if a package is missing
    backdrop = load_backdrop(background, run.dataset.size)
    if backdrop is not None and backdrop.transparent and format != "png":
        raise InputError("format='png' for a transparent background", f"format={format!r}", "JPEG has no alpha.")
    job = _ExportJob(run, audio, out, format, iteration, device, script)
    with job.writing() as folder, Progress(len(job.script), f"export {format}", "frame") as bar:
        if write is None:
            suffix, encode = IMAGES[format]
            for i, frame in enumerate(job.renderer.frames(job.script, batch, bar, backdrop=backdrop)):
                (folder / f"frame_{i:06d}{suffix}").write_bytes(mark_image(encode(frame)))
        else:
            given = job.renderer.conditions_of(job.script)
            spatial = job.head.spatial() if job.renderer.deform else None
            for i in range(len(job.script)):
                write(folder / f"frame_{i:06d}.{format}", deformed_gaussians(job.head, given[i:i + 1], spatial))
                bar.update()
    return job.result()


def export_ply(run: Run, audio: str | Path, out: Optional[str | Path] = None, iteration: Optional[int] = None,
               device: Optional[str | torch.device] = None, format: Literal["ply", "spz"] = "ply",
               **script: Any) -> Exported:
    """`export_frames` in a format of Gaussians, PLY by default.

    Args:
        run, audio, out, iteration, device, format, script: as for `export_frames`.

    Returns:
        The export, with `frame_000000.ply` and so on.

    Raises:
        InputError: as for `export_frames`.
        DatasetError: as for `export_frames`.
        MissingPackageError: as for `export_frames`.
    """
    return export_frames(run, audio, out, format, iteration, device=device, **script)


def export_gaussians(run: Run, out: str | Path, iteration: Optional[int] = None) -> Path:
    """Write the canonical Gaussians of a trained head, before any deformation, as one file for viewers and tools.

    Frames and values of the formats are those of `export_frames`.

    Args:
        run: the run.
        out: the file, `.ply` or `.spz` (needs the extra `models`); replaced if it is there.
        iteration: of the checkpoint; default: the newest.

    Returns:
        `out`.

    Raises:
        InputError: another ending, or a folder.
        DatasetError: no such checkpoint, or a damaged one.
        MissingPackageError: `.spz` without the package gsply.
    """
    out, write = Path(out), file_writer(out)
    gaussians = run.load_head(iteration, "cpu").gaussians
    make_folder(out.parent)
    with replacing(out) as fresh:
        write(fresh, {name: gaussians[name] for name in NAMES})
    return out


@torch.no_grad()
def deformed_gaussians(head: Head, given: Conditions, spatial: Optional[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The Gaussians of one frame before activation, in gsplat's layout, see `make_gaussians`.

    Args:
        head: the head.
        given: what the frame is rendered from, B = 1.
        spatial: see `Head.spatial`; None: the canonical head.
    """
    g = {name: head.gaussians[name].detach() for name in NAMES}
    if spatial is None:
        return g
    moved = head.offsets(given, spatial)
    moved = {name: value[0] for name, value in moved.items()}
    moved["sh0"], moved["shN"] = moved.pop("sh").reshape(len(head), -1, 3).split([1, g["shN"].shape[1]], 1)
    return {name: g[name] + moved[name].reshape(g[name].shape) for name in NAMES}


@torch.no_grad()
def render_ply(exported: Exported, i: int) -> np.ndarray:
    """Render the Gaussians of an export's frame, PLY or SPZ, with its camera, on white, without torso and background.

    Args:
        exported: made by `export_ply`.
        i: number of the frame.

    Returns:
        [S, S, 3] uint8.

    Raises:
        InputError: no Gaussians, or a damaged file.
    """
    try:
        index, g = read_json(exported.folder / INDEX, w2c=list, K=list, size=int), read_gaussians(exported.files[i])
    except Unreadable as error:
        raise InputError("a complete export", str(error), "Export it again.") from error
    camera, K = torch.tensor(index["w2c"][i]), torch.tensor(index["K"])
    rgb, alpha, _ = rasterize(g["means"], g["quats"], g["scales"].exp(), g["opacities"].sigmoid(),
                              torch.cat([g["sh0"], g["shN"]], 1), camera[None], K[None], index["size"],
                              index["size"], sh_degree=3)
    return ((rgb + 1 - alpha)[0].clamp(0, 1) * 255).round().byte().numpy()


class _ExportJob:
    """The script and the folder of an export; all inputs are checked here, before the first frame is rendered."""

    def __init__(self, run: Run, audio: str | Path, out: Optional[str | Path], kind: str, iteration: Optional[int],
                 device: Optional[str | torch.device], script: dict[str, Any]):
        number = run.pick(iteration)
        script = {name: value for name, value in script.items() if value is not None}
        self.renderer = Renderer.from_run(run, number, device)
        self.script: Script = audio_script(self.renderer, audio, **script)
        poses = short_name(motion.label(script.get("poses", "cycle")))
        name = f"{short_name(Path(audio).stem)}_{poses}_{number}_{kind}"
        self.folder = Path(out) if out is not None else run.root / "renders" / name
        _check_free(self.folder)
        self.head, ds = self.renderer.head, self.renderer.ds
        self.index = {"comment": COMMENT, "kind": kind, "fps": FPS, "frames": len(self.script), "size": ds.size,
                      "gaussians": len(self.head), "iteration": number, "K": ds.K.tolist(),
                      "w2c": self.script.w2c.tolist()}

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A temporary folder that is renamed to the final one when it is complete, and removed if anything fails."""
        make_folder(self.folder.parent)
        with atomic_folder(self.folder) as fresh:
            yield fresh
            assert self.script.wave is not None  # of a script that was made from audio
            save_wav(fresh / SOUND, self.script.wave)
            write_json(fresh / INDEX, self.index)
            _check_free(self.folder)  # again: rendering takes long

    def result(self) -> Exported:
        files = sorted(self.folder.glob("frame_*"))
        return Exported(self.folder, files, sum(f.stat().st_size for f in self.folder.iterdir()))


def _check_free(folder: Path) -> None:
    """Raise an error unless a folder is missing, empty, or an older export with nothing else in it."""
    there = foreign_files(folder)
    others = [name for name in there if name not in (INDEX, SOUND) and not re.fullmatch(r"frame_\d{6}\.\w+", name)]
    if others or (there and INDEX not in there):
        raise InputError("a new folder, or one of an older export",
                         f"'{shortened(folder)}' with something else in it ({shown(', '.join(others or there))})",
                         "Choose another name.")
