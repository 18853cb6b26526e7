"""A run folder: what was trained, with which settings, on what, and how it went."""
from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import torch

from ..config import Config, load_config
from ..core.device import device_name, rendering_device
from ..core.errors import ConfigError, DatasetError, InputError
from ..core.files import make_folder
from ..data.dataset import Dataset, load_dataset
from ..model.head import Head
from . import checkpoint, snapshots
from .snapshots import Snapshot

CONFIG, MANIFEST, METRICS = "config.yaml", "manifest.json", "metrics.jsonl"


class Run:
    """An opened run folder. Made by `load_run` or `train`.

    Attributes:
        root: the folder.
        config: its `Config`.
        manifest: dataset, versions, device, seed, git revision.
    """

    def __init__(self, root: Path, config: Config, manifest: dict[str, Any]):
        self.root, self.config, self.manifest = root, config, manifest

    def __repr__(self) -> str:
        done = self.iterations[-1] if self.iterations else 0
        return f"Run({self.root.name}: {self.config.preset}, {done} of {self.config.iterations} iterations)"

    @property
    def iterations(self) -> list[int]:
        """Iterations of the finished checkpoints, ascending."""
        return checkpoint.iterations(self.root)

    @property
    def snapshots(self) -> list[int]:
        """Iterations of the snapshots, ascending: many small records beside the few checkpoints."""
        return snapshots.iterations(self.root)

    def snapshot(self, iteration: int) -> Snapshot:
        """The snapshot of an iteration.

        Raises:
            DatasetError: missing or damaged.
        """
        return snapshots.load(self.root, iteration)

    @property
    def finished(self) -> bool:
        return self.config.iterations in self.iterations

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset it was trained on, with poses as tracked; those the head was trained on are its own (`Head.w2c`).

        Raises:
            DatasetError: moved away, or no longer the one that was trained on.
        """
        place = (self.root / self.manifest["dataset"]).resolve()
        if not place.is_dir():
            raise DatasetError(f"the dataset of this run at '{place}'", "no such folder",
                               "If it was moved, open the run with load_run(path, dataset=...).")
        ds = load_dataset(place)
        if ds.hash != self.manifest["dataset_hash"]:
            raise DatasetError(f"dataset {self.manifest['dataset_hash']}, which this run was trained on",
                               f"{ds.hash} in '{ds.root}'", "Restore that dataset, or train a new run on this one.")
        return ds

    def metrics(self, kind: Optional[str] = None) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl, oldest first; `kind`: train, eval, densify or checkpoint."""
        path = self.root / METRICS
        if not path.is_file():
            return []
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
                if line.endswith("\n")]  # a row that was being written when the run was killed has no end
        return [r for r in rows if kind is None or r["kind"] == kind]

    def pick(self, iteration: Optional[int] = None) -> int:
        """The checkpoint to use: the given one, or the newest.

        Raises:
            DatasetError: there is none, or not that one.
        """
        have = self.iterations
        if not have or (iteration is not None and iteration not in have):
            raise DatasetError("a checkpoint" + (f" of iteration {iteration}" if iteration is not None else ""),
                               f"iterations {have}" if have else f"none in '{self.root}'",
                               "Choose one of these." if have else "Train the run first.")
        return have[-1] if iteration is None else iteration

    def load_head(self, iteration: Optional[int] = None, device: Optional[str | torch.device] = None) -> Head:
        """The trained head of a checkpoint, with the poses it was trained on; `Renderer.from_run` renders it.

        Args:
            iteration: of the checkpoint; default: the newest.
            device: default CUDA, else the CPU.

        Raises:
            DatasetError: no such checkpoint, or a damaged one.
            InputError: the device cannot render.
        """
        device = rendering_device(device)
        tensors = checkpoint.load(self.root, self.pick(iteration), checkpoint.HEAD)
        try:
            points, frames, size = (len(tensors[name]) for name in ("gaussians.means", "mouth.coefficients",
                                                                         "torso.plate"))
            encoder = self.manifest["encoder"] if "mouth.link.rest" in tensors else None
            head = Head.blank(self.config, points, frames, size, encoder)
            for name in head.gaussians:
                head.gaussians[name] = torch.nn.Parameter(torch.empty_like(tensors[f"gaussians.{name}"]))
            head.load_state_dict({k: v for k, v in tensors.items() if k != "added_at"})
        except (KeyError, RuntimeError) as error:
            raise DatasetError("a checkpoint of this version that fits config.yaml", str(error),
                               "Train again: another version made it, or its config was edited.") from error
        return head.to(device).eval().requires_grad_(False)

    def added_at(self, iteration: Optional[int] = None) -> torch.Tensor:
        """The iteration at which each Gaussian of a checkpoint was added, [N] float32; 0 for one of the landmarks."""
        return checkpoint.load(self.root, self.pick(iteration), checkpoint.HEAD)["added_at"]


