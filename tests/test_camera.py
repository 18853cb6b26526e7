"""Protects: a camera that moves is measured, and one that stands still never moves anything."""
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from moving_camera import SCENE, corner_error, measured, outside, person, seen, textured, write_clip

import egstalker_nb as egs
from egstalker_nb.core.errors import DatasetError
from egstalker_nb.data.camera_view import canvas_margin, pixels, to_canvas, view_matrix, view_of
from egstalker_nb.data.frame_loader import Frames
from egstalker_nb.model.torso import CODES, Torso
from egstalker_nb.preparation import camera, plate, steps
from egstalker_nb.training.fit_torso import fit_torso

COUNT = 24
T = np.linspace(0, 1, COUNT)
ZERO = np.zeros(COUNT)
SHAKE = np.random.default_rng(1).normal(0, 1, (COUNT + 8, 4))
SHAKE = np.stack([np.convolve(x, np.ones(9) / 3, "valid") for x in SHAKE.T], 1)
MOTIONS = {
    "zoom in": np.stack([0.05 * T, -0.03 * T, 0.26 * T, ZERO], 1),
    "zoom out": np.stack([ZERO, ZERO, -0.2 * T, ZERO], 1),
    "pan beyond the first view": np.stack([1.3 * T, 0.1 * T, ZERO, ZERO], 1),
    "roll": np.stack([ZERO, ZERO, ZERO, 0.08 * T], 1),
    "hand": SHAKE * [0.02, 0.02, 0.005, 0.005],
}


# ---- measuring it

@pytest.mark.parametrize("size", [96, 256])
@pytest.mark.parametrize("motion", MOTIONS)
def test_the_motion_is_found(tmp_path, motion, size):
    views = MOTIONS[motion]
    write_clip(tmp_path, textured(size), size, views)
    found = measured(tmp_path, size, COUNT)
    assert found.found == 1 and not found.camera[:, 4:].any()
    assert corner_error(found.camera[:, :4], views, size).max() < 0.5
    np.testing.assert_allclose(found.camera[:, :4].mean(0), 0, atol=5e-3)  # the reference is the mean view


@pytest.mark.parametrize("size", [64, 200])
def test_a_still_camera_is_exactly_still(tmp_path, size):
    """Also with noise in the frames, and a face that becomes brighter."""
    scene, rng = textured(size), np.random.default_rng(0)
    write_clip(tmp_path, scene, size, np.zeros((COUNT, 4)))
    for i in range(COUNT):
        image = seen(scene, size, np.zeros(4)) + rng.normal(0, 4, (size, size, 3))
        image = image.clip(0, 255).astype(np.uint8)
        person(image, i, 1 + 0.01 * i)
        cv2.imwrite(str(tmp_path / "frames" / f"{i:06d}.jpg"), image[..., ::-1])
    found = measured(tmp_path, size, COUNT)
    assert found.found == 1 and not found.camera.any()


def test_a_wall_without_texture_is_still(tmp_path):
    """There is nothing to see a motion by, and nothing that it would change."""
    plain = np.full((SCENE * 128, SCENE * 128, 3), 150, np.float32)
    plain += np.linspace(0, 20, SCENE * 128)[:, None]
    for folder, gains in (("even", 0 * T), ("brighter", 0.15 * T)):
        gains = gains[:, None].repeat(3, 1)
        write_clip(tmp_path / folder, plain, 128, MOTIONS["zoom in"], gains)
        found = measured(tmp_path / folder, 128, COUNT)
        assert found.found < 0.5 and not found.camera[:, :4].any()
        np.testing.assert_allclose(found.camera[:, 4:], gains - gains.mean(0), atol=0.01)
        assert found.camera.any() == gains.any()


