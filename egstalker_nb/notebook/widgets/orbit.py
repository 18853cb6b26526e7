"""A speaking head from any viewpoint, rendered whenever the camera or the frame changes."""
from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import anywidget
import cv2
import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation
from torch import Tensor

from ...data.conditions import Conditions
from ...data.dataset import Dataset
from ...media.rates import FPS
from ...rendering.motion import middle_frame
from ...rendering.renderer import Renderer
from ...rendering.script import Script
from .. import plots
from ..figures import LIGHT
from .base import ASSETS, Panel, choices, encode, slider

YAW, PITCH = 60, 30        # degrees to either side: a clip shows a face, not the back of a head
ZOOM = 0.6, 4.0
MAX_CACHED_OFFSETS = 24    # frames; 2 MB each with 10,000 Gaussians
#: entries of the menu -> what is rendered behind the head
BACKGROUNDS = {"torso and background": "torso", "background": "plate", "plain": "plain"}


@dataclass(frozen=True)
class View:
    """What an `Orbit` shows.

    Attributes:
        frame: of the script.
        yaw, pitch: of the camera, degrees; positive: the head appears turned to the right of the image, and is seen
            from above.
        zoom: relative to the clip's; the focal length changes, not the distance.
        behind: what is rendered behind the head: `torso` (and background plate), `plate` or `plain`.
    """

    frame: int = 0
    yaw: float = 0.0
    pitch: float = 0.0
    zoom: float = 1.0
    behind: str = "torso"

    def clamped(self, frames: int) -> "View":
        """The nearest view within the limits, for a script of so many frames."""
        def clamp(value: float, low: float, high: float) -> float:
            return min(max(value, low), high)

        return replace(self, frame=int(clamp(self.frame, 0, frames - 1)), yaw=clamp(self.yaw, -YAW, YAW),
                       pitch=clamp(self.pitch, -PITCH, PITCH), zoom=clamp(self.zoom, *ZOOM))


