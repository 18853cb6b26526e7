"""Preparation under faults: whatever breaks meanwhile, the same call continues to the same bytes, or says why not."""
import builtins
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_prepare_chunks import SIDE, contents, make_video, prepared, stand_ins

from egstalker_nb.core.errors import InputError, StorageError, UnfinishedError
from egstalker_nb.core.files import exclusive_lock
from egstalker_nb.media.image_io import write_jpeg
from egstalker_nb.preparation import build, extract, landmark_tracking, pipeline, scan, steps

pytestmark = pytest.mark.slow
COUNT = 8


@pytest.fixture(autouse=True)
def small(monkeypatch, sample_dataset):
    """No networks, chunks of three frames, and a small image in place of the curves of the report."""
    for owner, name, fake in stand_ins(sample_dataset.landmarks[0] * SIDE / sample_dataset.size):
        monkeypatch.setattr(owner, name, fake)
    monkeypatch.setattr(steps, "CHUNK", 3)
    monkeypatch.setattr(build.overlay, "write_curves", lambda root, *rest: write_jpeg(
        root / "report" / "curves.jpg", np.zeros((8, 8, 3), np.uint8)))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "clip.mp4", COUNT)


@pytest.fixture
def own_video(video, tmp_path):
    """A copy that may be changed."""
    return shutil.copy(video, tmp_path / "clip.mp4")


_whole = {}


@pytest.fixture
def whole(video, small, tmp_path_factory):
    """What an undisturbed preparation makes."""
    if not _whole:
        _whole.update(contents(prepared(video, tmp_path_factory.mktemp("whole") / "ds")))
    return _whole


def interrupt(monkeypatch, video, root, owner=build.overlay, name="write_sheet"):
    """Prepare until a function is called, by default the last one but for the files that finish the dataset."""
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            prepared(video, root)


# ---- damage while nobody looks

def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def other_shape(path):
    arrays = {name: value[1:] if value.ndim else value[None] for name, value in steps.read_npz(path).items()}
    np.savez(path, **arrays)


def not_finite(path):
    arrays = steps.read_npz(path)
    arrays["landmarks"][1] = np.nan
    np.savez(path, **arrays)


def gone(path):
    path.unlink()


@pytest.mark.parametrize("damages", [
    {".work/scan/00001.npz": cut, ".work/track/00002.npz": zeros, ".work/frames/00000.npz": empty,
     ".work/pose/pose.npz": cut, ".work/plate/plate.npz": zeros, ".work/sound/sound.npz": empty},
    {".work/track/00000.npz": not_finite, ".work/frames/00001.npz": other_shape, ".work/pose/pose.npz": other_shape},
    {"frames/000003.jpg": cut, "masks/000006.png": empty, "frames/000005.jpg": zeros},
    {"masks/000000.png": cut, "frames/000001.jpg": gone, ".work/track/000004.jpg": empty},
    {"background.png": zeros, "features.npy": cut, "audio.wav": cut, "tracking.npz": empty},
    {".work/settings.json": cut, ".work/scan/done.json": zeros, ".work/frames/done.json": empty},
    {".work/settings.json": zeros, "audio.wav": gone, ".work/track/done.json": gone},
], ids=lambda damages: next(iter(damages)))
def test_what_was_damaged_is_found_and_made_again(video, whole, monkeypatch, tmp_path, damages):
    root = tmp_path / "ds"
    interrupt(monkeypatch, video, root)
    for name, damage in damages.items():
        damage(root / name)
    assert contents(prepared(video, root)) == whole


def test_images_that_vanish_before_the_end_are_noticed_and_made_again(video, whole, monkeypatch, tmp_path):
    real = build.quality.measure

    def measure(*args, **kwargs):
        (tmp_path / "ds" / "masks" / "000004.png").unlink()
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(build.quality, "measure", measure)
        with pytest.raises(UnfinishedError, match="gone or damaged"):
            prepared(video, tmp_path / "ds")
    (tmp_path / "ds" / "frames" / ".thumbs").mkdir()  # a file manager's: no business of ours
    assert contents(prepared(video, tmp_path / "ds")) == whole


def test_a_finished_folder_loses_what_a_kill_has_left_of_the_work(video, tmp_path):
    root = prepared(video, tmp_path / "ds").root
    (root / ".work" / "scan").mkdir(parents=True)
    assert len(prepared(video, root)) == COUNT and not (root / ".work").exists()


# ---- a full disk

class HalfWritten:
    """An open file on a disk that becomes full."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, data):
        self.file.write(bytes(data)[:len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_any_file(video, whole, monkeypatch, tmp_path):
    """Each file fails once: images with half of them written, others before they get their name."""
    failed, real_open, real_replace = set(), builtins.open, os.replace

    def fails(path):
        new = str(path).startswith(str(tmp_path)) and ".egs-" not in str(path) and str(path) not in failed
        failed.update([str(path)] if new else [])
        return new

    def full_open(file, mode="r", *args, **kwargs):
        opened = real_open(file, mode, *args, **kwargs)
        return HalfWritten(opened) if "w" in mode and fails(file) else opened

    def full_replace(source, target):
        if fails(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real_replace(source, target)

    attempts = 0
    with monkeypatch.context() as patch:
        patch.setattr("io.open", full_open)
        patch.setattr(os, "replace", full_replace)
        while True:
            try:
                ds = prepared(video, tmp_path / "ds")
                break
            except StorageError as error:
                attempts += 1
                assert "none left" in str(error) and not (tmp_path / "ds" / "dataset.json").exists()
    # one of the images that were in progress is reported
    assert len(failed) >= attempts > 2 * COUNT // 2 + 20
    assert contents(ds) == whole


ON_A_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[4])
import test_prepare_chunks as chunks
from egstalker_nb.core.errors import StorageError
from egstalker_nb.preparation import steps
for owner, name, fake in chunks.stand_ins(np.load(sys.argv[3])):
    setattr(owner, name, fake)
steps.CHUNK = 3
disk, refused = Path(sys.argv[2]), 0
for size in range(16, 2000, 90):
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
    try:
        found = chunks.contents(chunks.prepared(Path(sys.argv[1]), disk / "ds"))
        break
    except StorageError:
        refused += 1
print(json.dumps([refused, found]))
"""


