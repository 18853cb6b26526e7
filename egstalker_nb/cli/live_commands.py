"""`live`: a trained head that speaks as one speaks to it, on a page in the browser."""
from __future__ import annotations

import argparse
import threading
from contextlib import suppress

from .options import AddCommand, add_device


def live(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    from ..live.live_session import Live

    with Live(egs.load_run(args.run), args.port, args.host, args.iteration, args.device) as head, \
            suppress(KeyboardInterrupt):
        print(f"{head}  (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


def add_commands(command: AddCommand) -> None:
    sub = command(live, "A head that speaks as one speaks to it, in the browser until Ctrl-C: microphone, files, text, "
                        "and streams of speech.", "run")
    sub.add_argument("--port", type=int, help="of the server; default: a free one")
    sub.add_argument("--host", default="127.0.0.1",
                     help="network interface; on any other, put a proxy with TLS before it")
    sub.add_argument("--iteration", type=int, help="checkpoint; default: the newest")
    add_device(sub)
