"""Protects: the metrics of papers: their formulas, what needs weights, and `egs score` on any two videos."""
import numpy as np
import pytest
import torch
from video_material import write_clip

import egstalker_nb as egs
from egstalker_nb import cli
from egstalker_nb.core.errors import InputError
from egstalker_nb.evaluation import pair_metrics, score_videos
from egstalker_nb.evaluation.face_crops import face_box, sync_crops
from egstalker_nb.metrics import action_units, identity, perceptual, syncnet, weights
from egstalker_nb.training.losses import Losses


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 2, 64, 80, 3, generator=generator)


def random_weights(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=generator) * 0.05 if t.is_floating_point() else t
            for name, t in net.state_dict().items()}


@pytest.fixture
def folder(tmp_path):
    """A folder of made-up weights, in the format that the published files have."""
    net = perceptual.Perceptual("alexnet")
    state = random_weights(net) | {"classifier.1.weight": torch.zeros(3)}
    torch.save(state, tmp_path / weights.WEIGHT_FILES["alexnet"].name, _use_new_zipfile_serialization=False)
    return tmp_path


# ---- LPIPS ----

def test_lpips_equals_torchmetrics_on_the_same_features(images, folder, monkeypatch):
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips", reason="extra 'metrics' is not installed")
    ours = perceptual.load_perceptual("alexnet", folder)
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *args: ours.features)
    expected = theirs._LPIPS(net="alex")(*(x.movedim(-1, 1) for x in images), normalize=True).flatten()
    assert torch.allclose(ours(*images), expected, rtol=1e-4) and expected.min() > 0


@pytest.mark.parametrize("backbone, layers", [("alexnet", (0, 3, 6, 8, 10)),
                                              ("vgg16", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))])
def test_feature_layers_have_torchvisions_names(backbone, layers):
    names = {f"features.{i}.{part}" for i in layers for part in ("weight", "bias")}
    assert set(perceptual.Perceptual(backbone).state_dict()) == names


def test_lpips_is_zero_symmetric_and_differentiable(images, folder):
    net, (a, b) = perceptual.load_perceptual("alexnet", folder), images
    assert net(a, a).tolist() == [0, 0] and torch.allclose(net(a, b), net(b, a))
    a.requires_grad_()
    net(a, b).sum().backward()
    assert a.grad.abs().sum() > 0


def test_other_weights_are_refused_in_one_line(tmp_path):
    path = tmp_path / weights.WEIGHT_FILES["alexnet"].name
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="another network"):
        perceptual.load_perceptual("alexnet", tmp_path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="Download the file again"):
        perceptual.load_perceptual("alexnet", tmp_path)


def test_what_is_missing_says_where_to_get_it(tmp_path):
    networks = pair_metrics.load_networks(tmp_path)
    assert networks.lpips is networks.describe is networks.syncnet is None
    text = "\n".join(networks.notes)
    for name in ("alexnet", "sface", "syncnet"):
        assert weights.WEIGHT_FILES[name].name in text and weights.WEIGHT_FILES[name].source in text
    assert text.count(str(tmp_path)) == 3 and len(networks.notes) == 3


# ---- perceptual loss ----

def test_perceptual_loss_is_a_named_term_of_upstreams_formula(tmp_path):
    torch.save(random_weights(perceptual.Perceptual("vgg16"), 4), tmp_path / weights.WEIGHT_FILES["vgg16"].name)
    net = perceptual.load_vgg_loss("cpu", tmp_path)
    rgb, frame = torch.rand(2, 1, 20, 20, 3, generator=torch.Generator().manual_seed(0))
    losses = Losses(egs.load_config("production", lambda_perceptual=0.01), "coarse", None, net)
    masks = [torch.ones(1, 20, 20, 1) for _ in range(3)]
    rgb.requires_grad_()
    loss, shown = losses(rgb, masks[0], frame, *masks[1:])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = (torch.nn.functional.interpolate(((image - mean) / std).movedim(-1, 1), (224, 224), mode="bilinear")
            for image in (rgb, frame))
    expected = sum((net.features[:n](x) - net.features[:n](y)).abs().mean() for n in (4, 9, 16, 23))
    assert dict(zip(losses.names, shown.tolist()))["perceptual"] == pytest.approx(0.01 * expected.item(), rel=1e-4)
    assert expected > 0 and net(frame, frame) == 0
    loss.backward()
    assert torch.isfinite(rgb.grad).all()


