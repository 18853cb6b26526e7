"""The panels of notebook 01: their state, without a browser."""
import copy
import io
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from test_prepare_parts import GOOD

from egstalker_nb import notebook
from egstalker_nb.core.errors import EgsError, InputError
from egstalker_nb.face.landmarks import LIPS
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.exercises.notebook_01 import data_prep
from egstalker_nb.notebook.tables import report as report_table
from egstalker_nb.notebook.widgets.clip import PREPARATION_STEPS
from egstalker_nb.notebook.widgets.explorer import OVERLAYS, envelope, moments
from egstalker_nb.notebook.widgets.upload import clean_name, save_upload
from egstalker_nb.preparation import quality
from egstalker_nb.preparation.pipeline import check_video


@pytest.fixture
def folder(sample_clip, tmp_path):
    """A data folder with one video and other things."""
    shutil.copy(sample_clip, tmp_path / "mine.mp4")
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / "dataset").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """A video without an audio stream."""
    path = tmp_path_factory.mktemp("silent") / "silent.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
        for packet in [p for _ in range(5) for p in stream.encode(frame)] + stream.encode():
            file.mux(packet)
    return path


def send(picker, name: str, data: bytes, piece: int = 1 << 20) -> dict:
    """Upload as the button in the browser does; returns the last answer."""
    answer = picker.upload.receive({"kind": "begin", "name": name, "size": len(data)})
    while answer["kind"] == "next":
        begin = answer["from"]
        answer = picker.upload.receive({"kind": "piece", "from": begin}, [memoryview(data[begin:begin + piece])])
    return answer


# ---- choosing a video

def test_videos_of_one_name_in_folders_of_one_name_are_distinguished(sample_clip, tmp_path):
    """A menu with one entry for both could not show which is chosen."""
    for place in ("one", "two"):
        (tmp_path / place / "clips").mkdir(parents=True)
        shutil.copy(sample_clip, tmp_path / place / "clips" / "talk.mp4")
    mine = tmp_path / "one" / "clips" / "talk.mp4"
    picker = widgets.VideoPicker(mine, [tmp_path / "two" / "clips"])
    other = str(tmp_path / "two" / "clips" / "talk.mp4")
    assert picker.options() == {"talk.mp4 (clips)": str(mine), other: other}
    assert picker.widget is not None and picker.menu.value == str(mine)


def test_picker_lists_videos_and_starts_with_the_parameter(sample_clip, folder):
    picker = widgets.VideoPicker(sample_clip, [folder, folder / "missing"])
    assert list(picker.options().values()) == [str(sample_clip), str(folder / "mine.mp4")]
    assert picker.video == str(sample_clip) and picker.info.num_frames == 300 and len(picker.images) == 4
    assert len(picker.still().axes) == 4
    assert picker.folder("data/demo", 256) == "data/demo"


def test_another_choice_gets_its_own_folder(sample_clip, folder):
    """The folder of the parameter's video would refuse another video's dataset."""
    picker = widgets.VideoPicker(sample_clip, [folder])
    assert picker.widget is not None
    picker.menu.value = str(folder / "mine.mp4")
    assert picker.video == str(folder / "mine.mp4")
    assert picker.folder("data/demo", 128) == str(Path("data/mine-128"))


def test_a_bad_choice_is_refused_and_the_old_one_stays(sample_clip, silent, folder):
    shutil.copy(silent, folder / "silent.mp4")
    picker = widgets.VideoPicker(sample_clip, [folder])
    assert picker.widget is not None
    picker.menu.value = str(folder / "silent.mp4")
    assert picker.video == picker.menu.value == str(sample_clip) and "a video with audio" in picker.note.value
    with pytest.raises(InputError, match="without an audio stream"):
        widgets.VideoPicker(silent, [folder])


def test_upload_is_saved_chosen_and_never_written_over(sample_clip, folder):
    data = sample_clip.read_bytes()
    picker = widgets.VideoPicker(sample_clip, [folder])
    send(picker, "../talk.mp4", data, piece=200_000)
    assert picker.video == str(folder / "talk.mp4") and Path(picker.video).read_bytes() == data
    send(picker, "talk.mp4", data)  # the same file again
    assert picker.video == str(folder / "talk.mp4")
    send(picker, "talk.mp4", data + b"\0")
    assert picker.video == str(folder / "talk-2.mp4") and (folder / "talk.mp4").read_bytes() == data
    assert sorted(p.name for p in folder.iterdir()) == ["dataset", "mine.mp4", "notes.txt", "talk-2.mp4", "talk.mp4"]


