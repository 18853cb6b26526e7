"""Interactive panels of the notebooks: `nb.widgets`. Each also has a static form (see `base.Panel`)."""
from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.lazy import lazy_names

if TYPE_CHECKING:
    from .attention_view import AttentionView as AttentionView
    from .base import Panel as Panel
    from .base import Plot as Plot
    from .clip import PlateWipe as PlateWipe
    from .clip import Preparation as Preparation
    from .clip import VideoPicker as VideoPicker
    from .comparison_panel import RunChooser as RunChooser
    from .comparison_panel import SideBySide as SideBySide
    from .comparison_plots import cost_plot as cost_plot
    from .comparison_plots import run_curves as run_curves
    from .explorer import Explorer as Explorer
    from .growth_panel import GrowthCloud as GrowthCloud
    from .growth_panel import cloud_page as cloud_page
    from .growth_panel import densification_counts as densification_counts
    from .head_page import HeadPage as HeadPage
    from .job import Job as Job
    from .live_view import show_frames as show_frames
    from .loss_terms import LossTerms as LossTerms
    from .loss_terms import loss_shares as loss_shares
    from .orbit import Orbit as Orbit
    from .quality_status import QualityStatus as QualityStatus
    from .recorder import Recorder as Recorder
    from .snapshot_viewer import SnapshotViewer as SnapshotViewer
    from .studio import Studio as Studio
    from .sweep_panel import SweepPanel as SweepPanel
    from .sweep_plots import parallel_coordinates as parallel_coordinates
    from .sweep_plots import score_against_cost as score_against_cost
    from .sweep_plots import sweep_curves as sweep_curves
    from .threshold import Threshold as Threshold
    from .training_panel import TrainingPanel as TrainingPanel
    from .upload import Upload as Upload
    from .wipe import Wipe as Wipe

# imported on first use: a notebook loads only the panels that it shows
__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "Panel": ".base", "Plot": ".base", "Job": ".job", "Wipe": ".wipe", "Upload": ".upload", "show_frames": ".live_view",
    "VideoPicker": ".clip", "Preparation": ".clip", "PlateWipe": ".clip", "QualityStatus": ".quality_status",
    "Explorer": ".explorer",
    "TrainingPanel": ".training_panel", "SnapshotViewer": ".snapshot_viewer", "LossTerms": ".loss_terms",
    "loss_shares": ".loss_terms", "AttentionView": ".attention_view",
    "GrowthCloud": ".growth_panel", "cloud_page": ".growth_panel", "densification_counts": ".growth_panel",
    "Threshold": ".threshold",
    "RunChooser": ".comparison_panel", "SideBySide": ".comparison_panel",
    "run_curves": ".comparison_plots", "cost_plot": ".comparison_plots",
    "SweepPanel": ".sweep_panel", "parallel_coordinates": ".sweep_plots", "sweep_curves": ".sweep_plots",
    "score_against_cost": ".sweep_plots",
    "Studio": ".studio", "Orbit": ".orbit", "Recorder": ".recorder", "HeadPage": ".head_page",
})
