"""The work that children do, see `harness`: functions of the folder into which they write."""
from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import time
from itertools import count
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np

#: 24 iterations with all that happens in a run: both stages, densification, refined poses, checkpoints, evaluation
TINY = dict(iterations=24, coarse_iterations=10, batch_size=2, checkpoint_interval=4, eval_interval=12, pose_steps=1,
            densify_from_iter=1, densify_until_iter=20, densification_interval=3, max_points=560, seed=3,
            densify_grad_threshold_coarse=1e-5, densify_grad_threshold_fine=1e-5, plane_resolution=[4, 8])
CLIP_FRAMES, CHUNK = 12, 5  # of the clip that is prepared
#: the same settings as arguments of commands
TRAIN = "--device", "cpu", "--set", *(f"{key}={value:.6f}" if isinstance(value, float) else f"{key}={value}"
                                       for key, value in TINY.items())
PREPARE = "--size", "64", "--encoder", "logmel"
RENDER = "--device", "cpu", "--batch", "3"
EXPORT = "--device", "cpu", "--duration", "0.2"

# of Linux
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 1 << 14, 1 << 18
NOT_PERMITTED = 77  # exit status of a child that may not mount


def train(folder: Path, dataset: Path, settings: Optional[dict[str, Any]] = None) -> None:
    """Train a tiny head into `folder`/run."""
    import egstalker_nb as egs

    egs.train(egs.load_dataset(dataset), egs.load_config("production", **{**TINY, **(settings or {})}), folder / "run",
              device="cpu")


def render(folder: Path, run: Path) -> None:
    """Render a video into `folder`."""
    import egstalker_nb as egs

    opened = egs.load_run(run)
    egs.render(opened, opened.dataset.root / "audio.wav", folder / "video.mp4", device="cpu", batch=3)


def export(folder: Path, run: Path, kind: str = "png") -> None:
    """Export into `folder`/export."""
    import egstalker_nb as egs

    opened = egs.load_run(run)
    egs.export_frames(opened, opened.dataset.root / "audio.wav", folder / "export", kind, device="cpu", duration=0.2)


def prepare(folder: Path, video: Path, face: np.ndarray) -> None:
    """Prepare a video into `folder`/dataset, in chunks of a few frames, with a made-up face in place of MediaPipe."""
    import egstalker_nb as egs

    use_face(face)
    egs.prepare(video, folder / "dataset", size=64, encoder="logmel")


def prepare_for_real(folder: Path, video: Path) -> None:
    """Prepare a video of a person into `folder`/dataset, with MediaPipe."""
    import egstalker_nb as egs
    from egstalker_nb.preparation import steps

    steps.CHUNK = CHUNK
    egs.prepare(video, folder / "dataset", size=64)


def command(folder: Path, *arguments: str) -> int:
    """Call the `egs` command in `folder`; the exit status."""
    from egstalker_nb import cli

    os.chdir(folder)
    return cli.main(arguments)


def command_with_face(folder: Path, face: np.ndarray, *arguments: str) -> int:
    """The same, with a made-up face in place of MediaPipe."""
    use_face(face)
    return command(folder, *arguments)


def use_face(face: np.ndarray) -> None:
    """Replace MediaPipe in this process: a face [478, 3] px of 64 that nods, and a person in the middle."""
    from egstalker_nb.preparation import extract, landmark_tracking, scan, steps

    class Finder:
        def __call__(self, image: np.ndarray) -> np.ndarray:
            boxes = np.full((scan.MAX_FACES, 5), np.nan, np.float32)
            boxes[0] = (20, 15, 44, 45, 0.9)
            return boxes

    class Tracker:
        def __init__(self, faces: int):
            pass

        def __call__(self, image: np.ndarray, roi: Any, box: Any) -> np.ndarray:
            return face + np.float32([0, 0.02 * (image.mean() % 7), 0])

        def close(self) -> None:
            pass

    def segment_person(image: np.ndarray) -> np.ndarray:
        return np.pad(np.full((128, 128), 250, np.uint8), 64)

    scan.face_detector, landmark_tracking.FaceTracker, extract.segment_person = Finder, Tracker, segment_person
    steps.CHUNK = CHUNK


def train_from_disk(folder: Path, *arguments: str) -> int:
    """The `egs` command with frames that are read again in each step, as those of long clips are."""
    from egstalker_nb.data import frame_loader

    frame_loader.MAX_CPU_BYTES = 0
    return command(folder, *arguments)


def train_with_jumping_clock(folder: Path, dataset: Path) -> None:
    """Train while the clock jumps by a day, forth and back, whenever it is read; prints every progress line."""
    from egstalker_nb.core.progress import Progress

    now, calls, update = time.time, count(), Progress.update
    time.time = lambda: now() + 86400 * (-1) ** next(calls)

    def shown(bar: Progress, *args: Any, **fields: Any) -> None:
        update(bar, *args, **fields)
        print("line:", bar.line())

    Progress.update = shown  # type: ignore[method-assign]
    train(folder, dataset)


# ---- disks of their own ----

def mount(folder: Path, size: int, read_only: bool = False, again: bool = False) -> None:
    """Mount a disk of `size` bytes of memory on a folder, or change the one that is there.

    Raises:
        OSError: not permitted.
    """
    flags = (MS_RDONLY if read_only else 0) | (MS_REMOUNT if again else 0)
    _call("mount", b"egs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode())


def _call(name: str, *args: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def own_mounts() -> None:
    """What this process mounts from now on is seen by nobody else, and ends with it."""
    try:
        _call("unshare", CLONE_NEWNS)
    except OSError:
        user, group = os.getuid(), os.getgid()
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def on_small_disk(folder: Path, sizes: Sequence[int], kept: Path, work: Callable[..., int], *args: Any) -> int:
    """Do the work on a disk of each of `sizes`, the last of which is large enough; then copy it to `kept`.

    Args:
        folder: of the work, where the disk is mounted. What it holds is hidden.
        sizes: bytes, ascending.
        kept: a folder that does not exist.
        work, args: returns an exit status.
    """
    try:
        own_mounts()
        mount(folder, sizes[0])
    except OSError as error:
        print(error)
        return NOT_PERMITTED
    for size in sizes:
        mount(folder, size, again=True)
        print("status", work(folder, *args))
        os.chdir("/")
    shutil.copytree(folder, kept)
    return 0


def on_read_only_disk(folder: Path, work: Callable[..., int], *args: Any) -> int:
    """Do the work on a disk that cannot be written to."""
    try:
        own_mounts()
        mount(folder, 1 << 20, read_only=True)
    except OSError as error:
        print(error)
        return NOT_PERMITTED
    return work(folder, *args)


def limit_memory(more: int) -> None:
    """From now on this process gets at most `more` bytes of memory."""
    pages = int(re.findall(r"\d+", Path("/proc/self/statm").read_text())[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, resource.RLIM_INFINITY))
