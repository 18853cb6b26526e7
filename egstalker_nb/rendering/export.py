"""A spoken sequence as files for other programs: pictures, or one PLY of the deformed Gaussians per frame."""
from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Literal, Optional

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.files import make_folder, writing_to
from ..core.progress import Progress
from ..data.conditions import Conditions
from ..media.audio import save_wav
from ..media.image_io import encode_jpeg, encode_png
from ..media.rates import FPS
from ..model.gaussians import NAMES
from ..model.head import Head
from ..model.ply import load_ply, save_ply
from ..rasterizer import rasterize
from ..training.run import Run
from . import motion
from .renderer import Renderer, Script, audio_script

INDEX = "export.json"       # what tells an older export, which may be replaced, from a folder of something else
FORMATS = {"png": (".png", encode_png), "jpeg": (".jpg", encode_jpeg)}


@dataclass
class Exported:
    """A folder of numbered files; shows itself in a notebook.

    Attributes:
        folder: with `files`, `sound.wav` of exactly as many frames, and `export.json`: cameras, intrinsics, settings.
        files: one for each frame at 25 fps, in order. bytes: all files together.
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
                  device: Optional[str | torch.device] = None, **script: Any) -> Exported:
    """Drive a trained head and write every video frame as a picture, for editing and compositing.

    Args:
        run, audio, iteration, batch, device: as for `egs.render`. script: its `features`, `poses`, `blink`, `start` and
            `duration`. out: the folder to write; default: a name in the run's `renders/`. An older export in it is
            replaced when the new one is complete. format: `png` (without loss) or `jpeg`.

    Returns:
        the `Exported` folder with `frame_000000.png` and so on.

    Raises:
        InputError: as for `egs.render`; another format; a folder that holds something else.
    """
    if format not in FORMATS:
        raise InputError(f"format as one of {', '.join(FORMATS)}", repr(format), "Choose one of them.")
    plan = _Plan(run, audio, out, format, iteration, device, script)
    suffix, encode = FORMATS[format]
    with plan.writing() as folder, Progress(len(plan.script), f"export {format}", "frame") as bar:
        for i, picture in enumerate(plan.renderer.pictures(plan.script, batch, bar)):
            _written(folder / f"frame_{i:06d}{suffix}", encode(picture))
    return plan.result()


def export_ply(run: Run, audio: str | Path, out: Optional[str | Path] = None, iteration: Optional[int] = None,
               device: Optional[str | torch.device] = None, **script: Any) -> Exported:
    """Drive a trained head and write its deformed Gaussians frame by frame, in the common 3DGS layout.

    The Gaussians are in the head's own frame (OpenCV axes: x right, y down, z away from the camera that looks at the
    face), in which the head stays still: its motion is that of the camera, `w2c` in `export.json`, one for each frame.
    Opacities are logits, scales logs, rotations wxyz quaternions (not normalised), as `gaussians.save_ply` writes
    them; 248 bytes a Gaussian. Torso and room are no Gaussians and not in the files.

    Args:
        run, audio, out, iteration, device, script: as for `export_frames`.

    Returns:
        the `Exported` folder with `frame_000000.ply` and so on.

    Raises:
        InputError: as for `export_frames`.
    """
    plan = _Plan(run, audio, out, "ply", iteration, device, script)
    given = plan.renderer.conditions_of(plan.script)
    with plan.writing() as folder, Progress(len(plan.script), "export PLY", "frame") as bar:
        spatial = plan.head.spatial() if plan.renderer.deform else None
        for i in range(len(plan.script)):
            gaussians = deformed(plan.head, given[i:i + 1], spatial)
            with writing_to(folder):
                save_ply(folder / f"frame_{i:06d}.ply", gaussians)
            bar.update()
    return plan.result()


@torch.no_grad()
def deformed(head: Head, given: Conditions, spatial: Optional[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The Gaussians of one frame, as they are before activation: gsplat's layout, see `make_gaussians`.

    Args:
        given: of one frame.
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
def redrawn(exported: Exported, i: int) -> np.ndarray:
    """Draw a PLY of an export as its camera saw it, on white: [S, S, 3] uint8, without torso and room.

    Raises:
        InputError: not a PLY of the 3DGS layout.
    """
    index, g = json.loads((exported.folder / INDEX).read_text(encoding="utf-8")), load_ply(exported.files[i])
    camera, K = torch.tensor(index["w2c"][i]), torch.tensor(index["K"])
    rgb, alpha, _ = rasterize(g["means"], g["quats"], g["scales"].exp(), g["opacities"].sigmoid(),
                              torch.cat([g["sh0"], g["shN"]], 1), camera[None], K[None], index["size"],
                              index["size"], sh_degree=3)
    return ((rgb + 1 - alpha)[0].clamp(0, 1) * 255).round().byte().numpy()


class _Plan:
    """What is written, and where: everything that can be wrong is found before the first frame is drawn."""

    def __init__(self, run: Run, audio: str | Path, out: Optional[str | Path], kind: str, iteration: Optional[int],
                 device: Optional[str | torch.device], script: dict[str, Any]):
        number = run.pick(iteration)
        script = {name: value for name, value in script.items() if value is not None}
        self.renderer = Renderer.from_run(run, number, device)
        self.script: Script = audio_script(self.renderer, audio, **script)
        name = f"{Path(audio).stem}_{motion.label(script.get('poses', 'cycle'))}_{number}_{kind}"
        self.folder = Path(out) if out is not None else run.root / "renders" / name
        _check_free(self.folder)
        self.head, ds = self.renderer.head, self.renderer.ds
        self.index = {"kind": kind, "fps": FPS, "frames": len(self.script), "size": ds.size,
                      "gaussians": len(self.head), "iteration": number, "K": ds.K.tolist(),
                      "w2c": self.script.w2c.tolist()}

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder of another name, which gets its own when all is there, and is removed if something fails."""
        make_folder(self.folder.parent)
        with writing_to(self.folder.parent):
            fresh = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        try:
            fresh.chmod(0o755)
            yield fresh
            save_wav(fresh / "sound.wav", self.script.wave)
            _written(fresh / INDEX, json.dumps(self.index).encode())
            with writing_to(self.folder.parent):
                _check_free(self.folder)
                if self.folder.exists():
                    old = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
                    self.folder.rename(old / "old")
                    fresh.rename(self.folder)
                    shutil.rmtree(old)
                else:
                    fresh.rename(self.folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def result(self) -> Exported:
        files = sorted(self.folder.glob("frame_*"))
        return Exported(self.folder, files, sum(f.stat().st_size for f in self.folder.iterdir()))


def _check_free(folder: Path) -> None:
    """A folder that is not there, is empty, or holds an older export."""
    taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX).is_file())
    if taken:
        raise InputError("a new folder, or one of an older export", f"'{folder}' with something else in it",
                         "Choose another name.")


def _written(path: Path, data: bytes) -> None:
    with writing_to(path.parent):
        path.write_bytes(data)
