"""Protects: the page of `egs.export_web` shows the pictures of `egs.render`, speaks, and neither loads nor sends."""
import base64
import io
import sys
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")

from PIL import Image  # noqa: E402

import egstalker_nb as egs  # noqa: E402
from egstalker_nb.rendering.backdrop import load_backdrop  # noqa: E402
from egstalker_nb.rendering.script import audio_script  # noqa: E402
from egstalker_nb.web import distil  # noqa: E402
from egstalker_nb.web.export_web import PAGE  # noqa: E402

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import web_page  # noqa: E402

SPEECH = ROOT / "data" / "sample" / "speech.wav"
SHOW = """async ([i, mouth]) => {
  await talkingHead.show(i, Float32Array.from(mouth));
  return document.querySelector("canvas").toDataURL("image/png");
}"""


@pytest.fixture(scope="module")
def run(headless):
    return egs.load_run(headless.out / "runs" / "quick_test")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The sample's head as a page, fitted in fewer steps than users'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "FIT_FRAMES", 1500)
        patch.setattr(distil, "STEPS", 1000)
        return egs.export_web(run, tmp_path_factory.mktemp("page") / "head.html", device="cpu")


@pytest.fixture(scope="module")
def browser_page(browser, exported):
    """The page, opened from disk, with speech as its microphone."""
    from lab import SOFTWARE, chromium

    with chromium([*SOFTWARE, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                   f"--use-file-for-fake-audio-capture={SPEECH}",
                   "--autoplay-policy=no-user-gesture-required"]) as program:
        page = program.new_context(accept_downloads=True).new_page()
        page.complaints, page.requests = [], []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(exported.path.as_uri())
        page.locator("#listen").wait_for()
        yield page


@pytest.fixture(scope="module")
def still(browser_page):
    """The page without its own clock: frames are those that a test asks for."""
    browser_page.evaluate("() => { window.requestAnimationFrame = () => 0; }")
    browser_page.wait_for_timeout(200)
    return browser_page


def psnr(a, b) -> float:
    return float(-10 * np.log10(np.square(a / 255.0 - b / 255.0).mean()))


def shown(page, i, mouth, mode="RGB") -> np.ndarray:
    data = page.evaluate(SHOW, [i, mouth.tolist()]).partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert(mode)).astype(float)


def test_it_speaks_a_file_listens_and_saves_a_video(browser_page, tmp_path):
    """By clicks, in the order of a user; errors of the page count."""
    page, status = browser_page, browser_page.locator("#status")
    page.set_input_files("#file", SPEECH)
    status.filter(has_text="Speaking speech.wav").wait_for()
    page.click("#toggle")
    status.filter(has_text="Paused").wait_for()
    page.click("#listen")
    status.filter(has_text="Listening").wait_for()
    before = page.locator("canvas").screenshot()
    page.wait_for_timeout(500)
    assert page.locator("canvas").screenshot() != before
    page.click("#listen")
    status.filter(has_text="Paused").wait_for()
    with page.expect_download(timeout=120_000) as download:
        page.click("#record")
        page.wait_for_timeout(1500)
        page.click("#record")
    assert "synthetic" in download.value.suggested_filename
    download.value.save_as(tmp_path / download.value.suggested_filename)
    with av.open(str(tmp_path / download.value.suggested_filename)) as file:
        assert {stream.type for stream in file.streams} == {"video", "audio"}
        assert sum(1 for _ in file.decode(video=0)) > 3
    assert page.complaints == []


def test_files_without_sound_are_refused_in_one_sentence(browser_page, tmp_path):
    (tmp_path / "notes.wav").write_bytes(b"no sound at all")
    browser_page.set_input_files("#file", tmp_path / "notes.wav")
    error = browser_page.locator("#status.error")
    error.wait_for()
    assert "sound" in error.inner_text() and browser_page.complaints == []


def test_it_neither_loads_nor_sends(browser_page):
    assert {url.partition(":")[0] for url in browser_page.requests} <= {"file", "blob", "data"}
    assert len([url for url in browser_page.requests if url.startswith("file:")]) == 1
    sent = browser_page.evaluate("() => fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => String(error))")
    assert "Content Security Policy" in sent or "Failed to fetch" in sent
    blocked = browser_page.evaluate("""() => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
      new Image().src = "http://127.0.0.1:9/x.png";
    })""")
    assert blocked == "img-src"


def test_its_pictures_are_those_of_render(still, run):
    """Frame by frame on the sample: there and back, where the motion turns, over the plate; and the same mouth."""
    renderer = egs.Renderer.from_run(run, device="cpu")
    script = audio_script(renderer, SPEECH)
    mouths = renderer.mouth_coefficients(script).numpy()
    last = len(renderer.ds) - 1
    for i in {0, 1, 7, last - 3, last, min(last + 3, len(script) - 1)}:
        if i >= len(script):
            continue
        wanted = renderer.render_frames(script.part(i, i + 1))[0].astype(float)
        found = shown(still, i, mouths[i])
        assert psnr(found, wanted) > 38, f"frame {i}"
        truth = renderer.ds.frame(script.source[i]).astype(float)
        assert psnr(found, truth) > psnr(wanted, truth) - 1, f"frame {i}"


@pytest.mark.parametrize("name, choice", [("#336699", "{color: [0.2, 0.4, 0.6]}"), ("transparent", "'transparent'")])
def test_other_backgrounds_are_those_of_render(still, run, name, choice):
    renderer = egs.Renderer.from_run(run, device="cpu")
    script = audio_script(renderer, SPEECH).part(5, 6)
    wanted = renderer.render_frames(script, load_backdrop(name, renderer.ds.size))[0].astype(float)
    still.evaluate(f"() => talkingHead.setBackground({choice})")
    found = shown(still, 5, renderer.mouth_coefficients(script).numpy()[0], "RGBA" if wanted.shape[-1] == 4 else "RGB")
    still.evaluate("() => talkingHead.setBackground('clip')")
    if wanted.shape[-1] == 4:
        assert np.abs(found[..., 3] - wanted[..., 3]).mean() < 1.5
        found, wanted = (x[..., :3] * x[..., 3:] / 255 for x in (found, wanted))
    assert psnr(found, wanted) > 36


def test_it_predicts_the_mouth_of_render(still, run):
    """Within 2 % of the coefficients' root mean square, with the encoder in the page."""
    renderer = egs.Renderer.from_run(run, device="cpu")
    script = audio_script(renderer, SPEECH)
    wanted = renderer.mouth_coefficients(script).numpy()
    found = np.array(still.evaluate("(wave) => Array.from(talkingHead.audio.predict(Float32Array.from(wave)))",
                                    script.wave.tolist())).reshape(wanted.shape)
    assert np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()) < 0.02


def test_the_shipped_pages_are_built_from_the_source(web_project):
    """What users get is what `make web` builds, also in the sample head that the README shows."""
    built = web_page.build(web_project)
    assert PAGE.read_text(encoding="utf-8") == built
    sample = web_page.SAMPLE.read_text(encoding="utf-8")
    assert sample == web_page.renewed(sample, built) and len(sample) < 5e6