def test_a_picture_that_moves_on_a_screen_is_no_camera(tmp_path):
    """Most of the background, as in a studio, changes from picture to picture without any common motion."""
    size = 128
    write_clip(tmp_path, textured(size), size, np.zeros((COUNT, 4)))
    for i in range(COUNT):
        image = seen(textured(size, seed=i // 3), size, np.zeros(4))
        person(image, i)
        cv2.imwrite(str(tmp_path / "frames" / f"{i:06d}.jpg"), image[..., ::-1])
    assert not measured(tmp_path, size, COUNT).camera.any()


def test_only_a_motion_that_makes_frames_more_alike_is_believed(tmp_path):
    views = MOTIONS["zoom in"] - MOTIONS["zoom in"].mean(0)
    for folder, true in (("still", 0 * views), ("moving", views)):
        write_clip(tmp_path / folder, textured(128), 128, true)
    assert camera._explains(tmp_path / "moving", views) and not camera._explains(tmp_path / "still", views)


def test_drift_of_the_chain_is_corrected(tmp_path):
    """Key frames are aligned with the first one, whatever has added up on the way."""
    count, size, keys = 30, 128, [0, 10, 20, 29]
    views = np.stack([0.4 * np.linspace(0, 1, count), *np.zeros((3, count))], 1)
    write_clip(tmp_path, textured(size), size, views)
    drift = np.outer(np.linspace(0, 1, count), [0.03, -0.03, 0.02, 0.01])
    matrices, gains = camera._without_drift(tmp_path, view_matrix(views) @ view_matrix(drift),
                                            np.linspace(0, 0.05, count)[:, None].repeat(3, 1), keys, True)
    assert corner_error(view_of(matrices), views, size)[keys].max() < 0.3 and np.abs(gains[keys]).max() < 0.01


def test_errors_do_not_add_up_over_chunks(tmp_path, monkeypatch):
    """There and back in many chunks, with key frames between them: the last frame is where the first one was."""
    monkeypatch.setattr(steps, "CHUNK", 7)
    count, size = 63, 128
    there = np.sin(np.linspace(0, np.pi, count))
    views = np.stack([1.4 * there, 0.2 * there, 0.1 * there, 0 * there], 1)
    gains = 0.1 * there[:, None].repeat(3, 1)
    write_clip(tmp_path, textured(size), size, views, gains)
    found = measured(tmp_path, size, count).camera
    error = corner_error(found[:, :4], views, size)
    assert error[-1] < 0.3 and error.max() < 1.0
    np.testing.assert_allclose(found[:, 4:], gains - gains.mean(0), atol=0.02)


def test_the_exposure_is_found_and_light_on_the_wall_alone_is_none(tmp_path):
    gains = 0.1 * np.sin(6 * T)[:, None] + 0.02 * T[:, None] * [1, 0, -1]
    scene = textured(128)
    for folder, face_too in (("camera", True), ("lamp", False)):
        write_clip(tmp_path / folder, scene, 128, np.zeros((COUNT, 4)), gains, face_too)
    found = measured(tmp_path / "camera", 128, COUNT)
    assert not found.camera[:, :4].any()
    np.testing.assert_allclose(found.camera[:, 4:], gains - gains.mean(0), atol=0.01)
    assert not measured(tmp_path / "lamp", 128, COUNT).camera.any()


def test_views_and_matrices_are_the_same_thing():
    rng = np.random.default_rng(0)
    views = rng.normal(0, 0.3, (50, 4))
    np.testing.assert_allclose(view_of(view_matrix(views)), views, atol=1e-9)
    np.testing.assert_allclose(to_canvas(np.zeros(4), 100, 12), [[1, 0, 12], [0, 1, 12]], atol=1e-9)
    margin, cut = canvas_margin(views / 10, 100)
    corners = np.array([[-0.5, -0.5, 1], [99.5, -0.5, 1], [-0.5, 99.5, 1], [99.5, 99.5, 1]]).T
    reached = (to_canvas(views / 10, 100, margin) @ corners)
    assert not cut and reached.min() >= -0.5 - 1e-9 and reached.max() <= 99.5 + 2 * margin + 1e-9
    assert min(reached.min() + 0.5, 99.5 + 2 * margin - reached.max()) < 4, "no larger than it must be"
    assert canvas_margin(np.array([[0, 0, -2.0, 0]]), 100) == (48, True)


# ---- the plate

def test_the_plate_holds_what_all_frames_saw(tmp_path):
    size, views = 96, MOTIONS["pan beyond the first view"] - MOTIONS["pan beyond the first view"].mean(0)
    scene, gains = textured(size), 0.1 * np.sin(9 * T)[:, None].repeat(3, 1)
    margin, _ = canvas_margin(views, size)
    total = plate.PlateSum(size + 2 * margin)
    for i, (view, gain) in enumerate(zip(views, gains)):
        image = seen(scene, size, view, gain)
        total.add(image, person(image, i), np.concatenate([view, gain]))
    made, uncovered = plate.clean_plate([total.sums()])
    around = size - margin
    truth = scene[around:len(scene) - around, around:len(scene) - around]
    # beyond the first view on both sides, up to where the last frames saw it; the middle rows of the scene hide nothing
    row = slice(margin + 4, margin + 12)
    assert margin > size // 4
    assert np.abs(made[row, 6:-6] - truth[row, 6:-6]).mean() < 3
    assert 0.4 < uncovered < 1


# ---- the layer

@pytest.fixture(scope="module")
def layers(tiny_dataset):
    """The torso layer of the tiny clip, and the same one for a camera that moves."""
    still = fit_torso(tiny_dataset, Frames(tiny_dataset, tiny_dataset.train_ids, torch.device("cpu")), steps=40)
    moving = Torso.blank(tiny_dataset.size, len(tiny_dataset), 0)
    state = still.state_dict() | {"margin": torch.tensor(0), "lens": torch.tensor(4.0)}
    moving.load_state_dict(state | {"codes": torch.cat([still.codes, torch.zeros(len(tiny_dataset), 4)], 1)})
    return still, moving


def test_the_reference_view_is_what_a_still_camera_sees(layers, tiny_dataset):
    still, moving = layers
    poses = torch.from_numpy(tiny_dataset.w2c)
    assert still.views is None and torch.equal(moving.codes_of(poses)[:, :CODES], still.codes_of(poses))
    torch.testing.assert_close(moving(moving.codes), still(still.codes), atol=2e-5, rtol=0)
    for one, other in zip(moving.cut_out(moving.codes), still.cut_out(still.codes)):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


def test_a_view_moves_torso_and_plate_alike(layers):
    still, moving = layers
    view = np.array([0.1, -0.06, 0.12, 0.05])
    code = torch.cat([still.codes[3], torch.from_numpy(view).float()])[None]
    size = still.size
    px = pixels(size) @ view_matrix(view) @ np.linalg.inv(pixels(size))
    inner = slice(size // 6, -(size // 6))
    for seen_now, before in ((moving(code)[0], still(still.codes[3:4])[0]),
                             (moving.scene(code)[0].permute(1, 2, 0), still.clean_plate().permute(1, 2, 0))):
        expected = cv2.warpAffine(before.numpy(), px[:2], (size, size))
        assert np.abs(expected - before.numpy())[inner, inner].mean() > 5e-3
        assert np.abs(expected - seen_now.numpy())[inner, inner].mean() < 2e-3
    colour, opacity = moving.cut_out(code)
    plate_seen = moving.scene(code).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.lerp(plate_seen, colour, opacity), moving(code), atol=1e-5, rtol=0)


def test_the_pose_of_a_head_does_not_depend_on_the_view(layers):
    """A head that stays where it is, as a camera sees it that zooms, pans and rolls."""
    _, moving = layers
    pose = torch.eye(4)[None].repeat(5, 1, 1)
    pose[:, :3, 3] = torch.tensor([0.3, -0.2, 9.0])
    views = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (5, 4))).float()
    seen_as = pose.clone()
    matrices = torch.from_numpy(view_matrix(views.numpy())).float()
    place = moving.lens * pose[:, :2, 3] / pose[:, 2:3, 3]
    place = (matrices @ torch.cat([place, torch.ones(5, 1)], 1)[..., None])[:, :2, 0]
    depth = pose[:, 2, 3] / views[:, 2].exp()
    roll = torch.eye(3).repeat(5, 1, 1)
    roll[:, :2, :2] = matrices[:, :2, :2] / views[:, 2].exp()[:, None, None]
    seen_as[:, :3, :3] = roll @ pose[:, :3, :3]
    seen_as[:, :3, 3] = torch.cat([place * depth[:, None] / moving.lens, depth[:, None]], 1)
    torch.testing.assert_close(moving.steadied(seen_as, views), pose, atol=1e-4, rtol=1e-4)


