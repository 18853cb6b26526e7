"""What notebooks show and operate: `from egstalker_nb import notebook as nb`, beside `import egstalker_nb as egs`.

- `plots`, `tables`, `diagrams`, `glossary`: the parts that all notebooks share.
- `figures`, `audio_figures`, `collapse_figure`, `comparison_figures`, `growth_figures`, `snapshot_figures`,
  `sweep_figures`: figures.
- `widgets`: interactive panels, each with a static form.
- `exercises`: exercises with answers that are computed from the data at hand.
- `gallery`: executed notebooks as a web site.

Besides, it has the names of the other rooms that notebooks use. May import: every room.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from ..analysis import attribution as attribution
    from ..analysis import collapse as collapse
    from ..analysis import cost as cost
    from ..analysis import growth as growth
    from ..analysis import setting_effects as setting_effects
    from ..analysis.comparison import select as select
    from ..core.device import default_device as default_device
    from ..core.device import device_name as device_name
    from ..core.progress import clock as clock
    from ..core.progress import progress as progress
    from ..core.table import Table as Table
    from ..face import pose_math as pose_math
    from ..face.landmarks import RIGID as RIGID
    from ..face.pose_math import euler as euler
    from ..face.regions import share_of_parts as share_of_parts
    from ..face.tracker import FaceTracker as FaceTracker
    from ..live.live_session import Live as Live
    from ..media import tts as tts
    from ..media.audio import load_audio as load_audio
    from ..media.audio import save_wav as save_wav
    from ..media.image_io import read_rgb as read_rgb
    from ..media.rates import FPS as FPS
    from ..media.rates import SAMPLE_RATE as SAMPLE_RATE
    from ..media.video_reader import probe as probe
    from ..media.video_reader import read_frames as read_frames
    from ..metrics.image_metrics import psnr as psnr
    from ..metrics.landmark_metrics import aperture as aperture
    from ..metrics.landmark_metrics import correlation_and_lag as correlation_and_lag
    from ..model.deformation import TOKENS as TOKENS
    from ..model.ply import load_ply as load_ply
    from ..preparation.bundle import smooth_poses as smooth_poses
    from ..preparation.offset import audio_offset as audio_offset
    from ..rendering import motion as motion
    from ..rendering.export import render_ply as render_ply
    from ..rendering.inspection import ground_truth as ground_truth
    from ..rendering.inspection import lip_rects as lip_rects
    from ..rendering.inspection import offsets as offsets
    from ..rendering.inspection import render_frames as render_frames
    from ..scheduling import ranking as ranking
    from ..speech.voice_activity import loudness as loudness
    from ..training.init_head import new_head as new_head
    from . import audio_figures as audio_figures
    from . import collapse_figure as collapse_figure
    from . import comparison_figures as comparison_figures
    from . import diagrams as diagrams
    from . import exercises as exercises
    from . import figures as figures
    from . import glossary as glossary
    from . import growth_figures as growth_figures
    from . import plots as plots
    from . import sweep_figures as sweep_figures
    from . import tables as tables
    from . import widgets as widgets

__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "aperture": "..metrics.landmark_metrics", "audio_offset": "..preparation.offset", "clock": "..core.progress",
    "correlation_and_lag": "..metrics.landmark_metrics", "default_device": "..core.device",
    "device_name": "..core.device", "euler": "..face.pose_math", "FaceTracker": "..face.tracker",
    "FPS": "..media.rates", "ground_truth": "..rendering.inspection", "lip_rects": "..rendering.inspection",
    "Live": "..live.live_session", "load_audio": "..media.audio", "load_ply": "..model.ply",
    "loudness": "..speech.voice_activity",
    "new_head": "..training.init_head", "offsets": "..rendering.inspection", "probe": "..media.video_reader",
    "progress": "..core.progress", "psnr": "..metrics.image_metrics", "read_frames": "..media.video_reader",
    "read_rgb": "..media.image_io", "render_ply": "..rendering.export", "render_frames": "..rendering.inspection",
    "RIGID": "..face.landmarks", "SAMPLE_RATE": "..media.rates", "save_wav": "..media.audio",
    "select": "..analysis.comparison", "share_of_parts": "..face.regions", "smooth_poses": "..preparation.bundle",
    "Table": "..core.table", "TOKENS": "..model.deformation",
}, modules=(
    ".audio_figures", ".collapse_figure", ".comparison_figures", ".diagrams", ".exercises", ".figures", ".glossary",
    ".growth_figures", ".plots", ".sweep_figures", ".tables", ".widgets",
    "..analysis.attribution", "..analysis.collapse", "..analysis.cost", "..analysis.growth",
    "..analysis.setting_effects", "..face.pose_math", "..media.tts", "..rendering.motion",
    "..scheduling.ranking",
))