def test_a_disk_that_is_really_full(video, whole, sample_dataset, tmp_path):
    """A file system in memory, seen by one process only, which grows whenever it was full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=16k none "$0" && exec "$@"', str(disk)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system in a namespace of its own")
    np.save(tmp_path / "face.npy", sample_dataset.landmarks[0] * SIDE / sample_dataset.size)
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([*inside, sys.executable, "-c", ON_A_SMALL_DISK, video, disk, tmp_path / "face.npy", tests],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, found = json.loads(done.stdout.splitlines()[-1])
    assert refused > 5
    found.pop("report/curves.jpg")  # here the real one
    assert found == {name: digest for name, digest in whole.items() if name != "report/curves.jpg"}


# ---- the input or the folder is changed meanwhile

def at_frame(monkeypatch, number, owner, name, action):
    """Do something when a function is called for the n-th time."""
    real, count = getattr(owner, name), 0

    def hooked(*args, **kwargs):
        nonlocal count
        count += 1
        if count == number:
            action()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, hooked)


PASSES = {"scan": (scan, "read_frames"), "track": (landmark_tracking, "write_jpeg"), "frames": (extract, "write_png")}


@pytest.mark.parametrize("where, number, vanishes", [("scan", 2, False), ("scan", 2, True), ("track", 4, True),
                                                     ("frames", 4, False)])
def test_a_video_that_is_changed_meanwhile(own_video, whole, monkeypatch, tmp_path, where, number, vanishes):
    data, stat = own_video.read_bytes(), own_video.stat()
    with monkeypatch.context() as patch:
        at_frame(patch, number, *PASSES[where], own_video.unlink if vanishes else lambda: own_video.write_bytes(data))
        with pytest.raises(UnfinishedError, match="moved or deleted" if vanishes else "changed since"):
            prepared(own_video, tmp_path / "ds")
    first = list((tmp_path / "ds" / ".work" / where).glob("*.npz"))
    assert len(first) == 1, "the chunk before is kept, the one that read both is not"
    own_video.write_bytes(data)
    os.utime(own_video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert contents(prepared(own_video, tmp_path / "ds")) == whole


@pytest.mark.parametrize("owner, name, number", [
    (scan, "read_frames", 2), (landmark_tracking, "write_jpeg", 3), (extract, "write_png", 5),
    (build.plate, "clean_plate", 1), (build, "write_npy", 1), (build.overlay, "write_sheet", 1)])
def test_a_folder_that_is_moved_away_meanwhile_does_not_come_back(video, whole, monkeypatch, tmp_path, owner, name,
                                                                  number):
    root, away = tmp_path / "ds", tmp_path / "away"
    with monkeypatch.context() as patch:
        at_frame(patch, number, owner, name, lambda: root.rename(away))
        with pytest.raises(StorageError, match="moved or deleted"):
            prepared(video, root)
    assert not root.exists()
    away.rename(root)
    assert contents(prepared(video, root)) == whole


def test_another_folder_in_its_place_is_not_written_to(video, monkeypatch, tmp_path):
    root = tmp_path / "ds"

    def replace():
        root.rename(tmp_path / "away")
        (root / ".work" / "plate").mkdir(parents=True)

    at_frame(monkeypatch, 1, build.plate, "clean_plate", replace)
    with pytest.raises(StorageError, match="moved or deleted"):
        prepared(video, root)
    assert [str(path.relative_to(root)) for path in sorted(root.rglob("*"))] == [".work", ".work/plate"]


# ---- two at once

def test_the_second_is_told_who_the_first_is_and_leaves_no_trace(video, tmp_path):
    (tmp_path / "ds").mkdir()
    with exclusive_lock(tmp_path / "ds", "preparation"):
        with pytest.raises(InputError, match=f"another preparation.*process {os.getpid()}"):
            prepared(video, tmp_path / "ds")
    assert [path.name for path in (tmp_path / "ds").iterdir()] == [".preparation.lock"]


def test_the_second_takes_what_the_first_has_finished_while_it_read_the_audio(video, whole, monkeypatch, tmp_path):
    real = pipeline.audio.load_audio

    def load(*args, **kwargs):
        monkeypatch.setattr(pipeline.audio, "load_audio", real)
        prepared(video, tmp_path / "ds")
        monkeypatch.setattr(pipeline, "build", None)  # would fail
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline.audio, "load_audio", load)
    assert contents(prepared(video, tmp_path / "ds")) == whole
