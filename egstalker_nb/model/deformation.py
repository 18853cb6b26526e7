"""The network that deforms the canonical Gaussians by audio, eyes and pose.

After EGSTalker: a tri-plane gives each Gaussian a feature; the efficient spatial-audio attention (ESAA) lets it attend
to four tokens (audio, eye, camera, null); five heads turn the result into offsets.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..data.conditions import Conditions
from ..face import expression
from ..face.regions import part_landmarks, share_of_parts
from .attributes import OwnAttributes, TriplaneAttributes
from .audio_link import MODES
from .audio_windows import AUDIO_WIDTH, WindowEncoder

TOKENS = ("audio", "eye", "camera", "null")
#: the tokens that each part of the face attends to (see `ESAA`); columns of `share_of_parts`
VIEWS = {"rest": TOKENS, "mouth": ("audio", "null"), "eyes": ("eye", "null")}
CAMERA_DIM = 12     # a rotation matrix and a translation


#: the choices of `Config.token_views`
TOKEN_VIEWS: dict[str, dict[str, tuple[str, ...]]] = {"by part": VIEWS, "all": dict.fromkeys(VIEWS, TOKENS)}


def keep_scale(module: nn.Module) -> None:
    """Initialise linear layers and convolutions so that signals keep their scale: with torch's defaults audio reaches
    the offsets a thousand times weaker than position does, and mouths hardly learn to move."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d)) and layer.bias is not None:
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


class MouthEncoder(TaylorKAN):
    """The audio token of mouth coefficients [B, 8], which get noise of this standard deviation in training."""

    def __init__(self, width: int, noise: float):
        super().__init__(MODES, width)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        return super().forward(x / 2)


def audio_encoder(cfg: Config) -> nn.Module:
    """What makes the audio token of `Conditions.mouth`, see `Config.audio_token`."""
    if cfg.audio_token == "mouth":
        return MouthEncoder(cfg.net_width, cfg.mouth_noise)
    encoder = nn.Sequential(WindowEncoder(), TaylorKAN(AUDIO_WIDTH, cfg.net_width))
    keep_scale(encoder)
    return encoder


