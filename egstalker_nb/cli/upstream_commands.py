"""`import-dataset`, `export-dataset`: folders of EGSTalker and its relatives."""
from __future__ import annotations

import argparse

from .options import AddCommand


def import_dataset(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.import_dataset(args.folder, args.out))


def export_dataset(args: argparse.Namespace) -> None:
    import egstalker_nb as egs

    print(egs.export_dataset(egs.load_dataset(args.dataset), args.out))


def add_commands(command: AddCommand) -> None:
    command(import_dataset, "Make a dataset of a folder prepared for AD-NeRF, ER-NeRF, GaussianTalker or EGSTalker.",
            "folder", "out")
    command(export_dataset, "Write a dataset as a folder that EGSTalker and its relatives train from.", "dataset",
            "out")
