"""Protects: exported frames and Gaussians are complete, match the video, and are never half written."""
import json

import cv2
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.progress import ProgressListener, listening
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.synthetic import SOURCE_TYPE
from egstalker_nb.model import ply
from egstalker_nb.rasterizer import rasterize
from egstalker_nb.rendering import export
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script

FRAMES = 6


@pytest.fixture(scope="module")
def spoken_run(tiny_dataset, tmp_path_factory):
    """A run of 6 iterations with random deformation added, as that of so few iterations would hide mistakes."""
    root = tmp_path_factory.mktemp("export") / "run"
    run = egs.train(tiny_dataset, egs.load_config("quick_test", iterations=6, coarse_iterations=2), root)
    load = run.load_head

    def moving(*given):
        head = load(*given)
        generator = torch.Generator().manual_seed(0)
        for layer in head.deformation.heads.values():
            layer.weight.data += 0.02 * torch.randn(layer.weight.shape, generator=generator)
        return head

    run.load_head = moving
    return run


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    noise = np.random.default_rng(0).normal(size=FRAMES * 640) * np.linspace(0, 0.3, FRAMES * 640)
    return save_wav(tmp_path_factory.mktemp("sound") / "speech.wav", noise.astype(np.float32))


def test_ply_reproduces_the_rendering(spoken_run, speech, tmp_path):
    """Gaussians, cameras and intrinsics in the files reproduce the head of the video."""
    done = egs.export_ply(spoken_run, speech, tmp_path / "ply")
    index = json.loads((done.folder / export.INDEX).read_text())
    renderer = Renderer.from_run(spoken_run)
    head, script = renderer.head, audio_script(renderer, speech)
    want, _ = renderer.batch(renderer.conditions_of(script))
    assert len(done.files) == len(script) == FRAMES
    moved = [ply.load_ply(path, head.cfg.sh_degree) for path in done.files]
    assert not torch.allclose(moved[0]["means"], moved[-1]["means"], atol=1e-4)
    for i in (0, FRAMES - 1):
        g = moved[i]
        rgb, _, _ = rasterize(g["means"], g["quats"], g["scales"].exp(), g["opacities"].sigmoid(),
                              torch.cat([g["sh0"], g["shN"]], 1), torch.tensor(index["w2c"][i])[None],
                              torch.tensor(index["K"])[None], index["size"], index["size"],
                              sh_degree=head.cfg.sh_degree)
        assert (rgb[0].clamp(0, 1) - want[i]).abs().max() < 1e-4
    assert done.files[0].stat().st_size == pytest.approx(248 * len(head), abs=2500)  # the floats, and the header


def test_frames_are_those_of_the_video(spoken_run, speech, tmp_path):
    """PNG keeps every value; the audio has the same length."""
    done = egs.export_frames(spoken_run, speech, tmp_path / "frames", poses="orbit")
    renderer = Renderer.from_run(spoken_run)
    want = renderer.render_frames(audio_script(renderer, speech, poses="orbit"))
    read = np.stack([cv2.imread(str(path))[..., ::-1] for path in done.files])
    assert np.array_equal(read, want)
    assert all(SOURCE_TYPE.encode() in path.read_bytes() for path in done.files), "each says that it is synthetic"
    assert len(load_audio(done.folder / "sound.wav")) == FRAMES * 640
    assert done.bytes == sum(p.stat().st_size for p in done.folder.iterdir())


def test_an_older_export_is_replaced_as_a_whole(spoken_run, speech, tmp_path):
    """Frames of two exports in one folder would be taken for one video."""
    egs.export_frames(spoken_run, speech, tmp_path / "frames")
    done = egs.export_frames(spoken_run, speech, tmp_path / "frames", format="jpeg", duration=0.12)
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "export.json", "frame_000000.jpg", "frame_000001.jpg", "frame_000002.jpg", "sound.wav"]
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_folder_with_other_files_is_not_touched(spoken_run, speech, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        egs.export_ply(spoken_run, speech, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    older = egs.export_frames(spoken_run, speech, tmp_path / "older", duration=0.08).folder
    (older / "grading.txt").write_text("mine")
    with pytest.raises(InputError, match="something else.*grading.txt"):
        egs.export_frames(spoken_run, speech, older)
    assert (older / "grading.txt").read_text() == "mine"
    with pytest.raises(InputError, match="format as one of png, jpeg"):
        egs.export_frames(spoken_run, speech, tmp_path / "frames", format="gif")


def test_a_stopped_export_leaves_nothing(spoken_run, speech, tmp_path):
    """Half an export under its final name would be taken for a complete one."""
    stopper = ProgressListener(lambda line, share: None)
    stopper.stopping.set()
    with listening(stopper), pytest.raises(KeyboardInterrupt):
        egs.export_ply(spoken_run, speech, tmp_path / "ply")
    assert list(tmp_path.iterdir()) == []


def test_command_line(spoken_run, speech, tmp_path, capsys):
    """The command reads the run from its folder."""
    out = tmp_path / "frames"
    given = ["export", str(spoken_run.root), str(speech), "--format", "ply", "--duration", "0.08", "--out", str(out)]
    assert cli.main(given) == 0
    assert "2 frames" in capsys.readouterr().out and len(list(out.glob("*.ply"))) == 2
