"""Protects: the 3D viewer without a browser: its clock, what it sends, its errors, and that it ends."""
import math
import shutil
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from faults.made import copy_run
from hypothesis import given, settings
from hypothesis import strategies as st

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.cli import view_commands
from egstalker_nb.core.errors import DatasetError, InputError, MissingPackageError
from egstalker_nb.media.audio import save_wav
from egstalker_nb.model.ply import save_ply
from egstalker_nb.rasterizer import rasterize
from egstalker_nb.viewer.audio_sync import sound_html, sync_html
from egstalker_nb.viewer.playback import PlaybackClock
from egstalker_nb.viewer.splat_frames import HeadFrames, PlyFrames, splat_frame

pytest.importorskip("viser", reason="viser is not installed: no viewer")


class Watch:
    """A clock that tests set."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return egs.load_run(copy_run(tmp_path_factory.mktemp("viewer")))


def made_gaussians(count, seed=0, degree=2):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3),
              "shN": ((degree + 1) ** 2 - 1, 3)}
    g = {name: torch.randn(count, *shape, generator=rng) for name, shape in shapes.items()}
    return {**g, "scales": 0.5 * g["scales"] - 2, "shN": 0.2 * g["shN"]}


# ---- the clock ----

@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10_000), st.lists(st.tuples(st.sampled_from(["wait", "play", "pause", "seek", "rate"]),
                                                  st.floats(0, 50)), max_size=12))
def test_the_clock_stays_in_the_sequence(frames, steps):
    """Whatever is done: the frame exists, seeking gives that frame, and nothing jumps when speed or state change."""
    watch = Watch()
    clock = PlaybackClock(frames, watch)
    for what, value in steps:
        before = clock.position
        if what == "wait":
            moved = value * clock.rate if clock.playing else 0.0
            watch.seconds += value
            assert math.isclose(clock.position, min(before + moved, clock.duration), rel_tol=1e-9, abs_tol=1e-6)
        elif what == "seek":
            clock.seek(int(value * 100))
            assert clock.frame == min(int(value * 100), frames - 1)
        elif what == "rate":
            clock.set_rate(0.25 + value / 25)
            assert clock.position == before
        else:
            ended = before >= clock.duration
            getattr(clock, what)()
            assert clock.playing == (what == "play")
            assert clock.position == (0.0 if ended and what == "play" else before)
        assert 0 <= clock.frame < frames and 0 <= clock.position <= clock.duration


def test_it_plays_in_time_to_the_end():
    """25 frames a second at speed 1; at the end it stops on the last frame, and begins anew when played again."""
    watch = Watch()
    clock = PlaybackClock(50, watch)
    clock.play()
    shown = []
    for tick in range(80):
        watch.seconds = tick / 25 + 0.001
        shown.append(clock.frame)
    assert shown == [min(tick, 49) for tick in range(80)] and not clock.playing
    clock.play()
    assert clock.frame == 0 and clock.playing


# ---- what is sent ----

@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_splats_are_the_gaussians_of_the_rasterizer(degree):
    """Projected by the rasteriser's own kernels, covariance and colour give the same picture: one Gaussian at a time,
    rotated, stretched, of any length of quaternion, with harmonics."""
    w2c = torch.eye(4)
    w2c[:3, 3] = torch.tensor([0.3, -0.2, 9.0])
    K = torch.tensor([[64.0, 0, 16], [0, 64.0, 16], [0, 0, 1]])
    g = made_gaussians(3, degree, degree)
    frame = splat_frame(g, w2c.numpy())
    for i in range(3):
        one = {name: value[i:i + 1] for name, value in g.items()}
        want, _, _ = rasterize(one["means"], one["quats"], one["scales"].exp(), one["opacities"].sigmoid(),
                               torch.cat([one["sh0"], one["shN"]], 1), w2c[None], K[None], 32, 32, sh_degree=degree)
        # eigenvalues and -vectors of the covariance: axes that know nothing of quaternions
        values, axes = np.linalg.eigh(frame.covariances[i].astype(np.float64))
        axes[:, 0] *= np.linalg.det(axes)
        quats = torch.from_numpy(_quaternion(axes)).float()[None]
        scales = torch.from_numpy(np.sqrt(values)).float()[None]
        got, _, _ = rasterize(torch.from_numpy(frame.centers[i:i + 1]), quats, scales,
                              torch.from_numpy(frame.opacities[i]), torch.from_numpy(frame.rgbs[i:i + 1]), w2c[None],
                              K[None], 32, 32)
        assert want.max() > 0.01
        torch.testing.assert_close(got, want.clamp(0, 1), atol=2e-3, rtol=0)


def _quaternion(rotation):
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(rotation).as_quat(), 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000), st.integers(0, 3))
def test_splats_are_what_a_browser_can_draw(count, seed, degree):
    """Any Gaussians: symmetric, positive covariances as large as the scales; colours and opacities 0...1."""
    g = made_gaussians(count, seed, degree)
    frame = splat_frame(g, np.eye(4, dtype=np.float32))
    cov = frame.covariances.astype(np.float64)
    np.testing.assert_allclose(cov, cov.transpose(0, 2, 1), atol=1e-7)
    np.testing.assert_allclose(np.trace(cov, axis1=1, axis2=2), (g["scales"].exp() ** 2).sum(1), rtol=1e-4)
    assert np.linalg.eigvalsh(cov).min() > -1e-6
    for values in (frame.rgbs, frame.opacities):
        assert values.min() >= 0 and values.max() <= 1 and values.dtype == np.float32


def test_a_ply_fits_into_the_view(tmp_path):
    """Wherever its Gaussians are and however large they are, the camera stands before them and sees them."""
    for scale, shift in ((1.0, 0.0), (0.01, 5.0), (300.0, -2000.0)):
        g = made_gaussians(200)
        g["means"] = g["means"] * scale + shift
        save_ply(tmp_path / "some.ply", g)
        seq = PlyFrames(tmp_path / "some.ply")
        camera = seq.frame(0).centers @ seq.rest[:3, :3].T + seq.rest[:3, 3]
        angles = np.abs(camera[:, :2]) / camera[:, 2:]
        assert (camera[:, 2] > 0).all() and 0.2 < np.percentile(angles, 95) / np.tan(seq.fov / 2) < 1


# ---- the server ----

def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_plays_speech_and_ends(run, tmp_path):
    """Audio gives its number of frames; the controls' calls move them; closing frees port and thread, also twice."""
    noise = np.random.default_rng(0).normal(size=20 * 640).astype(np.float32) * 0.1
    viewer = egs.view(run, save_wav(tmp_path / "speech.wav", noise))
    panel = viewer.panel
    assert viewer.url == f"http://127.0.0.1:{viewer.port}/" and not free(viewer.port)
    assert len(panel._sequence) == 20 and len(panel._sequence.wave) == 20 * 640
    panel.seek(7)
    wait(lambda: panel._shown == 7 and panel._slider.value == 7)
    sent = panel._splats.centers.copy()
    panel.play()
    wait(lambda: not panel.clock.playing and panel._shown == 19)
    assert np.abs(panel._splats.centers - sent).max() > 0 or np.abs(panel._splats.position).max() > 0
    wait(lambda: panel._play.label == "Play")
    assert f"http://127.0.0.1:{viewer.port}/" in viewer._repr_html_()
    viewer.close()
    viewer.close()
    assert free(viewer.port) and not panel._thread.is_alive()
    assert "closed" in repr(viewer) and "iframe" not in viewer._repr_html_()