def test_training_without_the_weights_fails_at_once(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="vgg16-397923af.pth in .*cache.*get it from https"):
        egs.train(tiny_dataset, egs.load_config("quick_test", lambda_perceptual=0.01), tmp_path / "run")


# ---- SyncNet ----

def test_mfcc_against_its_definition():
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000 // 5 + 77)
    sound = wave * 32768
    sound = np.array([sound[0]] + [sound[i] - 0.97 * sound[i - 1] for i in range(1, len(sound))])
    step = 3
    frame = np.append(sound[160 * step:160 * step + 400], np.zeros(112))
    turns = np.outer(np.arange(257), np.arange(512)) / 512
    power = np.abs(np.exp(-2j * np.pi * turns) @ frame) ** 2 / 512
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    corners = [int(513 * 700 * (10 ** (m / 2595) - 1) / 16_000) for m in mels]
    bands = np.zeros(26)
    for j in range(26):
        low, middle, high = corners[j:j + 3]
        bands[j] = sum(power[i] * (i - low) / (middle - low) for i in range(low, middle))
        bands[j] += sum(power[i] * (high - i) / (high - middle) for i in range(middle, high))
    cepstra = [np.sqrt(2 / 26) * sum(np.log(bands[n]) * np.cos(np.pi * k * (n + 0.5) / 26) for n in range(26))
               * (1 + 11 * np.sin(np.pi * k / 22)) for k in range(13)]
    cepstra[0] = np.log(power.sum())
    found = syncnet.mfcc(wave)
    assert found.shape == (1 + int(np.ceil((len(wave) - 400) / 160)), 13)
    assert np.allclose(found[step], cepstra, rtol=1e-4, atol=1e-3)


def test_mfcc_of_silence_and_of_almost_nothing_is_finite():
    assert np.isfinite(syncnet.mfcc(np.zeros(1000))).all() and syncnet.mfcc(np.zeros(1)).shape == (1, 13)


@pytest.mark.parametrize("late", [-4, 0, 7])
def test_an_offset_put_in_is_found(late):
    sounds = torch.randn(80, 32, generator=torch.Generator().manual_seed(2))
    found = syncnet.distances(sounds.roll(late, 0), sounds)
    assert found.offset == late and found.lse_d < 3 and found.lse_c > 3
    unrelated = syncnet.distances(torch.randn(80, 32, generator=torch.Generator().manual_seed(3)), sounds)
    assert unrelated.lse_d > found.lse_d and unrelated.lse_c < found.lse_c


def test_syncnet_runs_on_any_length_and_has_the_public_names():
    net = syncnet.SyncNet()
    names = set(net.state_dict())
    assert {"netcnnaud.18.weight", "netcnnlip.18.weight", "netcnnlip.9.running_var", "netfclip.3.bias",
            "netfcaud.1.weight"} <= names
    assert net.netcnnlip[18].weight.shape == (512, 256, 1, 6, 6) and net.netfcaud[3].weight.shape == (1024, 512)
    faces = list(np.random.default_rng(0).integers(0, 255, (7, 224, 224, 3), np.uint8))
    found = syncnet.sync_distance(net, faces, np.random.default_rng(0).normal(0, 0.1, 7 * 640).astype(np.float32))
    assert found is not None and np.isfinite(found.lse_d) and found.lse_c >= 0
    assert syncnet.sync_distance(net, faces[:5], np.zeros(16_000, np.float32)) is None


