"""Protects: a page predicts the same mouth from the same sound as the package, from files and from the microphone."""
import base64
import gzip
import io
import json
import struct
import subprocess
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("playwright", reason="playwright is not installed: no browser tests")

from safetensors.numpy import save  # noqa: E402

from egstalker_nb.core.errors import InputError  # noqa: E402
from egstalker_nb.media.audio import frames_of, load_audio, windows_of  # noqa: E402
from egstalker_nb.media.synthetic import COMMENT, XMP  # noqa: E402
from egstalker_nb.model.audio_link import FeatureLink, PriorLink  # noqa: E402
from egstalker_nb.model.mouth import Mouth  # noqa: E402
from egstalker_nb.rendering.streaming import LiveFeatures  # noqa: E402
from egstalker_nb.speech import phones  # noqa: E402
from egstalker_nb.speech.prior import Prior, built_in_prior  # noqa: E402
from egstalker_nb.speech.voice_activity import shut_in_silence  # noqa: E402
from egstalker_nb.web.audio_tensors import audio_tensors  # noqa: E402

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "tests" / "data" / "speech.flac"
TONE = 1000.0  # Hz, of the made-up microphone
ENTRY = """
import {{ unpack }} from "{source}/container";
import {{ decodeAudio }} from "{source}/audio/decode";
import {{ Microphone }} from "{source}/audio/capture";
import {{ MouthClient }} from "{source}/audio/mouth_client";
import {{ MouthModel }} from "{source}/audio/mouth_model";
import {{ Player }} from "{source}/audio/player";
import {{ Recorder }} from "{source}/audio/record";
import {{ Resampler }} from "{source}/audio/resampler";
const head = await unpack(document.getElementById("head")!.textContent!);
Object.assign(window, {{ talkingHead: {{ audio: new MouthModel(head), client: new MouthClient(head), decodeAudio,
                                         Microphone, Player, Recorder, Resampler }} }});
"""
#: values between Python and the page, in base64: a list of numbers would take long
CODEC = """
window.floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.text = (values) => {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let out = "";
  for (let i = 0; i < bytes.length; i += 9999) out += String.fromCharCode(...bytes.subarray(i, i + 9999));
  return btoa(out);
};
window.join = (frames) => {
  const all = new Float32Array(frames.reduce((sum, frame) => sum + frame.length, 0));
  frames.reduce((at, frame) => (all.set(frame, at), at + frame.length), 0);
  return all;
};
"""


def page_html(head_bytes: bytes, project: Path, folder: Path) -> str:
    """A page with the code of `web/src/audio` and a head in it."""
    (folder / "entry.ts").write_text(ENTRY.format(source=(project / "src").as_posix()))
    index = (project / "index.html").read_text()
    (folder / "index.html").write_text(index.replace("/src/main.ts", "./entry.ts"))
    command = ["node", "node_modules/vite/bin/vite.js", "build", str(folder), "--config", "vite.config.ts"]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=120)
    html = (folder / "dist" / "index.html").read_text()
    packed = base64.b64encode(gzip.compress(head_bytes, 1)).decode()
    return html.replace('<script id="head" type="text/plain">', f'<script id="head" type="text/plain">{packed}', 1)


def wait(page, condition) -> None:
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("waited in vain")


def encoded(values) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.float32).tobytes()).decode()


def decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float32)


def computed(page, code: str, *waves) -> np.ndarray:
    """Value of an async function's body in the page; it gets the waves as `a`."""
    return decoded(page.evaluate(f"async (list) => {{ const a = list.map(floats); {code} }}", [*map(encoded, waves)]))


@pytest.fixture(scope="module")
def speech():
    """6 s, more than the page encodes at once."""
    return np.tile(load_audio(SPEECH), 2)[:100_001]


