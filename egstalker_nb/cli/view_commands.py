"""`view`: a trained head or a PLY in the browser."""
from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from pathlib import Path

from .options import AddCommand, add_device, add_script, script


def view(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    run = args.run if args.run.suffix.lower() == ".ply" else egs.load_run(args.run)
    with egs.view(run, args.audio, args.port, args.host, **script(args)) as viewer, suppress(KeyboardInterrupt):
        print(f"{viewer}  (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


def add_commands(command: AddCommand) -> None:
    sub = command(view, "Show a trained head, or the Gaussians of a PLY, in the browser until Ctrl-C.", "run")
    sub.add_argument("--audio", type=Path, help="WAV, MP3, FLAC or a video with audio; default: the clip's own")
    sub.add_argument("--port", type=int, help="of the server; default: a free one")
    sub.add_argument("--host", default="127.0.0.1",
                     help="network interface; any other shows the head to a whole network, without a password")
    add_script(sub, None)
    sub.set_defaults(poses=None, blink=None, start=None)  # `egs.view` has the same, and refuses given ones for a PLY
    add_device(sub)