# ---- faces ----

def test_sync_crops_follow_the_face_through_gaps():
    images = np.zeros((20, 90, 120, 3), np.uint8)
    landmarks = np.zeros((20, 478, 3), np.float32)
    landmarks[:, 0, :2], landmarks[:, 1:, :2] = (40, 20), (60, 40)
    images[:, 20:40, 40:60] = 200
    landmarks[4:9] = np.nan
    crops = list(sync_crops(images, landmarks))
    assert len(crops) == 20 and all(np.array_equal(crop, crops[0]) for crop in crops)
    rows = np.flatnonzero(crops[0][:, 112, 0] > 100)
    assert rows[0] == 0 and abs(len(rows) - 224 / 1.4) < 8, "the box is at the top, the margin below"
    x0, y0, x1, y1 = face_box(landmarks[0], 120, 90)
    assert (x0, y0, x1, y1) == (37, 17, 63, 43)


def test_identity_is_aligned_by_the_persons_right_eye_first():
    landmarks = np.full((478, 3), 50, np.float32)
    for ids, place in (((33, 133), (30, 40)), ((263, 362), (70, 40)), ((1,), (50, 60)), ((61,), (35, 80)),
                       ((291,), (65, 80))):
        landmarks[list(ids), :2] = place
    row = identity.sface_row(landmarks)
    assert row.tolist() == [[30, 40, 40, 40, 30, 40, 70, 40, 50, 60, 35, 80, 65, 80, 1]]


def test_a_damaged_face_model_is_refused(tmp_path):
    (tmp_path / weights.WEIGHT_FILES["sface"].name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="SFace"):
        identity.load_sface(tmp_path)


def test_geometric_units_do_not_depend_on_where_the_face_is(tiny_dataset):
    points = tiny_dataset.landmarks[:3, :, :2].astype(np.float64)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    moved = 1.7 * points @ turn.T + [30, -12]
    assert action_units.geometric_error(points, moved) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize("moved, upper", [((55, 285), True), ((14, 17), False), ((61,), False)])
def test_each_half_of_the_face_has_its_own_error(tiny_dataset, moved, upper):
    points = tiny_dataset.landmarks[:3].copy()
    points[:, list(moved), 1] += 4
    errors = action_units.geometric_error(points, tiny_dataset.landmarks[:3])
    assert (errors[0] > 0.1) == upper and (errors[1] > 0.1) == (not upper)


def test_openface_errors(tmp_path):
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text("frame, success, AU01_r, AU25_r, AU25_c\n1, 1, 1.0, 2.0, 1\n2, 1, 2.0, 2.0, 1\n3, 0, 5, 5, 1\n")
    b.write_text("frame,success,AU01_r,AU25_r,AU25_c\n1,1,1.5,0.0,1\n2,1,2.5,1.0,1\n3,1,0,0,1\n4,1,0,0,1\n")
    assert action_units.openface_error(a, b) == pytest.approx((0.5, 1.5))
    assert action_units.openface_error(a, a) == (0, 0)


# ---- any two videos ----

