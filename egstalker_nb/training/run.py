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
from ..core.errors import ConfigError, DatasetError, InputError, first_line
from ..core.files import foreign_files, make_folder, shortened, write_text
from ..core.reading import Unreadable, read_json, shown
from ..data.dataset import Dataset, load_dataset
from ..model.head import Head
from . import checkpoint, snapshots
from .history import METRICS, parse_rows, plateau
from .snapshots import Snapshot

CONFIG, MANIFEST = "config.yaml", "manifest.json"
#: of run folders, in the manifest. Later versions of the kit load all earlier formats from 0 on (see `_migrated`)
FORMAT = 1
#: folders that notebooks make in a run folder before training does
BEFORE_TRAINING = "figures", "renders"
#: settings that may differ when a run is continued, as they do not affect its result
FREE_SETTINGS = "preset", "checkpoint_interval", "keep_checkpoints", "tracking", "torso_steps"


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
        """Iterations of the checkpoints, ascending."""
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
        return [r for r in parse_rows(path.read_bytes()) if kind is None or r["kind"] == kind]

    def plateau(self) -> str:
        """Whether more steps would have helped, by the PSNR of validation frames during training: one sentence."""
        return plateau(self.metrics("eval"))

    def pick(self, iteration: Optional[int] = None) -> int:
        """The checkpoint to use: the given one, or the newest with an intact head, with a warning if newer ones are
        damaged.

        Raises:
            DatasetError: there is none, or not that one.
        """
        have = self.iterations
        newest = checkpoint.newest(self.root, checkpoint.HEAD) if iteration is None else iteration
        if newest is None or newest not in have:
            raise DatasetError("a checkpoint" + (f" of iteration {iteration}" if iteration is not None else ""),
                               f"iterations {have}" + (", all damaged" if newest is None else "") if have else
                               f"none in '{shortened(self.root)}'",
                               "Choose one of these." if have and newest is not None else "Train the run first.")
        return newest

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
        return self.head_of(checkpoint.load(self.root, self.pick(iteration), checkpoint.HEAD)).to(device).eval()

    def head_of(self, tensors: dict[str, torch.Tensor]) -> Head:
        """The head of this run's configuration with these tensors, on the CPU; no parameter asks for a gradient.

        Args:
            tensors: those of a checkpoint's head, or its `state_dict`.

        Raises:
            DatasetError: they do not fit.
        """
        try:
            points, frames, size = (len(tensors[name]) for name in ("gaussians.means", "mouth.coefficients",
                                                                         "torso.plate"))
            margin = int(tensors["torso.margin"]) if "torso.margin" in tensors else None
            encoder = self.manifest["encoder"] if "mouth.link.rest" in tensors else None
            head = Head.blank(self.config, points, frames, size - 2 * (margin or 0), encoder, margin)
            for name in head.gaussians:
                head.gaussians[name] = torch.nn.Parameter(torch.empty_like(tensors[f"gaussians.{name}"]))
            for name in ("fields", "mix", "codes"):  # earlier versions had fewer of them
                old = getattr(head.torso, name)
                old.data = torch.empty_like(tensors[f"torso.{name}"])
            head.load_state_dict({k: v for k, v in tensors.items() if k != "added_at"})
        except (KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
            what = f"no tensor {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise DatasetError(f"a checkpoint of this version that fits {CONFIG}", first_line(what),
                               "Train again: another version made it, or its config was edited.") from error
        return head.requires_grad_(False)

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
    manifest = _read_manifest(root, dataset)
    if not (root / CONFIG).is_file():
        raise DatasetError(_described(root), f"no {CONFIG}", "Restore it, or train again with the same settings: that "
                           "writes it, and goes on from the newest checkpoint.")
    return Run(root, load_config(root / CONFIG), manifest)


def _described(root: Path) -> str:
    return f"a run folder at '{shortened(root)}' ({CONFIG}, {MANIFEST})"


