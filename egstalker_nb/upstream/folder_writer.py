"""`egs.export_dataset`: a folder as EGSTalker, GaussianTalker and ER-NeRF train from, written from a dataset."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import (
    atomic_folder,
    foreign_files,
    make_folder,
    shortened,
    write_bytes,
    write_json,
    write_npy,
    write_text,
)
from ..core.progress import progress
from ..data.dataset import Dataset
from ..data.dataset_files import AUDIO_FILE
from ..media.image_io import write_jpeg, write_png
from .pose_convention import FLIP, to_euler_trans, transform_matrices

#: MediaPipe landmarks at the places of the 68 of the iBUG annotation: jaw, brows, nose, eyes, outer and inner lips
LANDMARKS_68 = np.array([
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
])
#: RGB of head, torso and background in `parsing/`: the programs compare BGR as OpenCV loads it with (255, 0, 0) for the
#: head, so that it is blue in the file
PARSING = np.array([[0, 0, 255], [255, 0, 0], [255, 255, 255]], np.uint8)
#: counts as torso here
NECK = np.array([0, 255, 0], np.uint8)
#: the AU45_r of closed eyes: upstream clips the column to 0...2 and divides it by 2
CLOSED_AU = 2.0


def new_folder(out: str | Path) -> Path:
    """Check that a folder to write is new or empty, and make its parent.

    Raises:
        InputError: a file, or a folder with something in it.
        StorageError: it cannot be made.
    """
    out = Path(out)
    make_folder(out.parent)
    if out.is_file() or foreign_files(out):
        raise InputError("a new or empty folder to write to", f"'{shortened(out)}', which is neither",
                         "Choose another name.")
    return out


def export_dataset(ds: Dataset, out: str | Path) -> Path:
    """Write a dataset as a folder that EGSTalker, GaussianTalker and ER-NeRF read; `docs/upstream_data.md` has the
    conventions of each file.

    Args:
        ds: the dataset.
        out: the folder to write, new or empty.

    Returns:
        the folder.

    Raises:
        InputError: the folder is not empty.
        DatasetError: an image of the dataset is damaged.
        StorageError: the folder cannot be written.
    """
    out = new_folder(out)
    with atomic_folder(out) as folder:
        for name in ("ori_imgs", "parsing", "torso_imgs", "gt_imgs"):
            (folder / name).mkdir()
        write_jpeg(folder / "bc.jpg", ds.plate, quality=100)
        for i in progress(range(len(ds)), "export"):
            _write_frame(ds, i, folder)
        write_bytes(folder / "aud.wav", (ds.root / AUDIO_FILE).read_bytes())
        write_npy(folder / "aud_ds.npy", ds.features)
        rows = [f"{i + 1},{i / ds.fps:.3f},{CLOSED_AU * blink:.6f}" for i, blink in enumerate(ds.blink)]
        write_text(folder / "au.csv", "\n".join(["frame,timestamp,AU45_r", *rows, ""]))
        _write_poses(ds, folder)
        os.sync()  # the images, before the folder gets its name; one by one, each would wait for the disk
    return out


def _write_frame(ds: Dataset, i: int, folder: Path) -> None:
    """Images and landmarks of one frame."""
    image, part = ds.frame(i), ds.mask(i).argmax(axis=2)
    # the same bytes: nothing is lost by encoding again
    (folder / "ori_imgs" / f"{i}.jpg").write_bytes((ds.root / "frames" / f"{i:06d}.jpg").read_bytes())
    points = ds.landmarks[i, LANDMARKS_68, :2]
    (folder / "ori_imgs" / f"{i}.lms").write_text("".join(f"{x:.4f} {y:.4f}\n" for x, y in points), encoding="utf-8")
    write_png(folder / "parsing" / f"{i}.png", PARSING[part])
    shown = np.where((part == 2)[..., None], ds.plate, image)
    write_jpeg(folder / "gt_imgs" / f"{i}.jpg", shown)
    torso = (part == 1)[..., None]
    opaque = np.dstack([image, np.full(part.shape, 255, np.uint8)])
    write_png(folder / "torso_imgs" / f"{i}.png", opaque * torso)


def _write_poses(ds: Dataset, folder: Path) -> None:
    """`track_params.pt` and the two transforms files."""
    import torch

    euler, trans = to_euler_trans(ds.w2c)
    vertices = ds.mean_face[None].astype(np.float64) @ FLIP  # upstream starts from their mean over the first axis
    torch.save({name: torch.from_numpy(values).float() for name, values in (
        ("euler", euler), ("trans", trans), ("vertices", vertices), ("focal", np.array([ds.focal])))},
        folder / "track_params.pt")
    matrices = transform_matrices(ds.w2c)
    for name, ids in (("train", ds.train_ids), ("val", ds.val_ids)):
        write_json(folder / f"transforms_{name}.json", {
            "focal_len": ds.focal, "cx": ds.size / 2, "cy": ds.size / 2,
            "frames": [{"img_id": i, "aud_id": i, "transform_matrix": matrices[i].tolist()} for i in ids]})
