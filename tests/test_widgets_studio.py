"""Protects: the studio of notebook 06 keeps its panels in one state, and handles what the browser sends."""
import http.server
import io
import json
import shutil
import threading
import wave
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from solutions import solved

import egstalker_nb as egs
from egstalker_nb import notebook
from egstalker_nb.core.errors import EgsError, InputError
from egstalker_nb.face import regions
from egstalker_nb.media.audio import save_wav
from egstalker_nb.media.rates import SAMPLE_RATE
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.exercises.notebook_06 import rendering
from egstalker_nb.notebook.exercises.notebook_07 import live_and_export
from egstalker_nb.notebook.widgets import live_view, studio_panels
from egstalker_nb.notebook.widgets.base import encode
from egstalker_nb.notebook.widgets.orbit import YAW, ZOOM
from egstalker_nb.notebook.widgets.recorder import Recorder

FRAMES = 10
PACKAGE = Path(egs.__file__).parent


def noise(frames: int, seed: int = 0) -> np.ndarray:
    """Noise of rising loudness after a silent start."""
    samples = np.random.default_rng(seed).normal(size=frames * 640) * np.linspace(0, 0.3, frames * 640)
    return np.where(np.arange(len(samples)) < 0.3 * len(samples), 0, samples).astype(np.float32)


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    root = tmp_path_factory.mktemp("studio") / "run"
    return egs.train(tiny_dataset, egs.load_config("quick_test", iterations=6, coarse_iterations=2), root)


@pytest.fixture
def studio(run, tmp_path):
    made = widgets.Studio(run, save_wav(tmp_path / "first.wav", noise(FRAMES)), size=64)
    for name in ("speech", "audio_chart", "video_panel", "orbit", "attention_chart", "export"):
        assert getattr(made, name).widget
    return made


# ---- shared state ----

def test_a_frame_is_selected_in_all_panels(studio):
    """Cursor, image and sliders must show the same frame."""
    studio.audio_chart.control.value = 4
    assert (studio.frame, studio.attention_chart.frame, studio.orbit.view.frame) == (4, 4, 4)
    assert studio.attention_chart.chart.layout.shapes[0].x0 == pytest.approx(0.16)
    studio.orbit.sliders["frame"].value = 7
    assert (studio.audio_chart.control.value, studio.audio_chart.chart.layout.shapes[1].x1) == (7, pytest.approx(0.28))
    assert studio.audio_chart.shot.value == encode(studio.viewer.picture(7))


def test_other_audio_reaches_all_panels(studio, tmp_path):
    studio.set_frame(8)
    studio.set_audio(save_wav(tmp_path / "second.wav", noise(5, 1)))
    assert (studio.frame, len(studio.script)) == (0, 5)
    assert studio.audio_chart.control.max == studio.orbit.canvas.frames == 4
    assert "second.wav" in studio.speech.line.value
    assert len(studio.attention_chart.chart.data[0].y) == len(studio.audio_chart.chart.data[2].y) == 5
    assert studio.orbit.canvas.picture == encode(studio.viewer.picture(0))


def test_unusable_audio_changes_nothing(studio, tmp_path):
    """The panel shows the error, and the previous audio stays in use."""
    (tmp_path / "text.wav").write_text("no sound at all")
    studio.speech.path.value = str(tmp_path / "text.wav")
    assert "that FFmpeg can read" in studio.speech.note.value
    with pytest.raises(EgsError):
        studio.speech.upload("notes.txt", b"hello")
    assert Path(studio.audio).name == "first.wav" and len(studio.script) == FRAMES


def test_an_uploaded_file_is_saved_and_used(studio):
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes((3000 * np.random.default_rng(0).normal(size=2 * 44100)).astype("<i2").tobytes())
    studio.speech.upload("my voice (1).wav", data.getvalue())
    assert len(studio.script) == 25 and Path(studio.audio).parent == studio.run.root / "renders" / "speech"


# ---- rendering and exporting as jobs ----

