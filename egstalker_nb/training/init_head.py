"""The head that training starts from."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..data.dataset import Dataset
from ..model.audio_windows import WindowedMouth
from ..model.deformation import Deformation
from ..model.gaussians import make_gaussians
from ..model.head import Head
from ..model.torso import Torso
from .fit_mouth import fit_mouth


def landmark_colors(ds: Dataset, max_frames: int = 16) -> Tensor:
    """Mean colour at each landmark over some training frames.

    Args:
        ds: the dataset.
        max_frames: at most so many frames, evenly spread.

    Returns:
        [478, 3] float32 0...1.
    """
    ids = np.linspace(0, ds.num_train - 1, min(max_frames, ds.num_train)).astype(int)
    total = np.zeros((ds.mean_face.shape[0], 3))
    for i in ids:
        x, y = np.clip(ds.landmarks[i, :, :2].round().astype(int), 0, ds.size - 1).T
        total += ds.frame(i)[y, x]
    return torch.from_numpy(total / (255 * len(ids))).float()


def new_head(ds: Dataset, cfg: Config) -> Head:
    """The head that training starts from: a Gaussian at each landmark of the mean face, coloured by the frames; tracked
    poses; the fitted mouth; a blank torso layer.

    Args:
        ds: the dataset.
        cfg: sizes of the network and degree of the spherical harmonics.

    Returns:
        the head on the CPU; it draws random numbers.
    """
    w2c = torch.from_numpy(ds.w2c).clone()
    train = w2c[:ds.num_train]
    pose = torch.cat([train[:, :3, :3].flatten(1), train[:, :3, 3]], 1)
    face = torch.from_numpy(ds.mean_face)
    gaussians = make_gaussians(face, landmark_colors(ds), cfg.sh_degree)
    network = Deformation(cfg, pose.mean(0), pose.std(0).clamp_min(1e-2), face)
    mouth = fit_mouth(ds, cfg.prior)
    if cfg.audio_token == "features":
        mouth = WindowedMouth.of(mouth, torch.from_numpy(ds.features))
    return Head(cfg, gaussians, network, mouth, Torso.blank(ds.size, len(ds)), w2c)