@pytest.mark.parametrize("name, data, word", [
    ("talk.mp4", b"this is text\n" * 99, "'talk.mp4'"), ("talk.txt", b"this is text", "ends in .mp4"),
    (".mp4", b"x", "ends in"), ("talk.mp4", b"", "0.0 MB"), ("talk.mp4", bytes(3000), "at most 0 MB"),
])
def test_a_bad_upload_gives_one_error_and_leaves_nothing(sample_clip, folder, name, data, word):
    before = sorted(folder.iterdir())
    picker = widgets.VideoPicker(sample_clip, [folder])
    picker.upload.limit = 2000
    assert send(picker, name, data)["kind"] == "end"
    assert word in picker.note.value.replace("&#x27;", "'") and "expected" in picker.note.value
    assert sorted(folder.iterdir()) == before and picker.video == str(sample_clip)


def test_an_interrupted_upload_is_reported_and_can_be_repeated(sample_clip, folder):
    picker, data = widgets.VideoPicker(sample_clip, [folder]), sample_clip.read_bytes()
    picker.upload.receive({"kind": "begin", "name": "talk.mp4", "size": len(data)})
    assert picker.upload.receive({"kind": "piece", "from": 5}, [data])["kind"] == "end"
    assert "cut off during the upload" in picker.note.value
    send(picker, "talk.mp4", data)
    assert picker.video == str(folder / "talk.mp4")


def test_a_failing_check_names_the_upload_and_not_its_temporary_file(tmp_path):
    with pytest.raises(EgsError, match="'a.mp4'") as caught:
        save_upload(io.BytesIO(b"text"), "a.mp4", tmp_path, check_video)
    assert ".upload-" not in str(caught.value) and list(tmp_path.iterdir()) == []
    assert clean_name("C:\\clips\\my: talk?.MOV", (".mov",)) == "my_ talk_.MOV"


# ---- the preparation

def test_preparation_lists_steps_and_opens_a_finished_folder_at_once(sample_clip, sample_dataset, tmp_path):
    job = widgets.Preparation(sample_clip, tmp_path / "new", size=128)
    assert [state for _, _, state, _ in job.steps()] == ["waiting"] * len(PREPARATION_STEPS)
    done = tmp_path / "new" / ".work" / "scan"
    done.mkdir(parents=True)
    (done / "done.json").write_text(json.dumps({"key": "k", "seconds": 1.5}))
    job.state = "running"
    assert [(state, took) for _, _, state, took in job.steps()][:3] == [("done", 1.5), ("running", None),
                                                                       ("waiting", None)]
    assert job.widget is not None and "running" in job.list.value
    ready = widgets.Preparation(sample_clip, sample_dataset.root, size=128)
    assert len(ready.result()) == 300 and {state for _, _, state, _ in ready.steps()} == {"done"}


def test_preparation_can_be_stopped_between_steps(sample_clip, tmp_path, monkeypatch):
    """Some steps show no progress: without a look at the button a stop would wait for the next that does."""
    from egstalker_nb.preparation import scan

    monkeypatch.setattr(scan, "scan", lambda *_: job.stop())
    job = widgets.Preparation(sample_clip, tmp_path / "new", size=128)
    job.start()
    job.wait(60)
    assert job.state == "stopped" and (tmp_path / "new" / ".work" / "scan" / "done.json").is_file()


# ---- the quality report

def test_status_agrees_with_the_warnings():
    status = widgets.QualityStatus(GOOD)
    assert status.verdict == "ok" and [c.name for c in status.concerns] == [
        "length", "frames", "face", "view", "camera", "image", "timing", "audio", "mouth", "pose"]
    bad = copy.deepcopy(GOOD)
    bad["seconds"], bad["sound"]["moved_s"], bad["other_faces_share"] = 2.0, -0.08, 0.5
    status = widgets.QualityStatus(bad)
    found = dict(zip((c.name for c in status.concerns), status.statuses))
    assert {n: s for n, s in found.items() if s != "ok"} == {"length": "error", "face": "error", "timing": "warning"}
    assert [text for c in status.concerns for text in c.faults] == quality.find_problems(bad)
    timing = next(c for c in status.concerns if c.name == "timing")
    assert timing.found == "80 ms early, moved"
    assert dict((r[0], r[1]) for r in report_table(bad).rows)["sound.moved_s"] == -0.08


def test_statuses_are_distinguished_by_symbol_and_word():
    bad = {**GOOD, "seconds": 2.0, "uncovered_background": 0.01}
    html, text = widgets.QualityStatus(bad)._repr_html_(), str(widgets.QualityStatus(bad))
    for words in ("\u25cf ok", "\u25b2 warning", "\u25a0 error"):
        assert words in html and words in text
    assert "lasts only 2.0 s" in html and f"1 of {len(quality.QUALITY_CHECKS)} checks failed" in html


def test_status_of_an_old_report_says_what_is_not_known():
    status = widgets.QualityStatus({"num_frames": 12, "seconds": 20.0, "warnings": []})
    unknown = ["unknown"] * (len(quality.QUALITY_CHECKS) - 1)
    assert status.verdict == "unknown" and status.statuses == ["ok", *unknown]
    assert "not measured" in str(status)


# ---- frame by frame

