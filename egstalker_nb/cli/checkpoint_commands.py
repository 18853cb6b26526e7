"""`checkpoint`: what a checkpoint of EGSTalker or GaussianTalker holds, and what of it can be rendered."""
from __future__ import annotations

import argparse
from pathlib import Path

from .options import AddCommand


def checkpoint(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.read_checkpoint(args.folder, args.arguments).table())


def add_commands(command: AddCommand) -> None:
    sub = command(checkpoint, "Say what of an upstream checkpoint can be rendered, tensor by tensor.", "folder")
    sub.add_argument("--arguments", type=Path,
                     help="upstream's file of arguments it was trained with; default: the cfg_args in its folder")