@pytest.fixture(scope="module")
def mouth():
    """The shipped prior, and a made-up face."""
    generator = torch.Generator().manual_seed(0)
    link = PriorLink(built_in_prior())
    link.rest.copy_(0.2 * torch.randn(8, generator=generator))
    link.weights.copy_(torch.randn(8, 8, generator=generator))
    mouth = Mouth(1, link)
    mouth.shut.copy_(torch.randn(8, generator=generator))
    return mouth.eval()


@pytest.fixture(scope="module")
def reference(speech):
    """Another level and spectrum than those of the speech, so that a stream has to learn them."""
    return 0.4 * np.diff(speech[-40_000:])


@pytest.fixture(scope="module")
def page(browser, web_project, mouth, reference, tmp_path_factory):
    """A page opened from disk, with a tone as its microphone."""
    from lab import chromium

    folder = tmp_path_factory.mktemp("page")
    tensors, facts = audio_tensors(SimpleNamespace(mouth=mouth), reference)
    html = page_html(save(tensors, metadata={"facts": json.dumps({"audio": facts})}), web_project, folder)
    (folder / "head.html").write_text(html)
    (folder / "tone.wav").write_bytes(wav(0.5 * np.sin(2 * np.pi * TONE * np.arange(48_000) / 48_000), 48_000))
    with chromium(["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={folder / 'tone.wav'}",
                   "--autoplay-policy=no-user-gesture-required"]) as program:
        context = program.new_context()
        page, complaints = context.new_page(), []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.add_init_script(CODEC)
        page.goto((folder / "head.html").as_uri())
        wait(page, lambda: page.evaluate("() => !!window.talkingHead"))  # wait_for_function needs eval, see the CSP
        yield page
        assert complaints == []


def wav(samples, rate, channels=1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.rint(np.clip(np.asarray(samples) * 32768, -32768, 32767)).astype("<i2").tobytes())
    return file.getvalue()


def distance(found, expected) -> float:
    """Root mean square of the difference, relative to that of the expected values."""
    assert found.shape == expected.shape
    return float(np.sqrt(np.square(found - expected).mean() / max(np.square(expected).mean(), 1e-12)))


def sounds(speech):
    rng = np.random.default_rng(0)
    yield "speech", speech
    yield "faint speech", 0.003 * speech[20_000:40_123]
    yield "noise", rng.normal(0, 0.05, 10_239)
    yield "speech in noise", speech[:20_000] + rng.normal(0, 0.002, 20_000)
    yield "silence", np.zeros(9_600)
    yield "clipped", np.clip(30 * speech[8_000:24_000], -1, 1)
    for samples in (1, 2, 159, 319, 320, 321, 640, 959, 960, 5_440):
        yield f"{samples} samples", speech[9_000:9_000 + samples]


def test_a_whole_file_gives_the_mouth_of_the_package(page, mouth, speech):
    """Spectrum, posteriors and coefficients, each by itself: an error in one is not made up by another."""
    for name, sound in sounds(speech):
        sound = sound.astype(np.float32)
        frames, steps = frames_of(len(sound)), phones.steps(sound)
        with torch.no_grad():
            expected = mouth.predict(torch.from_numpy(windows_of(steps, frames)),
                                     torch.from_numpy(shut_in_silence(sound, frames))).numpy()
        log = computed(page, "return text(talkingHead.audio.logPower(a[0]))", sound)
        assert np.abs(log - phones.log_power(sound).numpy().ravel()).max() < 1e-3, name
        found = computed(page, "return text(talkingHead.audio.phones(a[0]))", sound)
        assert distance(found, steps.ravel()) < 1e-3, name
        found = computed(page, "return text(talkingHead.audio.predict(a[0]))", sound)
        assert distance(found, expected.ravel()) < 1e-3, name


STREAM = """
const stream = talkingHead.audio.stream(), frames = [], [wave, lengths] = a;
for (let at = 0, turn = 0; at < wave.length; turn++) {
  const end = at + lengths[turn % lengths.length];
  frames.push(...stream.push(wave.subarray(at, end)));
  at = end;
}
frames.push(...stream.finish());
return text(join(frames));
"""