def test_slider_chart_and_state_move_together(tiny_dataset):
    explorer = widgets.Explorer(tiny_dataset, frame=0)
    assert explorer.widget is not None
    before = explorer.view.value
    explorer.slider.value = 7
    assert explorer.frame == 7 and explorer.chart.layout.shapes[0].x0 == explorer.chart.layout.shapes[1].x1 == 7 / 25
    assert explorer.view.value != before and "frame 7 at 0.28 s" in explorer.text.value
    explorer.canvas.clicked = {"x": 3 / 25 + 0.01, "count": 1}  # as the browser does it
    assert explorer.frame == explorer.slider.value == 3
    explorer.set_frame(99)
    assert explorer.frame == 11 and "validation" in explorer.facts()


def test_view_of_the_chart_follows_the_cursor(tiny_dataset):
    explorer = widgets.Explorer(tiny_dataset, frame=0)
    assert explorer.widget is not None
    explorer.canvas.changed = {"xaxis.range[0]": 0.0, "xaxis.range[1]": 0.1}  # zoomed in the browser
    explorer.set_frame(10)
    low, high = explorer.chart.layout.xaxis.range
    assert low < 0.4 < high and high - low == pytest.approx(0.1)


def test_layers_are_switched_one_by_one(tiny_dataset):
    explorer = widgets.Explorer(tiny_dataset, frame=3)
    plain = explorer.picture(layers=())
    for name in OVERLAYS:
        assert np.any(explorer.picture(layers=[name]) != plain), name
    assert explorer.widget is not None
    explorer.show("masks", "eyes", zoom="mouth")  # each toggle follows, and none sets the state back
    assert explorer.layers == {"masks", "eyes"} == {n for n, toggle in explorer.toggles.items() if toggle.value}
    assert explorer.zooms.value == "mouth"
    explorer.toggles["axes"].value = True
    assert explorer.layers == {"masks", "eyes", "axes"}
    with pytest.raises(InputError, match="nose"):
        explorer.show("nose")


def test_zoom_shows_the_mouth_where_it_is(sample_dataset):
    explorer = widgets.Explorer(sample_dataset, frame=20)
    x0, y0, edge = explorer.window("mouth")
    lips = sample_dataset.landmarks[20, LIPS, :2]
    assert (lips > [x0, y0]).all() and (lips < [x0 + edge, y0 + edge]).all() and edge < sample_dataset.size / 2
    assert explorer.picture("mouth").shape == (640, 640, 3)
    names = explorer.make_chart()
    assert list(names.data[1].y)[:2] == ["sil", "a"] and names.layout.xaxis4.title.text == "time (s)"


def test_still_shows_images_and_labelled_curves(sample_dataset):
    figure = widgets.Explorer(sample_dataset).still()
    curves = [axis for axis in figure.axes if axis.lines]
    assert len(figure.axes) == 8 and len(curves) == 4
    assert all(axis.get_xlabel() == "time (s)" and axis.get_ylabel() for axis in curves)


def test_envelope_holds_the_extremes():
    wave = np.sin(np.linspace(0, 300, 16_000)).astype(np.float32)
    wave[5000], wave[9000] = 3, -2
    time, values = envelope(wave, 25)
    assert len(time) == len(values) == 200 and values.max() == 3 and values.min() == -2
    assert time[values.argmax()] == pytest.approx(5000 / 16_000, abs=0.01)
    assert len(envelope(np.zeros(16_000 * 600, np.float32), 15_000)[0]) == 20_000


def test_moments_point_at_what_they_name(tiny_dataset):
    assert moments(tiny_dataset)["eyes most closed"] == 5
    assert "first without a face" not in moments(tiny_dataset)


def test_plate_is_wiped_against_the_chosen_frame(tiny_dataset):
    panel = widgets.PlateWipe(tiny_dataset, frame=2)
    assert panel.widget is not None
    panel.set_frame(9)
    np.testing.assert_array_equal(panel.wipe.pair[0], tiny_dataset.frame(9))
    np.testing.assert_array_equal(panel.wipe.pair[1], tiny_dataset.plate)
    assert list(panel.wipe.view.names) == ["frame 9", "background plate"] and len(panel.still().axes) == 3


# ---- exercises

def test_exercises_know_right_wrong_and_open(sample_dataset):
    tasks = data_prep(sample_dataset)
    scope, given = {"ds": sample_dataset, "np": np, "nb": notebook}, []
    for item in tasks.items:  # the solutions that are shown are code that works
        *lines, last = item.solution.splitlines()
        exec("\n".join(lines), scope)
        given.append(eval(last, scope))
    assert tasks.verify(*given).verdicts == ["right"] * 3
    assert given[2] == pytest.approx(160, abs=20)
    assert tasks.verify(given[0] + 1, given[1] + 0.1, 0).verdicts == ["wrong"] * 3
    assert tasks.verify(None, None, None).verdicts == ["open"] * 3
