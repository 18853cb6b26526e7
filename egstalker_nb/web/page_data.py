"""Everything of a head that the page needs, as tensors and facts, packed into one string."""
from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save
from torch import Tensor, nn

from ..media.rates import FPS
from ..rendering import motion
from ..rendering.renderer import Renderer
from .distil import DistilledMotion

FIELD = 48  # points of a torso field along each axis, interpolated once more by the graphics card
LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]

Tensors = dict[str, np.ndarray]


def pack(tensors: Tensors, facts: dict[str, Any]) -> str:
    """A safetensors file of the tensors, the facts in its metadata, gzipped, in base64."""
    data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()},
                metadata={"facts": json.dumps(facts)})
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def gaussian_tensors(distilled: DistilledMotion) -> Tensors:
    """Gaussians and their bases; the bases of one value lie side by side."""
    found = {"gaussians.means": distilled.base[:, :3], "gaussians.values": distilled.base[:, 3:].half(),
             "gaussians.bases": distilled.bases.permute(1, 2, 0), "gaussians.steps": distilled.steps}
    for number, layer in enumerate(x for x in distilled.network if isinstance(x, nn.Linear)):
        found[f"motion.{number}.weight"], found[f"motion.{number}.bias"] = layer.weight, layer.bias
    return {name: value.numpy() for name, value in found.items()}


def clip_tensors(renderer: Renderer) -> Tensors:
    """Poses, eyes and torso codes (with the views of a camera that moves) of all frames of the clip, and the eyes
    without blinks."""
    ds = renderer.ds
    return {"clip.w2c": renderer.w2c[:, :3], "clip.eyes": ds.eyes.astype(np.float32),
            "clip.lids": motion.without_blinks(ds.eyes[:, 0]).astype(np.float32), "clip.closed": motion.closed_eyes(ds),
            "torso.codes": renderer.head.torso.codes.cpu().numpy()}


@torch.no_grad()
def torso_tensors(renderer: Renderer) -> Tensors:
    """Fields of the torso, and its images as lossless WebP: colours, opacity with the inside (see `Torso.cut_out`),
    and the plate."""
    torso = renderer.head.torso
    fields = F.interpolate(torso.fields.detach().cpu(), (FIELD, FIELD), mode="bicubic", align_corners=True)
    inside = (torso.inside().cpu() * 255).round().byte()
    picture = torso.picture.cpu()
    opacity = torch.cat([picture[3:], inside, torch.zeros_like(inside)])
    return {"torso.fields": fields.half().numpy(), "image.torso": _webp(picture[:3].permute(1, 2, 0)),
            "image.opacity": _webp(opacity.permute(1, 2, 0)), "image.plate": _webp(torso.plate.cpu())}


def _webp(image: Tensor) -> np.ndarray:
    """[S, S, 3] uint8 RGB -> the bytes of a file, uint8."""
    return cv2.imencode(".webp", np.ascontiguousarray(image.numpy()[..., ::-1]), LOSSLESS)[1].ravel()


def page_facts(renderer: Renderer, title: str) -> dict[str, Any]:
    """What the page must know besides tensors."""
    head, ds = renderer.head, renderer.ds
    return {"title": title, "size": ds.size, "fps": FPS, "ease_frames": motion.EASE_FRAMES, "K": ds.K.tolist(),
            "sh_degree": head.cfg.sh_degree}