def _read_manifest(root: Path, dataset: Optional[str | Path]) -> dict[str, Any]:
    """The manifest of a run, with the path of its dataset if that is given, see `load_run`."""
    try:
        manifest = _migrated(read_json(root / MANIFEST, dataset=str, dataset_hash=str, encoder=dict), root)
    except Unreadable as error:
        raise DatasetError(_described(root), str(error),
                           "Train one with egs.train(dataset, config, folder).") from error
    return manifest if dataset is None else {**manifest, "dataset": _relative(Path(dataset), root)}


def _migrated(manifest: dict[str, Any], root: Path) -> dict[str, Any]:
    """The manifest of any format so far as one of this.

    Format 0 had no `format` and no checksums in its checkpoints' state.json; both may be missing.

    Raises:
        DatasetError: a later format.
    """
    found = manifest.get("format", 0)
    if not isinstance(found, int) or not 0 <= found <= FORMAT:
        raise DatasetError(f"a run of format 0 to {FORMAT} in '{shortened(root)}'", f"format {shown(found)}",
                           "A later version of the kit made it: update the kit.")
    return {**manifest, "format": FORMAT}


def find_run(ds: Dataset, cfg: Config, root: Path) -> Optional[Run]:
    """The run of this dataset and configuration in `root`, or None if nothing is there; writes nothing.

    Raises:
        ConfigError: the folder holds a run with other settings.
        DatasetError: ... or on another dataset, or a damaged one.
        InputError: the folder holds something else.
    """
    if (root / MANIFEST).is_file():
        begun = load_config(root / CONFIG) if (root / CONFIG).is_file() else cfg  # killed while the run began, or lost
        run = Run(root, begun, _read_manifest(root, ds.root))
        _same(run, ds, cfg)
        return Run(root, cfg, run.manifest)
    others = [name for name in foreign_files(root) if name not in BEFORE_TRAINING]
    if "dataset.json" in others:
        raise InputError("a folder of its own for the run", f"the dataset '{shortened(root)}'",
                         "Choose another folder.")
    if others:
        listed = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        raise InputError("an empty folder or a run of this kit", f"'{shortened(root)}' with {shown(listed)}, but no "
                         f"{MANIFEST}", "Choose another folder: training would overwrite files.")
    return None


def open_run(ds: Dataset, cfg: Config, root: Path, device: torch.device) -> Run:
    """The run of this dataset and configuration in `root`: made, or found there to be continued.

    The manifest comes first: it says that the folder belongs to a run, wherever the process is killed.

    Raises:
        ConfigError, DatasetError, InputError: see `find_run`.
        StorageError: the folder cannot be written to.
    """
    run = find_run(ds, cfg, root) or Run(root, cfg, {
        "format": FORMAT, "dataset": _relative(ds.root, root), "dataset_hash": ds.hash, "dataset_size": ds.size,
        "encoder": ds.encoder, "seed": cfg.seed, "device": device_name(device), "git": git_revision(),
        "versions": versions()})
    make_folder(root)
    for path, text in ((root / MANIFEST, json.dumps(run.manifest, indent=1) + "\n"), (root / CONFIG, cfg.to_yaml())):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # new, or moved, or saved by other rules
            write_text(path, text)
    for name in ("checkpoints", "snapshots", "renders", "figures"):
        make_folder(root / name)
    return run


def _relative(place: Path, root: Path) -> str:
    """A relative path: run folders and datasets that are moved together keep finding each other."""
    return os.path.relpath(place.resolve(), root.resolve())


def _same(run: Run, ds: Dataset, cfg: Config) -> None:
    old, new = run.config.to_dict(), cfg.to_dict()
    other = [f"{k}: {old[k]!r} there, {new[k]!r} now" for k in new if old[k] != new[k] and k not in FREE_SETTINGS]
    if other:
        raise ConfigError(f"the settings of the run in '{run.root}'", "; ".join(other),
                          f"Train into another folder, or continue with load_config('{run.root / CONFIG}').")
    if run.manifest["dataset_hash"] != ds.hash:
        raise DatasetError(f"dataset {shown(run.manifest['dataset_hash'])} of the run in '{shortened(run.root)}'",
                           f"{ds.hash} in '{shortened(ds.root)}'", "Train another dataset into another folder.")


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
