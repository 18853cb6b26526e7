"""`egs.prepare` on the sample clip: truth, resuming, changed settings, flat memory, errors."""
import json

import numpy as np
import pytest
import undrawn

import egstalker_nb as egs
from egstalker_nb.core.errors import InputError
from egstalker_nb.face import pose_math, tracker
from egstalker_nb.media.audio import frames_of, load_audio
from egstalker_nb.media.video_reader import read_frames
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.preparation import build, extract, landmark_tracking, masks, overlay, pipeline, scan, steps
from egstalker_nb.speech.encoders import DEFAULT_ENCODER, Encoder, load_encoder

# ---- the sample, tracked for real


def test_reprojection_of_the_sample_is_within_the_limit(sample_dataset):
    ds = sample_dataset
    assert ds.found.all()
    assert np.sqrt((ds.reprojection.astype(float) ** 2).mean()) <= 1.5 * ds.size / 512
    assert ds.report["reprojection_px"]["rms"] <= 1.5 * ds.size / 512


def test_mean_face_and_cameras_explain_the_landmarks(sample_dataset):
    ds = sample_dataset
    shown = pose_math.project(ds.w2c[:, :3, :3].astype(float), ds.w2c[:, :3, 3].astype(float),
                           ds.mean_face.astype(float), ds.focal) + ds.size / 2
    error = np.linalg.norm(shown - ds.landmarks[..., :2], axis=-1)
    # also the moving landmarks are right in the mean
    assert np.median(error) < 0.005 * ds.size and error.mean(axis=0).max() < 0.04 * ds.size


def test_mouth_eyes_and_head_follow_the_known_truth(sample_dataset, sample_clip):
    truth, ds = np.load(sample_clip.parent / "truth.npz"), sample_dataset

    def agreement(a, b):
        return np.corrcoef(a, b)[0, 1]

    assert agreement(ds.aperture, truth["aperture"]) > 0.85
    assert agreement(ds.blink, truth["blink"]) > 0.85
    angles, true = pose_math.euler(ds.w2c), pose_math.euler(truth["w2c"])
    assert agreement(angles[:, 0], true[:, 0]) > 0.9 and agreement(angles[:, 1], true[:, 1]) > 0.7


def test_dataset_has_the_whole_format(sample_dataset):
    ds = sample_dataset
    n, s = ds.num_frames, ds.size
    assert ds.num_train == n * 10 // 11 and s == 128 and ds.fps == 25
    assert ds.features.shape == (n, 16, 29) and ds.features.dtype == np.float32
    assert len(ds.audio()) == n * 640
    assert ds.w2c.shape == (n, 4, 4) and np.allclose(np.linalg.det(ds.w2c[:, :3, :3]), 1, atol=1e-4)
    assert 0 <= ds.blink.min() and ds.blink.max() <= 1
    for rect in (ds.lip_rect, ds.eye_rect):
        assert rect.dtype == np.int32 and (rect >= 0).all() and (rect <= s).all() and (rect[:, 2:] > rect[:, :2]).all()
    for i in (0, n - 1):
        assert ds.frame(i).shape == ds.mask(i).shape == (s, s, 3)
    assert len(list((ds.root / "frames").iterdir())) == len(list((ds.root / "masks").iterdir())) == n
    assert ds.plate.shape == (s, s, 3)
    assert (ds.root / "report" / "overlays.jpg").is_file() and (ds.root / "report" / "curves.jpg").is_file()
    assert not (ds.root / steps.WORK).exists() and not list(ds.root.rglob("*.tmp"))


