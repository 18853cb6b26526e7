"""Bad input: folders of EGSTalker and its relatives with files missing, damaged, or contradicting each other."""
from __future__ import annotations

import functools
import json
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import torch

import egstalker_nb as egs

from .bad_input import Case
from .made import DATASET


@functools.cache
def _made() -> Path:
    return egs.export_dataset(egs.load_dataset(DATASET), Path(tempfile.mkdtemp()) / "up")


def imported(change: Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    """The command that imports a folder in which something was changed."""
    def command(folder: Path) -> list[Any]:
        change(shutil.copytree(_made(), folder / "up"))
        return ["import-dataset", "up", "out"]

    return command


def without(name: str) -> Callable[[Path], list[Any]]:
    return imported(lambda up: (up / name).unlink())


def written(name: str, content: bytes) -> Callable[[Path], list[Any]]:
    return imported(lambda up: (up / name).write_bytes(content))


def tracked(**values: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], list[Any]]:
    """Other tensors in track_params.pt."""
    def change(up: Path) -> None:
        params = torch.load(up / "track_params.pt", weights_only=True)
        torch.save({**params, **{name: make(params[name].clone()) for name, make in values.items()}},
                   up / "track_params.pt")

    return imported(change)


def transforms(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], list[Any]]:
    def rewrite(up: Path) -> None:
        content = json.loads((up / "transforms_train.json").read_text())
        change(content)
        (up / "transforms_train.json").write_text(json.dumps(content))

    return imported(rewrite)


def image(name: str, size: int, value: int = 0) -> Callable[[Path], list[Any]]:
    return imported(lambda up: cv2.imwrite(str(up / name), np.full((size, size, 3), value, np.uint8)))


@imported
def blank_frames(up: Path) -> None:
    for path in (up / "ori_imgs").glob("*.jpg"):
        cv2.imwrite(str(path), np.full((64, 64, 3), 90, np.uint8))


def saved(array: np.ndarray) -> Callable[[Path], list[Any]]:
    return imported(lambda up: np.save(up / "aud_ds.npy", array))


def occupied(folder: Path) -> list[Any]:
    shutil.copytree(DATASET, folder / "data")
    (folder / "up").mkdir()
    (folder / "up" / "mine.txt").write_text("mine")
    return ["export-dataset", "data", "up"]


CASES = [
    Case("upstream_no_transforms", without("transforms_train.json"), ("no file", "transforms_train.json")),
    Case("upstream_no_poses", without("track_params.pt"), ("no file", "track_params.pt")),
    Case("upstream_no_frame", without("ori_imgs/3.jpg"), ("ori_imgs/3.jpg", "no such file")),
    Case("upstream_no_mask", without("parsing/3.png"), ("parsing/3.png", "no such file")),
    Case("upstream_no_background", without("bc.jpg"), ("bc.jpg", "no such file")),
    Case("upstream_no_sound", without("aud.wav"), ("aud.wav", "no such file")),
    Case("upstream_pickled_poses", written("track_params.pt", pickle.dumps(Path("x"))), ("track_params.pt", "damaged")),
    Case("upstream_nan_poses", tracked(euler=lambda x: x.index_fill_(0, torch.tensor([2]), float("nan"))),
         ("euler", "nan", "frame 2")),
    Case("upstream_few_poses", tracked(trans=lambda x: x[:5]), ("trans", "[5, 3]")),
    Case("upstream_mixed_split", transforms(lambda content: content["frames"].reverse()), ("img_id", "come first")),
    Case("upstream_shifted_audio", transforms(lambda content: content["frames"][1].update(aud_id=5)), ("aud_id",)),
    Case("upstream_no_img_id", transforms(lambda content: content["frames"][1].pop("img_id")), ("img_id",)),
    Case("upstream_oblong", transforms(lambda content: content.update(cx=40.0)), ("80 x 64 px", "squares")),
    Case("upstream_focal", transforms(lambda content: content.update(focal_len=0.5)), ("focal_len 0.5",)),
    Case("upstream_frame_size", image("bc.jpg", 32), ("64 x 64 px", "32 x 32 px")),
    Case("upstream_mask_colour", image("parsing/0.png", 64, 9), ("parsing/0.png", "[9, 9, 9]")),
    Case("upstream_no_column", written("au.csv", b"frame, AU12_r\n1, 0\n"), ("au.csv", "AU45_r")),
    Case("upstream_few_units", written("au.csv", b"frame, AU45_r\n1, 0\n"), ("au.csv", "12 frames")),
    Case("upstream_text_units", written("au.csv", b"frame, AU45_r\n1, x\n"), ("au.csv", "no number")),
    Case("upstream_hubert", saved(np.zeros((24, 1024), np.float32)), ("HuBERT", "aud_ds.npy")),
    Case("upstream_few_features", saved(np.zeros((5, 16, 29), np.float32)), ("12 frames", "5 frames")),
    Case("upstream_no_face", blank_frames, ("a face in the clip", "none")),
    Case("export_dataset_occupied", occupied, ("new or empty folder",)),
]
