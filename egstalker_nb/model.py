"""The talking head: canonical Gaussians and the network that deforms them by audio, eyes and pose.

After EGSTalker: a tri-plane gives each Gaussian a feature; the efficient spatial-audio attention (ESAA) lets it
look at four tokens (audio, eye, camera, null); five heads turn the result into offsets.
"""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import expression
from .config import Config
from .gaussians import make_gaussians
from .mouth import MODES, Mouth
from .rasterizer import rasterize
from .regions import part_landmarks, share_of_parts
from .torso import Torso

TOKENS = ("audio", "eye", "camera", "null")
#: what each part of the face may see of them (see `ESAA`); columns of `share_of_parts`
VIEWS = {"rest": TOKENS, "mouth": ("audio", "null"), "eyes": ("eye", "null")}
CAMERA_DIM = 12     # a rotation matrix and a translation


def keep_scale(module: nn.Module) -> None:
    """Start linear layers so that signals keep their size: with torch's defaults sound reaches the offsets a
    thousand times weaker than position does, and mouths hardly learn to move."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.02)
            nn.init.zeros_(layer.bias)


class TaylorKAN(nn.Module):
    """A Kolmogorov-Arnold layer with cubic Taylor polynomials on its edges: y_j = sum_i sum_k w_jik x_i^k.

    Inputs are squashed by tanh, because a cubic explodes on whatever lies outside the training range.
    """

    def __init__(self, inputs: int, outputs: int, order: int = 3):
        super().__init__()
        self.order = order
        self.weights = nn.Linear(inputs * order, outputs)  # its bias is the k = 0 term
        keep_scale(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x)
        powers = [x]
        for _ in range(self.order - 1):
            powers.append(powers[-1] * x)
        return self.weights(torch.cat(powers, -1))


class TriPlane(nn.Module):
    """Features of points: three planes at several resolutions, multiplied over the planes, joined over resolutions."""

    AXES = (slice(0, 2), slice(0, 3, 2), slice(1, 3))  # xy, xz, yz; as slices, which CUDA graphs can capture

    def __init__(self, resolutions: tuple, channels: int, bounds: float):
        super().__init__()
        self.bounds = bounds
        self.planes = nn.ParameterList(
            [nn.Parameter(torch.empty(3, channels, r, r).uniform_(0.5, 1.5)) for r in resolutions])

    def forward(self, points: Tensor) -> Tensor:
        """points [N, 3] head frame -> [N, channels * resolutions]."""
        x = (points / self.bounds).nan_to_num()  # NaN crashes grid_sample's backward; the training guard reports it
        grid = torch.stack([x[:, axes] for axes in self.AXES])[:, :, None]  # [3, N, 1, 2]
        levels = []
        for planes in self.planes:
            xy, xz, yz = F.grid_sample(planes, grid, align_corners=True, padding_mode="border")[..., 0]
            levels.append(xy * xz * yz)  # [C, N]; not prod(), whose gradient waits for the device
        return torch.cat(levels).t()


class ESAA(nn.Module):
    """Efficient spatial-audio attention: Gaussians look at agents, agents look at the tokens.

    Every agent comes three times, for the parts of the face (see `VIEWS`): Gaussians of lips, chin and jaw see the
    audio token only, those of lids and brows the eye token only, all others everything. Eyes and camera tell the
    frames of a short clip apart, so a mouth that sees them learns the clip by heart instead of the sound, and lids
    that hear the sound do not close unless it says so (upstream lets both).

    Agents are learned. Upstream pools them from neighbouring rows of the queries, which depends on the order of the
    Gaussians in memory, and that changes with every densification. With learned agents a Gaussian's weights over
    agents do not depend on the frame either, so a frame costs one small product per head.
    """

    def __init__(self, width: int, heads: int, agents: int):
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.agents = nn.Parameter(torch.randn(heads, agents, self.dim))
        self.out = nn.Linear(width, width)
        hidden = [[0.0 if token in view else -torch.inf for token in TOKENS] for view in VIEWS.values()]
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)
        keep_scale(self)

    def spatial_weights(self, feature: Tensor, parts: Tensor) -> Tensor:
        """Attention of N Gaussians over M agents of each view: feature [N, W], shares of the parts [N, 3] ->
        [N, heads * 3M]; the same for every frame."""
        ask = self.query.weight.unflatten(0, (self.heads, self.dim)).transpose(1, 2) @ self.agents.transpose(1, 2)
        bias = (self.agents @ self.query.bias.reshape(self.heads, self.dim, 1))[..., 0]      # [heads, M]
        scores = feature @ ask.transpose(0, 1).flatten(1) + bias.flatten()                   # one product for all heads
        weights = (scores.unflatten(1, bias.shape) / self.dim ** 0.5).softmax(-1)            # [N, heads, M]
        return (weights[:, :, None] * parts[:, None, :, None]).flatten(1)

    def token_weights(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of agents over tokens: tokens [B, T, W] -> ([B, heads, 3M, T], values [B, heads, T, dim])."""
        b, t, _ = tokens.shape
        key, value = self.key_value(tokens).reshape(b, t, 2, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        scores = self.agents @ key.transpose(2, 3) / self.dim ** 0.5             # [B, heads, M, T]
        return (scores[:, :, None] + self.hidden[:, None]).softmax(-1).flatten(2, 3), value

    def forward(self, feature: Tensor, spatial: Tensor, tokens: Tensor) -> Tensor:
        """Add what Gaussians see to their features [N, W]: spatial [N, heads * 3M], tokens [B, T, W] -> [B, N, W].

        The output layer is applied to what the few agents saw, before the many Gaussians look at them.
        """
        weights, value = self.token_weights(tokens)
        out = self.out.weight.unflatten(1, (self.heads, self.dim)).permute(1, 2, 0)          # [heads, dim, W]
        seen = (weights @ value @ out).flatten(1, 2)                                         # [B, heads * 3M, W]
        return torch.baddbmm((feature + self.out.bias)[None], spatial.expand(len(tokens), -1, -1), seen)


class Deformation(nn.Module):
    """Offsets of every Gaussian for given audio, eyes and camera; zero at the start of the fine stage."""

    def __init__(self, cfg: Config, pose_mean: Tensor, pose_std: Tensor, mean_face: Tensor):
        super().__init__()
        width = cfg.net_width
        for name, landmarks in zip(("mouth_landmarks", "eye_landmarks"), part_landmarks(mean_face)):
            self.register_buffer(name, landmarks)
        self.cfg = cfg
        self.register_buffer("pose_mean", pose_mean)
        self.register_buffer("pose_std", pose_std)
        self.triplane = TriPlane(cfg.plane_resolution, cfg.output_coordinate_dim, cfg.bounds)
        inputs = {"audio": MODES, "eye": len(expression.COLUMNS), "camera": CAMERA_DIM}
        self.encoders = nn.ModuleDict({name: TaylorKAN(n, width) for name, n in inputs.items()})
        self.null = nn.Parameter(torch.zeros(width))
        self.attention = ESAA(width, cfg.num_heads, cfg.num_agents)
        self.outputs = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "sh": 3 * (cfg.sh_degree + 1) ** 2}
        self.trunk = nn.Linear(width, width * len(self.outputs))  # the first layer of all five heads in one product
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in self.outputs.items()})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def tokens(self, mouth: Tensor, eyes: Tensor, w2c: Tensor) -> Tensor:
        """mouth [B, 8], eyes [B, 7], w2c [B, 4, 4] -> [B, 4, W] in the order of `TOKENS`."""
        pose = torch.cat([w2c[:, :3, :3].flatten(1), w2c[:, :3, 3]], 1)
        pose = (pose - self.pose_mean) / self.pose_std
        if self.training and self.cfg.mouth_noise:
            mouth = mouth + self.cfg.mouth_noise * torch.randn_like(mouth)
        null = self.null.expand(len(mouth), -1)
        audio, eye, camera = (self.encoders[name](x) for name, x in zip(TOKENS, (mouth / 2, eyes, pose / 2)))
        if self.training and self.cfg.token_dropout:
            drop = torch.rand(2, len(mouth), 1, device=mouth.device) < self.cfg.token_dropout
            eye, camera = torch.where(drop[0], null, eye), torch.where(drop[1], null, camera)
        return torch.stack([audio, eye, camera, null], 1)

    def spatial(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """What does not depend on the frame: features [N, W] and weights over agents [N, heads * 3M]."""
        feature = self.triplane(means)
        parts = share_of_parts(means, self.mouth_landmarks, self.eye_landmarks)
        return feature, self.attention.spatial_weights(feature, parts)

    def decode(self, spatial: tuple[Tensor, Tensor], tokens: Tensor) -> dict[str, Tensor]:
        """Offsets: means [B, N, 3], scales [B, N, 3], quats [B, N, 4], opacities [B, N, 1], sh [B, N, 3K]."""
        feature, weights = spatial
        # half precision where nothing is learned: a few parts in a thousand of an offset, and half the memory traffic
        with torch.autocast("cuda", torch.bfloat16, enabled=feature.is_cuda and not torch.is_grad_enabled()):
            hidden = F.relu(self.trunk(F.relu(self.attention(feature, weights, tokens))))
            # the five heads in one product, with a few rows of zeros: tensor cores want a multiple of 8
            unused = -sum(self.outputs.values()) % 8
            weight = F.pad(torch.block_diag(*(head.weight for head in self.heads.values())), (0, 0, 0, unused))
            bias = F.pad(torch.cat([head.bias for head in self.heads.values()]), (0, unused))
            values = F.linear(hidden, weight, bias)
        return dict(zip(self.outputs, values.float().split([*self.outputs.values(), unused], -1)))


class Head(nn.Module):
    """A talking head: canonical Gaussians, their deformation, the mouth's shapes and the torso behind them.

    The world is the head's own frame, so moving the head means moving the camera.

    Attributes:
        gaussians: a ParameterDict in gsplat's layout (see `make_gaussians`).
        w2c: [N, 4, 4] float32 world-to-camera, OpenCV axes: the poses of the dataset's frames that the head was trained
            on. They begin as tracked (`Dataset.w2c`) and are refined in training; a frame is drawn with these.
    """

    def __init__(self, cfg: Config, gaussians: nn.ParameterDict, pose_mean: Tensor, pose_std: Tensor,
                 mean_face: Tensor, mouth: Mouth, torso: Torso, w2c: Tensor):
        super().__init__()
        self.cfg = cfg
        self.gaussians = gaussians
        self.deformation = Deformation(cfg, pose_mean, pose_std, mean_face)
        self.mouth, self.torso = mouth, torso
        self.register_buffer("w2c", w2c)

    @classmethod
    def blank(cls, cfg: Config, points: int, frames: int, size: int) -> "Head":
        """A head of the right shapes for a checkpoint of `points` Gaussians, trained on `frames` of `size` px."""
        gaussians = make_gaussians(torch.randn(max(points, 4), 3), torch.zeros(max(points, 4), 3), cfg.sh_degree)
        return cls(cfg, gaussians, torch.zeros(CAMERA_DIM), torch.ones(CAMERA_DIM), torch.zeros(478, 3),
                   Mouth(frames), Torso.blank(size, frames), torch.eye(4).repeat(frames, 1, 1))

    def __len__(self) -> int:
        return len(self.gaussians["means"])

    def spatial(self) -> tuple[Tensor, Tensor]:
        """The frame-independent part of the network; pass it to `render` when many frames follow."""
        return self.deformation.spatial(self.gaussians["means"].detach())

    def shapes(self, offsets: Optional[dict[str, Tensor]], batch: int) -> dict[str, Tensor]:
        """Gaussians of `batch` frames, activated for the rasteriser (offsets None: the canonical head)."""
        g = self.gaussians
        sh = torch.cat([g["sh0"], g["shN"]], 1)                       # [N, K, 3]
        raw = {"means": g["means"], "scales": g["scales"], "quats": g["quats"], "opacities": g["opacities"], "sh": sh}
        raw = {k: v.expand(batch, *v.shape) for k, v in raw.items()}
        if offsets is not None:
            raw = {k: v + offsets[k].reshape(v.shape) for k, v in raw.items()}
        return {"means": raw["means"], "quats": raw["quats"], "scales": raw["scales"].exp(),
                "opacities": raw["opacities"].sigmoid(), "colors": raw["sh"]}

    def offsets(self, mouth: Tensor, eyes: Tensor, w2c: Tensor,
                spatial: Optional[tuple[Tensor, Tensor]] = None) -> dict[str, Tensor]:
        """Raw offsets of B frames, see `Deformation.decode`; `spatial` saves time where many batches follow."""
        net = self.deformation
        return net.decode(spatial or self.spatial(), net.tokens(mouth, eyes, w2c))

    def splat(self, offsets: Optional[dict[str, Tensor]], w2c: Tensor, K: Tensor, size: int,
              background: Optional[Tensor] = None, room: Optional[int] = None) -> tuple[Tensor, Tensor, dict]:
        """Render B frames from their offsets (None: the canonical head).

        Args:
            offsets: see `offsets()`. w2c: [B, 4, 4]. K: [3, 3] px. size: picture edge in px.
            background: [B, size, size, 3] 0...1, black if None. room: see `rasterize`.

        Returns:
            rgb [B, size, size, 3] composite (not clamped), alpha [B, size, size, 1], info of the rasteriser.
        """
        batch = len(w2c)
        rgb, alpha, info = rasterize(**self.shapes(offsets, batch), viewmats=w2c[:, None],
                                     Ks=K.expand(batch, 1, 3, 3), width=size, height=size,
                                     sh_degree=self.cfg.sh_degree, room=room,
                                     backgrounds=None if background is None else background[:, None])
        return rgb.squeeze(1), alpha.squeeze(1), info

    def render(self, mouth: Tensor, eyes: Tensor, w2c: Tensor, K: Tensor, size: int,
               background: Optional[Tensor] = None, deform: bool = True,
               spatial: Optional[tuple[Tensor, Tensor]] = None,
               pose: Optional[Tensor] = None, room: Optional[int] = None) -> tuple[Tensor, Tensor, dict]:
        """`splat` of `offsets`: mouth [B, 8] (see `Mouth`), eyes [B, 7] (see `upper_face`).

        deform=False renders the canonical head, as the coarse stage does. pose [B, 4, 4]: what the network is told
        instead of w2c; a camera outside the clip's range would make it extrapolate.
        """
        offsets = self.offsets(mouth, eyes, w2c if pose is None else pose, spatial) if deform else None
        return self.splat(offsets, w2c, K, size, background, room)

    @torch.no_grad()
    def attention(self, mouth: Tensor, eyes: Tensor, w2c: Tensor) -> Tensor:
        """How much each Gaussian looks at each token, mean over attention heads: [B, N, 4], rows sum to 1."""
        esaa = self.deformation.attention
        weights, _ = esaa.token_weights(self.deformation.tokens(mouth, eyes, w2c))  # [B, heads, 3M, T]
        return self.spatial()[1] @ weights.flatten(1, 2) / esaa.heads
