"""What can be operated in the notebooks: `from egstalker_nb import widgets`. Each has a still form (`base.Panel`)."""
from __future__ import annotations

import importlib
from typing import Any

#: public name -> module; imported on first use
_PUBLIC = {
    "Panel": "base", "Plot": "base", "Job": "job", "Wipe": "wipe",
    "Studio": "studio", "Orbit": "orbit", "Recorder": "recorder",
    "RunChooser": "comparison_panel", "SideBySide": "comparison_panel",
    "run_curves": "comparison_plots", "cost_plot": "comparison_plots",
    "TrainingPanel": "training_panel", "Sharpening": "sharpening",
    "LossTerms": "loss_terms", "loss_shares": "loss_terms",
    "AttentionView": "heads",
    "VideoPicker": "clip", "Preparation": "clip", "PlateWipe": "clip", "Lights": "lights", "Explorer": "explorer",
    "Upload": "upload",
    "GrowthCloud": "growth_panel", "cloud": "growth_panel", "births": "growth_panel", "Threshold": "threshold",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
