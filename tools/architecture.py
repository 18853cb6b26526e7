"""What the package looks like: its rooms as a picture, and the modules that a training step and a render run through.

    python tools/architecture.py picture docs/images/architecture.png
    python tools/architecture.py tree
    python tools/architecture.py touched data/demo outputs/demo/runs/quick_test

`touched` trains one more step in memory and renders one frame, and lists the modules whose code ran.
"""
from __future__ import annotations

import argparse
import ast
import sys
import tempfile
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

PACKAGE = Path(__file__).resolve().parents[1] / "egstalker_nb"
HALF, STEP = 0.42, 1.12  # half the height of a box, and from floor to floor
ORDER = {"cuda_setup": 0, "config": 1, "data": 2, "face": 2, "metrics": 3, "media": 3, "rasterizer": 6}
SPANS = {"preparation": (9.0, 12.0), "core": (0.0, 12.0), "notebook": (0.0, 12.0), "cli": (4.4, 7.4)}
INK, LINE, FILL = "#1b3a6b", "#7f8fa9", "#eef2f8"


def rooms() -> dict[str, list[str]]:
    """Room -> its modules; files at the top level are rooms of their own."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1].startswith("__"):
            continue
        found[parts[0]].append("/".join(parts[1:]) if len(parts) > 1 else "")
    return dict(found)


def arrows() -> dict[str, set[str]]:
    """Room -> rooms that its modules import."""
    names, found = set(rooms()), defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in names:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*parts[:len(parts) - node.level], *(node.module or "").split(".")]
                first = next((part for part in base if part), None)
                found[parts[0]] |= {first} if first else {alias.name for alias in node.names}
    return {name: (found[name] & names) - {name} for name in names}


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without arrows that follow from others."""
    def reach(name: str) -> set[str]:
        return graph[name].union(*(reach(other) for other in graph[name]))

    return {name: {b for b in some if not any(b in reach(other) for other in some)} for name, some in graph.items()}


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: one above the highest room that it imports."""
    def level(name: str) -> int:
        return 1 + max((level(other) for other in graph[name]), default=-1)

    return {name: level(name) for name in graph}


def wrapped(names: list[str], width: float) -> str:
    """Names as lines of so many characters."""
    return textwrap.fill(", ".join(names), int(width), break_on_hyphens=False)


def picture(out: Path) -> None:
    """Draw the rooms, floor by floor, with the arrows of their imports (those that follow from others left out)."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    graph, modules = arrows(), rooms()
    floor = levels(graph)
    height = max(floor.values()) + 1
    figure, axis = plt.subplots(figsize=(12, 1.12 * height), facecolor="white", layout="constrained")
    boxes: dict[str, tuple[float, float, float]] = {}  # left, right, y
    for y in range(height):
        row = sorted((name for name in graph if floor[name] == y), key=lambda name: (ORDER.get(name, 5), name))
        for k, name in enumerate(row):
            left, right = SPANS.get(name, (3.0, 8.8))
            if len(row) > 2 or len(row) == 2 and not SPANS.keys() & row:
                left, right = 12 / len(row) * k + 0.1, 12 / len(row) * (k + 1) - 0.1
            boxes[name] = left, right, STEP * y
    for name, others in reduced(graph).items():
        left, right, y = boxes[name]
        for other in others:
            low, high, below = boxes[other]
            end = min(max((left + right) / 2, low + 0.4), high - 0.4)
            axis.annotate("", xy=(end, below + HALF), xytext=(min(max(end, left + 0.3), right - 0.3), y - HALF),
                          arrowprops={"arrowstyle": "-|>", "color": LINE, "lw": 1.2, "shrinkA": 0, "shrinkB": 0})
    for name, (left, right, y) in boxes.items():
        listed = [m for m in modules[name] if m]
        if name == "notebook":
            folders = sorted({m.split("/")[0] + "/" for m in listed if "/" in m})
            listed = [*[m for m in listed if "/" not in m], *folders]
        font, body = 7.0, wrapped(listed, (right - left) * 15)
        if body.count("\n") > 3:
            font, body = 5.5, wrapped(listed, (right - left) * 19)
        axis.add_patch(plt.Rectangle((left, y - HALF), right - left, 2 * HALF, facecolor=FILL, edgecolor=INK, lw=1.2,
                                     zorder=3))
        axis.text((left + right) / 2, y + HALF - 0.06, name if listed else f"{name}.py", ha="center", va="top",
                  fontsize=11, weight="bold", color=INK, zorder=4)
        axis.text((left + right) / 2, y + HALF - 0.34, body, ha="center", va="top", fontsize=font,
                  color="#222222", zorder=4, linespacing=1.15)
    axis.set(xlim=(-0.1, 12.1), ylim=(-HALF - 0.1, STEP * (height - 1) + HALF + 0.1))
    axis.axis("off")
    figure.savefig(out, dpi=100)
    print(out)


def tree() -> None:
    """Print the folders with their modules and how many lines they have."""
    for name, modules in rooms().items():
        if modules == [""]:
            print(f"{name}.py")
            continue
        lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in (PACKAGE / name).rglob("*.py"))
        print(f"{name + '/':13} {lines:6,} lines in {len(modules):2}: {', '.join(modules)}")


def ran(function: Callable[[], Any]) -> list[str]:
    """Modules of the package whose functions run during a call."""
    seen: set[str] = set()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":  # being imported is no work
            seen.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(None)
    inside = (Path(name).resolve() for name in seen if "egstalker_nb" in name)
    return sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in inside if PACKAGE in path.parents)


def touched(dataset: Path, run: Path) -> None:
    """Print the modules that one training step and one rendered frame run through."""
    import egstalker_nb as egs
    from egstalker_nb.core.device import rendering_device
    from egstalker_nb.training.run import open_run
    from egstalker_nb.training.trainer import Trainer

    ds, trained, device = egs.load_dataset(dataset), egs.load_run(run), rendering_device()
    with tempfile.TemporaryDirectory() as folder:
        cfg = egs.load_config("quick_test", coarse_iterations=1, iterations=20)
        trainer = Trainer(ds, cfg, open_run(ds, cfg, Path(folder) / "run", device), device).start()
        for _ in range(2):
            trainer.train_iteration()
        step = ran(trainer.train_iteration)
        audio = ds.root / "audio.wav"
        render = ran(lambda: egs.render(trained, audio, Path(folder) / "a.mp4", duration=0.08))
    for name, modules in (("a training step", step), ("a render", render)):
        inside = {module.split("/")[0] for module in modules}
        print(f"{name}: {len(modules)} modules in {len(inside)} rooms: {', '.join(modules)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("picture").add_argument("out", type=Path)
    commands.add_parser("tree")
    sub = commands.add_parser("touched")
    sub.add_argument("dataset", type=Path)
    sub.add_argument("run", type=Path)
    args = vars(parser.parse_args())
    {"picture": picture, "tree": tree, "touched": touched}[args.pop("command")](**args)


if __name__ == "__main__":
    main()
