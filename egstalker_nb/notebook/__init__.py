"""What notebooks show and operate: `from egstalker_nb import notebook as nb`, beside `import egstalker_nb as egs`.

Figures, tables, widgets, exercises, the headless runner, the gallery; and, under one name, what notebooks use of the
rooms below. May import: every room.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from ..analysis import attribution as attribution
    from ..analysis import collapse as collapse
    from ..analysis import growth as growth
    from ..analysis import setting_effects as setting_effects
    from ..core.table import Table as Table
    from ..metrics.image_metrics import psnr as psnr
    from ..rendering.inspection import ground_truth as ground_truth
    from ..rendering.inspection import render_frames as render_frames
    from . import audio_figures as audio_figures
    from . import collapse_figure as collapse_figure
    from . import comparison_figures as comparison_figures
    from . import diagrams as diagrams
    from . import exercises as exercises
    from . import figures as figures
    from . import glossary as glossary
    from . import growth_figures as growth_figures
    from . import plots as plots
    from . import tables as tables
    from . import widgets as widgets

__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "Table": "..core.table", "psnr": "..metrics.image_metrics", "ground_truth": "..rendering.inspection",
    "render_frames": "..rendering.inspection",
}, modules=(
    ".audio_figures", ".collapse_figure", ".comparison_figures", ".diagrams", ".exercises", ".figures", ".glossary",
    ".growth_figures", ".plots", ".tables", ".widgets",
    "..analysis.attribution", "..analysis.collapse", "..analysis.growth", "..analysis.setting_effects",
))