# ---- datasets and runs

def test_a_dataset_of_a_moving_camera_is_read_and_an_earlier_one_stays_as_it_is(tiny_dataset, moving_dataset, tmp_path):
    ds = moving_dataset
    assert not tiny_dataset.camera.any() and tiny_dataset.camera.shape == (len(ds), 7)
    assert tiny_dataset.plate.shape == tiny_dataset.canvas.shape and not tiny_dataset.exposes
    assert ds.exposes and len(ds.canvas) > ds.size == len(ds.plate) and ds.hash != tiny_dataset.hash
    np.testing.assert_array_equal(ds.plate, tiny_dataset.plate)
    given = Frames(ds, [1], torch.device("cpu")).batch([1])["frame"][0]
    np.testing.assert_allclose(given, (ds.frame(1) / 255 / ds.gains[1]).clip(0, 1), atol=1e-5)
    copy = shutil.copytree(ds.root, tmp_path / "copy")
    shutil.copy(tiny_dataset.root / "tracking.npz", copy / "tracking.npz")
    with pytest.raises(DatasetError, match="64 x 64"):
        egs.load_dataset(copy).plate  # noqa: B018 a still camera has no margin


def test_the_layer_follows_the_camera(moving_dataset, tmp_path):
    ds = moving_dataset
    copy = shutil.copytree(ds.root, tmp_path / "copy")
    with np.load(copy / "tracking.npz") as file:
        np.savez(copy / "tracking.npz", **{name: file[name] for name in file if name != "camera"})
    cv2.imwrite(str(copy / "background.png"), ds.plate[..., ::-1])
    ignored = egs.load_dataset(copy)
    errors = []
    for data in (ds, ignored):
        torso = fit_torso(data, Frames(data, data.train_ids, torch.device("cpu")), steps=100)
        errors.append([np.mean([outside(torso, data, i) for i in ids]) for ids in (data.train_ids, data.val_ids)])
    assert (np.array(errors[0]) < 0.6 * np.array(errors[1])).all()


