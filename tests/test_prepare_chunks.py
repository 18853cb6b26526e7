"""Every frame of a clip arrives in its dataset, in its place: any length, any interruption, any number of processes."""
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import numpy as np
import pytest
import undrawn
from moving_camera import seen, textured

import egstalker_nb as egs
from egstalker_nb.core.errors import (
    DatasetError,
    InputError,
    MemoryLimitError,
    MissingPackageError,
    StorageError,
    UnfinishedError,
)
from egstalker_nb.core.files import exclusive_lock, make_folder
from egstalker_nb.media.audio import load_audio
from egstalker_nb.media.video_reader import VideoInfo, read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation import (
    account,
    build,
    camera,
    extract,
    landmark_tracking,
    overlay,
    parallel,
    pipeline,
    plate,
    scan,
    source,
    steps,
)
from egstalker_nb.speech.encoders import load_encoder

SIDE, BITS, CELL = 64, 10, 6
LOCK = ".preparation.lock"  # names the process


def numbered(i, shade=120):
    """A frame [64, 64, 3] that shows its number as ten dark or bright cells along the top."""
    image = np.full((SIDE, SIDE, 3), shade, np.uint8)
    for bit in range(BITS):
        image[:8, 2 + bit * CELL:2 + (bit + 1) * CELL] = 90 + 60 * (i >> bit & 1)
    return image


def number_of(image):
    cells = [image[2:6, 4 + bit * CELL:6 + bit * CELL].mean() > 120 for bit in range(BITS)]
    return sum(1 << bit for bit, on in enumerate(cells) if on)


def make_video(path, count):
    wave = np.random.default_rng(0).normal(0, 0.1, count * 640).astype(np.float32)
    return write_video(path, (numbered(i) for i in range(count)), wave)


@pytest.fixture(scope="module")
def video_of(tmp_path_factory):
    """count -> a video of so many numbered frames, made once."""
    folder, made = tmp_path_factory.mktemp("videos"), {}

    def get(count):
        if count not in made:
            made[count] = make_video(folder / f"{count}.mp4", count)
        return made[count]

    return get


def panned_video(path, count):
    """The same numbers in front of a background that a camera pans over and zooms into."""
    scene = textured(SIDE)

    def frame(i):
        image = seen(scene, SIDE, [0.02 * i, 0, 0.005 * i, 0])
        image[:8] = numbered(i)[:8]
        return image

    return write_video(path, map(frame, range(count)), np.zeros(count * 640, np.float32) + 0.1, crf=1)


def stand_ins(face):
    """In place of MediaPipe: a face that nods with the frame's number, and a person in the middle. Nothing is drawn.

    Args:
        face: landmarks [478, 3] px of an image of `SIDE` px.

    Returns:
        module, name and replacement of each network.
    """
    class Finder:
        def __call__(self, image):
            boxes = np.full((scan.MAX_FACES, 5), np.nan, np.float32)
            boxes[0] = (20, 15, 44, 45, 0.9)
            return boxes

    class Tracker:
        def __init__(self, faces):
            pass

        def __call__(self, image, roi, box):
            return face + np.float32([0, 0.02 * (number_of(image) % 7), 0])

        def close(self):
            pass

    def segment_person(image):
        return np.pad(np.full((128, 128), 255 - number_of(image) % 5, np.uint8), 64)

    return ((scan, "face_detector", Finder), (landmark_tracking, "FaceTracker", Tracker),
            (extract, "segment_person", segment_person), (overlay, "write_curves", undrawn.write_curves))


@pytest.fixture
def no_nets(monkeypatch, sample_dataset):
    for owner, name, fake in stand_ins(sample_dataset.landmarks[0] * SIDE / sample_dataset.size):
        monkeypatch.setattr(owner, name, fake)


def prepared(video, root):
    return egs.prepare(video, root, size=SIDE, encoder="logmel")


def contents(ds):
    """Every file of a dataset but the report, as digests; arrays by their values."""
    found = {}
    for path in sorted(p for p in ds.root.rglob("*") if p.is_file() and p.name not in ("report.json", LOCK)):
        name = str(path.relative_to(ds.root))
        if path.suffix == ".npz":
            with np.load(path) as file:
                found.update({f"{name}/{k}": hashlib.sha256(file[k].tobytes()).hexdigest() for k in file.files})
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def check_whole(ds, count):
    assert ds.num_frames == count == len(ds.features) == len(ds.landmarks)
    assert len(ds.audio()) == count * 640
    assert [number_of(ds.frame(i)) for i in range(count)] == list(range(count))
    assert ds.report["account"]["frames"] == ds.report["account"]["kept"] == count
    assert not any(ds.report["account"]["missing"].values())


