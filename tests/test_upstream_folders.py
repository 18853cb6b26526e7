"""Protects: folders that EGSTalker and its relatives train from go in and out, and lose nothing that both know."""
import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import egstalker_nb as egs
from egstalker_nb.upstream import pose_convention
from egstalker_nb.upstream.folder_reader import read_folder

RNG = np.random.default_rng(3)


def head_poses(count: int) -> np.ndarray:
    """Heads turned by up to 60 degrees about each axis, in view."""
    euler = RNG.uniform(-1, 1, (count, 3))
    return pose_convention.from_euler_trans(euler, np.c_[RNG.uniform(-1, 1, (count, 2)), RNG.uniform(-12, -4, count)])


def program_rotation(euler: np.ndarray) -> np.ndarray:
    """The rotation that the upstream programs make of three angles, written out."""
    (a, b, c), (x, y, z) = np.cos(euler), np.sin(euler)
    return np.array([[1, 0, 0], [0, a, -x], [0, x, a]]) @ [[b, 0, y], [0, 1, 0], [-y, 0, b]] @ [[c, z, 0], [-z, c, 0],
                                                                                               [0, 0, 1]]


def test_poses_project_as_upstream():
    """x to the right and y down in the image, of a point in the axes of each."""
    euler, trans = RNG.uniform(-1, 1, 3), np.array([0.4, -0.3, -7.0])
    point = RNG.normal(size=3)
    x, y, z = program_rotation(euler) @ point + trans
    w2c = pose_convention.from_euler_trans(euler[None], trans[None])[0]
    ours = w2c[:3, :3] @ (point * [1, -1, -1]) + w2c[:3, 3]
    np.testing.assert_allclose(ours[:2] / ours[2], [-x / z, y / z])  # as the face tracker projects
    assert ours[2] > 0


def test_poses_round_trip():
    w2c = head_poses(50)
    turn = w2c[:, :3, :3]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    assert (np.linalg.det(turn) > 0).all()
    np.testing.assert_allclose(pose_convention.from_euler_trans(*pose_convention.to_euler_trans(w2c)), w2c, atol=1e-12)
    matrices = pose_convention.transform_matrices(w2c)
    euler, trans = pose_convention.to_euler_trans(w2c)
    for matrix, angles, shift in zip(matrices, euler, trans):  # as upstream's data preparation computes it
        rotation = program_rotation(angles)
        np.testing.assert_allclose(matrix[:3], np.c_[rotation.T, -rotation.T @ shift / 10], atol=1e-12)


def test_alignment_finds_another_head_frame():
    wanted, other = head_poses(20), head_poses(1)[0]
    scale, given = 2.5, wanted.copy()
    given[:, :3, :3] = wanted[:, :3, :3] @ other[:3, :3]
    given[:, :3, 3] = (wanted[:, :3, 3] + wanted[:, :3, :3] @ [0.1, 0.2, -0.3]) / scale
    np.testing.assert_allclose(pose_convention.align(given, wanted), wanted, atol=1e-9)
    assert pose_convention.rotation_difference(given, wanted).min() > 1


@pytest.fixture(scope="module")
def exported(tiny_dataset, tmp_path_factory):
    return egs.export_dataset(tiny_dataset, tmp_path_factory.mktemp("upstream") / "folder")


def test_export_reads_as_upstream_does(exported, tiny_dataset):
    """Read as the upstream program reads it: OpenCV's order of colours, and the columns that it takes."""
    ds, n = tiny_dataset, len(tiny_dataset)
    params = torch.load(exported / "track_params.pt", weights_only=True)
    assert params["euler"].shape == params["trans"].shape == (n, 3) and params["focal"].tolist() == [ds.focal]
    assert params["vertices"].shape == (1, 478, 3)
    with open(exported / "au.csv") as file:
        eyes = np.array([float(row["AU45_r"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(np.clip(eyes, 0, 2) / 2, ds.blink, atol=1e-5)
    assert np.load(exported / "aud_ds.npy").shape == (n, 16, 29)
    frames = [json.loads((exported / f"transforms_{name}.json").read_text())["frames"] for name in ("train", "val")]
    assert [[frame["img_id"] for frame in part] for part in frames] == [list(ds.train_ids), list(ds.val_ids)]
    for i in (0, n - 1):
        part = ds.mask(i).argmax(2)
        seg = cv2.imread(str(exported / "parsing" / f"{i}.png"))
        for k, colour in enumerate(([255, 0, 0], [0, 0, 255], [255, 255, 255])):
            np.testing.assert_array_equal((seg == colour).all(2), part == k)
        torso = cv2.imread(str(exported / "torso_imgs" / f"{i}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(torso[..., 3] == 255, part == 1)
        assert np.loadtxt(exported / "ori_imgs" / f"{i}.lms").shape == (68, 2)


@pytest.fixture(scope="module")
def face_dataset(sample_clip, tmp_path_factory):
    """Six frames of a real face, as a dataset of the sizes and shapes of the tiny one."""
    from egstalker_nb.media.video_reader import read_frames

    root = tmp_path_factory.mktemp("face") / "dataset"
    shutil.copytree(Path(__file__).parent / "data" / "formats" / "dataset_1", root)
    ds = egs.load_dataset(root)
    for i, image in enumerate(read_frames(sample_clip, stop=len(ds))):
        side = min(image.shape[:2])
        square = cv2.resize(image[:side, :side], (ds.size, ds.size), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(root / "frames" / f"{i:06d}.jpg"), square[..., ::-1])
    return ds


def test_round_trip(face_dataset, tmp_path):
    ds = face_dataset
    folder = egs.export_dataset(ds, tmp_path / "folder")
    table = (folder / "au.csv").read_text().replace(",AU45_r", ", AU45_r")  # as OpenFace writes it
    (folder / "au.csv").write_text(table)
    np.save(folder / "aud_ds.npy", ds.features[:-1])  # as the usual extractors leave it
    back = egs.import_dataset(folder, tmp_path / "back")
    assert (len(back), back.size, back.num_train, back.focal) == (len(ds), ds.size, ds.num_train, ds.focal)
    np.testing.assert_allclose(read_folder(folder).w2c, ds.w2c, atol=1e-5)
    np.testing.assert_array_equal(back.features[:-1], ds.features[:-1])
    np.testing.assert_allclose(back.blink, ds.blink, atol=1e-6)
    np.testing.assert_array_equal(back.audio(), ds.audio())
    assert np.abs(back.plate.astype(int) - ds.plate).max() < 8
    for i in range(len(ds)):
        np.testing.assert_array_equal(back.frame(i), ds.frame(i))
        np.testing.assert_array_equal(back.mask(i).argmax(2), ds.mask(i).argmax(2))
    assert back.found.all() and np.median(back.reprojection) < 1


def test_what_a_folder_lacks_is_computed(face_dataset, tmp_path):
    folder = egs.export_dataset(face_dataset, tmp_path / "folder")
    (folder / "aud_ds.npy").unlink()
    (folder / "au.csv").unlink()
    with pytest.warns(UserWarning, match="no aud_ds.npy"):
        back = egs.import_dataset(folder, tmp_path / "back")
    assert back.encoder == egs.load_encoder("phones").spec and back.report["warnings"]
