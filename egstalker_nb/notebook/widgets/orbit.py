"""A head that says something, from any side: drawn anew whenever the view or the frame changes."""
from __future__ import annotations

import copy
import threading
from pathlib import Path
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
from ...rendering.renderer import Renderer, Script
from .. import plots
from ..figures import LIGHT
from .base import Panel, choices, encode, slider

HERE = Path(__file__).parent
YAW, PITCH = 60, 30        # degrees to either side: a clip shows a face, and no back of a head
ZOOM = 0.6, 4.0
KEPT = 24                  # deformed heads kept for a second look, 2 MB each with 10,000 Gaussians
BEHIND = {"torso and room": "torso", "room": "plate", "plain": "plain"}


class Viewer:
    """Draws one head from any side.

    Args:
        renderer: of the head, see `Renderer.from_run`. size: of the pictures, px; the camera is scaled.
    """

    def __init__(self, renderer: Renderer, size: int = 256):
        self.head, self.size, self.middle = renderer.head, size, middle_frame(renderer.ds)
        self.renderer = Renderer(renderer.head, _resized(renderer.ds, size), renderer.deform)
        self.backgrounds: dict[str, np.ndarray] = {}
        self._drawing = threading.RLock()  # callbacks and cells come from different threads

    def speak(self, script: Script) -> "Viewer":
        """Give it something to say (see `audio_script`); before the first picture."""
        codes = self.renderer.mouth(script)
        with self._drawing:
            self.script, self.codes, self.kept = script, codes, {}
        return self

    @torch.no_grad()
    def picture(self, frame: int = 0, yaw: float = 0.0, pitch: float = 0.0, zoom: float = 1.0,
                behind: str = "torso") -> np.ndarray:
        """One picture, [size, size, 3] uint8.

        The camera circles the head, as in `poses="orbit"`; torso and room stay as they are. The network is told the
        clip's middle pose, whatever the camera does.

        Args:
            frame: of the script. yaw, pitch: degrees, positive: the head is seen turned to the picture's right, and
                from above. zoom: 1 is the clip's; the lens changes, not the distance. behind: `torso` (and the room),
                `plate` (the room alone) or `plain`.
        """
        w2c, K = self.camera(yaw, pitch), self.renderer.K.clone()
        K[0, 0] *= zoom
        K[1, 1] *= zoom
        with self._drawing:
            rgb, alpha, _ = self.head.splat(self._offsets(frame), w2c, K, self.size)
            background = self._behind(behind, zoom)
        shown = torch.addcmul(rgb[0].cpu(), 1 - alpha[0].cpu(), torch.from_numpy(background)).clamp_(0, 1)
        return (shown * 255).round().byte().numpy()

    def camera(self, yaw: float, pitch: float) -> Tensor:
        """World-to-camera [1, 4, 4] of the clip's middle pose, turned by so many degrees around the head."""
        w2c = self.renderer.w2c[self.middle].copy()
        w2c[:3, :3] = w2c[:3, :3] @ Rotation.from_euler("yx", [-yaw, pitch], degrees=True).as_matrix()
        return torch.from_numpy(w2c)[None].to(self.renderer.device)

    def _offsets(self, frame: int) -> Optional[dict[str, Tensor]]:
        """What the network says for a frame; a camera that moves does not ask it again."""
        if not self.renderer.deform:
            return None
        if frame not in self.kept:
            if self.renderer._spatial is None:
                self.renderer._spatial = self.head.spatial()
            eyes = torch.from_numpy(self.script.eyes[frame:frame + 1]).to(self.renderer.device)
            given = Conditions(self.codes[frame:frame + 1], eyes, self.head.w2c[self.middle][None])
            while len(self.kept) >= KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[frame] = self.head.offsets(given, self.renderer._spatial)
        return self.kept[frame]

    def _behind(self, name: str, zoom: float) -> np.ndarray:
        """What is seen where there is no head, [size, size, 3] float32 0...1."""
        if name not in self.backgrounds:
            torso, edge = self.head.torso, (self.size, self.size)
            picture, plate = (F.interpolate(x[None].float() / 255, edge, mode="area")[0]
                              for x in (torso.picture, torso.plate.permute(2, 0, 1)))
            made = torch.full_like(plate, LIGHT) if name == "plain" else plate
            if name == "torso":
                made = torso.layer(torso.codes[self.middle][None], picture, plate)[0]
            self.backgrounds[name] = made.permute(1, 2, 0).cpu().numpy().copy()
        made = self.backgrounds[name]
        if zoom == 1 or name == "plain":
            return made
        shift = (1 - zoom) * (self.size - 1) / 2
        return cv2.warpAffine(made, np.float32([[zoom, 0, shift], [0, zoom, shift]]), (self.size, self.size),
                              flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _resized(ds: Dataset, size: int) -> Dataset:
    """The dataset with the camera of pictures of another size; its pictures stay as they are."""
    scaled = copy.copy(ds)
    scaled.K = ds.K.clone()
    scaled.K[:2] *= size / ds.size
    scaled.focal, scaled.size = ds.focal * size / ds.size, size
    return scaled


class OrbitView(anywidget.AnyWidget):
    """The picture in the browser: dragged, turned with the arrow keys, zoomed with the wheel or with + and -."""

    _esm = HERE / "orbit.js"
    _css = HERE / "orbit.css"
    picture = traitlets.Bytes().tag(sync=True)
    yaw = traitlets.Float(0.0).tag(sync=True)
    pitch = traitlets.Float(0.0).tag(sync=True)
    zoom = traitlets.Float(1.0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    frames = traitlets.Int(1).tag(sync=True)
    limits = traitlets.Dict({"yaw": [-YAW, YAW], "pitch": [-PITCH, PITCH], "zoom": list(ZOOM)}).tag(sync=True)
    width = traitlets.Int(384).tag(sync=True)


class Orbit(Panel):
    """Look at a speaking head from any side; sliders and the picture itself are controls.

    Args:
        viewer: draws it, and was given something to say. watcher: called with the frame when another one is chosen.
    """

    def __init__(self, viewer: Viewer, watcher: Optional[Callable[[int], None]] = None):
        self.viewer, self.watcher = viewer, watcher
        self.view = {"frame": 0, "yaw": 0.0, "pitch": 0.0, "zoom": 1.0, "behind": "torso"}
        self.drawn = 0
        self._moving = False

    def show(self, **view: Any) -> None:
        """Change frame, yaw, pitch, zoom or behind (see `Viewer.picture`); what lies outside is drawn at the limit."""
        wanted = {**self.view, **view}
        for name, (low, high) in {"yaw": (-YAW, YAW), "pitch": (-PITCH, PITCH), "zoom": ZOOM,
                                  "frame": (0, len(self.viewer.script) - 1)}.items():
            wanted[name] = min(max(wanted[name], low), high)
        changed, self.view = wanted["frame"] != self.view["frame"], wanted
        self._refresh()
        if changed and self.watcher:
            self.watcher(wanted["frame"])

    def picture(self) -> np.ndarray:
        """What is seen now, [size, size, 3] uint8."""
        return self.viewer.picture(**self.view)

    def _refresh(self) -> None:
        if "widget" not in self.__dict__:
            return
        self._moving = True  # what is set here shall not come back as a change
        try:
            last = len(self.viewer.script) - 1
            self.player.max = self.canvas.frames = last
            self.sliders["frame"].max = last
            for name, control in self.sliders.items():
                # a slider in the browser would round to its step and send that back, late, over what is newer
                control.value = type(control.value)(round(round(self.view[name] / control.step) * control.step, 6))
            with self.canvas.hold_sync():
                for name in ("yaw", "pitch", "zoom", "frame"):
                    setattr(self.canvas, name, self.view[name])
                self.canvas.picture = encode(self.picture())
            self.drawn += 1
        finally:
            self._moving = False

    def _changed(self, change: dict) -> None:
        if not self._moving:
            name = next((n for n, control in self.sliders.items() if control is change["owner"]), "frame")
            self.show(**{name: change["new"]})

    def _moved(self, _: dict) -> None:
        """The picture was moved. One message may change several values, each with a notice of its own: they are taken
        together, or the old value of the second would go back to the browser."""
        moved = {name: getattr(self.canvas, name) for name in ("yaw", "pitch", "zoom", "frame")}
        if not self._moving and any(self.view[name] != value for name, value in moved.items()):
            self.show(**moved)

    def build(self) -> ipywidgets.Widget:
        last, view = len(self.viewer.script) - 1, self.view
        self.canvas = OrbitView(picture=encode(self.picture()), frames=last, **{
            name: view[name] for name in ("yaw", "pitch", "zoom", "frame")})
        self.sliders = {"yaw": slider("yaw (°)", -YAW, YAW, float(view["yaw"]), 1.0, readout_format=".0f"),
                        "pitch": slider("pitch (°)", -PITCH, PITCH, float(view["pitch"]), 1.0, readout_format=".0f"),
                        "zoom": slider("zoom", *ZOOM, float(view["zoom"]), 0.05),
                        "frame": slider("frame", 0, last, view["frame"])}
        self.player = ipywidgets.Play(value=view["frame"], min=0, max=last, step=2, interval=2000 // FPS)
        self.behind = choices("behind", list(BEHIND))
        self.front = ipywidgets.Button(description="From the front", icon="undo")
        self.front.on_click(lambda _: self.show(yaw=0.0, pitch=0.0, zoom=1.0))
        self.behind.observe(lambda change: self.show(behind=BEHIND[change["new"]]), "value")
        for control in (*self.sliders.values(), self.player):
            control.observe(self._changed, "value")
        self.canvas.observe(self._moved, ["yaw", "pitch", "zoom", "frame"])
        controls = ipywidgets.VBox([*self.sliders.values(), self.behind, ipywidgets.HBox([self.player, self.front]),
                                    self.note])
        return ipywidgets.HBox([self.canvas, controls], layout=ipywidgets.Layout(flex_flow="row wrap"))

    def still(self) -> Figure:
        last = len(self.viewer.script) - 1
        seen = [{"yaw": y} for y in (-45, -20, 0, 20, 45)]
        seen += [{"pitch": -25}, {"pitch": 25}, {"zoom": 2.5}, {"yaw": 30, "behind": "plate"},
                 {"yaw": 30, "pitch": 10, "frame": last // 2, "behind": "plain"}]
        names = ["yaw -45°", "yaw -20°", f"front, frame {self.view['frame']}", "yaw 20°", "yaw 45°", "pitch -25°",
                 "pitch 25°", "zoom 2.5", "yaw 30°, no torso", f"plain, frame {last // 2}"]
        front = {**self.view, "yaw": 0.0, "pitch": 0.0, "zoom": 1.0, "behind": "torso"}
        return plots.pictures([self.viewer.picture(**{**front, **view}) for view in seen], names, columns=5, edge=2.0)