def wait(condition):
    for _ in range(1500):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("waited in vain")


def test_controls_change_what_is_sent(run):
    """Colours of the regions, opacity (which viser keeps as bytes), scale, and a head that stays where it is."""
    with egs.view(run) as viewer:
        panel = viewer.panel
        trained, cov = panel._splats.rgbs.copy(), panel._splats.covariances.copy().astype(float)
        panel._colors.value, panel._opacity.value, panel._size.value = "regions of the face", 0.5, 2.0
        wait(lambda: (panel._splats.rgbs != trained).any() and panel._splats.opacities.max() <= 128
             and panel._splats.covariances.astype(float).sum() > 3.5 * cov.sum())
        assert len(np.unique(panel._splats.rgbs, axis=0)) > 3
        panel.seek(6)
        wait(lambda: panel._shown == 6)
        moving = panel._splats.position.copy()
        np.testing.assert_allclose(moving, 10 * panel._sequence.frame(6).w2c[:3, 3], atol=1e-4)
        panel._motion.value = False
        wait(lambda: np.allclose(panel._splats.position, 10 * panel._sequence.rest[:3, 3], atol=1e-4))


def test_only_this_machine_reaches_it(run):
    """It shows a person's face and has no password."""
    with egs.view(run) as viewer:
        (sock,) = [c for c in psutil.Process().net_connections("tcp")
                   if c.status == "LISTEN" and c.laddr.port == viewer.port]
        assert sock.laddr.ip == "127.0.0.1"


