"""Audio-driven 3D Gaussian talking heads, notebook first: `import egstalker_nb as egs`."""
from __future__ import annotations

import importlib
import os
from typing import Any

# before torch is imported: OpenMP threads that spin while they wait starve the rasteriser's threads on a small CPU
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

#: public name -> module; imported on first use, so that `import egstalker_nb` is quick and needs no mediapipe
_PUBLIC = {
    "prepare": "preparation.pipeline", "load_dataset": "data.dataset", "Dataset": "data.dataset",
    "load_config": "config", "presets": "config", "Config": "config",
    "train": "training.train", "load_run": "training.run", "Run": "training.run",
    "render": "rendering.render", "Renderer": "rendering.render", "stream": "rendering.streaming",
    "evaluate": "evaluation.evaluate", "trim": "media.audio", "sync_score": "evaluation.lip_sync",
    "export_frames": "rendering.export", "export_ply": "rendering.export", "load_encoder": "speech.encoders",
    "rasterize": "rasterizer", "compare": "analysis.comparison", "EgsError": "core.errors",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value