@pytest.fixture
def clips(tmp_path):
    """A clip; the same blurred; the same at half the size, 50 fps, and shorter."""
    rng = np.random.default_rng(0)
    frames = [np.kron(rng.integers(0, 255, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(6)]
    soft = [(0.5 * frame + 64).astype(np.uint8) for frame in frames]
    small = [frame[::2, ::2] for frame in frames[:4] for _ in range(2)]
    paths = [tmp_path / f"{name}.mp4" for name in ("real", "soft", "small")]
    for path, images, rate in zip(paths, (frames, soft, small), (25, 25, 50)):
        write_clip(path, images, rate=rate, options={"crf": "5"})
    return paths


def test_a_video_against_itself_is_perfect_and_a_worse_one_is_not(clips):
    real, soft, _ = clips
    same, worse = egs.score(real, real), egs.score(soft, real)
    assert same.frames == 6 and same.scores["psnr"] == 100 and same.scores["ssim"] == pytest.approx(1)
    assert same.scores["faces"] == 0 and "No face was found in 6 of 6 frames of the video" in str(same)
    assert worse.scores["psnr"] < 25 and worse.scores["ssim"] < 0.95
    assert worse.real == same.real and worse.scores["lmd_mouth"] is None


def test_another_size_rate_and_length_are_adapted_and_said(clips):
    real, _, small = clips
    found = egs.score(small, real)
    assert found.frames == 4 and found.scores["psnr"] > 15, "frames of the same time are compared"
    text = str(found)
    assert "64 x 48" in text and "128 x 96" in text and "50" in text and "first 4 frames" in text


def test_weights_add_their_scores_and_nothing_takes_their_place(clips, folder, tmp_path):
    real, soft, _ = clips
    found = egs.score(soft, real, weights=folder)
    assert found.scores["lpips"] > 0 and found.real["lpips"] == 0
    assert "csim" not in found.scores and "lse_d" not in found.scores and "LPIPS:" not in str(found)


def test_identity_is_averaged_over_frames_with_faces(monkeypatch):
    face = np.zeros((478, 3), np.float32)
    face[:, :2] = np.random.default_rng(0).uniform(20, 60, (478, 2))
    monkeypatch.setattr("egstalker_nb.face.tracker.FaceTracker", lambda: lambda image: face if image.any() else None)

    def describe(image, landmarks):  # takes the place of SFace, whose weights are not here
        return np.array([1.0, 0.0]) if image.mean() > 100 else np.array([0.6, 0.8])

    metrics = pair_metrics.PairMetrics(pair_metrics.Networks(describe=describe))
    bright, dark, black = (np.full((80, 80, 3), value, np.uint8) for value in (200, 50, 0))
    for i in range(20):
        metrics.add(black if i == 10 else dark, black if i == 15 else bright)
    scores, real = metrics.scores()
    assert scores["csim"] == pytest.approx(0.6) and real["csim"] == pytest.approx(1)
    assert scores["faces"] == real["faces"] == 95 and scores["psnr_face"] < 10


def test_syncnet_scores_each_video_with_its_own_audio(clips, tmp_path, monkeypatch):
    points = np.random.default_rng(0).uniform(20, 70, (478, 3)).astype(np.float32)
    monkeypatch.setattr("egstalker_nb.face.tracker.FaceTracker", lambda: lambda image: points)
    monkeypatch.setattr(score_videos, "load_networks",
                        lambda *args: pair_metrics.Networks(syncnet=syncnet.SyncNet()))
    images = list(np.random.default_rng(1).integers(0, 255, (6, 96, 128, 3), np.uint8))
    wave = np.random.default_rng(2).normal(0, 0.1, 48_000 // 2).astype(np.float32)
    write_clip(tmp_path / "sound.mp4", images, sound="aac", wave=wave)
    found = egs.score(tmp_path / "sound.mp4", clips[0])
    assert found.scores["lse_d"] > 0 and found.scores["lse_c"] >= 0 and abs(found.scores["sync_offset"]) <= 15
    assert "lse_d" not in found.real and "'real.mp4': it has no audio" in str(found).replace(str(tmp_path) + "/", "")


def test_the_command_prints_the_table(clips, capsys):
    assert cli.main(["score", str(clips[1]), str(clips[0])]) == 0
    text = capsys.readouterr().out
    assert "real video" in text and "psnr" in text and "syncnet_v2.model" in text


def test_every_score_has_a_meaning_and_faces_elsewhere_are_said():
    points = np.random.default_rng(0).uniform(0, 100, (4, 478, 3)).astype(np.float32)
    assert score_videos._face_notes(points, points) == []
    assert "different places" in score_videos._face_notes(points + 40, points)[0]
