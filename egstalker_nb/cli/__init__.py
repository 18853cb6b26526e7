"""Command line: one subcommand for each public function. `python -m egstalker_nb` is the same as `egs`.

- `options`: options that several commands share.
- `train_commands`: prepare, config, train, track, prior.
- `head_commands`: render, replay, export, export-gaussians, evaluate, score, trim.
- `view_commands`: view.
- `live_commands`: live.
- `upstream_commands`: import-dataset, export-dataset.
- `checkpoint_commands`: checkpoint.
- `notebook_commands`: notebooks, run, sweep, gallery, setup-gpu.

May import: core, speech, preparation, upstream, rendering, evaluation, scheduling, notebook, viewer, live, cuda_setup.
"""
from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from ..core.errors import EgsError, Terminated
from . import (
    checkpoint_commands,
    head_commands,
    live_commands,
    notebook_commands,
    train_commands,
    upstream_commands,
    view_commands,
)


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each is named after its function."""
    top = argparse.ArgumentParser(prog="egs", description="Audio-driven 3D Gaussian talking heads.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(function: Any, about: str, *positional: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(function.__name__.replace("_", "-"), help=about, description=about,
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(function=function)
        for name in positional:
            sub.add_argument(name, type=Path)
        return sub

    for commands_of in (train_commands, head_commands, upstream_commands, checkpoint_commands, view_commands,
                        live_commands, notebook_commands):
        commands_of.add_commands(command)
    return top


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM, with which schedulers end programs, raises an exception, so that nothing half-written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal received
        received = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    except KeyboardInterrupt as stop:
        if received and not isinstance(stop, Terminated):  # Ray's compiled code raises a plain one in its place
            raise Terminated(*stop.args) from stop
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        the exit status: 0; 2 after an `EgsError`, 130 after Ctrl-C, 143 after SIGTERM, each with one line on stderr.
        Other exceptions propagate.
    """
    args = parser().parse_args(argv)
    try:
        with _ending_in_order():
            args.function(args)
    except EgsError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt as stop:
        _say(f"interrupted: {str(stop) or 'the same command continues from what is finished'}")
        return 143 if isinstance(stop, Terminated) else 130
    return 0


def _say(line: str) -> None:
    with suppress(OSError):  # a log on the full disk that the line tells of
        print(line, file=sys.stderr, flush=True)
