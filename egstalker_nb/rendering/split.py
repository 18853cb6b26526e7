"""Rendering one video on many workers: each renders and encodes parts of it, which are joined without a seam.

The parts begin where a segment of the video begins (see `media.video_encoder`), and a segment is a whole number of
batches. So every frame is in the same batch and every segment has the same frames as when one process renders them all:
on the CPU the video is the same to the bit.
"""
from __future__ import annotations

import math
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Generator, Iterator, NamedTuple, Optional

import torch

from ..core.errors import EgsError, InputError, UnfinishedError, first_line
from ..core.files import shortened
from ..core.progress import Progress
from ..core.ray_cluster import connected
from ..core.reading import digest
from ..media.video_encoder import SEGMENT_FRAMES, Encoding, Segment, choose_encoder, encode_segments
from ..training import checkpoint
from ..training.run import Run, load_run
from .backdrop import Backdrop
from .framing import Framing
from .renderer import Renderer
from .script import Script

_MAX_SEGMENTS = 16  # of a part, about 40 s: what is rendered again if a worker is killed
_PARTS_AHEAD = 4  # for each worker: parts that are finished, but have to wait for an earlier one
_OBJECT_STORE_BYTES = 2 ** 28  # of an embedded cluster, for scripts and compressed segments


def segment_frames(batch: int) -> int:
    """Frames of a segment: near `SEGMENT_FRAMES`, and a whole number of batches."""
    return batch * max(1, round(SEGMENT_FRAMES / batch))


@dataclass(frozen=True)
class RenderJob:
    """What all parts of a video have in common.

    Attributes:
        run: the absolute path of the run folder.
        dataset: ... of its dataset.
        iteration: the checkpoint.
        digest: of the checkpoint's file: another machine may have another file in the same place.
        device: `cpu` or `cuda`.
        batch: frames rendered at a time.
        how: the video is encoded.
        backdrop: what replaces the clip's clean plate; None: the plate.
        framing: what becomes of the rendered squares; None: they are the frames.
    """

    run: str
    dataset: str
    iteration: int
    digest: str
    device: str
    batch: int
    how: Encoding
    backdrop: Optional[Backdrop] = None
    framing: Optional[Framing] = None


class Part(NamedTuple):
    """A rendered and encoded part of a video, and the seconds that rendering took (see `Renderer.seconds`)."""

    segments: list[Segment]
    seconds: float


def render_part(job: RenderJob, script: Script, first: int) -> Part:
    """Render and encode a part, in a worker process. It keeps the head for the next part.

    Args:
        job: which head, and how.
        script: of the part; it begins where a segment begins.
        first: number of its first frame in the video.

    Raises:
        InputError: the run folder or its dataset is not there, or not the same.
    """
    on_cpu, threads = job.device == "cpu", torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(1)  # one core for each worker
    try:
        renderer = _renderer(job.run, job.dataset, job.iteration, job.digest, job.device)
        before = renderer.seconds
        frames = renderer.frames(script, job.batch, backdrop=job.backdrop, offset=first)
        if job.framing is not None:
            frames = job.framing.frames(frames, script.source)
        segments = list(encode_segments(frames, job.how, threads=1 if on_cpu else None))
        return Part(segments, renderer.seconds - before)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _renderer(run: str, dataset: str, iteration: int, wanted: str, device: str) -> Renderer:
    head = checkpoint.folder(Path(run), iteration) / checkpoint.HEAD
    for place in (head, Path(dataset)):
        if not place.exists():
            raise InputError("the run folder and its dataset on each worker, under the same path",
                             f"no '{shortened(place)}' on '{platform.node()}'",
                             "Put both on storage that all machines share.")
    if digest(head) != wanted:
        raise InputError("the same checkpoint on each worker", f"another '{shortened(head)}' on '{platform.node()}'",
                         "Put the run folder on storage that all machines share.")
    return Renderer.from_run(load_run(run, dataset), iteration, device)