def test_masks_of_the_sample_are_where_head_and_torso_are(sample_dataset):
    ds = sample_dataset
    for i in range(0, ds.num_frames, 60):
        mask, points = ds.mask(i).astype(int), ds.landmarks[i, :, :2]
        assert (mask.sum(axis=2) == 255).all()
        nose, chin, top = (np.clip(points[k].round().astype(int), 0, ds.size - 1) for k in (4, 152, 10))
        height = chin[1] - top[1]
        assert mask[nose[1], nose[0], 0] > 250
        assert mask[top[1] - height // 10, top[0], 0] > 250, "hair belongs to the head"
        assert mask[min(chin[1] + height // 3, ds.size - 1), chin[0], 1] > 250, "the neck belongs to the torso"
        assert mask[2, 2, 2] > 250


def test_a_finished_dataset_is_returned_at_once(sample_dataset, sample_clip, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a finished dataset was worked on again")

    monkeypatch.setattr(pipeline, "build", never)
    monkeypatch.setattr(pipeline.audio, "load_audio", never)
    again = egs.prepare(sample_clip, sample_dataset.root, size=sample_dataset.size)
    assert again.hash == sample_dataset.hash


# ---- resuming

#: the work of the steps before the plate
DONE_BEFORE = ((scan, "scan_chunk"), (landmark_tracking, "track_chunk"), (build, "_pose_step"),
               (extract, "extract_chunk"))


class Interruption(Exception):
    """Stands for Ctrl-C, which would end pytest itself."""


@pytest.fixture(scope="module")
def short_clip(sample_clip, tmp_path_factory):
    """The sample's first 45 frames with their audio."""
    frames = [image for image, _ in zip(read_frames(sample_clip), range(45))]
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", frames, load_audio(sample_clip)[:45 * 640])


@pytest.fixture
def small_chunks(monkeypatch):
    """The clip in three parts; nothing is drawn."""
    monkeypatch.setattr(steps, "CHUNK", 20)
    monkeypatch.setattr(overlay, "write_curves", undrawn.write_curves)


@pytest.fixture(scope="module")
def uninterrupted(short_clip, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "CHUNK", 20)
        patch.setattr(overlay, "write_curves", undrawn.write_curves)
        return egs.prepare(short_clip, tmp_path_factory.mktemp("whole") / "ds", size=64)


def contents(root):
    """Every file of a dataset, comparable: bytes, arrays, or the report without its times."""
    result = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".lock"):  # which names the process
        name = str(path.relative_to(root))
        if path.suffix == ".npz":
            with np.load(path) as file:
                result[name] = {k: file[k].tobytes() for k in file.files}
        elif name == "report.json":
            result[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds_per_step"}
        else:
            result[name] = path.read_bytes()
    return result


@pytest.mark.slow
@pytest.mark.parametrize("owner, name, calls, most_left", [
    # where it is interrupted, at which call, and how many calls at most are left for the second attempt
    (scan.FaceDetector, "__call__", 6, 5),
    (tracker.FaceTracker, "__call__", 40, 35),
    (extract, "write_jpeg", 30, 25),
    (masks, "segment", 30, 25),
    (build.audio, "save_wav", 1, 1),
    (overlay, "write_sheet", 1, 1),
])
def test_interrupted_work_continues_with_the_same_result(short_clip, uninterrupted, small_chunks, tmp_path, monkeypatch,
                                                          owner, name, calls, most_left):
    real, count = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == stop_at:
            raise Interruption
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    stop_at = calls
    with pytest.raises(Interruption):
        egs.prepare(short_clip, tmp_path / "ds", size=64)
    assert not (tmp_path / "ds" / "dataset.json").exists()
    count, stop_at = 0, None
    resumed = egs.prepare(short_clip, tmp_path / "ds", size=64)
    assert 0 < count <= most_left
    assert contents(resumed.root) == contents(uninterrupted.root)


@pytest.mark.slow
def test_steps_before_an_interruption_are_not_done_again(short_clip, uninterrupted, small_chunks, tmp_path,
                                                          monkeypatch):
    def interrupt(*args):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(build, "_plate_step", interrupt)
        with pytest.raises(Interruption):
            egs.prepare(short_clip, tmp_path / "ds", size=64)
    for owner, name in DONE_BEFORE:
        monkeypatch.setattr(owner, name, interrupt)
    assert contents(egs.prepare(short_clip, tmp_path / "ds", size=64).root) == contents(uninterrupted.root)


@pytest.mark.slow
def test_another_size_on_an_unfinished_folder_keeps_the_tracking_and_redoes_the_rest(short_clip, uninterrupted,
                                                                                       small_chunks, tmp_path,
                                                                                       monkeypatch):
    def interrupt(*args):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(build, "_plate_step", interrupt)
        with pytest.raises(Interruption):
            egs.prepare(short_clip, tmp_path / "ds", size=80)
    monkeypatch.setattr(landmark_tracking, "track_face", interrupt)
    assert contents(egs.prepare(short_clip, tmp_path / "ds", size=64).root) == contents(uninterrupted.root)


def test_another_size_on_a_finished_folder_is_refused_and_nothing_lost(short_clip, uninterrupted):
    """Runs that were trained on a dataset need it as it is: forgetting `size` must not replace it."""
    before = contents(uninterrupted.root)
    with pytest.raises(InputError, match="size 64 there, 80 now"):
        egs.prepare(short_clip, uninterrupted.root, size=80)
    assert contents(uninterrupted.root) == before


def test_own_features_are_taken_as_they_are(short_clip, small_chunks, tmp_path):
    given = np.random.default_rng(0).normal(size=(45, 16, 29)).astype(np.float32)
    np.save(tmp_path / "own.npy", given)
    ds = egs.prepare(short_clip, tmp_path / "ds", size="native", features=tmp_path / "own.npy")
    np.testing.assert_array_equal(ds.features, given)
    assert 0 <= ds.meta["crop"][2] - ds.size < 16, "neither enlarged nor reduced"
    assert ds.frame(0).shape == (ds.size, ds.size, 3) and ds.meta["settings"]["size"] == "native"
    assert ds.report["source"]["path"] == str(short_clip), "where a head can be put back"
    assert ds.encoder == {"name": "external"}


# ---- encoders

class Loudness(Encoder):
    """Stands for another encoder: every channel the same number."""

    def __init__(self, version=1):
        super().__init__({"name": "loudness", "version": version},
                         lambda wave: np.full((-(-len(wave) // 320), 29), version, np.float32))


@pytest.mark.slow
def test_the_dataset_knows_its_encoder_and_another_one_redoes_only_the_audio(short_clip, uninterrupted, small_chunks,
                                                                              tmp_path, monkeypatch):
    def interrupt(*args):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_encoder", lambda name: Loudness())
        patch.setattr(overlay, "write_sheet", interrupt)
        with pytest.raises(Interruption):
            egs.prepare(short_clip, tmp_path / "ds", size=64, encoder="loudness")
    assert np.load(tmp_path / "ds" / "features.npy")[20, 0, 0] == 1
    for owner, name in (*DONE_BEFORE, (build, "_plate_step")):
        monkeypatch.setattr(owner, name, interrupt)
    ds = egs.prepare(short_clip, tmp_path / "ds", size=64)
    assert ds.encoder == load_encoder(DEFAULT_ENCODER).spec
    assert contents(ds.root) == contents(uninterrupted.root)


def test_another_encoder_on_a_finished_folder_is_refused(short_clip, uninterrupted, monkeypatch):
    """Heads that were trained on a dataset need its encoder; features from a file are another encoder too."""
    before = contents(uninterrupted.root)
    monkeypatch.setattr(pipeline, "load_encoder", lambda name: Loudness(2))
    with pytest.raises(InputError, match=f"encoder '{DEFAULT_ENCODER}'.*there, 'loudness' version 2 now.*made with"):
        egs.prepare(short_clip, uninterrupted.root, size=64, encoder="loudness")
    assert contents(uninterrupted.root) == before


def test_an_encoder_that_is_not_there_is_refused_before_anything_is_written(short_clip, tmp_path):
    with pytest.raises(InputError, match="logmel.*'lgomel'"):
        egs.prepare(short_clip, tmp_path / "ds", size=64, encoder="lgomel")
    assert not (tmp_path / "ds").exists()


# ---- errors

def test_bad_settings_are_refused_before_anything_is_written(sample_clip, tmp_path):
    for size in (0, 63, 100, 1040, 512.0, True, "512"):
        with pytest.raises(InputError, match="multiple of 16"):
            egs.prepare(sample_clip, tmp_path / "ds", size=size)
    with pytest.raises(InputError, match="size in px for a focal length"):
        egs.prepare(sample_clip, tmp_path / "ds", size="native", focal=800.0)
    for focal in (1.0, -128.0, float("nan"), float("inf"), "128", True, 1e308):
        with pytest.raises(InputError, match="focal"):
            egs.prepare(sample_clip, tmp_path / "ds", size=64, focal=focal)
    for track in ("1", 0, -1, 1.0, True):
        with pytest.raises(InputError, match="audio track"):
            egs.prepare(sample_clip, tmp_path / "ds", track=track)
    for encoder in (None, 5, "", "a\0b", "e" * 5000, ["phones"]):
        with pytest.raises(InputError, match="encoder"):
            egs.prepare(sample_clip, tmp_path / "ds", encoder=encoder)
    for words in ({"face": None}, {"face": np.zeros(2)}, {"scenes": 3}, {"size": "5" * 9999}):
        with pytest.raises(InputError, match=next(iter(words))) as caught:
            egs.prepare(sample_clip, tmp_path / "ds", **words)
        assert len(str(caught.value)) < 300
    assert not (tmp_path / "ds").exists()


def test_missing_and_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        egs.prepare(tmp_path / "none.mp4", tmp_path / "ds")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(InputError):
        egs.prepare(tmp_path / "text.mp4", tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


@pytest.fixture(scope="module")
def grey_frames():
    return [np.full((64, 64, 3), 90 + i, np.uint8) for i in range(12)]


def test_a_clip_without_audio_is_refused_with_advice(grey_frames, tmp_path):
    video = write_video(tmp_path / "mute.mp4", grey_frames)
    with pytest.raises(InputError, match="(?s)without an audio stream.*Record the clip with audio"):
        egs.prepare(video, tmp_path / "ds")


def test_a_clip_without_a_face_is_refused_and_leaves_nothing_behind(grey_frames, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * 640).astype(np.float32)
    video = write_video(tmp_path / "empty.mp4", grey_frames, noise)
    with pytest.raises(InputError, match="face"):
        egs.prepare(video, tmp_path / "ds", size=64)
    assert not (tmp_path / "ds").exists()


def test_another_videos_folder_is_refused_and_untouched(sample_dataset, short_clip):
    before = (sample_dataset.root / "dataset.json").read_bytes()
    with pytest.raises(InputError, match="another video"):
        egs.prepare(short_clip, sample_dataset.root, size=sample_dataset.size)
    assert (sample_dataset.root / "dataset.json").read_bytes() == before
    assert not (sample_dataset.root / steps.WORK).exists()


def test_unusable_folders_are_refused(short_clip, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file at"):
        egs.prepare(short_clip, tmp_path / "file")
    with pytest.raises(InputError, match="can be written"):
        egs.prepare(short_clip, tmp_path / "file" / "ds")
    (tmp_path / "other" / "frames").mkdir(parents=True)
    with pytest.raises(InputError, match="something else"):
        egs.prepare(short_clip, tmp_path / "other")


def test_features_of_another_length_are_refused_with_the_expected_count(short_clip, tmp_path):
    np.save(tmp_path / "long.npy", np.zeros((60, 16, 29), np.float32))
    expected = str(frames_of(len(load_audio(short_clip))))
    with pytest.raises(InputError, match=expected):
        egs.prepare(short_clip, tmp_path / "ds", size=64, features=tmp_path / "long.npy")
    with pytest.raises(InputError, match="no file"):
        egs.prepare(short_clip, tmp_path / "ds", size=64, features=tmp_path / "none.npy")
    assert not (tmp_path / "ds").exists()
