"""Renders, offsets and projections of given frames, as arrays for figures and panels."""
from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..face.expression import LOWER
from ..face.landmarks import LIP_MARGIN, LIPS, rectangles
from ..rasterizer import rasterize
from .renderer import Renderer

MIN_OPACITY = 0.02  # accumulated opacity below which a pixel has no value


def render_frames(renderer: Renderer, ids: Sequence[int], batch: int = 8) -> np.ndarray:
    """Render frames of the clip over torso and background.

    Args:
        renderer: of the head.
        ids: frame numbers.
        batch: frames rendered at a time.

    Returns:
        [len(ids), S, S, 3] uint8.
    """
    ids, out = list(ids), []
    frames = Frames(renderer.ds, ids, renderer.device, place="disk").for_head(renderer.head)
    for begin in range(0, len(ids), batch):
        part = ids[begin:begin + batch]
        given = frames.batch(part)
        rgb, _ = renderer.batch(frames.conditions(given["ids"]), given["background"])
        out.append((renderer.exposed(rgb, part) * 255).round().byte().cpu().numpy())
    return np.concatenate(out)


def ground_truth(ds: Dataset, ids: Sequence[int]) -> np.ndarray:
    """The clip's own frames, [len(ids), S, S, 3] uint8."""
    return np.stack([ds.frame(i) for i in ids])


def project_points(ds: Dataset, w2c: np.ndarray, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Project points into the image of a frame.

    Args:
        ds: the clip, for its intrinsics.
        w2c: [4, 4] pose of the frame.
        points: [N, 3] head frame.

    Returns:
        [N, 2] px and [N] depth, head units.
    """
    camera = points.detach().cpu().numpy() @ w2c[:3, :3].T + w2c[:3, 3]
    return ds.focal * camera[:, :2] / camera[:, 2:] + ds.size / 2, camera[:, 2]


@torch.no_grad()
def offsets(renderer: Renderer, ids: Sequence[int]) -> dict[str, Tensor]:
    """Predicted offsets of all N Gaussians in frames `ids`: means [B, N, 3] and so on, see `Deformation.decode`."""
    return renderer.head.offsets(renderer.conditions(ids))


@torch.no_grad()
def render_values(renderer: Renderer, i: int, values: Tensor) -> np.ndarray:
    """Render values of the canonical Gaussians in place of their colours.

    Args:
        renderer: of the head.
        i: frame of the clip, for its pose.
        values: [N, D] several values per Gaussian.

    Returns:
        [S, S, D] float32 averages over the Gaussians of a pixel, NaN outside the head.
    """
    head, ds, count = renderer.head, renderer.ds, values.shape[1]
    splats, K, w2c = head.activated(None, 1), renderer.K[None, None], head.w2c[i][None, None]
    out = np.empty((ds.size, ds.size, count), np.float32)
    for first in range(0, count, 3):  # both rasterisers are fastest with three channels
        three = values[:, first:first + 3].to(renderer.device)
        colors = torch.nn.functional.pad(three, (0, 3 - three.shape[1]))[None]
        rgb, alpha, _ = rasterize(*splats._replace(colors=colors), w2c, K, ds.size, ds.size)
        image, opacity = rgb[0, 0].cpu().numpy(), alpha[0, 0].cpu().numpy()
        mean = np.where(opacity > MIN_OPACITY, image / np.maximum(opacity, MIN_OPACITY), np.nan)
        out[..., first:first + 3] = mean[..., :three.shape[1]]
    return out


def crop(image: np.ndarray, window: Sequence[float], aspect: float, width: int = 180) -> np.ndarray:
    """Crop a window of an image and resize it.

    Args:
        image: [H, W, 3] uint8.
        window: centre x, y and width, px.
        aspect: width over height.
        width: of the crop after resizing, px.

    Returns:
        [width / aspect, width, 3] uint8.
    """
    height, scale = round(width / aspect), width / window[2]
    half = (scale - 1) / 2  # OpenCV has pixel centres at integers
    affine = np.array([[scale, 0, width / 2 - scale * window[0] + half],
                       [0, scale, height / 2 - scale * window[1] + half]], np.float32)
    return cv2.warpAffine(image, affine, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def crop_mouth(image: np.ndarray, rect: np.ndarray, edge: int = 128) -> np.ndarray:
    """Crop a square around the mouth.

    Args:
        image: [H, W, 3] uint8.
        rect: lip rectangle x0, y0, x1, y1, px.
        edge: of the crop after resizing, px.

    Returns:
        [edge, edge, 3] uint8.
    """
    width = 1.2 * max(rect[2] - rect[0], rect[3] - rect[1], 4)
    return crop(image, ((rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2, width), 1.0, edge)


def lip_rects(ds: Dataset, w2c: np.ndarray) -> np.ndarray:
    """Lip rectangles [F, 4] (x0, y0, x1, y1) px, end exclusive, of the mean face in poses w2c [F, 4, 4]."""
    face = torch.from_numpy(ds.mean_face)
    return rectangles(np.stack([project_points(ds, pose, face)[0] for pose in w2c]), LIPS, LIP_MARGIN, ds.size)


def mean_faces(renderer: Renderer, coefficients: Tensor) -> np.ndarray:
    """Frontal mean face with mouth coefficients [F, 8]: [F, 478, 2] head units, x right, y down."""
    faces = np.repeat(renderer.ds.mean_face[None, :, :2], len(coefficients), 0)
    shapes = renderer.head.mouth.decode(coefficients).cpu().numpy()
    faces[:, LOWER] += shapes.reshape(len(coefficients), len(LOWER), 2)
    return faces