# ---- lengths

@pytest.mark.parametrize("count, chunk", [(1, 250), (250, 250), (500, 250), *(
    (count, 50) for count in (49, 50, 51, 99, 100, 101, 150))])
def test_no_frame_is_lost_at_any_length(video_of, no_nets, monkeypatch, tmp_path, count, chunk):
    """Clips of exactly 10 s, one chunk, were refused, and every multiple of it lost its last 10 s."""
    assert steps.CHUNK == 250
    monkeypatch.setattr(steps, "CHUNK", chunk)
    monkeypatch.setattr(parallel, "MIN_FRAMES_FOR_POOL", 10**9)
    check_whole(prepared(video_of(count), tmp_path / "ds"), count)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 19, 20, 21, 30])
def test_chunks_give_what_one_chunk_gives(video_of, no_nets, monkeypatch, tmp_path, count):
    whole = contents(prepared(video_of(count), tmp_path / "whole"))
    monkeypatch.setattr(steps, "CHUNK", 10)
    assert contents(prepared(video_of(count), tmp_path / "chunks")) == whole


# ---- interruptions

class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("count, moves", [(1, False), (9, False), (10, False), (11, False), (20, False), (30, True)])
@pytest.mark.parametrize("after", [True, False])
def test_work_that_was_killed_at_any_edge_of_a_chunk_continues_with_the_same_result(
        video_of, no_nets, monkeypatch, tmp_path, count, moves, after):
    """Killed before or after each file that a step writes, and continued to the next; also if the camera moves."""
    monkeypatch.setattr(steps, "CHUNK", 10)
    video, real = panned_video(tmp_path / "pan.mp4", count) if moves else video_of(count), build.write_npz
    whole = contents(prepared(video, tmp_path / "whole"))
    written = set()

    def write_and_die(path, **arrays):
        name = str(path)
        if after:
            real(path, **arrays)
        if name not in written:
            written.add(name)
            raise Killed(name)
        if not after:
            real(path, **arrays)

    for module in (scan, landmark_tracking, extract, camera, plate, build):
        monkeypatch.setattr(module, "write_npz", write_and_die)
    kills = 0
    while True:
        try:
            ds = prepared(video, tmp_path / "ds")
            break
        except Killed:
            kills += 1
            assert not (tmp_path / "ds" / "dataset.json").exists()
    chunks = -(-count // 10)
    # scan, track, frames, camera and, if it moves, the plate by chunk; pose, plate, sound and tracking.npz
    assert kills == (5 if moves else 4) * chunks + 4
    assert contents(ds) == whole
    assert ds.camera.any() == moves == (len(ds.canvas) > SIDE) != ds.report["camera"]["still"]
    check_whole(ds, count)


# ---- processes

@pytest.fixture(scope="module")
def short_clip(sample_clip, tmp_path_factory):
    """The sample's first 80 frames with their audio."""
    frames = list(read_frames(sample_clip, stop=80))
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", frames, load_audio(sample_clip)[:80 * 640])


def test_processes_give_what_one_process_gives(short_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "CHUNK", 30)
    alone = contents(egs.prepare(short_clip, tmp_path / "alone", size=64))
    monkeypatch.setattr(parallel, "processes_for", lambda frames: 2)
    assert contents(egs.prepare(short_clip, tmp_path / "two", size=64)) == alone


SCRIPT = """
import sys
import egstalker_nb as egs
from egstalker_nb.preparation import parallel, steps
parallel.processes_for = lambda frames: 2
steps.CHUNK = 30
egs.prepare(sys.argv[1], sys.argv[2], size=64)
"""


def test_a_killed_script_leaves_no_process_behind_and_is_continued(short_clip, tmp_path):
    """At the top level of a script, without a guard: processes must not run it again."""
    psutil = pytest.importorskip("psutil")
    script, root = tmp_path / "script.py", tmp_path / "ds"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(short_clip), str(root)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(root.glob(".work/track/*.npz")):
        assert first.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    assert {os.getpgid(child.pid) for child in children} == {first.pid}, "a signal to the group must reach them"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert {path.name for path in root.iterdir()} <= {".work", LOCK, "frames", "masks"}
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert egs.load_dataset(root).num_frames == 80


def failing(number, tick):
    tick()
    if number == 1:
        raise InputError("a number", "one", "Choose another.")
    return number


def killed(number, tick):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return number


def no_memory(number, tick):
    np.zeros(1 << 60, np.uint8)


def test_an_error_in_a_process_arrives_as_it_was_raised(monkeypatch):
    from egstalker_nb.core.progress import Progress

    monkeypatch.setattr(parallel, "processes_for", lambda frames: 2)
    with parallel.WorkerPool(1000) as pool, Progress(4, "test") as bar:
        assert pool.run(failing, [(0,), (2,), (3,)], bar) == [0, 2, 3]
        assert bar.done == 3
        with pytest.raises(InputError, match="expected a number; found one. Choose another.") as caught:
            pool.run(failing, [(0,), (1,), (2,)], bar)
        assert caught.value.fix == "Choose another."
        with pytest.raises(MemoryLimitError, match="too little"):
            pool.run(no_memory, [(0,), (1,)], bar)
        with pytest.raises(MemoryLimitError, match="killed"), parallel.enough_memory():
            pool.run(killed, [(0,), (1,), (2,)], bar)
        with pytest.raises(MemoryLimitError, match="killed"), parallel.enough_memory():
            pool.run(killed, [(0,), (2,)], bar)  # when the processes are gone already


# ---- memory

class Lives:
    """Made-up source frames, counting how many are alive at once."""

    def __init__(self, count, size):
        self.count, self.size, self.now, self.most = count, size, 0, 0

    def frames(self, path, fps=25.0, start=0, stop=None, alpha=False):
        for i in range(start, self.count if stop is None else min(stop, self.count)):
            image = np.full((self.size, self.size, 3), abs(i % 200 - 100), np.uint8)
            self.now += 1
            self.most = max(self.most, self.now)
            weakref.finalize(image, self.gone)
            yield image

    def gone(self):
        self.now -= 1


@pytest.mark.slow
def test_long_clips_do_not_pile_up_frames(no_nets, monkeypatch, tmp_path):
    lives = Lives(600, SIDE)
    for owner, name, fake in ((scan, "read_frames", lives.frames), (source, "read_frames", lives.frames),
                              (parallel, "processes_for", lambda frames: 1)):
        monkeypatch.setattr(owner, name, fake)
    wave = np.random.default_rng(0).normal(0, 0.1, 600 * 640).astype(np.float32)
    encoder = load_encoder("logmel")
    settings = {"version": 1, "video": "made up", "size": 64, "features": None, "focal": None, "face": "largest",
                "scenes": "longest", "track": None, "encoder": encoder.spec}
    (tmp_path / "ds").mkdir()
    info = VideoInfo(SIDE, SIDE, 25.0, 600, 24.0, True, 0, None, False)
    (tmp_path / "long.mp4").touch()
    clip = build.Clip(source.InputFile.now(tmp_path / "long.mp4"), info, wave, [], encoder)
    build.build(clip, tmp_path / "ds", settings)
    assert egs.load_dataset(tmp_path / "ds").num_frames == 600
    # two or three in the reader and the loop, eight in front of the writers, two being written
    assert 0 < lives.most <= 16


# ---- errors

TEXTS = "an end", "none", "Run it again."


@pytest.mark.parametrize("where", ["_pose_step", "_frames_step", "_plate_step", "_audio_step"])
def test_work_that_ended_through_no_fault_of_the_clip_goes_on_and_an_unusable_clip_leaves_nothing(
        video_of, no_nets, monkeypatch, tmp_path, where):
    real = getattr(build, where)

    def fail(*args):
        real(*args)
        raise error

    monkeypatch.setattr(build, where, fail)
    kept, removed = tmp_path / "kept", tmp_path / "deep" / "removed"
    for error, root in ((UnfinishedError(*TEXTS), kept), (source.UnusableClipError(*TEXTS), removed)):
        with pytest.raises(type(error)):
            prepared(video_of(20), root)
    assert (kept / ".work" / "track" / "00000.npz").is_file()
    assert not removed.parent.exists()
    monkeypatch.setattr(build, where, real)
    check_whole(prepared(video_of(20), kept), 20)


@pytest.mark.parametrize("error, seen", [
    (InputError(*TEXTS), InputError),  # for instance an encoder's
    (MissingPackageError(*TEXTS), MissingPackageError),
    (OSError(errno.ENOSPC, "No space left on device"), StorageError),
    (MemoryError(), MemoryLimitError),
    (BrokenProcessPool(), MemoryLimitError),
    (KeyboardInterrupt(), KeyboardInterrupt),
], ids=["input", "package", "disk", "memory", "worker", "stop"])
def test_no_error_but_that_of_an_unusable_clip_removes_finished_work(video_of, no_nets, monkeypatch, tmp_path, error,
                                                                     seen):
    def fail(*args):
        raise error

    monkeypatch.setattr(build, "_plate_step", fail)
    with pytest.raises(seen):
        prepared(video_of(20), tmp_path / "ds")
    assert (tmp_path / "ds" / ".work" / "frames" / "done.json").is_file()


def test_two_preparations_in_one_folder_are_distinguished(video_of, no_nets, tmp_path):
    root = make_folder(tmp_path / "ds")
    with exclusive_lock(root, "preparation"), pytest.raises(InputError, match="another preparation"):
        prepared(video_of(20), root)


def test_features_that_end_long_before_the_video_are_refused(tmp_path):
    info = VideoInfo(64, 64, 25.0, 60, 2.4, True, 0, None, False)
    for frames, refused in ((25, True), (36, False), (60, False)):
        np.save(tmp_path / "given.npy", np.zeros((frames, 16, 29), np.float32))
        with pytest.raises(InputError, match="1.4 s less") if refused else nullcontext():
            pipeline._load_features(tmp_path / "given.npy", np.zeros(frames * 640, np.float32), info)


# ---- the account

def test_an_account_that_does_not_add_up_is_an_error(video_of, no_nets, tmp_path, monkeypatch):
    ds = prepared(video_of(20), tmp_path / "ds")
    good = ds.report["account"]
    account.check_account(good, ds.root, {"tracking.npz": 20})
    with pytest.raises(DatasetError, match="18 in kept and missing"):
        account.check_account({**good, "frames": 22}, ds.root, {})
    with pytest.raises(DatasetError, match="19 in tracking.npz"):
        account.check_account(good, ds.root, {"tracking.npz": 19})
    (ds.root / "masks" / "000007.png").unlink()
    with pytest.raises(DatasetError, match="19 in masks/"):
        account.check_account(good, ds.root, {})


def test_a_pass_that_loses_frames_without_a_reason_is_an_error(video_of, no_nets, tmp_path, monkeypatch):
    real = scan.read_frames

    def short(video, start=0, stop=None):
        return real(video, start=start, stop=20 if stop is None else stop)

    monkeypatch.setattr(scan, "read_frames", short)
    with pytest.raises(InputError, match="(?s)60 frames.*20 that can be decoded"):
        prepared(video_of(60), tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_a_file_that_was_cut_off_is_used_as_far_as_it_goes_and_the_account_says_so(no_nets, tmp_path):
    whole = make_video(tmp_path / "whole.mp4", 100)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[:int(0.8 * len(data))])  # the index comes first (faststart): the last frames are missing
    ds = prepared(cut, tmp_path / "ds")
    found = ds.report["account"]
    assert 20 < ds.num_frames < 100 and found["kept"] == ds.num_frames
    assert found["frames"] == found["kept"] + sum(found["missing"].values())
    whole = ds.num_frames - 2  # only a part of the last frame is there
    assert [number_of(ds.frame(i)) for i in range(whole)] == list(range(whole))
    assert any("cut off" in warning for warning in ds.report["warnings"])


def test_the_account_as_text():
    text = account.account_text({"video_frames": 300, "video_fps": 29.97, "frames": 250, "kept": 200,
                             "missing": {"could not be decoded": 0, "in another shot": 50}})
    assert text == "200 of 250 frames kept (300 in the file at 29.97 fps); 50 in another shot"


def test_a_finished_dataset_of_an_earlier_version_is_returned_as_it_is(video_of, no_nets, tmp_path):
    ds = prepared(video_of(20), tmp_path / "ds")
    record = json.loads((ds.root / "dataset.json").read_text())
    record["settings"] = {k: v for k, v in record["settings"].items() if k not in ("face", "scenes", "track")}
    record["settings"]["version"] = 2
    (ds.root / "dataset.json").write_text(json.dumps(record))
    assert prepared(video_of(20), ds.root).num_frames == 20
    with pytest.raises(InputError, match="face 'largest' there, 'left' now"):
        egs.prepare(video_of(20), ds.root, size=SIDE, encoder="logmel", face="left")
