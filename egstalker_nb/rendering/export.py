"""A rendered sequence as files for other programs: images, or a PLY of the deformed Gaussians per frame."""
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
from ..core.files import atomic_folder, foreign_files, make_folder, short_name, shortened, write_json
from ..core.progress import Progress
from ..core.reading import Unreadable, read_json, shown
from ..data.conditions import Conditions
from ..media.audio import save_wav
from ..media.image_io import encode_jpeg, encode_png
from ..media.rates import FPS
from ..media.synthetic import COMMENT, mark_image
from ..model.gaussians import NAMES
from ..model.head import Head
from ..model.ply import load_ply, save_ply
from ..rasterizer import rasterize
from ..training.run import Run
from . import motion
from .backdrop import load_backdrop
from .renderer import Renderer
from .script import Script, audio_script

INDEX = "export.json"  # marks a folder as an export, which a new one may replace
SOUND = "sound.wav"
FORMATS = {"png": (".png", encode_png), "jpeg": (".jpg", encode_jpeg)}


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
                  format: Literal["png", "jpeg"] = "png", iteration: Optional[int] = None, batch: int = 8,
                  device: Optional[str | torch.device] = None, background: str | Path = "clip",
                  **script: Any) -> Exported:
    """Drive a trained head with audio and write every video frame as an image, for editing and compositing.

    Each image says in its metadata that it is synthetic (see `media.synthetic`).

    Args:
        run, audio: as for `egs.render`.
        out: the folder to write; default: a name in the run's `renders/`. An older export in it is replaced when the
            new one is complete.
        format: `png` (lossless) or `jpeg`.
        iteration, batch, device: as for `egs.render`.
        background: as for `egs.render`, or `transparent`: PNGs with the straight alpha of head and torso together.
        script: `features`, `poses`, `blink`, `start` and `duration` of `egs.render`.

    Returns:
        The export, with `frame_000000.png` and so on.

    Raises:
        InputError: as for `egs.render`; another format; JPEG with alpha; a folder with other files in it.
        DatasetError: as for `egs.render`.
    """
    if format not in FORMATS:
        raise InputError(f"format as one of {', '.join(FORMATS)}", repr(format), "Choose one of them.")
    backdrop = load_backdrop(background, run.dataset.size)
    if backdrop is not None and backdrop.transparent and format != "png":
        raise InputError("format='png' for a transparent background", f"format={format!r}", "JPEG has no alpha.")
    job = _ExportJob(run, audio, out, format, iteration, device, script)
    suffix, encode = FORMATS[format]
    with job.writing() as folder, Progress(len(job.script), f"export {format}", "frame") as bar:
        for i, frame in enumerate(job.renderer.frames(job.script, batch, bar, backdrop=backdrop)):
            (folder / f"frame_{i:06d}{suffix}").write_bytes(mark_image(encode(frame)))
    return job.result()


def export_ply(run: Run, audio: str | Path, out: Optional[str | Path] = None, iteration: Optional[int] = None,
               device: Optional[str | torch.device] = None, **script: Any) -> Exported:
    """Drive a trained head with audio and write its deformed Gaussians frame by frame, in the common 3DGS layout.

    The Gaussians are in the head frame (OpenCV axes: x right, y down, z away from a camera in front of the face), in
    which the head does not move: its motion is that of the camera, `w2c` of each frame in `export.json`. Opacities are
    logits, scales logarithms, rotations wxyz quaternions (not normalised), as `save_ply` writes them; 248 bytes per
    Gaussian. Torso and background are not made of Gaussians and not in the files.

    Args:
        run, audio, out, iteration, device, script: as for `export_frames`.

    Returns:
        The export, with `frame_000000.ply` and so on.

    Raises:
        InputError: as for `export_frames`.
        DatasetError: as for `export_frames`.
    """
    job = _ExportJob(run, audio, out, "ply", iteration, device, script)
    given = job.renderer.conditions_of(job.script)
    with job.writing() as folder, Progress(len(job.script), "export PLY", "frame") as bar:
        spatial = job.head.spatial() if job.renderer.deform else None
        for i in range(len(job.script)):
            save_ply(folder / f"frame_{i:06d}.ply", deformed_gaussians(job.head, given[i:i + 1], spatial))
            bar.update()
    return job.result()


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
    """Render a PLY of an export with its camera, on white, without torso and background.

    Args:
        exported: made by `export_ply`.
        i: number of the frame.

    Returns:
        [S, S, 3] uint8.

    Raises:
        InputError: not a PLY of the 3DGS layout.
    """
    try:
        index, g = read_json(exported.folder / INDEX, w2c=list, K=list, size=int), load_ply(exported.files[i])
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