def test_frames_that_do_not_fit_in_memory_are_made_again(run, monkeypatch):
    from egstalker_nb.rendering.renderer import Renderer
    from egstalker_nb.rendering.script import replay_script
    from egstalker_nb.viewer import splat_frames

    renderer = Renderer.from_run(run)
    seq = HeadFrames(renderer, replay_script(renderer, "all"), "some")
    monkeypatch.setattr(splat_frames, "CACHE_BYTES", 2 * seq.frame(0).nbytes)
    for i in (1, 2, 3):
        seq.frame(i)
    assert sorted(seq._cache) == [0, 1]
    assert (seq.frame(3).centers == seq.frame(3).centers).all()


def test_html_of_the_sound_carries_only_numbers():
    assert "1.500000, 0.500000, true" in sync_html(1.5, 0.5, True)
    assert sound_html(np.zeros(640, np.float32)).count("<audio") == 1


# ---- errors ----

def test_errors_are_told_before_the_work(run, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="free port"):
            egs.view(run, port=taken.getsockname()[1])
    for wrong in (0, 65536, -1):
        with pytest.raises(InputError, match="1 ... 65535"):
            egs.view(run, port=wrong)
    with pytest.raises(InputError, match="free port"):
        egs.view(run, host="no such host.")
    with pytest.raises(InputError, match="no-such"):
        egs.view(run, tmp_path / "no-such.wav")
    with pytest.raises(InputError, match="audio; found none, but blink, poses"):
        egs.view(run, poses="static", blink=0)
    with pytest.raises(InputError, match="PLY"):
        egs.view(tmp_path / "no-such.ply")
    with pytest.raises(InputError, match="no mouth"):
        egs.view(tmp_path / "some.ply", tmp_path / "speech.wav")
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingPackageError, match=r"egstalker-nb\[viewer\]"):
        egs.view(run)


def test_a_run_without_a_checkpoint(tmp_path, capsys):
    root = copy_run(tmp_path)
    shutil.rmtree(root / "checkpoints")
    (root / "checkpoints").mkdir()
    with pytest.raises(DatasetError, match="none in"):
        egs.view(egs.load_run(root))
    assert cli.main(["view", str(root)]) == 2
    assert "error: expected a checkpoint" in capsys.readouterr().err


def test_the_command_ends_with_ctrl_c(run, monkeypatch, capsys):
    """It prints the address, and Ctrl-C is its normal end."""
    seen = []
    ply = next(Path(run.root).glob("checkpoints/*/point_cloud.ply"))

    class Forever:
        def wait(self):
            seen.append(capsys.readouterr().out)
            raise KeyboardInterrupt

    monkeypatch.setattr(view_commands, "threading", SimpleNamespace(Event=Forever))
    assert cli.main(["view", str(ply)]) == 0
    assert "point_cloud: http://127.0.0.1:" in seen[0]