def test_other_poses_and_blinks_render_again(studio):
    """A video of the old settings must not pass for one of the new."""
    first = studio.video()
    assert studio.video_panel.job.state == "done" and len(studio.video_panel.screen.children) == 2
    studio.video_panel.poses.value = "orbit"
    assert studio.poses == "orbit" and studio.video_panel.job.state == "idle" and studio.script.source is not None
    studio.video_panel.blink.value = "random"
    assert studio.blink == 17.0
    second = studio.video()
    assert "orbit" in second.path.name and second.path != first.path and first.path.exists()
    studio.video_panel.poses.value = "folder or .npy"
    studio.video_panel.folder.value = "/nowhere/at/all"
    assert "poses" in studio.video_panel.note.value and studio.poses == "orbit"


def test_other_audio_during_rendering_enables_the_controls(studio, tmp_path, monkeypatch):
    """The old video must not pass for one of the new audio either."""
    studio.video_panel.result()
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(studio_panels, "render", lambda *_, **__: (entered.set(), leave.wait(20), "old")[-1])
    studio.set_motion("static")
    old = studio.video_panel.job
    old.start()
    assert entered.wait(20) and studio.video_panel.poses.disabled
    studio.set_audio(save_wav(tmp_path / "second.wav", noise(5, 1)))
    leave.set()
    assert old.wait(20) and old.value == "old"
    assert studio.video_panel.job is not old and studio.video_panel.rendered is None
    assert not any(control.disabled for control in studio.video_panel.controls)


def test_names_of_files_are_no_markup(run, tmp_path):
    made = widgets.Studio(run, save_wav(tmp_path / "a<b>&.wav", noise(3)), size=64)
    assert made.speech.widget is not None and "<b>a&lt;b&gt;&amp;.wav" in made.speech.line.value
    assert made.video_panel.widget is not None and made.video_panel.result()
    assert "a<b>" not in made.video_panel.screen.children[1].value


def test_exports_go_to_the_given_place(studio):
    studio.export.choice.value, studio.export.length.value = "PLY of every frame", 0.12
    done = studio.export.job.result()
    assert [p.suffix for p in done.files] == [".ply"] * 3
    assert str(done.folder) in str(studio.export.still()) and "3 frames" in studio.export.note.value
    studio.export.choice.value = "JPEG frames"
    assert studio.export.job.state == "idle"


def test_still_forms(studio):
    """Papermill and GitHub show these: a figure of three charts, ten views, a table, the video itself."""
    assert len(studio.audio_chart.still().axes) == len(studio.attention_chart.still().axes) == 3
    assert len(studio.orbit.still().axes) == 10
    assert "first.wav: 0.40 s, 10 frames" in str(studio.speech.still())
    assert "video controls" in studio.video_panel.still()._repr_html_()


# ---- the numbers ----

def test_attention_over_time_is_the_mean_of_that_of_the_gaussians(studio):
    """It is computed in another order, without evaluating every Gaussian in every frame."""
    head, script = studio.head, studio.script
    each = head.attention(studio.viewer.renderer.conditions_of(script))     # [F, N, 4]
    net = head.deformation
    share = regions.share_of_parts(head.gaussians["means"], net.mouth_landmarks, net.eye_landmarks)
    mean = torch.einsum("fnt,np->fpt", each, share) / share.sum(0)[:, None].clamp_min(1e-6)
    assert np.abs(mean.numpy() - studio.curves.attention).max() < 1e-5


def test_the_view_from_the_front_is_the_video(studio):
    """The front view must equal the video frame; other sizes show the same view."""
    studio.set_motion("static")
    want = studio.viewer.renderer.render_frames(studio.script.part(3, 4))[0]
    assert np.abs(studio.viewer.picture(3).astype(int) - want).max() <= 1
    small = widgets.orbit.Viewer(studio.renderer, 32).set_script(studio.script).picture(3)
    halved = want.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert small.shape == (32, 32, 3) and np.abs(small - halved).mean() < 6


def test_a_moving_camera_evaluates_the_network_once(studio):
    """Only the camera moves: the offsets of the frame are cached."""
    calls, offsets = [], studio.head.offsets
    studio.head.offsets = lambda *given: calls.append(1) or offsets(*given)
    pictures = [studio.viewer.picture(2, yaw=y) for y in (-30, 0, 30)]
    del studio.head.offsets
    assert len(calls) == 1 and not np.array_equal(pictures[0], pictures[2])


