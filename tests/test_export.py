"""Protects: exported frames and Gaussians are complete, match the video, and are never half written."""
import json

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from video_material import read_alpha_video

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.core.progress import ProgressListener, listening
from egstalker_nb.media.alpha_video import ALPHA_FORMATS
from egstalker_nb.media.audio import load_audio, save_wav
from egstalker_nb.media.image_io import write_png
from egstalker_nb.media.synthetic import SOURCE_TYPE
from egstalker_nb.media.video_writer import write_video
from egstalker_nb.model import ply
from egstalker_nb.rasterizer import rasterize
from egstalker_nb.rendering import export
from egstalker_nb.rendering.backdrop import Backdrop, load_backdrop
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


def test_spz_shows_the_same_frames(spoken_run, speech, tmp_path):
    """One file per frame, turned and rounded, but each with the picture of its PLY."""
    pytest.importorskip("gsply", reason="needs the extra `models`")
    ply_files, spz = (egs.export_ply(spoken_run, speech, tmp_path / kind, format=kind, duration=0.12)
                      for kind in ("ply", "spz"))
    assert [path.name for path in spz.files] == [f"frame_00000{i}.spz" for i in range(3)]
    for i in range(3):
        pictures = [export.render_ply(made, i).astype(float) for made in (ply_files, spz)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 1 < pictures[0].std()
    assert spz.bytes < ply_files.bytes / 4


def test_command_line(spoken_run, speech, tmp_path, capsys):
    """The command reads the run from its folder."""
    out = tmp_path / "frames"
    given = ["export", str(spoken_run.root), str(speech), "--format", "ply", "--duration", "0.08", "--out", str(out)]
    assert cli.main(given) == 0
    assert "2 frames" in capsys.readouterr().out and len(list(out.glob("*.ply"))) == 2


@pytest.fixture()
def see_through(spoken_run):
    """A renderer whose torso has all opacities, also low ones, where a fringe would show most."""
    renderer = Renderer.from_run(spoken_run)
    picture = renderer.head.torso.picture
    picture.copy_(torch.randint(0, 256, picture.shape, generator=torch.Generator().manual_seed(1)))
    picture[3] = torch.linspace(-20, 200, picture.shape[2]).clamp_min(0)  # and where it is clear, it stays so
    return renderer


@pytest.mark.parametrize("colour", ["white", "#000", "#00ff00", "rgb(255, 0, 128)", "#1f7ac3"])
def test_transparent_over_a_colour_is_the_rendering_over_it(see_through, speech, colour):
    """Alpha is straight and belongs to head and torso: no dark or bright fringe over any colour."""
    script, size = audio_script(see_through, speech), see_through.ds.size
    over = load_backdrop(colour, size)
    want = see_through.render_frames(script, over).astype(float)
    rgba = see_through.render_frames(script, Backdrop(None)).astype(float)
    alpha = rgba[..., 3:] / 255
    assert rgba.shape == (FRAMES, size, size, 4) and alpha.min() < 0.1 and alpha.max() > 0.9
    assert abs(rgba[..., :3] * alpha + over.image * (1 - alpha) - want).max() <= 1.6  # three roundings


def test_the_plate_as_picture_gives_the_video(see_through, speech, tmp_path):
    """A picture takes the place of the plate and of nothing else."""
    write_png(tmp_path / "plate.png", see_through.head.torso.plate.numpy())
    script, plate = audio_script(see_through, speech), load_backdrop(tmp_path / "plate.png", see_through.ds.size)
    over, want = see_through.render_frames(script, plate).astype(int), see_through.render_frames(script).astype(int)
    assert abs(over - want).max() <= 1


def test_nothing_shows_through_the_torso(see_through, speech):
    """Training determines the torso's opacity only where the plate differs: inside its outline it is filled."""
    opacity = see_through.render_frames(audio_script(see_through, speech), Backdrop(None))[..., 3]
    assert see_through.head.torso.picture[3].max() == 200 and opacity[:, :, -3:].min() > 250


@pytest.mark.parametrize("height, width", [(31, 97), (97, 31), (1, 1), (300, 201)])
def test_a_picture_covers_the_frame(tmp_path, height, width):
    """Cropped around its centre, never stretched: a centred stripe stays in the centre."""
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2, width // 2] = 255
    write_png(tmp_path / "picture.png", image)
    covered = load_backdrop(str(tmp_path / "picture.png"), 64).image
    ys, xs = np.nonzero(covered[..., 0])
    assert covered.shape == (64, 64, 3) and abs(ys.mean() - 31.5) < 2 and abs(xs.mean() - 31.5) < 2


def test_transparent_pngs(spoken_run, speech, tmp_path):
    """Read by a program that is not ours, they have the alpha, and are still marked as synthetic."""
    done = egs.export_frames(spoken_run, speech, tmp_path / "rgba", background="transparent", duration=0.08)
    renderer = Renderer.from_run(spoken_run)
    want = renderer.render_frames(audio_script(renderer, speech, duration=0.08), Backdrop(None))
    assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in done.files]), want)
    assert all(SOURCE_TYPE.encode() in path.read_bytes() for path in done.files)


