"""`view`: a trained head, or a PLY, in the 3D viewer viser."""
from __future__ import annotations

from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, Optional

import torch

from ..core.errors import InputError, require_package
from ..core.files import shortened
from ..core.local_server import LOOPBACK, address, embedded, listen
from ..rendering.renderer import Renderer
from ..rendering.script import audio_script, replay_script
from ..training.run import Run
from .splat_frames import HeadFrames, PlyFrames, SplatSequence
from .splat_panel import SplatPanel


class SplatViewer:
    """A head in the browser, until it is closed; shows itself in JupyterLab. `view` makes one.

    Attributes:
        url: its address on this machine.
        port: where its server listens.
        panel: plays, pauses and seeks, as the controls of the page do.

    Args:
        sequence: what is shown.
        port: None: a free one.
        host: address of the network interface.

    Raises:
        InputError: the port cannot be used.
        MissingPackageError: viser is not installed.
    """

    def __init__(self, sequence: SplatSequence, port: Optional[int] = None, host: str = LOOPBACK):
        viser = _viser()
        listen(host, port).close()  # viser itself silently takes another port
        with _silent_viser():
            self._server = viser.ViserServer(host=host, port=port or 0, label=sequence.title, verbose=False)
        self.port: int = self._server.get_port()
        self.url = address(host, self.port)
        self._title, self._closed = sequence.title, False
        try:
            self.panel = SplatPanel(self._server, sequence)
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End the server; its port is free again."""
        if not self._closed:
            self._closed = True
            self.panel.close()
            self._stop()

    def _stop(self) -> None:
        with _silent_viser():
            self._server.stop()

    def __enter__(self) -> SplatViewer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._title}: {'closed' if self._closed else self.url}"

    def _repr_html_(self) -> str:
        if self._closed:
            return f"<code>{escape(repr(self))}</code>"
        return embedded(self._title, self.url)


def view(run: Run | str | Path, audio: Optional[str | Path] = None, port: Optional[int] = None, host: str = LOOPBACK,
         iteration: Optional[int] = None, device: Optional[str | torch.device] = None, **script: Any) -> SplatViewer:
    """Show a trained head in the browser, from any side, moving with audio; or the Gaussians of a PLY.

    The Gaussians are drawn by the browser (viser, with WebGL2); the deformed ones of each frame are sent while it
    plays, 32 bytes per Gaussian. Their colours are those seen from the camera of the clip: harmonics are evaluated
    here. Torso and background are not made of Gaussians and not shown.

    Args:
        run: see `load_run`; or the path of a PLY in the 3DGS layout, such as `export_ply` and checkpoints have.
        audio: any audio file or video with audio; default: the clip's own audio, with its own mouth.
        port: of the server; default: a free one.
        host: network interface. The default is reached from this machine alone: the page shows a person's face and
            asks for no password. Another address opens it to a network; see `docs/viewer.md` for safer ways.
        iteration: checkpoint, default the newest.
        device: of the network, default CUDA, else the CPU.
        script: `features`, `poses`, `blink`, `start` and `duration` of `egs.render`; without audio, `start` and
            `duration` of `egs.replay`.

    Returns:
        the viewer: `.url`, `.close()`, and a picture of itself in JupyterLab.

    Raises:
        InputError: as for `egs.render`; no PLY of the 3DGS layout; audio for a PLY; poses or blinks without audio; the
            port cannot be used.
        DatasetError: as for `egs.render`.
        MissingPackageError: viser is not installed.
    """
    _viser()  # before the work
    listen(host, port).close()
    script = {name: value for name, value in script.items() if value is not None}
    if not isinstance(run, Run):
        if audio is not None or script:
            raise InputError("a run, to move with audio", f"the file '{shortened(run)}'",
                             "Open the folder of a run with load_run: a PLY has no mouth to move.")
        return SplatViewer(PlyFrames(Path(run)), port, host)
    if audio is None and (more := sorted(script.keys() - {"start", "duration"})):
        raise InputError("audio", f"none, but {', '.join(more)}",
                         f"Give audio as well: the clip's own frames have their own {', '.join(more)}.")
    renderer = Renderer.from_run(run, iteration, device)
    plan = replay_script(renderer, "all", **script) if audio is None else audio_script(renderer, audio, **script)
    title = run.root.name if audio is None else f"{run.root.name}: {Path(audio).name}"
    return SplatViewer(HeadFrames(renderer, plan, title), port, host)


def _viser() -> ModuleType:
    return require_package("viser", "viser, the 3D viewer", "Install it with: pip install 'egstalker-nb[viewer]'")


@contextmanager
def _silent_viser() -> Iterator[None]:
    """viser prints its address in a box, and that it ended, with `verbose=False`, too; it prints with rich."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
