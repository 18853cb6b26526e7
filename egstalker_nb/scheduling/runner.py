"""The notebooks in order, without a browser: Papermill with progress on the terminal."""
from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from ..config import load_config
from ..core.errors import InputError, first_line
from ..core.files import make_folder, shortened, writing_to
from ..core.kit_files import NOTEBOOK_DIR
from ..core.progress import clock
from ..core.reading import shown
from ..cuda_setup import find_driver
from ..media.audio import load_audio
from ..media.video_reader import probe
from .execute import execute, kernel_environment
from .parameters import plan_notebooks

NOTEBOOKS = (
    "00_gaussians_in_2d",
    "01_data_prep",
    "02_coarse_training",
    "03_fine_training",
    "04_densification_analysis",
    "05_config_comparison",
    "06_custom_audio_rendering",
    "07_live_and_export",
)
#: of sweeps: what each run executes unless its file says otherwise, and the report
SWEEP_NOTEBOOKS = ("08_train_and_score", "09_sweep")
RESULT = "06_custom_audio_rendering"  # writes the video of the trained head
POLL_SECONDS = 0.25
LOG_SECONDS = 10.0  # between progress lines where the output is not a terminal
MIB = 2.0**20


def run_notebooks(
    video: str | Path,
    config: str | Path,
    audio: Optional[str | Path] = None,
    name: Optional[str] = None,
    notebooks: Sequence[str] = NOTEBOOKS,
    out: Optional[str | Path] = None,
    dataset: Optional[str | Path] = None,
    notebook_dir: str | Path = NOTEBOOK_DIR,
    device: Optional[str] = None,
    **parameters: Any,
) -> Path:
    """Run the notebooks headless, each in a fresh kernel of this Python.

    What can be checked is checked before anything starts. What the dataset and run folders already hold is kept.

    Args:
        video: the talking-head video.
        config: a preset name or the path of a YAML file.
        audio: audio file that drives the head in notebooks 06 and 07; default: the audio of the video.
        name: names the folders; default: the video's name.
        notebooks: which ones to run, in this order.
        out: folder of all results, default `outputs/<name>`: `notebooks/` (as executed), `runs/<config>/`, the video
            `<config>_<audio>.mp4`, and `gaussians_in_2d/` with the figures of notebook 00. Notebook 05 compares all
            runs found in `runs/`, this one first.
        dataset: the dataset folder, default `data/<name>`.
        notebook_dir: the folder of the notebooks.
        device: `cpu` hides the GPUs from the notebooks; default: the GPU where there is one.
        parameters: more parameters (`size=256`, `overrides={...}`); each goes to every notebook that declares it. A
            notebook gets only the parameters that it declares, which may be none.

    Returns:
        The path of the video that notebook 06 writes.

    Raises:
        InputError: a file is missing or a notebook damaged, the GPU cannot render, no notebook declares a parameter, or
            its value is of another type than the declared one.
        StorageError: the results cannot be written.
        ConfigError: the configuration is not usable.
        NotebookError: a notebook failed; the message names notebook, cell and cause.
    """
    if device != "cpu" and (device or find_driver()):  # importing torch only where there is a GPU to be checked
        from ..core.device import rendering_device

        rendering_device(device)
    video = _existing(video, "a video")
    if not probe(video).has_audio:
        raise InputError("a video with audio", f"'{video}' without an audio stream", "Use a clip with audio.")
    load_config(config, **(parameters.get("overrides") or {}))
    config = Path(config).resolve() if Path(config).is_file() else config  # kernels work in another folder
    name = name or re.sub(r"[^\w.-]+", "_", video.stem)
    if name in (".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise InputError("a name for folders in data/ and outputs/", shown(name), "Leave out slashes and line breaks.")
    out = Path(out or Path("outputs") / name).resolve()
    values = _values(video, config, audio, out, Path(dataset or Path("data") / name).resolve())
    paths = [_existing(Path(notebook_dir) / f"{n}.ipynb", "a notebook") for n in notebooks]
    plan = plan_notebooks(paths, values, parameters)

    start = time.perf_counter()
    saved = out / "notebooks"
    _check_writable(saved, *(Path(values[key]) for key in ("dataset", "run", "out")))
    with _Monitor() as monitor, kernel_environment(monitor.progress_file, saved, device):
        for i, (path, given) in enumerate(plan, start=1):
            begin = time.perf_counter()
            monitor.write(f"[{i}/{len(plan)}] {path.stem}\n")
            execute(path, saved / path.name, given, monitor)
            monitor.write(f"[{i}/{len(plan)}] {path.stem}: done in {clock(time.perf_counter() - begin)}\n")
    results = {"video": Path(values["out"]), "run": Path(values["run"]), "notebooks": saved}
    lines = [f"{what:<16} {_short(path)}" for what, path in results.items() if path.exists()]
    lines += [f"{'total time':<16} {clock(time.perf_counter() - start)}",
              f"{'peak memory':<16} {monitor.peak / MIB:.0f} MiB (this program and the notebooks' kernels)"]
    print("\n".join(lines), flush=True)
    return results["video"]


def _values(video: Path, config: str | Path, audio: Optional[str | Path], out: Path, dataset: Path) -> dict[str, Any]:
    """Parameters by name, for whichever notebook declares them; paths are absolute, as kernels work in another folder.

    Raises:
        InputError: the audio file is missing or has no audio.
    """
    if audio is None:
        audio = dataset / "audio.wav"  # notebook 01 writes it
    else:
        audio = _existing(audio, "an audio file")
        load_audio(audio)  # hours before notebook 06 would find that it has no audio
    run = out / "runs" / Path(config).stem
    earlier = sorted(p.parent for p in run.parent.glob("*/config.yaml") if p.parent != run)
    return {"video": str(video), "dataset": str(dataset), "run": str(run), "config": str(config), "audio": str(audio),
            "out": str(out / f"{run.name}_{audio.stem}.mp4"), "runs": [str(p) for p in (run, *earlier)],
            "results": str(out / "gaussians_in_2d")}


def _existing(path: str | Path, what: str) -> Path:
    try:
        found = Path(path).expanduser().resolve()
        if found.is_file():
            return found
        reason = "no such file" if not found.exists() else "a folder" if found.is_dir() else "not a file"
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, a loop of links ...
        found, reason = Path(path), f"no such file ({getattr(error, 'strerror', None) or first_line(error)})"
    raise InputError(f"{what} at '{shortened(found)}'", reason, "Check the path.")


def _check_writable(folder: Path, *others: Path) -> None:
    """Make `folder` and write into it, and see that the other paths have possible names: hours before they are used."""
    make_folder(folder)
    with writing_to(folder), tempfile.TemporaryFile(dir=folder):
        pass
    for path in others:
        with writing_to(path):
            path.exists()  # an OSError if its name is too long


def _short(path: Path) -> str:
    """Relative to the working folder where the path lies in it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class _Monitor:
    """Watches a headless run: shows the kernels' progress line, measures the memory of all processes.

    Papermill writes what the notebooks print to it like to a file. On a terminal the progress line is rewritten in
    place and gives way to printed text; elsewhere it is repeated every 10 s.

    Attributes:
        progress_file: where the kernels keep their newest progress line.
        peak: largest sum of resident memory of this process and its children so far, in bytes. Pages that they
            share are counted for each.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="egs-progress-")
        self.progress_file = Path(self._folder.name) / "line"
        self.peak = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._line, self._live, self._shown = "", False, time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Monitor:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.write("")
        self._folder.cleanup()

    def write(self, text: str) -> None:
        with self._lock:
            if self._live:
                sys.stdout.write("\r\033[K")
                self._live = False
            sys.stdout.write(text)
            sys.stdout.flush()

    def flush(self) -> None:
        sys.stdout.flush()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.peak = max(self.peak, _tree_memory())
            line = self.progress_file.read_text(encoding="utf-8") if self.progress_file.is_file() else ""
            if line and line != self._line:
                self._show(line)

    def _show(self, line: str) -> None:
        terminal, now = sys.stdout.isatty(), time.perf_counter()
        if not terminal and now - self._shown < LOG_SECONDS:
            return
        with self._lock:
            sys.stdout.write(f"\r\033[K      {line}" if terminal else f"      {line}\n")
            sys.stdout.flush()
            self._live, self._line, self._shown = terminal, line, now


def _tree_memory() -> int:
    """Resident bytes of this process and all its children."""
    import psutil

    total, this = 0, psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it ended between listing and asking
            continue
    return total
