"""Fixtures of all tests, and quiet, modest libraries."""
import os

# one thread for each of the two processes that share the tests: with two, a third of the time goes into waking each
# other. Before numba, torch and mediapipe are imported; the notebooks' kernels inherit them
for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting starve each other on 2 cores
os.environ.setdefault("GLOG_minloglevel", "3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import copy  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import wave  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
cv2.setNumThreads(1)

ROOT = Path(__file__).resolve().parents[1]
SLOW_FIXTURES = {"headless", "lesson"}  # executed notebooks, a run that densifies
#: files that prepare, train or stream many times over
SLOW_FILES = {"test_analysis", "test_benchmarks", "test_camera", "test_data_parallel", "test_job", "test_live_widgets",
              "test_notebook_00", "test_offset", "test_poses_of_a_run", "test_prepare", "test_prepare_chunks",
              "test_prepare_inputs", "test_presets", "test_sample", "test_snapshots", "test_streaming", "test_sync",
              "test_training", "test_video_forms", "test_widgets_clip", "test_checkpoint_faults", "test_formats",
              "test_fuzz", "test_interruptions", "test_kills", "test_notebook_faults", "test_prepare_faults",
              "test_properties", "test_security", "test_sweep_cluster", "test_sweep_engine", "test_sweep_runs",
              "test_sweep_store", "test_sweep_report", "test_split", "test_scheduling_examples", "test_trackers",
              "test_upstream_variants", "test_wheel", "test_viewer_page", "test_live_page", "test_live_server"}
#: share a server of processes, and what undisturbed work makes
KILLING = tuple(f"tests/faults/test_{name}.py" for name in ("kills", "interruptions", "notebook_faults"))
MAKES_NOTEBOOKS, SHOWS_NOTEBOOKS = "tests/test_notebooks.py", "tests/browser/test_lab.py"
TINY_SIZE, TINY_FRAMES, TINY_FOCAL = 64, 12, 128.0


def pytest_addoption(parser):
    parser.addoption("--screenshots", type=Path, metavar="DIR", help="where the browser tests keep their screenshots")


def pytest_collection_modifyitems(config, items):
    """Mark what needs Chromium, and what needs a fixture that takes long to make. With several processes the headless
    notebooks come first and then the slow files, so that none is left for one process at the end; the notebooks in the
    browser after half of these, when the headless ones have ended."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)
        if item.path.stem in SLOW_FILES or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def _turn(item) -> int:
    """When a file is tested, if there are several processes."""
    if item.nodeid.startswith(MAKES_NOTEBOOKS):
        return 0
    if item.nodeid.startswith(SHOWS_NOTEBOOKS):
        return 2
    if item.path.stem in SLOW_FILES:
        return 1 if item.path.parent.name == "faults" else 3
    return 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each test process takes whole files, and of the notebooks in the browser those with even or odd numbers."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            number = re.search(r"\[(\d+)_", nodeid) if file == SHOWS_NOTEBOOKS else None
            return f"{file} {int(number[1]) % 2}" if number else "kills" if file in KILLING else file

    config.option.loadscopereorder = False  # the file with the most tests first: they are the quickest
    return ByFile(config, log)


@pytest.fixture(scope="session")
def sample_clip() -> Path:
    """The committed talking-head clip."""
    return ROOT / "data" / "sample" / "clip.mp4"


@pytest.fixture(scope="session")
def sample_dataset(sample_clip, tmp_path_factory):
    """The sample, prepared at 128 px once for all tests. Read only: copy the folder before changing it."""
    import egstalker_nb as egs

    return egs.prepare(sample_clip, tmp_path_factory.mktemp("sample") / "dataset", size=128)


@pytest.fixture(scope="session")
def headless(sample_clip, tmp_path_factory):
    """All notebooks, executed once on the sample's first 4.8 s, with few iterations and with refined poses, as in
    `production`: the `clip`, `size`, `seconds`, other parameters as `short`, the folders `out` and `dataset`, and the
    `video`. Read only. The first test process that needs them makes them, the others wait for it."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "headless"
    made = SimpleNamespace(size=128, seconds=2.0, short={"edge": 48, "steps": 60, "lesson_iterations": 100},
                           clip=folder / "clip.mp4", out=folder / "out", dataset=folder / "dataset")
    with FileLock(folder.with_suffix(".lock")):
        ended = folder / "ended"
        if not ended.exists():
            folder.mkdir(exist_ok=True)
            ended.write_text(str(_execute_notebooks(made, sample_clip)))
        made.video = Path(ended.read_text())
    return made


def _execute_notebooks(made: SimpleNamespace, sample_clip: Path) -> Path:
    """The video that they end with."""
    from egstalker_nb.media.audio import load_audio
    from egstalker_nb.media.video_reader import read_frames
    from egstalker_nb.media.video_writer import write_video
    from egstalker_nb.scheduling import runner

    frames = 120
    write_video(made.clip, read_frames(sample_clip, stop=frames), load_audio(sample_clip)[:frames * 640])
    return runner.run_notebooks(
        made.clip, "quick_test", audio=sample_clip.with_name("speech.wav"), name="sample", out=made.out,
        dataset=made.dataset, size=made.size, duration=made.seconds, **made.short,
        overrides={"coarse_iterations": 40, "iterations": 90, "pose_steps": 1, "torso_steps": 60})


@pytest.fixture(scope="module")
def embedded_ray():
    """Ray on this computer: it takes seconds to start. It ends with the module, as others start it with other
    environment variables."""
    from egstalker_nb.core.ray_cluster import connected

    with connected(num_cpus=2, object_store_memory=80_000_000) as ray:
        yield ray


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """A made-up dataset: 12 frames of 64 px of a ball with eyes and a mouth that opens. Read only."""
    import egstalker_nb as egs

    root = tmp_path_factory.mktemp("tiny") / "dataset"
    make_tiny_dataset(root)
    return egs.load_dataset(root)


@pytest.fixture(scope="session")
def moving_dataset(tiny_dataset, tmp_path_factory):
    """The tiny dataset, seen by a camera that zooms, pans, and becomes brighter. Read only."""
    from moving_camera import make_moving_dataset

    import egstalker_nb as egs

    return egs.load_dataset(make_moving_dataset(tiny_dataset, tmp_path_factory.mktemp("moving") / "dataset"))


@pytest.fixture(scope="session", autouse=True)
def torsos_are_fitted_once():
    """Most runs here are of the same dataset, and a third of a short one is its torso layer, which depends on little of
    the configuration. Runs in other processes fit their own, with as many threads as they have: sums of other parts
    differ in the last bit."""
    from egstalker_nb.training import trainer

    real, fitted = trainer.fit_torso, {}

    def fit_once(ds, frames, steps, seed):
        steps = min(steps, 300)
        key = (str(ds.root), ds.hash, ds.num_train, ds.w2c.tobytes(), str(frames.device), seed, steps,
               torch.get_num_threads())
        if key not in fitted:
            fitted[key] = real(ds, frames, steps, seed=seed)
        return copy.deepcopy(fitted[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "fit_torso", fit_once)
        yield


@pytest.fixture(scope="session")
def stand_in(tiny_dataset):
    """What the motion of a head needs of its renderer: the tiny clip, and other poses than those that were tracked."""
    w2c = tiny_dataset.w2c.copy()
    w2c[:, :3, 3] += [0.1, -0.1, 0.5]
    return SimpleNamespace(ds=tiny_dataset, w2c=w2c)


def make_tiny_dataset(root: Path) -> None:
    """Write a dataset folder with a known truth and without face tracking; the same bytes at every call."""
    from egstalker_nb.speech.encoders import DEFAULT_ENCODER, load_encoder

    size, count, focal = TINY_SIZE, TINY_FRAMES, TINY_FOCAL
    time = np.arange(count) / 25.0
    aperture = (0.08 * (1 - np.cos(2 * np.pi * 4 * time))).astype(np.float32)
    blink = np.where(np.arange(count) % 6 == 5, 0.9, 0.1).astype(np.float32)
    mean_face, w2c = _ball(), _poses(count)
    camera = np.einsum("nij,kj->nki", w2c[:, :3, :3], mean_face) + w2c[:, None, :3, 3]
    pixels = focal * camera[..., :2] / camera[..., 2:] + size / 2
    depth = focal * (camera[..., 2:] - w2c[:, None, 2:3, 3]) / w2c[:, None, 2:3, 3]
    centre = focal * w2c[:, :2, 3] / w2c[:, 2:3, 3] + size / 2
    radius = 1.3 * focal / w2c[:, 2, 3]

    (root / "frames").mkdir(parents=True)
    (root / "masks").mkdir()
    plate, best = _plate(), [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    cv2.imwrite(str(root / "background.png"), plate[..., ::-1])
    for i in range(count):
        image, mask = _picture(plate, centre[i], radius[i], aperture[i], blink[i])
        cv2.imwrite(str(root / "frames" / f"{i:06d}.jpg"), image[..., ::-1], best)
        cv2.imwrite(str(root / "masks" / f"{i:06d}.png"), mask[..., ::-1])

    rng = np.random.default_rng(0)
    loudness = (aperture - aperture.mean()) / aperture.std()
    features = loudness[:, None, None] * rng.normal(size=(1, 16, 29)) + 0.1 * rng.normal(size=(count, 16, 29))
    np.save(root / "features.npy", features.astype(np.float32))
    sound = np.repeat(aperture / aperture.max(), 640) * np.sin(2 * np.pi * 150 * np.arange(count * 640) / 16000)
    with wave.open(str(root / "audio.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((sound * 12000).astype("<i2").tobytes())
    np.savez(root / "tracking.npz", landmarks=np.concatenate([pixels, depth], -1).astype(np.float32),
             found=np.ones(count, bool), w2c=w2c.astype(np.float32), blink=blink, aperture=aperture,
             lip_rect=_rects(centre, radius, 0.4, 0.5, 0.35), eye_rect=_rects(centre, radius, -0.35, 0.7, 0.25),
             mean_face=mean_face, reprojection=np.full(count, 0.2, np.float32))
    (root / "report.json").write_text(json.dumps({"num_frames": count, "warnings": []}))
    (root / "dataset.json").write_text(json.dumps({
        "format": 1, "source": "made-up", "fps": 25, "size": size, "num_frames": count, "crop": [0, 0, size],
        "focal": focal, "encoder": load_encoder(DEFAULT_ENCODER).spec, "num_train": count * 10 // 11}))


def _ball() -> np.ndarray:
    """478 points on the camera's half of an ellipsoid, mean distance from their centroid 1; [478, 3] float32."""
    i = np.arange(478)
    z = -(i + 0.5) / 478
    angle, ring = i * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - z * z)
    points = np.stack([ring * np.cos(angle), 1.2 * ring * np.sin(angle), z], -1)
    points -= points.mean(0)
    return (points / np.linalg.norm(points, axis=-1).mean()).astype(np.float32)


def _poses(count: int) -> np.ndarray:
    """World-to-camera [count, 4, 4]: a head 9 units away that turns 6 degrees to either side and drifts."""
    phase = 2 * np.pi * np.arange(count) / count
    turn = np.deg2rad(6) * np.sin(phase)
    w2c = np.tile(np.eye(4), (count, 1, 1))
    w2c[:, 0, 0], w2c[:, 0, 2], w2c[:, 2, 0], w2c[:, 2, 2] = np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)
    w2c[:, :3, 3] = np.stack([0.2 * np.cos(phase), 0.1 * np.sin(phase), np.full(count, 9.0)], -1)
    return w2c


def _plate() -> np.ndarray:
    y, x = np.mgrid[0:TINY_SIZE, 0:TINY_SIZE] / TINY_SIZE
    return (255 * np.stack([0.3 + 0.2 * x, 0.4 + 0.2 * y, 0.6 - 0.2 * x], -1)).astype(np.uint8)


def _picture(plate, centre, radius, aperture, blink) -> tuple[np.ndarray, np.ndarray]:
    """One frame and its masks, [S, S, 3] uint8 each."""
    y, x = np.mgrid[0:TINY_SIZE, 0:TINY_SIZE] + 0.5
    u, v = (x - centre[0]) / radius, (y - centre[1]) / radius

    def inside(across, down, wide, high):
        return 1 / (1 + np.exp(np.clip(12 * (np.hypot((u - across) / wide, (v - down) / high) - 1), -50, 50)))

    head = inside(0, 0, 1, 1.2)
    torso = (1 - head) * inside(0, 2.6, 1.6, 1.5)
    skin = np.array([0.85, 0.62, 0.5]) * (0.9 - 0.25 * u * u)[..., None]
    for across in (-0.4, 0.4):
        skin = skin * (1 - 0.9 * inside(across, -0.35, 0.16, 0.12 * (1.1 - blink)))[..., None]
    skin = skin * (1 - 0.9 * inside(0, 0.4, 0.3, 0.04 + aperture))[..., None]
    back = 1 - head - torso
    image = head[..., None] * skin + torso[..., None] * [0.2, 0.25, 0.45] + back[..., None] * plate / 255.0
    mask = np.rint(255 * np.stack([head, torso], -1)).astype(int)
    mask = np.dstack([mask, 255 - mask.sum(-1)])
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), np.clip(mask, 0, 255).astype(np.uint8)


def _rects(centre, radius, down, wide, high) -> np.ndarray:
    """[N, 4] int32 rectangles around a part of the face, inside the image."""
    middle = centre + np.stack([np.zeros_like(radius), down * radius], -1)
    half = np.stack([wide * radius, high * radius], -1)
    corners = np.concatenate([np.floor(middle - half), np.ceil(middle + half)], -1)
    return np.clip(corners, 0, TINY_SIZE).astype(np.int32)