def load_run(path: str | Path, dataset: Optional[str | Path] = None) -> Run:
    """Open a run folder.

    Args:
        path: the folder.
        dataset: where its dataset lies now, if one of the two was moved.

    Raises:
        DatasetError: not a run folder, or damaged.
        ConfigError: its `config.yaml` is not usable.
    """
    root = Path(path)
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        missing = {"dataset", "dataset_hash", "encoder"} - set(manifest)
        if missing:
            raise ValueError(f"{MANIFEST} without {', '.join(sorted(missing))}")
        if dataset is not None:
            manifest["dataset"] = _relative(Path(dataset), root)
        return Run(root, load_config(root / CONFIG), manifest)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise DatasetError(f"a run folder at '{root}' ({CONFIG}, {MANIFEST})", f"{type(error).__name__}: {error}",
                           "Train one with egs.train(dataset, config, folder).") from error


def open_run(ds: Dataset, cfg: Config, root: Path, device: torch.device) -> Run:
    """The run of this dataset and configuration in `root`: made, or found there to be continued.

    Raises:
        ConfigError: the folder holds a run with other settings.
        DatasetError: ... or on another dataset.
        InputError: the folder is a dataset.
    """
    if (root / MANIFEST).is_file():
        run = load_run(root, ds.root)
        _same(run, ds, cfg)
        text = json.dumps(run.manifest, indent=1)
        if text != (root / MANIFEST).read_text(encoding="utf-8"):  # run or dataset was moved
            checkpoint.write_text_atomic(root / MANIFEST, text)
        return run
    if (root / "dataset.json").exists():
        raise InputError("a folder of its own for the run", f"the dataset '{root}'", "Choose another folder.")
    for name in ("checkpoints", "snapshots", "renders", "figures"):
        make_folder(root / name)
    manifest = {"dataset": _relative(ds.root, root), "dataset_hash": ds.hash,
                "dataset_size": ds.size, "encoder": ds.encoder, "seed": cfg.seed, "device": device_name(device),
                "git": git_revision(), "versions": versions()}
    cfg.save(root / CONFIG)
    checkpoint.write_text_atomic(root / MANIFEST, json.dumps(manifest, indent=1))
    return Run(root, cfg, manifest)


def _relative(place: Path, root: Path) -> str:
    """A relative path: run folders and datasets that are moved together keep finding each other."""
    return os.path.relpath(place.resolve(), root.resolve())


def _same(run: Run, ds: Dataset, cfg: Config) -> None:
    old, new = run.config.to_dict(), cfg.to_dict()
    other = [f"{k}: {old[k]!r} there, {new[k]!r} now" for k in new if old[k] != new[k] and k != "preset"]
    if other:
        raise ConfigError(f"the settings of the run in '{run.root}'", "; ".join(other),
                          f"Train into another folder, or continue with load_config('{run.root / CONFIG}').")
    if run.manifest["dataset_hash"] != ds.hash:
        raise DatasetError(f"dataset {run.manifest['dataset_hash']} of the run in '{run.root}'",
                           f"{ds.hash} in '{ds.root}'", "Train another dataset into another folder.")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    import gsplat
    import numpy

    return {"python": platform.python_version(), "torch": torch.__version__, "gsplat": gsplat.__version__,
            "numpy": numpy.__version__}


def git_revision() -> str:
    """The revision of the working tree this package runs from, or `unknown`."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10,
                              cwd=Path(__file__).parent)
        return done.stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
