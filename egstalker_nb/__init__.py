"""Audio-driven 3D Gaussian talking heads, notebook first: `import egstalker_nb as egs`.

`docs/architecture.md` says what lies in which folder.
"""
from __future__ import annotations

import os
from typing import TYPE_CHECKING

# before torch is imported: OpenMP threads that spin while they wait starve the rasteriser's threads on a small CPU
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .core.lazy import lazy_names  # noqa: E402

if TYPE_CHECKING:
    from .analysis.comparison import compare as compare
    from .config import Config as Config
    from .config import load_config as load_config
    from .config import presets as presets
    from .core.errors import EgsError as EgsError
    from .data.dataset import Dataset as Dataset
    from .data.dataset import load_dataset as load_dataset
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.lip_sync import sync_score as sync_score
    from .evaluation.score_videos import score as score
    from .media.audio import trim as trim
    from .model.gaussian_files import read_gaussians as read_gaussians
    from .preparation.pipeline import prepare as prepare
    from .rasterizer import rasterize as rasterize
    from .rendering.export import export_frames as export_frames
    from .rendering.export import export_gaussians as export_gaussians
    from .rendering.export import export_ply as export_ply
    from .rendering.render import render as render
    from .rendering.render import replay as replay
    from .rendering.renderer import Renderer as Renderer
    from .rendering.streaming import stream as stream
    from .scheduling.sweep import load_sweep as load_sweep
    from .scheduling.sweep import sweep as sweep
    from .speech.encoders import load_encoder as load_encoder
    from .training.fit_prior import fit_prior as fit_prior
    from .training.run import Run as Run
    from .training.run import load_run as load_run
    from .training.trackers import track as track
    from .training.train import train as train
    from .upstream.arguments_file import read_arguments as read_arguments
    from .upstream.checkpoint_reader import read_checkpoint as read_checkpoint
    from .upstream.checkpoint_reader import upstream_cameras as upstream_cameras
    from .upstream.folder_reader import import_dataset as import_dataset
    from .upstream.folder_writer import export_dataset as export_dataset
    from .viewer.splat_view import view as view
    from .web.export_web import export_web as export_web

__version__ = "0.1.0"

# imported on first use, so that `import egstalker_nb` is quick and needs no mediapipe
__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "prepare": ".preparation.pipeline", "load_dataset": ".data.dataset", "Dataset": ".data.dataset",
    "load_config": ".config", "presets": ".config", "Config": ".config",
    "fit_prior": ".training.fit_prior", "train": ".training.train", "load_run": ".training.run", "Run": ".training.run",
    "render": ".rendering.render", "replay": ".rendering.render", "Renderer": ".rendering.renderer",
    "stream": ".rendering.streaming", "evaluate": ".evaluation.evaluate", "sync_score": ".evaluation.lip_sync",
    "score": ".evaluation.score_videos", "track": ".training.trackers", "trim": ".media.audio",
    "sweep": ".scheduling.sweep", "load_sweep": ".scheduling.sweep",
    "export_frames": ".rendering.export", "export_gaussians": ".rendering.export", "export_ply": ".rendering.export",
    "read_gaussians": ".model.gaussian_files", "load_encoder": ".speech.encoders",
    "rasterize": ".rasterizer", "compare": ".analysis.comparison", "EgsError": ".core.errors",
    "view": ".viewer.splat_view", "export_web": ".web.export_web", "read_arguments": ".upstream.arguments_file",
    "import_dataset": ".upstream.folder_reader", "export_dataset": ".upstream.folder_writer",
    "read_checkpoint": ".upstream.checkpoint_reader", "upstream_cameras": ".upstream.checkpoint_reader",
})