def test_the_image_is_a_control(studio):
    """Values from the browser move the sliders, and are clamped to their limits."""
    orbit = studio.orbit
    orbit.canvas.yaw, orbit.canvas.zoom = 33.0, 2.0
    assert (orbit.sliders["yaw"].value, orbit.sliders["zoom"].value) == (33.0, 2.0)
    assert orbit.canvas.picture == encode(studio.viewer.picture(0, 33.0, 0.0, 2.0))
    orbit.show(yaw=500.0, zoom=0.01)
    assert (orbit.view.yaw, orbit.view.zoom, orbit.canvas.yaw) == (YAW, ZOOM[0], YAW)
    orbit.behind.value = "plain"
    corner = orbit.picture()[0, 0]
    assert (corner > 225).all()
    orbit.front.click()
    assert orbit.view.yaw == 0.0


def test_a_drag_is_not_undone(studio):
    """One message changes two values: neither may be sent back to the browser, which has newer ones by then."""
    orbit, drawn, sent = studio.orbit, studio.orbit.drawn, []
    send = orbit.canvas.send_state
    orbit.canvas.send_state = lambda key: sent.extend([key] if isinstance(key, str) else key)
    orbit.canvas.set_state({"yaw": 12.5, "pitch": -7.25})
    orbit.canvas.send_state = send
    assert (orbit.view.yaw, orbit.view.pitch, orbit.drawn) == (12.5, -7.25, drawn + 1)
    assert set(sent) == {"picture"}


def test_the_background_is_what_the_video_shows_behind_the_head(studio):
    """Notebook 06 compares the video with it, to measure what the head adds."""
    script, renderer = studio.script, studio.renderer
    rgb, alpha = renderer.batch(renderer.conditions_of(script.part(2, 4)))
    behind = studio.background([2, 3])
    assert behind.shape == (2, 64, 64, 3) and behind.dtype == np.uint8
    composite = 255 * (rgb + (1 - alpha) * torch.from_numpy(behind / 255).float()).clamp(0, 1).numpy()
    assert np.abs(composite - renderer.render_frames(script.part(2, 4))).max() <= 1.5


def test_frames_are_shown_as_they_come(monkeypatch):
    """A stream must be seen live: an image per frame in one output, and not all of them at its end."""
    events = []

    class Output:
        def update(self, image):
            events.append(("update", image.data))

    def show(image, display_id):
        events.append(("display", image.data))
        return Output()

    def stream():
        for k in range(3):
            events.append("frame")
            yield np.full((8, 8, 3), 80 * k, np.uint8)

    monkeypatch.setattr(live_view, "display", show)
    assert len(widgets.show_frames(stream())) == 3 and events == ["frame"] * 3, "nothing is displayed headless"
    events.clear()
    monkeypatch.setattr(live_view, "in_notebook", lambda: True)
    shown = widgets.show_frames(stream())
    assert events[::2] == ["frame"] * 3
    assert events[1::2] == [(way, encode(f)) for way, f in zip(("display", "update", "update"), shown)]


def test_exercises(studio):
    items = rendering(studio)
    right = [solved(item, studio=studio) for item in items.items]
    assert items.verify(*right).verdicts == ["right"] * 3
    assert items.verify(right[0] + 5, None, "eye").verdicts == ["wrong", "open", "wrong"]


def test_exercises_on_streams_and_exports(run, tmp_path):
    clouds = egs.export_ply(run, save_wav(tmp_path / "said.wav", noise(2)), tmp_path / "clouds")
    items = live_and_export(clouds)
    right = [solved(item, egs=egs, nb=notebook, np=np, torch=torch, trained=run, clouds=clouds) for item in items.items]
    assert items.verify(*right).verdicts == ["right"] * 3
    assert items.verify(5, right[1] / 60, None).verdicts == ["wrong", "wrong", "open"]


# ---- what the browser sends ----

def test_unusable_recordings_are_rejected(tmp_path):
    heard = []
    recorder = Recorder(heard.append)
    for data, message in ((b"", "0 bytes"), (b"garbage" * 99, "693 bytes"),
                          (save_wav(tmp_path / "a.wav", np.zeros(16000, np.float32)).read_bytes(), "silence"),
                          (save_wav(tmp_path / "b.wav", noise(2)).read_bytes(), "0.08 s")):
        with pytest.raises(InputError, match=message):
            recorder.receive(data, "audio/wav")
    assert heard == [] and recorder.wave is None