class SplitRendering:
    """Renders a script on several workers.

    Args:
        run: of the head.
        iteration: the checkpoint.
        device: `cpu` or `cuda`; None: CUDA where the cluster has GPUs. On CUDA a worker takes one GPU, or a share of
            one if there are fewer GPUs than workers; on the CPU, one core.
        workers: parts that are rendered at a time.
        batch: frames rendered at a time by each.
        address: of the cluster, see `connected`.

    Attributes:
        seconds: as of `Renderer`, of all workers together and divided by their number.
    """

    def __init__(self, run: Run, iteration: int, device: Optional[str | torch.device], workers: int, batch: int,
                 address: Optional[str] = None):
        self.run, self.iteration, self.device = run, iteration, None if device is None else str(device)
        self.workers, self.batch, self.address, self.seconds = workers, batch, address, 0.0
        if self.device not in (None, "cpu", "cuda"):
            raise InputError("device as cpu or cuda for several workers", repr(self.device),
                             "Ray chooses the GPU of each worker.")

    def segments(self, script: Script, how: Encoding, bar: Progress,
                 backdrop: Optional[Backdrop] = None, framing: Optional[Framing] = None
                 ) -> Generator[Segment, None, None]:
        """Render and encode a script.

        Args:
            script: of any length.
            how: it is encoded; on CUDA the workers choose the encoder.
            bar: is updated after each part.
            backdrop, framing: see `RenderJob`.

        Yields:
            Segments, in order.

        Raises:
            InputError: no such cluster, no GPU in it, or a worker without the run folder.
            MissingPackageError: Ray is not installed.
            UnfinishedError: workers were killed again and again.
        """
        with connected(self.address, num_cpus=self.workers, object_store_memory=_OBJECT_STORE_BYTES) as ray:
            device, share = self._share(ray)
            with _errors_of_workers(ray):
                if device == "cuda":
                    shape = 2 * (self.run.dataset.size,)
                    trial = ray.remote(**share)(choose_encoder).remote(True, *(framing.shape if framing else shape))
                    how = Encoding(how.rate, how.crf, how.segment, ray.get(trial))
                job = ray.put(self._job(device, how, backdrop, framing))
                work, lengths = ray.remote(**share)(render_part), part_frames(len(script), how.segment, self.workers)

                def submit(number: int) -> Any:
                    first = sum(lengths[:number])
                    return work.remote(job, script.part(first, first + lengths[number]), first)

                for number, part in enumerate(_in_order(ray, submit, len(lengths), self.workers)):
                    self.seconds += part.seconds / self.workers
                    bar.update(lengths[number])
                    yield from part.segments

    def _share(self, ray: ModuleType) -> tuple[str, dict[str, float]]:
        """The device of the workers, and what each takes of the cluster."""
        gpus = ray.cluster_resources().get("GPU", 0)
        device = self.device or ("cuda" if gpus else "cpu")
        if device == "cpu":
            return device, {"num_cpus": 1}
        if not gpus:
            raise InputError("a cluster with GPUs for device='cuda'", "none", "Leave device out to use the CPU.")
        return device, {"num_cpus": 1, "num_gpus": min(1.0, max(0.01, math.floor(100 * gpus / self.workers) / 100))}

    def _job(self, device: str, how: Encoding, backdrop: Optional[Backdrop], framing: Optional[Framing]) -> RenderJob:
        root = self.run.root.resolve()
        head = checkpoint.folder(root, self.iteration) / checkpoint.HEAD
        return RenderJob(str(root), str(self.run.dataset.root.resolve()), self.iteration, digest(head), device,
                         self.batch, how, backdrop, framing)


def part_frames(frames: int, segment: int, workers: int) -> list[int]:
    """Frames of each part: whole segments, at most `_MAX_SEGMENTS`, and at least two parts for each worker if there are
    enough segments."""
    segments = math.ceil(frames / segment)
    size = segment * max(1, min(_MAX_SEGMENTS, math.ceil(segments / (2 * workers))))
    return [min(size, frames - first) for first in range(0, frames, size)]


def _in_order(ray: ModuleType, submit: Callable[[int], Any], count: int, workers: int) -> Iterator[Part]:
    """Results of `count` tasks in order, `workers` of them at a time; few wait for their turn. A task whose process
    dies is run again by Ray."""
    running: dict[Any, int] = {}
    finished: dict[int, Part] = {}
    begun = 0
    try:
        for wanted in range(count):
            while True:
                while len(running) < workers and begun < min(count, wanted + _PARTS_AHEAD * workers):
                    running[submit(begun)] = begun
                    begun += 1
                if wanted in finished:
                    break
                (done,), _ = ray.wait(list(running), num_returns=1)
                finished[running.pop(done)] = ray.get(done)
            yield finished.pop(wanted)
    finally:
        for task in running:
            ray.cancel(task)


@contextmanager
def _errors_of_workers(ray: ModuleType) -> Iterator[None]:
    """Raise an error of a worker as if it had been raised here."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EgsError):
            raise error.cause from None
        if isinstance(error.cause, ImportError) or "failed to import" in str(error.cause):
            raise InputError("this kit on each worker", "one where it cannot be imported",
                             "Install the same version of egstalker-nb on all machines.") from error
        raise
    except ray.exceptions.RayError as error:
        raise UnfinishedError("workers that live", first_line(error), "Use fewer workers, or machines with more "
                              "memory, then repeat the same call.") from error
