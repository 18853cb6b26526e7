"""Pose refinement: finds the pose of an image, and keeps poses that it cannot improve."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egstalker_nb.data.conditions import Conditions
from egstalker_nb.data.dataset import Dataset
from egstalker_nb.model.audio_link import FeatureLink
from egstalker_nb.model.head import Splats
from egstalker_nb.model.mouth import Mouth
from egstalker_nb.model.torso import Torso
from egstalker_nb.rasterizer import rasterize
from egstalker_nb.training.pose_refinement import moved, refine_poses

SIZE, COUNT = 64, 6


class Clip(SimpleNamespace):
    """As much of a dataset as frames need."""

    packed, exposes = Dataset.packed, False

    def __len__(self):
        return COUNT

    def frame(self, i):
        return self.frames[i]

    def mask(self, i):
        return self.masks[i]


@pytest.fixture(scope="module")
def scene():
    """A head of 400 coloured Gaussians, its true poses, and a clip rendered from it over a grey plate; a test gives the
    head the poses from which the search begins, as they come from the head alone."""
    g = torch.Generator().manual_seed(2)
    points = torch.nn.functional.normalize(torch.randn(400, 3, generator=g), dim=1)
    shapes = {"means": points, "quats": torch.randn(400, 4, generator=g), "scales": torch.full((400, 3), 0.09),
              "opacities": torch.full((400,), 0.9), "colors": torch.randn(400, 1, 3, generator=g)}
    torso = Torso.blank(SIZE, COUNT)
    torso.plate.fill_(128)
    mouth = Mouth(COUNT, FeatureLink())
    head = SimpleNamespace(cfg=SimpleNamespace(sh_degree=0), background=lambda ids: torso(torso.codes[ids]),
                           offsets=lambda given: None,
                           conditions=lambda ids, eyes: Conditions(mouth.coefficients[ids], eyes, head.w2c[ids]),
                           activated=lambda offsets, batch: Splats(**{k: v.expand(batch, *v.shape)
                                                                      for k, v in shapes.items()}))
    w2c = torch.eye(4).repeat(COUNT, 1, 1)
    w2c[:, 2, 3] = 6.0
    w2c = moved(w2c, 0.1 * torch.randn(COUNT, 6, generator=g))
    K = torch.tensor([[130.0, 0, 32], [0, 130, 32], [0, 0, 1]])
    rgb, alpha, _ = rasterize(**shapes, viewmats=w2c, Ks=K.expand(COUNT, 3, 3), width=SIZE, height=SIZE, sh_degree=0)
    pictures = ((rgb + (1 - alpha) * 0.5).clamp(0, 1) * 255).round().byte().numpy()
    head_mask = (alpha * 255).byte().numpy()
    masks = np.concatenate([head_mask, np.zeros_like(head_mask), 255 - head_mask], -1)
    clip = Clip(size=SIZE, K=K, frames=pictures, masks=masks, num_train=COUNT - 2,
                w2c=np.zeros((COUNT, 4, 4), np.float32), eyes=np.zeros((COUNT, 7), np.float32),
                lip_rect=np.tile(np.array([10, 60, 20, 64]), (COUNT, 1)))
    return head, clip, w2c


def pixel_error(clip, poses, true):
    points = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)

    def project(w2c):
        at = points @ w2c[:, :3, :3].transpose(1, 2) + w2c[:, None, :3, 3]
        return 130 * at[..., :2] / at[..., 2:]
    return (project(poses) - project(true)).norm(dim=-1).mean(1)


def test_finds_poses_that_the_tracker_missed_by_a_pixel(scene):
    head, clip, true = scene
    off = moved(true, 0.012 * torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(1)))
    head.w2c = off
    found = torch.from_numpy(refine_poses(head, clip, torch.device("cpu"), steps=4, deform=False))
    before, after = pixel_error(clip, off, true), pixel_error(clip, found, true)
    assert before.mean() > 0.4 and after.mean() < 0.05 and after.max() < 0.2
    rotation = found[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(COUNT, 3, 3), atol=1e-5, rtol=0)


def test_keeps_a_pose_that_no_step_improves(scene):
    """A frame that shows something else keeps what the tracker said."""
    head, clip, true = scene
    head.w2c, frames = true, clip.frames
    clip.frames = np.stack([*frames[:-1], np.full_like(frames[0], 90)])
    found = refine_poses(head, clip, torch.device("cpu"), steps=3, deform=False)
    clip.frames = frames
    assert np.isfinite(found).all() and np.abs(found[-1] - true[-1].numpy())[:2, 3].max() < 0.1
    assert np.abs(found[:-1] - true[:-1].numpy()).max() < 2e-3


def test_lips_and_chin_pull_only_where_the_head_moves_them_as_seen(scene):
    """Below the top of the lip rectangle nothing counts in the coarse stage, and later in validation frames."""
    head, clip, true = scene
    head.w2c, frames, lips = moved(true, torch.full((6,), 0.006)), clip.frames.copy(), clip.lip_rect.copy()
    clip.lip_rect[:, 1], spoilt = 40, clip.frames.copy()
    spoilt[:, 40:] = 255 - spoilt[:, 40:]
    found = {}
    for stage in "coarse", "fine":
        for name, clip.frames in {"clean": frames, "spoilt": spoilt}.items():
            found[stage, name] = refine_poses(head, clip, torch.device("cpu"), steps=2, deform=stage == "fine")
    clip.frames, clip.lip_rect = frames, lips
    np.testing.assert_array_equal(found["coarse", "clean"], found["coarse", "spoilt"])
    seen, heard = slice(clip.num_train), slice(clip.num_train, None)
    np.testing.assert_array_equal(found["fine", "clean"][heard], found["fine", "spoilt"][heard])
    assert (np.abs(found["fine", "clean"] - found["fine", "spoilt"])[seen].max((1, 2)) > 1e-3).all()