class Viewer:
    """Renders one head from any viewpoint.

    Args:
        renderer: of the head, see `Renderer.from_run`.
        size: of the images, px; the intrinsics are scaled to it.
    """

    def __init__(self, renderer: Renderer, size: int = 256):
        self.head, self.size, self.middle = renderer.head, size, middle_frame(renderer.ds)
        self.renderer = Renderer(renderer.head, _resized(renderer.ds, size), renderer.deform)
        self._backgrounds: dict[str, np.ndarray] = {}
        self._spatial: Optional[tuple[Tensor, Tensor]] = None
        self._offsets_of: dict[int, dict[str, Tensor]] = {}  # by frame
        self._lock = threading.RLock()  # callbacks and cells run in different threads

    def set_script(self, script: Script) -> "Viewer":
        """Set what is rendered (see `audio_script`); required before the first image. Returns the viewer itself."""
        coefficients = self.renderer.mouth_coefficients(script)
        with self._lock:
            self.script, self.coefficients, self._offsets_of = script, coefficients, {}
        return self

    @torch.no_grad()
    def picture(self, frame: int = 0, yaw: float = 0.0, pitch: float = 0.0, zoom: float = 1.0,
                behind: str = "torso") -> np.ndarray:
        """One image, [size, size, 3] uint8.

        The camera circles the head, as with `poses="orbit"`; torso and background stay fixed. The network always gets
        the clip's middle pose, wherever the camera is.

        Args:
            frame, yaw, pitch, zoom, behind: see `View`.
        """
        w2c, K = self.camera(yaw, pitch), self.renderer.K.clone()
        K[0, 0] *= zoom
        K[1, 1] *= zoom
        with self._lock:
            rgb, alpha, _ = self.head.splat(self._offsets(frame), w2c, K, self.size)
            background = self._behind(behind, zoom)
        shown = torch.addcmul(rgb[0].cpu(), 1 - alpha[0].cpu(), torch.from_numpy(background)).clamp_(0, 1)
        return (shown * 255).round().byte().numpy()

    def camera(self, yaw: float, pitch: float) -> Tensor:
        """World-to-camera [1, 4, 4]: the clip's middle pose, rotated around the head by so many degrees."""
        w2c = self.renderer.w2c[self.middle].copy()
        w2c[:3, :3] = w2c[:3, :3] @ Rotation.from_euler("yx", [-yaw, pitch], degrees=True).as_matrix()
        return torch.from_numpy(w2c)[None].to(self.renderer.device)

    def _offsets(self, frame: int) -> Optional[dict[str, Tensor]]:
        """Offsets of a frame; cached, as they do not depend on the camera."""
        if not self.renderer.deform:
            return None
        if frame not in self._offsets_of:
            if self._spatial is None:
                self._spatial = self.head.spatial()
            eyes = torch.from_numpy(self.script.eyes[frame:frame + 1]).to(self.renderer.device)
            given = Conditions(self.coefficients[frame:frame + 1], eyes, self.head.w2c[self.middle][None])
            while len(self._offsets_of) >= MAX_CACHED_OFFSETS:
                self._offsets_of.pop(next(iter(self._offsets_of)))
            self._offsets_of[frame] = self.head.offsets(given, self._spatial)
        return self._offsets_of[frame]

    def _behind(self, name: str, zoom: float) -> np.ndarray:
        """What is seen where there is no head, [size, size, 3] float32 0...1."""
        if name not in self._backgrounds:
            torso, code = self.head.torso, self.head.torso.codes[self.middle][None]
            side = round(self.size * len(torso.plate) / torso.size)
            picture, plate = (F.interpolate(x[None].float() / 255, (side, side), mode="area")[0]
                              for x in (torso.picture, torso.plate.permute(2, 0, 1)))
            layer = torso.layer(code, picture, plate)[0] if name == "torso" else torso.scene(code, plate)[0]
            if name == "plain":
                layer = torch.full_like(layer, LIGHT)
            self._backgrounds[name] = layer.permute(1, 2, 0).cpu().numpy().copy()
        made = self._backgrounds[name]
        if zoom == 1 or name == "plain":
            return made
        shift = (1 - zoom) * (self.size - 1) / 2
        matrix = np.array([[zoom, 0, shift], [0, zoom, shift]], np.float32)
        return cv2.warpAffine(made, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REPLICATE)


def _resized(ds: Dataset, size: int) -> Dataset:
    """The dataset with intrinsics for another image size; its images stay as they are."""
    scaled = copy.copy(ds)
    scaled.K = ds.K.clone()
    scaled.K[:2] *= size / ds.size
    scaled.focal, scaled.size = ds.focal * size / ds.size, size
    return scaled


#: attributes of a view that the image in the browser changes itself
DRAGGED = ("yaw", "pitch", "zoom", "frame")