def test_a_head_of_a_moving_camera_is_trained_loaded_and_rendered(moving_dataset, tmp_path):
    from egstalker_nb.live.idle_motion import BREATH_LIFT, IdleMotion
    from egstalker_nb.notebook.widgets.orbit import Viewer
    from egstalker_nb.rendering.backdrop import Backdrop
    from egstalker_nb.rendering.inspection import render_frames
    from egstalker_nb.rendering.live_motion import LiveMotion
    from egstalker_nb.rendering.renderer import Renderer
    from egstalker_nb.rendering.script import replay_script
    from egstalker_nb.web.page_data import clip_tensors, torso_tensors

    ds = moving_dataset
    cfg = egs.load_config("quick_test", iterations=6, coarse_iterations=4, batch_size=2, pose_steps=2,
                          plane_resolution=[8, 16])
    run = egs.load_run(egs.train(ds, cfg, tmp_path / "run", device="cpu").root)
    renderer = Renderer.from_run(run, device="cpu")
    torso = renderer.head.torso
    np.testing.assert_array_equal(torso.views.numpy(), ds.views)  # also after the poses were refined
    script = replay_script(renderer, "all")
    frames = renderer.render_frames(script).astype(float) / 255
    for i, (frame, wrong) in enumerate(zip(frames, frames[::-1])):
        behind = ds.mask(i)[..., 2] == 255
        error, other = (np.abs(image - ds.frame(i) / 255)[behind].mean() for image in (frame, wrong))
        assert error < 0.015, "plate, view and exposure"
        assert other > 1.5 * error or abs(i - len(ds) / 2) < 2
    np.testing.assert_allclose(render_frames(renderer, range(len(ds))) / 255, frames, atol=2 / 255)
    green = renderer.render_frames(script, Backdrop(np.full((ds.size, ds.size, 3), (0, 255, 0), np.uint8)))
    # the hair of so little training may faintly reach the first row
    plain = torch.tensor([0.0, 1.0, 0.0]).expand(len(ds), ds.size, ds.size, 3)
    over, alpha = (x[:, 0].numpy() for x in renderer.batch(renderer.conditions_of(script), plain))
    bare = alpha[..., 0] < 1e-3
    assert (green[:, 0][bare] == (0, 255, 0)).all() and bare.mean() > 0.9, "another background stands still"
    np.testing.assert_allclose(green[:, 0] / 255, over, atol=1 / 255)
    assert egs.evaluate(run, "val", device="cpu")["psnr_composite"] > 10
    assert clip_tensors(renderer)["torso.codes"].shape == (len(ds), CODES + 4) and len(torso_tensors(renderer)) == 4
    for behind in ("torso", "plate", "plain"):
        assert Viewer(renderer, 48).set_script(script).picture(behind=behind).shape == (48, 48, 3)
    # a live head stands before a background that does: it must not move as the clip's camera does
    motion = IdleMotion(renderer, 0)
    live = [motion.script(i, np.zeros((16, 29), np.float32), 0.0) for i in range(100)]
    depth = np.array([part.w2c[0, 2, 3] for part in live])
    assert np.ptp(depth) < 0.3 * np.ptp(renderer.w2c[:, 2, 3]) and live[0].source is None
    clip = LiveMotion(renderer, "cycle", 0)
    given = [clip.script(i, np.zeros((16, 29), np.float32), 0.0) for i in range(100)]
    steady = np.concatenate([renderer.steady(part.w2c, part.source) for part in given])
    breath = 2 * BREATH_LIFT * depth.mean()
    known = renderer.steady(renderer.w2c, np.arange(len(ds)))[:ds.num_train, 2, 3]
    expected = steady[:, 2, 3].clip(known.min(), known.max())
    assert np.abs(depth - expected)[80:].max() < breath + 0.05 * np.ptp(known) < 0.5 * np.ptp(known)


def test_the_report_says_how_still_the_camera_was(tmp_path):
    from egstalker_nb.preparation.quality import QUALITY_CHECKS, camera_report

    check, text, _ = QUALITY_CHECKS["camera"]
    reports = []
    plain = np.full((SCENE * 96, SCENE * 96, 3), 99, np.float32)
    for name, scene, views in (("still", textured(96), np.zeros((COUNT, 4))),
                               ("zoom", textured(96), MOTIONS["zoom in"]), ("wall", plain, MOTIONS["zoom in"])):
        write_clip(tmp_path / name, scene, 96, views)
        reports.append({"camera": json.loads(json.dumps(camera_report(measured(tmp_path / name, 96, COUNT), 96, 0)))})
    assert [word in text(report) for word, report in zip(("still", "zooms 0.8", "too little texture"), reports)] == [
        True] * 3
    assert not any(list(check(report)) for report in reports) and not list(check({}))
    assert "canvas" not in text(reports[0]) and list(check({"camera": {"cut": True}}))