def test_backgrounds_that_cannot_be(spoken_run, speech, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for background, message in {"greenish": "background as clip", "#00ff0080": "background as clip", 7: "background as",
                                str(tmp_path / "none.png"): "no file", tmp_path / "broken.png": "cannot be decoded",
                                "transparent": ".mov or .webm"}.items():
        with pytest.raises(InputError, match=message):
            egs.render(spoken_run, speech, tmp_path / "a.mp4", background=background)
    with pytest.raises(InputError, match="format='png'"):
        egs.export_frames(spoken_run, speech, tmp_path / "a", format="jpeg", background="transparent")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_video_behind_the_head(see_through, speech, tmp_path, count):
    """Its frame i is behind frame i, looped, whatever the batch and wherever a part of the output begins."""
    shades = [20 * i + 30 for i in range(count)]
    write_video(tmp_path / "b.mp4", [np.full((48, 80, 3), shade, np.uint8) for shade in shades])
    over, script = load_backdrop(tmp_path / "b.mp4", see_through.ds.size), audio_script(see_through, speech)
    clear = see_through.render_frames(script, Backdrop(None))[..., 3] == 0
    whole = np.stack(list(see_through.frames(script, 4, backdrop=over)))
    part = np.stack(list(see_through.frames(script.part(4, FRAMES), 4, backdrop=over, offset=4)))
    assert np.array_equal(part, whole[4:])
    for i in range(FRAMES):
        assert clear[i].any() and abs(whole[i][clear[i]].astype(int) - shades[i % count]).max() <= 3


def test_a_damaged_video_behind_the_head(tmp_path):
    """Found before anything is rendered."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    data = write_video(tmp_path / "b.mp4", list(noise)).read_bytes()
    for name, content in {"cut.mp4": data[:len(data) // 2], "text.mp4": b"no video"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_backdrop(tmp_path / name, 64)


def test_a_video_over_a_colour(spoken_run, speech, tmp_path, capsys):
    """The command line reaches the video: a clear corner of it has the colour asked for."""
    out = tmp_path / "green.mp4"
    given = ["render", str(spoken_run.root), "--audio", str(speech), "--background", "#00c800", "--out", str(out)]
    assert cli.main(given) == 0
    with av.open(str(out)) as container:  # not OpenCV, which takes BT.709 for BT.601
        frame = next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    renderer = Renderer.from_run(egs.load_run(spoken_run.root))
    clear = renderer.render_frames(audio_script(renderer, speech, duration=0.04), Backdrop(None))[0, ..., 3] == 0
    assert clear.any() and abs(np.median(frame[clear], 0) - (0, 200, 0)).max() < 12
    assert cli.main(["export", str(spoken_run.root), str(speech), "--format", "ply", "--background", "white"]) != 0
    assert "Gaussians have none" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ALPHA_FORMATS)
def test_a_head_over_nothing(spoken_run, speech, tmp_path, suffix):
    """Over any colour the decoded video is the rendering over that colour, within what the codec loses."""
    video = egs.render(spoken_run, speech, tmp_path / f"talk{suffix}", background="transparent", duration=0.2)
    images, sound = read_alpha_video(video.path)
    renderer = Renderer.from_run(spoken_run)
    script, colour = audio_script(renderer, speech, duration=0.2), np.array([0, 255, 0], np.uint8)
    over = np.broadcast_to(colour, (renderer.ds.size, renderer.ds.size, 3)).copy()
    want, alpha = renderer.render_frames(script, Backdrop(over)), images[..., 3:] / 255
    assert video.frames == len(images) == 5 and sound
    assert abs(images[..., :3] * alpha + over * (1 - alpha) - want).mean() < 4


def test_names_and_workers_that_cannot_have_alpha(spoken_run, speech, tmp_path):
    for out, workers, message in (("a.mp4", 1, ".mov or .webm"), ("a.mov", 2, "one worker"), ("a", 1, ".mov or .webm")):
        with pytest.raises(InputError, match=message):
            egs.render(spoken_run, speech, tmp_path / out, background="transparent", workers=workers)
    with pytest.raises(InputError, match="a .mp4 file"):
        egs.render(spoken_run, speech, tmp_path / "a.mov")
    assert list(tmp_path.iterdir()) == []