class OrbitView(anywidget.AnyWidget):
    """The image in the browser: drag or arrow keys turn the head, the wheel or + and - zoom."""

    _esm = ASSETS / "orbit.js"
    _css = ASSETS / "orbit.css"
    picture = traitlets.Bytes().tag(sync=True)
    yaw = traitlets.Float(0.0).tag(sync=True)
    pitch = traitlets.Float(0.0).tag(sync=True)
    zoom = traitlets.Float(1.0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    frames = traitlets.Int(1).tag(sync=True)
    limits = traitlets.Dict({"yaw": [-YAW, YAW], "pitch": [-PITCH, PITCH], "zoom": list(ZOOM)}).tag(sync=True)
    width = traitlets.Int(384).tag(sync=True)


class Orbit(Panel):
    """View a speaking head from any side; both the sliders and the image itself control the camera.

    Args:
        viewer: renders the head; its script is set.
        watcher: called with the frame whenever another one is selected.

    Attributes:
        view: what is shown.
        drawn: how many images were rendered for the browser.
    """

    def __init__(self, viewer: Viewer, watcher: Optional[Callable[[int], None]] = None):
        self.viewer, self.watcher = viewer, watcher
        self.view = View()
        self.drawn = 0
        self._updating = False  # the controls follow the view: their events do not change it

    def show(self, **view: Any) -> None:
        """Change the view; values beyond the limits are clamped.

        Args:
            view: attributes of `View`.
        """
        changed = replace(self.view, **view).clamped(len(self.viewer.script))
        selected, self.view = changed.frame != self.view.frame, changed
        self.refresh()
        if selected and self.watcher:
            self.watcher(changed.frame)

    def picture(self) -> np.ndarray:
        """The current image, [size, size, 3] uint8."""
        return self.viewer.picture(**vars(self.view))

    def redraw(self) -> None:
        self._updating = True
        try:
            last = len(self.viewer.script) - 1
            self.player.max = self.canvas.frames = last
            self.sliders["frame"].max = last
            for name, control in self.sliders.items():
                # a slider in the browser would round to its step and send that back, late, over a newer value
                steps = round(getattr(self.view, name) / control.step)
                control.value = type(control.value)(round(steps * control.step, 6))
            with self.canvas.hold_sync():
                for name in DRAGGED:
                    setattr(self.canvas, name, getattr(self.view, name))
                self.canvas.picture = encode(self.picture())
            self.drawn += 1
        finally:
            self._updating = False

    def _changed(self, change: dict[str, Any]) -> None:
        if not self._updating:
            name = next((n for n, control in self.sliders.items() if control is change["owner"]), "frame")
            self.show(**{name: change["new"]})

    def _moved(self, _: dict[str, Any]) -> None:
        """The image was dragged. One message may change several values, and each sends a notice of its own: they are
        applied together, or the old value of the second would be sent back to the browser."""
        moved = {name: getattr(self.canvas, name) for name in DRAGGED}
        if not self._updating and any(getattr(self.view, name) != value for name, value in moved.items()):
            self.show(**moved)

    def build(self) -> ipywidgets.Widget:
        last, view = len(self.viewer.script) - 1, self.view
        self.canvas = OrbitView(frames=last, **{name: getattr(view, name) for name in DRAGGED})
        self.sliders = {"yaw": slider("yaw (°)", -YAW, YAW, float(view.yaw), 1.0, readout_format=".0f"),
                        "pitch": slider("pitch (°)", -PITCH, PITCH, float(view.pitch), 1.0, readout_format=".0f"),
                        "zoom": slider("zoom", *ZOOM, float(view.zoom), 0.05),
                        "frame": slider("frame", 0, last, view.frame)}
        self.player = ipywidgets.Play(value=view.frame, min=0, max=last, step=2, interval=2000 // FPS)
        self.behind = choices("background", list(BACKGROUNDS))
        self.front = ipywidgets.Button(description="Front view", icon="undo")
        self.front.on_click(lambda _: self.show(yaw=0.0, pitch=0.0, zoom=1.0))
        self.behind.observe(lambda change: self.show(behind=BACKGROUNDS[change["new"]]), "value")
        for control in (*self.sliders.values(), self.player):
            control.observe(self._changed, "value")
        self.canvas.observe(self._moved, list(DRAGGED))
        controls = ipywidgets.VBox([*self.sliders.values(), self.behind, ipywidgets.HBox([self.player, self.front]),
                                    self.note])
        return ipywidgets.HBox([self.canvas, controls], layout=ipywidgets.Layout(flex_flow="row wrap"))

    def still(self) -> Figure:
        front, middle = View(self.view.frame), (len(self.viewer.script) - 1) // 2
        views = {**{f"yaw {yaw}°": replace(front, yaw=float(yaw)) for yaw in (-45, -20)},
                 f"front, frame {front.frame}": front,
                 **{f"yaw {yaw}°": replace(front, yaw=float(yaw)) for yaw in (20, 45)},
                 **{f"pitch {pitch}°": replace(front, pitch=float(pitch)) for pitch in (-25, 25)},
                 "zoom 2.5": replace(front, zoom=2.5),
                 "yaw 30°, no torso": replace(front, yaw=30.0, behind="plate"),
                 f"plain, frame {middle}": View(middle, 30.0, 10.0, behind="plain")}
        return plots.image_grid([self.viewer.picture(**vars(view)) for view in views.values()], list(views), columns=5,
                                edge=2.0)
