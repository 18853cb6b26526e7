"""Builds the page of `egs.export_web` from the TypeScript in `web/`: `make web` calls it. Needs Node.js 20 and npm.

    python tools/web_page.py           # egstalker_nb/web/page.html, also in the exported sample head
    python tools/web_page.py --sample  # trains the sample head again and exports it (about 10 minutes on 2 CPU cores)
"""
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import egstalker_nb as egs
from egstalker_nb.web.export_web import HEAD, PAGE, TITLE

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "docs" / "sample_head.html"
SIZE = 256
#: enough for a good head of the sample on a CPU, and few enough Gaussians for a small file
CONFIG = dict(coarse_iterations=1500, densify_until_iter=5000, iterations=8000, max_points=3000)


def npm(project: Path, *arguments: str) -> None:
    """Run npm in a folder.

    Raises:
        RuntimeError: there is no npm, or it failed; with what it said.
    """
    program = shutil.which("npm")
    if program is None:
        raise RuntimeError("there is no npm: install Node.js 20 or newer")
    done = subprocess.run([program, *arguments], cwd=project, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"npm {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-800:]}")


def install(project: Path) -> None:
    """Install what the page is built with into a copy of `web/`; see `npm` for errors."""
    npm(project, "ci", "--ignore-scripts", "--no-audit", "--no-fund")


def build(project: Path) -> str:
    """The page, built in a copy of `web/`; see `npm` for errors."""
    npm(project, "run", "build")
    return (project / "dist" / "index.html").read_text(encoding="utf-8")


def renewed(exported: str, page: str) -> str:
    """An exported head in another page."""
    data = exported.partition(HEAD)[2].partition("</script>")[0]
    title = exported.partition("<title>")[2].partition("</title>")[0]
    return page.replace(TITLE, f"<title>{title}</title>", 1).replace(HEAD, HEAD + data, 1)


def export_sample() -> None:
    """Train a head on the sample and export it."""
    ds = egs.prepare(ROOT / "data" / "sample" / "clip.mp4", ROOT / "outputs" / "sample_head" / "dataset", size=SIZE)
    cfg = egs.load_config("production", **CONFIG)
    run = egs.train(ds, cfg, ROOT / "outputs" / "sample_head" / "run", device="cpu")
    print(egs.export_web(run, SAMPLE, title="A head in one file", device="cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="train the sample head again")
    if parser.parse_args().sample:
        return export_sample()
    try:
        install(ROOT / "web")
        page = build(ROOT / "web")
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    PAGE.write_text(page, encoding="utf-8")
    SAMPLE.write_text(renewed(SAMPLE.read_text(encoding="utf-8"), page), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {SAMPLE.relative_to(ROOT)}: {len(page) / 1e3:.0f} kB without a head")


if __name__ == "__main__":
    main()
