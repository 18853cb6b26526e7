"""Small records along a training run: a rendered frame, and where the Gaussians were.

Checkpoints are few and complete; snapshots are many and small. Notebooks scrub through them.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from ..config import Config, densification_steps
from ..core.errors import DatasetError, EgsError, first_line
from ..core.files import remove_leftovers, write_bytes, writing_to
from ..core.reading import read_safetensors
from ..media.image_io import encode_jpeg, read_rgb
from ..model.gaussians import SH_C0

FOLDER = "snapshots"
EARLY = 20              # snapshots at growing distances
MAX_DENSIFICATION = 20  # snapshots of densification steps


def moments(cfg: Config) -> list[int]:
    """Iterations of a run's snapshots: the start, at growing distances, densification steps, ends of the stages."""
    early = np.geomspace(10, max(cfg.iterations, 10), EARLY).astype(int).tolist()
    planned = densification_steps(cfg)
    some = [planned[k] for k in np.linspace(0, len(planned) - 1, min(MAX_DENSIFICATION, len(planned))).astype(int)]
    return sorted(i for i in {0, *early, *some, cfg.coarse_iterations, cfg.iterations} if i <= cfg.iterations)


@dataclass
class Snapshot:
    """One moment of a run; the Gaussians before the densification step of this iteration, if it had one.

    Attributes:
        iteration: finished training steps.
        means: [N, 3] head frame.
        scales: [N, 3] logs of standard deviations, head units.
        opacity: [N] 0...1.
        colour: [N, 3] uint8, of the spherical harmonics of degree 0.
        added_at: [N] iteration at which each was added, 0 for one of the landmarks.
        gradient: [N] mean image-plane gradient since the last densification step (per half image size); 0 for one that
            was in no image, and 0 everywhere once densification is over.
        picture: [S, S, 3] uint8, validation frame `frame` as rendered then; None without validation frames.
        frame: its number in the dataset, or -1.
    """

    iteration: int
    means: np.ndarray
    scales: np.ndarray
    opacity: np.ndarray
    colour: np.ndarray
    added_at: np.ndarray
    gradient: np.ndarray
    picture: np.ndarray | None
    frame: int

    def __len__(self) -> int:
        return len(self.means)


def _file(run: Path, iteration: int) -> Path:
    return Path(run) / FOLDER / f"iteration_{iteration}.safetensors"


def save(run: Path, iteration: int, gaussians: dict[str, Tensor], added_at: Tensor, gradient: Tensor,
         picture: np.ndarray | None, frame: int) -> None:
    """Write one snapshot, the image as a JPEG beside it.

    Scales, opacities and gradients are kept in full precision, so that a densification step can be recomputed exactly;
    33 bytes a Gaussian, 15 MB for the 40 snapshots of a production run (30,000 iterations, 10,000 points).

    Args:
        run: the run folder.
        iteration: finished training steps.
        gaussians: before activation, see `make_gaussians`.
        added_at: [N] see `Snapshot`.
        gradient: [N] see `Snapshot`.
        picture: [S, S, 3] uint8, or None.
        frame: its number in the dataset, or -1.
    """
    g = {k: v.detach().cpu() for k, v in gaussians.items()}
    path = _file(run, iteration)
    if picture is not None:
        write_bytes(path.with_suffix(".jpg"), encode_jpeg(picture, quality=90))
    colour = (255 * (0.5 + SH_C0 * g["sh0"][:, 0]).clamp(0, 1)).round().byte()
    write_bytes(path, tensor_bytes({
        "means": g["means"].half(), "scales": g["scales"].contiguous(), "opacity": g["opacities"].sigmoid(),
        "colour": colour.contiguous(), "added_at": added_at.cpu().int(), "gradient": gradient.cpu().float(),
        "frame": torch.tensor(frame)}))


def iterations(run: Path) -> list[int]:
    """Iterations of the snapshots of a run folder, ascending."""
    found = (re.fullmatch(r"iteration_(\d+)", p.stem) for p in (Path(run) / FOLDER).glob("iteration_*.safetensors"))
    return sorted(int(m[1]) for m in found if m)


def load(run: Path, iteration: int) -> Snapshot:
    """Read one snapshot.

    Raises:
        DatasetError: missing or damaged.
    """
    path = _file(run, iteration)
    try:
        values = {k: v.numpy() for k, v in read_safetensors(path)[0].items()}
        frame = int(values.pop("frame"))
        jpeg = path.with_suffix(".jpg")
        wide = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in values.items()}
        return Snapshot(iteration, **wide, picture=read_rgb(jpeg) if jpeg.is_file() else None, frame=frame)
    except (EgsError, ValueError, KeyError, TypeError) as error:
        have = ", ".join(map(str, iterations(run))) or "none"
        raise DatasetError(f"a readable snapshot at '{path}'", first_line(error),
                           f"Snapshots in this run: {have}.") from error


def cut(run: Path, after: int) -> None:
    """Remove snapshots of steps that will be done again, and what a kill while writing left behind."""
    remove_leftovers(Path(run) / FOLDER)
    with writing_to(Path(run)):
        for i in iterations(run):
            if i > after:
                _file(run, i).unlink()
                _file(run, i).with_suffix(".jpg").unlink(missing_ok=True)