@pytest.mark.parametrize("samples", [0, 1, 319, 3199, 3200, 3840, 3841, 12_333])
def test_chunks_do_not_change_the_frames_of_a_stream(page, speech, samples):
    sound = speech[9_000:9_000 + samples]
    whole = computed(page, STREAM, sound, [max(samples, 1)])
    assert len(whole) == (8 * frames_of(samples) if samples else 0)
    for lengths in ([640], [1, 0, 777, 160], [4_001]):
        assert np.array_equal(computed(page, STREAM, sound, lengths), whole)


def test_a_stream_gives_the_mouth_of_live_features(page, mouth, reference, speech):
    """From the first word on, in which level and spectrum of the voice are learned; then after a pause, louder."""
    sound = np.concatenate([speech[:36_000], np.zeros(8_000, np.float32), 2.5 * speech[70_000:88_000]])
    live = LiveFeatures(reference)
    features, silent = zip(*live.push(sound), *live.finish())
    with torch.no_grad():
        expected = mouth.predict(torch.from_numpy(np.stack(features)), torch.tensor(silent)).numpy()
    found = computed(page, STREAM, sound, [320]).reshape(-1, 8)
    assert len(found) == len(expected)
    assert min(np.corrcoef(found[:, k], expected[:, k])[0, 1] for k in range(8)) > 0.998
    assert distance(found, expected) < 0.04  # 0.06 if the past is never encoded anew


def test_the_worker_gives_the_same(page, speech):
    """Also from a page on disk, in order, and nothing of a stream that was dropped."""
    wave = speech[9_000:21_000]
    code = """
    const { client, audio } = talkingHead, frames = [];
    client.onframe = (coefficients, frame) => frames.push({ coefficients, frame });
    client.start();
    client.push(a[0]);
    client.start();
    for (let at = 0; at < a[0].length; at += 500) client.push(a[0].subarray(at, at + 500));
    await Promise.all([client.stop(), client.stop()]);
    client.push(a[0]);
    await client.stop();
    const stream = audio.stream(), expected = [...stream.push(a[0]), ...stream.finish()];
    if (frames.some(({ frame }, i) => frame !== i)) throw new Error("frames out of order");
    return text(join([...frames.map((x) => x.coefficients), await client.predict(a[0]), ...expected,
                      audio.predict(a[0])]));"""
    found, expected = np.split(computed(page, code, wave), 2)
    assert len(found) == 2 * 8 * frames_of(len(wave)) and np.array_equal(found, expected)
    with pytest.raises(Exception, match="no sound"):
        computed(page, "return text(await talkingHead.client.predict(a[0]))", [])


def test_a_worker_that_falls_behind_leaves_frames_out(page, speech):
    """Their numbers are skipped, so that the picture stays with the sound; little waits for it."""
    code = """
    const { client } = talkingHead, numbers = [];
    client.onframe = (_, frame) => numbers.push(frame);
    client.start();
    for (let i = 0; i < 10; i++) client.push(a[0]);
    await client.stop();
    return text(Float32Array.from(numbers));"""
    numbers = computed(page, code, speech[:16_100])
    assert (np.diff(numbers) >= 1).all() and numbers[-1] == frames_of(161_000) - 1 and len(numbers) < 120


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_of_16_khz_is_exact(page, tmp_path, speech, channels):
    samples = speech[:2_001 * channels]
    (tmp_path / "x.wav").write_bytes(wav(samples, 16_000, channels))
    assert np.array_equal(opened(page, tmp_path / "x.wav"), load_audio(tmp_path / "x.wav"))


def opened(page, path) -> np.ndarray:
    code = "async (text64) => text(await talkingHead.decodeAudio(floats8(text64)))".replace(
        "floats8(text64)", "Uint8Array.from(atob(text64), (c) => c.charCodeAt(0)).buffer")
    return decoded(page.evaluate(code, base64.b64encode(path.read_bytes()).decode()))