MODEL = """
window.changed = {}; window.sent = [];
window.makeModel = (state) => {
  const calls = {};
  return { get: (name) => state[name],
    set: (name, value) => {
      state[name] = value;
      window.changed[name] = value;
      (calls["change:" + name] || []).forEach((call) => call());
    },
    save_changes: () => {}, on: (event, call) => (calls[event] = calls[event] || []).push(call), off: () => {},
    send: async (content, _, buffers) => {
      const bytes = new Uint8Array(await new Blob(buffers).arrayBuffer());
      window.sent.push({ ...content, data: Array.from(bytes) });
    } };
};
"""


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory):
    """A function that opens one of our scripts in Chromium, with a fake microphone and a stand-in for the model."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("page")
    code = shutil.ignore_patterns("*.py*")
    shutil.copytree(PACKAGE / "notebook" / "widgets", folder, dirs_exist_ok=True, ignore=code)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=[
            "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])

        def opened(script: str, state: dict):
            (folder / "page.html").write_text(
                f"<!doctype html><meta charset=utf-8><div id=el></div><script>{MODEL}</script><script type=module>"
                f"import widget from './{script}'; const model = makeModel({json.dumps(state)}); "
                "widget.render({model, el: document.getElementById('el')}); window.ready = true;</script>")
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/page.html")
            page.wait_for_function("window.ready")
            return page

        yield opened
        browser.close()
    server.shutdown()


def test_the_microphone_in_a_browser(browser_page):
    """From the button to samples in the kernel."""
    page = browser_page("recorder.js", {"state": "idle", "message": "", "longest": 60})
    page.get_by_role("button", name="Record").click()
    page.wait_for_function("changed.state === 'recording'", timeout=5000)
    page.wait_for_function("document.querySelector('meter').value > 0", timeout=5000)
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("sent.length === 1", timeout=5000)
    (sent,) = page.evaluate("sent")
    heard = []
    Recorder(heard.append).receive(bytes(sent["data"]), sent["type"])
    assert 1.0 < len(heard[0]) / SAMPLE_RATE < 5 and np.abs(heard[0]).max() > 0.01
    page.close()


def test_a_browser_without_a_microphone_says_so(browser_page):
    page = browser_page("recorder.js", {"state": "idle", "message": "", "longest": 60})
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.get_by_role("button", name="Record").click()
    assert "localhost or over https" in page.get_by_role("status").inner_text()
    page.close()


def test_the_image_is_turned_in_a_browser(browser_page):
    """All inputs of the image: mouse, wheel and keys."""
    limits = {"yaw": [-60, 60], "pitch": [-30, 30], "zoom": [0.6, 4]}
    page = browser_page("orbit.js", {"yaw": 0, "pitch": 0, "zoom": 1, "frame": 0, "frames": 20, "width": 300,
                                     "limits": limits})
    page.evaluate("""document.querySelector('img').src =
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='300' height='300'/>" """)
    page.wait_for_function("document.querySelector('img').getBoundingClientRect().height === 300", timeout=5000)
    page.mouse.move(100, 100)
    page.mouse.down()
    page.mouse.move(150, 75, steps=5)
    page.mouse.up()
    page.mouse.wheel(0, -300)
    page.wait_for_function("changed.zoom > 1.5", timeout=5000)
    turned = page.evaluate("changed")
    assert turned["yaw"] == pytest.approx(20) and turned["pitch"] == pytest.approx(-10)
    for key in ("ArrowLeft", "ArrowDown", "PageUp"):
        page.keyboard.press(key)
    page.wait_for_function("changed.frame === 5", timeout=5000)
    assert page.evaluate("[changed.yaw, changed.pitch]") == pytest.approx([15, -5])
    assert "yaw 15" in page.locator("img").get_attribute("aria-label")
    page.keyboard.press("0")
    page.wait_for_function("changed.yaw === 0 && changed.zoom === 1", timeout=5000)
    page.close()