class TriPlane(nn.Module):
    """Features of points: three planes at several resolutions, multiplied over planes, concatenated over resolutions.

    Args:
        resolutions: cells along each axis, one set of planes per entry.
        channels: of each plane.
        bounds: half the edge of the cube that the planes cover, head units.
    """

    AXES = (slice(0, 2), slice(0, 3, 2), slice(1, 3))  # xy, xz, yz; as slices, which CUDA graphs can capture

    def __init__(self, resolutions: tuple[int, ...], channels: int, bounds: float):
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
    """Efficient spatial-audio attention (agent attention): Gaussians attend to agents, agents attend to the tokens.

    Every agent comes three times, once for each part of the face (see `TOKEN_VIEWS`). By default Gaussians of lips,
    chin and jaw attend to the audio token only, those of eyelids and brows to the eye token only, all others to all
    tokens. Eyes and camera tell the frames of a short clip apart, so a mouth that attends to them memorises the clip
    instead of learning from audio, and eyelids that attend to audio do not close unless it predicts so (upstream allows
    both).

    Agents are learned. Upstream pools them from neighbouring rows of the queries, which depends on the order of the
    Gaussians in memory, and that changes with every densification step. With learned agents a Gaussian's weights over
    agents do not depend on the frame either, so a frame costs one small product per head.

    Args:
        width: of features and tokens.
        heads: attention heads.
        agents: agents of each view.
        views: see `TOKEN_VIEWS`.
    """

    hidden: Tensor

    def __init__(self, width: int, heads: int, agents: int, views: str = "by part"):
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.agents = nn.Parameter(torch.randn(heads, agents, self.dim))
        self.out = nn.Linear(width, width)
        hidden = [[0.0 if token in view else -torch.inf for token in TOKENS]
                  for view in TOKEN_VIEWS[views].values()]
        self.register_buffer("hidden", torch.tensor(hidden), persistent=False)
        keep_scale(self)

    def spatial_weights(self, feature: Tensor, parts: Tensor) -> Tensor:
        """Attention of N Gaussians over the M agents of each view; the same for every frame.

        Args:
            feature: [N, W].
            parts: [N, 3] share of each Gaussian in the parts of the face, see `share_of_parts`.

        Returns:
            [N, heads * 3M].
        """
        query = self.query.weight.unflatten(0, (self.heads, self.dim)).transpose(1, 2) @ self.agents.transpose(1, 2)
        bias = (self.agents @ self.query.bias.reshape(self.heads, self.dim, 1))[..., 0]      # [heads, M]
        scores = feature @ query.transpose(0, 1).flatten(1) + bias.flatten()                 # one product for all heads
        weights = (scores.unflatten(1, bias.shape) / self.dim ** 0.5).softmax(-1)            # [N, heads, M]
        return (weights[:, :, None] * parts[:, None, :, None]).flatten(1)

    def token_weights(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of agents over tokens.

        Args:
            tokens: [B, T, W].

        Returns:
            weights [B, heads, 3M, T] and values [B, heads, T, dim].
        """
        b, t, _ = tokens.shape
        key, value = self.key_value(tokens).reshape(b, t, 2, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        scores = self.agents @ key.transpose(2, 3) / self.dim ** 0.5             # [B, heads, M, T]
        return (scores[:, :, None] + self.hidden[:, None]).softmax(-1).flatten(2, 3), value

    def forward(self, feature: Tensor, spatial: Tensor, tokens: Tensor) -> Tensor:
        """Add the attended values to the Gaussians' features.

        The output layer is applied to the values of the few agents, before the many Gaussians attend to them.

        Args:
            feature: [N, W].
            spatial: [N, heads * 3M], see `spatial_weights`.
            tokens: [B, T, W].

        Returns:
            [B, N, W].
        """
        weights, value = self.token_weights(tokens)
        out = self.out.weight.unflatten(1, (self.heads, self.dim)).permute(1, 2, 0)          # [heads, dim, W]
        attended = (weights @ value @ out).flatten(1, 2)                                     # [B, heads * 3M, W]
        return torch.baddbmm((feature + self.out.bias)[None], spatial.expand(len(tokens), -1, -1), attended)


class Deformation(nn.Module):
    """Offsets of every Gaussian for given audio, eyes and camera; zero at the start of the fine stage.

    Args:
        cfg: sizes, dropout and noise.
        pose_mean: [12] mean of the training frames' poses (rotation matrix and translation).
        pose_std: [12] their standard deviation.
        mean_face: [478, 3] head frame, tells the parts of the face.
    """

    mouth_landmarks: Tensor
    eye_landmarks: Tensor
    pose_mean: Tensor
    pose_std: Tensor

    def __init__(self, cfg: Config, pose_mean: Tensor, pose_std: Tensor, mean_face: Tensor):
        super().__init__()
        width = cfg.net_width
        for name, landmarks in zip(("mouth_landmarks", "eye_landmarks"), part_landmarks(mean_face)):
            self.register_buffer(name, landmarks)
        self.cfg = cfg
        self.register_buffer("pose_mean", pose_mean)
        self.register_buffer("pose_std", pose_std)
        self.triplane = TriPlane(cfg.plane_resolution, cfg.output_coordinate_dim, cfg.bounds)
        self.encoders = nn.ModuleDict({
            "audio": audio_encoder(cfg), "eye": TaylorKAN(len(expression.UPPER_FACE_COLUMNS), width),
            "camera": TaylorKAN(CAMERA_DIM, width)})
        self.null = nn.Parameter(torch.zeros(width))
        self.attention = ESAA(width, cfg.num_heads, cfg.num_agents, cfg.token_views)
        self.outputs = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "sh": 3 * (cfg.sh_degree + 1) ** 2}
        self.trunk = nn.Linear(width, width * len(self.outputs))  # the first layer of all five heads in one product
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in self.outputs.items()})
        for layer in self.heads.values():
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.attributes = OwnAttributes() if cfg.attributes == "own" else TriplaneAttributes(width, cfg.sh_degree)

    def tokens(self, given: Conditions) -> Tensor:
        """Conditions of B frames -> [B, 4, W] in the order of `TOKENS`."""
        pose = torch.cat([given.network_pose[:, :3, :3].flatten(1), given.network_pose[:, :3, 3]], 1)
        pose = (pose - self.pose_mean) / self.pose_std
        null = self.null.expand(len(given), -1)
        audio, eye, camera = (self.encoders[name](x) for name, x in zip(TOKENS, (given.mouth, given.eyes, pose / 2)))
        if self.training and self.cfg.token_dropout:
            drop = torch.rand(2, len(given), 1, device=pose.device) < self.cfg.token_dropout
            eye, camera = torch.where(drop[0], null, eye), torch.where(drop[1], null, camera)
        return torch.stack([audio, eye, camera, null], 1)

    def spatial(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """The part that does not depend on the frame: means [N, 3] -> features [N, W], weights [N, heads * 3M]."""
        feature = self.triplane(means)
        parts = share_of_parts(means, self.mouth_landmarks, self.eye_landmarks)
        return feature, self.attention.spatial_weights(feature, parts)

    def decode(self, spatial: tuple[Tensor, Tensor], tokens: Tensor) -> dict[str, Tensor]:
        """Offsets of the Gaussians, before activation.

        Args:
            spatial: see `spatial`.
            tokens: [B, 4, W], see `tokens`.

        Returns:
            means [B, N, 3], scales [B, N, 3], quats [B, N, 4], opacities [B, N, 1], sh [B, N, 3K].
        """
        feature, weights = spatial
        # half precision where nothing is learned: a few parts in a thousand of an offset, and half the memory traffic
        with torch.autocast("cuda", torch.bfloat16, enabled=feature.is_cuda and not torch.is_grad_enabled()):
            hidden = F.relu(self.trunk(F.relu(self.attention(feature, weights, tokens))))
            # the five heads in one product, with a few rows of zeros: tensor cores want a multiple of 8
            unused = -sum(self.outputs.values()) % 8
            layers = [layer for layer in self.heads.values() if isinstance(layer, nn.Linear)]
            weight = F.pad(torch.block_diag(*(layer.weight for layer in layers)), (0, 0, 0, unused))
            bias = F.pad(torch.cat([layer.bias for layer in layers]), (0, unused))
            values = F.linear(hidden, weight, bias)
        return dict(zip(self.outputs, values.float().split([*self.outputs.values(), unused], -1)))