def test_other_files_are_resampled(page, tmp_path):
    tone = np.sin(2 * np.pi * TONE * np.arange(22_050) / 44_100) / 2
    (tmp_path / "x.wav").write_bytes(wav(tone, 44_100))
    found = opened(page, tmp_path / "x.wav")
    assert abs(len(found) - 8_000) <= 1 and distance(found[200:-200], load_audio(tmp_path / "x.wav")[200:7_800]) < 0.02


def test_files_that_are_no_sound_say_so(page, tmp_path):
    header = wav(np.zeros(100), 16_000)[:40]
    floats = header[:20] + struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32) + header[36:]
    (tmp_path / "x.wav").write_bytes(floats + struct.pack("<I2f", 8, 0.5, np.nan))
    for path, message in ((ROOT / "LICENSE", "no sound in this file"), (tmp_path / "x.wav", "are no numbers")):
        with pytest.raises(Exception, match=message):
            opened(page, path)
    (tmp_path / "x.wav").write_bytes(header + struct.pack("<I", 0))
    with pytest.raises(Exception, match="no sound in this file"):
        opened(page, tmp_path / "x.wav")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_the_resampler_keeps_tones_and_removes_what_16_khz_cannot_hold(page, rate):
    code = """
    const [wave, [rate, ...lengths]] = a, resampler = new talkingHead.Resampler(rate), parts = [];
    for (let at = 0, turn = 0; at < wave.length; turn++) {
      const end = at + lengths[turn % lengths.length];
      parts.push(resampler.push(wave.subarray(at, end)));
      at = end;
    }
    return text(join([...parts, resampler.finish()]));"""
    time = np.arange(rate // 4) / rate
    tone = np.sin(2 * np.pi * TONE * time) + (np.sin(2 * np.pi * 9_500 * time) if rate > 20_000 else 0)
    found = computed(page, code, tone, [rate, 128])
    expected = np.sin(2 * np.pi * TONE * np.arange(4_000) / 16_000)
    assert abs(len(found) - 4_000) <= 1 and np.abs(found[300:3_700] - expected[300:3_700]).max() < 1e-3
    assert np.array_equal(computed(page, code, tone, [rate, 1, 0, 999]), found)


LISTEN = """
const plain = AudioContext.prototype.createMediaStreamSource, [[resamples]] = a;
if (!resamples) AudioContext.prototype.createMediaStreamSource = function (stream) {
  if (this.sampleRate === 16000) throw new DOMException("other sample rate", "NotSupportedError");
  return plain.call(this, stream);
};
const chunks = [], microphone = await new Promise((resolve, reject) => {
  const opened = talkingHead.Microphone.open((samples) => {
    chunks.push(samples);
    if (chunks.length === 30) resolve(opened);
  });
  opened.catch(reject);
}).finally(() => { AudioContext.prototype.createMediaStreamSource = plain; });
const { level } = microphone, look = new AudioContext(), analyser = new AnalyserNode(look);
const seen = new Float32Array(analyser.fftSize);
look.createMediaStreamSource(microphone.delayed).connect(analyser);
while (!seen.some((x) => x > 0.1)) {
  await new Promise((resolve) => setTimeout(resolve, 20));
  analyser.getFloatTimeDomainData(seen);
}
microphone.close();
await look.close();
return text(join([Float32Array.of(level), ...chunks]));
"""


@pytest.mark.parametrize("resamples", [True, False])
def test_the_microphone_comes_as_16_khz(page, resamples):
    """And again, delayed, for a recording; also where the browser does not resample it, as Firefox does not."""
    page.context.grant_permissions(["microphone"])
    level, samples = np.split(computed(page, LISTEN, [resamples]), [1])
    spectrum = np.abs(np.fft.rfft(samples[-8192:] * np.hanning(8192)))
    assert abs(spectrum.argmax() * 16_000 / 8192 - TONE) < 5 and 0.05 < level[0] < 0.6


def test_a_microphone_that_is_not_allowed_says_what_to_do(page):
    page.context.clear_permissions()
    with pytest.raises(Exception, match="Allow it in the browser's settings"):
        computed(page, LISTEN, [True])


def test_the_player_has_a_clock(page):
    """It follows the sound to its end, holds in a pause, and says once that the sound has ended."""
    code = """
    const player = new talkingHead.Player(), seen = [], ends = [];
    const until = (condition) => new Promise((resolve) => {
      const look = () => { seen.push(player.position); if (condition()) resolve(); else setTimeout(look, 5); };
      look();
    });
    player.onended = () => ends.push(player.position);
    player.load(a[0]);
    await player.play();
    await until(() => player.position > 0.1);
    player.pause();
    const paused = player.position;
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (player.position !== paused || player.playing) throw new Error("it does not hold");
    await player.play();
    await until(() => player.position > paused);
    await player.seek(2.8);
    await until(() => !player.playing);
    const end = player.position;
    await player.seek(0.25);
    const sought = player.position;
    player.close();
    return text(Float32Array.of(paused, end, sought, ends.length, ...seen));"""
    paused, end, sought, ends, *seen = computed(page, code, np.sin(np.arange(48_000) / 5) / 4)
    assert 0.1 < paused < 2.8 and end == pytest.approx(3) and sought == 0.25 and ends == 1
    assert seen[0] == 0 and (np.diff(seen) >= 0).all() and len(set(seen)) > 3


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_recording_has_picture_and_sound_and_says_that_it_is_synthetic(page, tmp_path, kind):
    import av

    code = """async ([wave, kind]) => {
      const { Player, Recorder } = talkingHead, player = new Player(), canvas = document.createElement("canvas");
      canvas.width = canvas.height = 64;
      const pen = canvas.getContext("2d"), supported = MediaRecorder.isTypeSupported;
      player.load(floats(wave));
      MediaRecorder.isTypeSupported = (type) => type.includes(kind) && supported.call(MediaRecorder, type);
      let recorder;
      try {
        recorder = new Recorder(canvas, player.stream);
      } finally {
        MediaRecorder.isTypeSupported = supported;
      }
      await new Promise((resolve) => {
        let frame = 0, done = false;
        const draw = () => {
          pen.fillStyle = frame++ % 2 ? "#0a0" : "#fff";
          pen.fillRect(0, 0, 64, 64);
          if (!done) setTimeout(draw, 20);
        };
        player.onended = () => { done = true; resolve(); };
        draw();
        void player.play();
      });
      const { blob, name } = await recorder.stop();
      player.close();
      return [name, text(new Uint8Array(await blob.arrayBuffer()))];
    }"""
    tone = np.sin(2 * np.pi * TONE * np.arange(6_400) / 16_000) / 2
    name, text = page.evaluate(code, [encoded(tone), kind])
    assert name == f"talking-head-synthetic.{kind}"
    data = base64.b64decode(text)
    (tmp_path / name).write_bytes(data)
    with av.open(str(tmp_path / name)) as file:
        assert sum(1 for _ in file.decode(video=0)) > 1
        assert data.endswith(XMP) if kind == "mp4" else file.metadata["COMMENT"] == COMMENT
    sound = load_audio(tmp_path / name)
    spectrum = np.abs(np.fft.rfft(sound))
    assert abs(spectrum.argmax() * 16_000 / len(sound) - TONE) < 10
    assert np.square(sound).sum() > 0.3 * np.square(tone).sum()


def test_heads_of_other_encoders_cannot_be_exported(mouth):
    logmel = Prior({"name": "logmel", "version": 1})
    for link, found in ((FeatureLink(), "no speaker prior"), (PriorLink(logmel), "logmel")):
        with pytest.raises(InputError, match=found):
            audio_tensors(SimpleNamespace(mouth=Mouth(1, link)), np.zeros(16_000, np.float32))
