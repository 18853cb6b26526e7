"""Protects: a video that several workers render is the same file as that of one, whatever happens to a worker."""
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError, UnfinishedError
from egstalker_nb.media.audio import save_wav
from egstalker_nb.media.video_reader import probe
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.rendering import split
from egstalker_nb.rendering.split import SplitRendering, part_frames, segment_frames

pytest.importorskip("ray")
CFG = dict(iterations=4, coarse_iterations=2, batch_size=2, plane_resolution=[8, 16])


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    return egs.train(tiny_dataset, egs.load_config("quick_test", **CFG), tmp_path_factory.mktemp("r") / "run",
                     device="cpu")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """3 s: 75 frames."""
    path = tmp_path_factory.mktemp("s") / "speech.wav"
    save_wav(path, (0.2 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32))
    return path


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(split, "SEGMENT_FRAMES", 8)


@pytest.mark.parametrize("frames, batch, workers", [
    (1, 4, 2), (7, 4, 3), (8, 4, 2), (9, 4, 2), (75, 3, 2), (40, 5, 3), (20, 30, 2)])
def test_the_file_does_not_depend_on_the_number_of_workers(run, speech, embedded_ray, short_segments, tmp_path, frames,
                                                           batch, workers):
    behind = write_video(tmp_path / "behind.mp4", [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(11)])
    given = dict(batch=batch, duration=frames / 25, device="cpu", background=behind if frames % 2 else "clip",
                 aspect="9:16" if frames % 4 else None)
    one = egs.render(run, speech, tmp_path / "one.mp4", **given)
    many = egs.render(run, speech, tmp_path / "many.mp4", workers=workers, **given)
    assert many.path.read_bytes() == one.path.read_bytes()
    assert many.frames == probe(many.path).num_frames == frames and many.render_fps > 0


def test_rendering_a_part_leaves_the_process_as_it_was():
    """Sums of many numbers depend on the number of threads: what is computed next must not."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(InputError):
            split.render_part(split.RenderJob("nowhere", "nowhere", 1, "", "cpu", 1, None), None, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_segment_is_a_whole_number_of_batches_and_a_part_of_segments():
    for batch in (1, 5, 8, 32, 48, 64, 100):
        assert segment_frames(batch) % batch == 0 and abs(segment_frames(batch) - 64) <= max(32, batch - 64)
    for frames in (1, 63, 64, 65, 1500, 90_000):
        for workers in (2, 3, 16):
            parts = part_frames(frames, 64, workers)
            assert sum(parts) == frames and all(n % 64 == 0 for n in parts[:-1]) and max(parts) <= 16 * 64
            assert len(parts) >= min(-(-frames // 64), workers)


def test_a_killed_worker_changes_nothing(run, speech, embedded_ray, short_segments, tmp_path, monkeypatch):
    """As when the system runs out of memory, or a machine is taken back: Ray runs its part again."""
    one = egs.render(run, speech, tmp_path / "one.mp4", device="cpu")
    real, mark = split.render_part, tmp_path / "killed"

    def killed_once(*part):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*part)

    monkeypatch.setattr(split, "render_part", killed_once)
    many = egs.render(run, speech, tmp_path / "many.mp4", device="cpu", workers=2)
    assert mark.exists() and many.path.read_bytes() == one.path.read_bytes()


def test_the_command_line_has_workers(run, speech, embedded_ray, tmp_path):
    out = tmp_path / "v.mp4"
    assert cli.main(["render", str(run.root), "--audio", str(speech), "--out", str(out), "--duration", "0.2",
                     "--device", "cpu", "--workers", "2"]) == 0
    assert probe(out).num_frames == 5


@pytest.mark.parametrize("moved, match", [("run", "found no '.*elsewhere.*storage that all machines share"),
                                          ("dataset", "found no '.*elsewhere"), ("digest", "found another '.*head")])
def test_a_worker_that_cannot_reach_the_run_says_so(run, speech, embedded_ray, tmp_path, monkeypatch, moved, match):
    real = SplitRendering._job
    monkeypatch.setattr(SplitRendering, "_job",
                        lambda self, *given: replace(real(self, *given), **{moved: str(tmp_path / "elsewhere")}))
    with pytest.raises(InputError, match=match) as raised:
        egs.render(run, speech, tmp_path / "v.mp4", device="cpu", workers=2)
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong, match", [(dict(workers=0), "workers of at least 1"), (dict(device="cuda:1"), "cuda:1"),
                                          (dict(device="cuda"), "a cluster with GPUs")])
def test_wrong_choices_are_refused(run, speech, embedded_ray, wrong, match):
    with pytest.raises(InputError, match=match):
        egs.render(run, speech, **{"workers": 2, **wrong})


@pytest.mark.parametrize("gpus, workers, share", [(4, 2, 1.0), (2, 2, 1.0), (1, 2, 0.5), (2, 3, 0.66), (1, 3, 0.33)])
def test_workers_share_gpus(run, gpus, workers, share):
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)})
    assert SplitRendering(run, 4, None, workers, 8)._share(ray) == ("cuda", {"num_cpus": 1, "num_gpus": share})
    assert SplitRendering(run, 4, "cpu", workers, 8)._share(ray) == ("cpu", {"num_cpus": 1})


@pytest.mark.parametrize("seed", range(5))
def test_results_come_in_order_and_few_wait(seed):
    """Whichever task ends first; a slow first part must not let the others fill the memory."""
    rng, running, begun, cancelled = np.random.default_rng(seed), [], [], []

    def wait(tasks, num_returns):
        return [tasks[0] if len(tasks) == 1 else tasks[rng.integers(1, len(tasks))]], None  # the oldest is the slowest

    def submit(number):
        begun.append(number)
        running.append(number)
        assert len(running) <= 3
        return f"task {number}"

    def get(task):
        running.remove(number := int(task.split()[1]))
        return number

    ray = SimpleNamespace(wait=wait, get=get, cancel=cancelled.append)
    got = []
    for number in split._in_order(ray, submit, 50, 3):
        got.append(number)
        assert max(begun) < number + 4 * 3
    assert got == list(range(50)) == sorted(begun) and not cancelled
    ray.wait = lambda tasks, num_returns: (tasks[:1], None)
    stopped = split._in_order(ray, submit, 50, 3)
    next(stopped)
    stopped.close()
    assert sorted(cancelled) == sorted(f"task {number}" for number in running) != []


@pytest.mark.parametrize("error, wanted, match", [
    (lambda ray: ray.exceptions.WorkerCrashedError(), UnfinishedError, "workers that live.*fewer workers"),
    (lambda ray: ray.exceptions.RayTaskError("f", "trace", ImportError("no egstalker_nb")), InputError, "this kit"),
    (lambda ray: ray.exceptions.RayTaskError("f", "trace", InputError("a", "b", "c")), InputError, "expected a;")])
def test_errors_of_workers_are_raised_as_here(error, wanted, match):
    import ray

    with pytest.raises(wanted, match=match), split._errors_of_workers(ray):
        raised = error(ray)
        raise raised.as_instanceof_cause() if hasattr(raised, "as_instanceof_cause") else raised
