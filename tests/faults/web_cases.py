"""Bad input of `egs export-web`."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import yaml

from .bad_input import Case
from .made import copy_run


def of_run(out: str, *options: Any, change: Callable[[Path], None] = lambda run: None) -> Callable[[Path], list[Any]]:
    """`egs export-web` of a run that `change` was done to."""
    def command(folder: Path) -> list[Any]:
        run = copy_run(folder)
        change(run)
        return ["export-web", run, folder / out, *options]
    return command


def coarse(run: Path) -> None:
    """A run whose coarse stage lasts beyond its checkpoint."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"coarse_iterations": config["iterations"]}))


CASES: list[Case] = [
    Case("web_other_ending", of_run("head.htm"), ("head.htm", ".html")),
    Case("web_folder", of_run("run"), ("run", ".html")),
    Case("web_no_such_checkpoint", of_run("head.html", "--iteration", 77), ("77",)),
    Case("web_coarse_stage", of_run("head.html", change=coarse), ("coarse stage", "fine stage")),
    Case("web_no_device", of_run("head.html", "--device", "cuda:9"), ("cuda:9",)),
]
