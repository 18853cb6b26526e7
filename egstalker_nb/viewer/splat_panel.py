"""The page of the viewer: scene, controls, sound, and the loop that plays."""
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from ..media.rates import FPS
from .audio_sync import sound_html, sync_html
from .playback import PlaybackClock
from .splat_frames import REGION_COLORS, SplatSequence

if TYPE_CHECKING:
    import viser

#: the page shows a head of 1 unit as one of 10: viser has covariances as float16, whose range ends at 6e-8
SCALE = 10.0
SPEEDS = ("0.25", "0.5", "1", "1.5", "2")
SYNC_EVERY = 5  # frames between corrections of the sound
BRAND = 66, 133, 160
IDLE = 0.2  # s between looks at whether the sequence plays
TRAINED, REGIONS = "trained", "regions of the face"


class SplatPanel:
    """Scene and controls of one sequence on a viser server. The world is the camera of the clip: x right, y down.

    Args:
        server: of viser, empty.
        sequence: what is shown.
    """

    def __init__(self, server: viser.ViserServer, sequence: SplatSequence):
        self._server, self._sequence = server, sequence
        self.clock = PlaybackClock(len(sequence))
        self._wake, self._stop, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._shown: Optional[int] = None
        self._splats: Optional[viser.GaussianSplatHandle] = None
        self._sync: Optional[viser.GuiHtmlHandle] = None
        self._build_scene()
        self._build_controls()
        self.show(0)
        self._thread = threading.Thread(target=self._loop, name="egs-viewer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the loop that plays."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    # ---- the scene ----

    def _build_scene(self) -> None:
        scene, camera = self._server.scene, self._server.initial_camera
        scene.set_up_direction("-y")
        camera.position, camera.look_at, camera.up = (0, 0, 0), self._target, (0, -1, 0)
        camera.fov = self._sequence.fov
        self._frustum = scene.add_camera_frustum("/camera of the clip", self._sequence.fov, 1.0, scale=SCALE / 2,
                                                 visible=False)

    @property
    def _target(self) -> np.ndarray:
        """What the camera turns around: straight ahead, as far away as the head."""
        return np.array([0, 0, SCALE * float(self._sequence.rest[2, 3])])

    def _reset_camera(self, client: Any) -> None:
        with client.atomic():
            client.camera.up_direction = (0, -1, 0)
            client.camera.position, client.camera.look_at = (0, 0, 0), self._target
            client.camera.fov = self._sequence.fov

    def show(self, i: int) -> None:
        """Show frame `i`, as the controls are set."""
        with self._lock:
            frame = self._sequence.frame(i)
            rgbs = frame.rgbs
            if self._colors.value == REGIONS and self._sequence.regions is not None:
                rgbs = REGION_COLORS[self._sequence.regions]
            given = (SCALE * frame.centers, (SCALE * self._size.value) ** 2 * frame.covariances, rgbs,
                     np.clip(frame.opacities * self._opacity.value, 0, 1))
            w2c = frame.w2c if self._motion.value else self._sequence.rest
            wxyz, position = _quaternion(w2c[:3, :3]), SCALE * w2c[:3, 3]
            with self._server.atomic():
                if self._splats is None:
                    self._splats = self._server.scene.add_gaussian_splats("/head", *given, wxyz=wxyz,
                                                                          position=position)
                else:
                    self._splats.set_gaussians(*given)
                    self._splats.wxyz, self._splats.position = wxyz, position
                if self._slider is not None:
                    self._slider.value = i
            self._shown = i

    # ---- the controls ----

    def _build_controls(self) -> None:
        gui, seq = self._server.gui, self._sequence
        gui.main_panel.dock_right()
        self._theme(dark=True)
        gui.set_panel_label(seq.title)
        self._slider: Optional[Any] = None
        if len(seq) > 1:
            self._build_player()
        self._reset = gui.add_button("Reset camera")
        self._reset.on_click(lambda event: self._reset_camera(event.client))
        with gui.add_folder("Appearance"):
            self._colors = gui.add_dropdown("Colours", (TRAINED, REGIONS), visible=seq.regions is not None)
            self._opacity = gui.add_slider("Opacity", 0.05, 1.0, 0.05, 1.0)
            self._size = gui.add_slider("Scale", 0.1, 2.0, 0.05, 1.0, hint="of each Gaussian")
            self._motion = gui.add_checkbox("Head motion", True, visible=len(seq) > 1)
            self._camera = gui.add_checkbox("Camera of the clip", False)
            self._dark = gui.add_checkbox("Dark background", True)
        for handle in (self._colors, self._opacity, self._size, self._motion):
            handle.on_update(lambda event: self.show(self.clock.frame))
        self._camera.on_update(lambda event: setattr(self._frustum, "visible", self._camera.value))
        self._dark.on_update(lambda event: self._theme(self._dark.value))

    def _theme(self, dark: bool) -> None:
        # no share button: it would send the head through somebody else's server
        self._server.gui.configure_theme(dark_mode=dark, show_logo=False, show_share_button=False, brand_color=BRAND)

    def _build_player(self) -> None:
        gui, seq = self._server.gui, self._sequence
        self._play = gui.add_button("Play")
        self._play.on_click(lambda event: self.pause() if self.clock.playing else self.play())
        self._slider = gui.add_slider("Frame", 0, len(seq) - 1, 1, 0)
        self._slider.on_update(self._moved)
        self._speed = gui.add_dropdown("Speed", SPEEDS, initial_value="1")
        self._speed.on_update(lambda event: self._changed(lambda: self.clock.set_rate(float(self._speed.value))))
        if seq.wave is not None:
            gui.add_html(sound_html(seq.wave))
            self._sync = gui.add_html("")

    def play(self) -> None:
        """Play on from the frame that is shown; from the start if it is the last."""
        self._changed(self.clock.play)

    def pause(self) -> None:
        self._changed(self.clock.pause)

    def seek(self, frame: int) -> None:
        """Go to a frame; it goes on playing if it was."""
        self._changed(lambda: self.clock.seek(frame))

    def _moved(self, event: Any) -> None:
        if event.client is not None:  # the loop moves the slider, too
            self.seek(int(event.target.value))

    def _changed(self, change: Any) -> None:
        change()
        self._wake.set()

    # ---- playing ----

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            playing, frame = self.clock.playing, self.clock.frame
            changed = frame != self._shown
            if changed:
                self.show(frame)
            self._tell(playing, frame, changed)
            if not playing:
                self._wake.wait(IDLE)
                continue
            next_frame = ((frame + 1) / FPS - self.clock.position) / self.clock.rate
            self._wake.wait(max(next_frame, 0.001))

    def _tell(self, playing: bool, frame: int, changed: bool) -> None:
        """The button and the sound, after what was shown."""
        if len(self._sequence) == 1:
            return
        label = "Pause" if playing else "Play"
        switched = self._play.label != label
        if switched:
            self._play.label = label
        if self._sync is not None and (switched or changed and (not playing or frame % SYNC_EVERY == 0)):
            self._sync.content = sync_html(self.clock.position, self.clock.rate, playing)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix [3, 3]."""
    from viser.transforms import SO3

    return SO3.from_matrix(rotation.astype(np.float64)).wxyz

