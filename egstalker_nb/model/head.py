"""The talking head: canonical Gaussians, the network that deforms them, the mouth and the torso, as one module."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from ..config import Config
from ..data.conditions import Conditions
from ..rasterizer import rasterize
from ..speech.prior import Prior
from .audio_link import FeatureLink, PriorLink
from .audio_windows import MOUTHS
from .deformation import CAMERA_DIM, Deformation
from .gaussians import make_gaussians
from .mouth import Mouth
from .torso import Torso


class Splats(NamedTuple):
    """Activated Gaussians of B frames, in the order in which `rasterize` takes them.

    Attributes:
        means: [B, N, 3] head frame.
        quats: [B, N, 4] wxyz, of any length.
        scales: [B, N, 3] standard deviations, head units.
        opacities: [B, N] 0...1.
        colors: [B, N, K, 3] spherical harmonics.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


class Head(nn.Module):
    """A talking head: canonical Gaussians, their deformation, the shape model of the mouth, the torso behind them.

    The world is the head's own frame, so moving the head means moving the camera.

    Attributes:
        cfg: the configuration that it is trained with.
        gaussians: a ParameterDict in gsplat's layout (see `make_gaussians`).
        deformation: the network.
        mouth: the shape model of the mouth.
        torso: the layer behind the splats.
        w2c: [N, 4, 4] float32 world-to-camera, OpenCV axes: the poses of the dataset's frames that the head was trained
            on. They begin as tracked (`Dataset.w2c`) and are refined in training; a frame is rendered with these.
    """

    w2c: Tensor

    def __init__(self, cfg: Config, gaussians: nn.ParameterDict, deformation: Deformation, mouth: Mouth, torso: Torso,
                 w2c: Tensor):
        super().__init__()
        self.cfg = cfg
        self.gaussians, self.deformation = gaussians, deformation
        self.mouth, self.torso = mouth, torso
        self.register_buffer("w2c", w2c)

    @classmethod
    def blank(cls, cfg: Config, points: int, frames: int, size: int, encoder: Optional[dict] = None,
              margin: Optional[int] = None) -> Head:
        """A head of the right shapes for loading a checkpoint.

        Args:
            cfg: the configuration that it was trained with.
            points: number of Gaussians.
            frames: of the dataset.
            size: edge of its images, px.
            encoder: spec of the audio encoder of its speaker prior; None: it has none.
            margin: of the canvas of a camera that moves, see `Torso`; None: it is still.
        """
        link = FeatureLink() if encoder is None else PriorLink(Prior(encoder))
        gaussians = make_gaussians(torch.randn(max(points, 4), 3), torch.zeros(max(points, 4), 3), cfg.sh_degree)
        network = Deformation(cfg, torch.zeros(CAMERA_DIM), torch.ones(CAMERA_DIM), torch.zeros(478, 3))
        return cls(cfg, gaussians, network, MOUTHS[cfg.audio_token](frames, link), Torso.blank(size, frames, margin),
                   torch.eye(4).repeat(frames, 1, 1))

    def __len__(self) -> int:
        return len(self.gaussians["means"])

    def spatial(self) -> tuple[Tensor, Tensor]:
        """The frame-independent part of the network; pass it to `render` where many frames follow."""
        return self.deformation.spatial(self.gaussians["means"].detach())

    def activated(self, offsets: Optional[dict[str, Tensor]], batch: int) -> Splats:
        """Gaussians of `batch` frames, activated for the rasteriser (offsets None: the canonical head)."""
        g = self.gaussians
        opacities, sh = self.deformation.attributes(g, self.deformation.triplane)
        raw = {"means": g["means"], "scales": g["scales"], "quats": g["quats"], "opacities": opacities, "sh": sh}
        raw = {k: v.expand(batch, *v.shape) for k, v in raw.items()}
        if offsets is not None:
            raw = {k: v + offsets[k].reshape(v.shape) for k, v in raw.items()}
        return Splats(raw["means"], raw["quats"], raw["scales"].exp(), raw["opacities"].sigmoid(), raw["sh"])

    @torch.no_grad()
    def write_attributes(self) -> None:
        """Write predicted opacities and colours into the Gaussians, for all that reads them there: densification, PLY
        files, figures. Where each has its own, nothing changes."""
        g = self.gaussians
        opacities, sh = self.deformation.attributes(g, self.deformation.triplane)
        for name, value in (("opacities", opacities), ("sh0", sh[:, :1]), ("shN", sh[:, 1:])):
            g[name].copy_(value)

    def conditions(self, ids: Tensor, eyes: Tensor) -> Conditions:
        """The inputs from which frames of the clip are rendered.

        Args:
            ids: [B] int64 their numbers.
            eyes: [B, 7] see `Dataset.eyes`.
        """
        return Conditions(self.mouth.of_frames(ids), eyes, self.w2c[ids])

    def background(self, ids: Tensor) -> Tensor:
        """What lies behind the splats in frames [B] of the clip: torso and plate, [B, S, S, 3] 0...1."""
        return self.torso(self.torso.codes[ids])

    def offsets(self, given: Conditions, spatial: Optional[tuple[Tensor, Tensor]] = None) -> dict[str, Tensor]:
        """Raw offsets of B frames, see `Deformation.decode`; `spatial` saves time where many batches follow."""
        net = self.deformation
        return net.decode(spatial or self.spatial(), net.tokens(given))

    def splat(self, offsets: Optional[dict[str, Tensor]], w2c: Tensor, K: Tensor, size: int,
              background: Optional[Tensor] = None, isect_capacity: Optional[int] = None) -> tuple[Tensor, Tensor, dict]:
        """Render B frames from their offsets (None: the canonical head).

        Args:
            offsets: see `offsets()`.
            w2c: [B, 4, 4] world-to-camera.
            K: [3, 3] intrinsics, px.
            size: edge of the images, px.
            background: [B, size, size, 3] 0...1, black if None.
            isect_capacity: see `rasterize`.

        Returns:
            rgb [B, size, size, 3] composite (not clamped), alpha [B, size, size, 1], info of the rasteriser.
        """
        batch = len(w2c)
        splats, Ks = self.activated(offsets, batch), K.expand(batch, 1, 3, 3)
        rgb, alpha, info = rasterize(*splats, w2c[:, None], Ks, size, size,
                                     sh_degree=self.cfg.sh_degree, isect_capacity=isect_capacity,
                                     backgrounds=None if background is None else background[:, None])
        return rgb.squeeze(1), alpha.squeeze(1), info

    def render(self, given: Conditions, K: Tensor, size: int, background: Optional[Tensor] = None, deform: bool = True,
               spatial: Optional[tuple[Tensor, Tensor]] = None,
               isect_capacity: Optional[int] = None) -> tuple[Tensor, Tensor, dict]:
        """`splat` of the `offsets` of B frames; deform=False renders the canonical head, as the coarse stage does."""
        offsets = self.offsets(given, spatial) if deform else None
        return self.splat(offsets, given.w2c, K, size, background, isect_capacity)

    @torch.no_grad()
    def attention(self, given: Conditions) -> Tensor:
        """Attention of each Gaussian on each token, mean over attention heads: [B, N, 4], rows sum to 1."""
        esaa = self.deformation.attention
        weights, _ = esaa.token_weights(self.deformation.tokens(given))  # [B, heads, 3M, T]
        return self.spatial()[1] @ weights.flatten(1, 2) / esaa.heads
