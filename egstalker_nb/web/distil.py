"""The deformation as a sum over a few dozen bases, fitted to the trained network.

The network evaluates a layer of 320 values for each Gaussian and frame: too much for a phone. Over the conditions that
a head meets, its offsets span few dimensions, so here they are a mean plus K fixed bases (the principal components of
the network's own offsets), whose K coefficients a small network computes from the conditions of the frame. Both are
fitted to the trained network alone: no frame of the clip is looked at.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.progress import Progress
from ..data.conditions import Conditions
from ..model.head import Head
from ..rendering.motion import closed_eyes
from ..rendering.renderer import Renderer

MAX_BASES = 40
EXPLAINED = 0.95        # of the offsets' weighted variance: more bases are left out
MAX_BASIS_BYTES = 6_400_000  # of all bases, one byte a number: a file of 15 MB has room for the rest, at 1,024 px too
BASIS_FRAMES = 400      # conditions that the bases are the principal components of
FIT_FRAMES = 3000       # conditions that the coefficients' network is fitted to
FIT_GAUSSIANS = 2000    # from whose offsets the coefficients of these are found
STEPS, BATCH, HIDDEN, RATE = 1500, 256, 128, 3e-3
MOUTH_NOISE = 0.35      # standard deviations, added to the mouth coefficients of the clip
SHUT_SHARE = 0.1        # of the conditions: a shut mouth
BLINK_SHARE = 0.25      # likewise: eyelids on their way between open and closed, which a clip has few frames of
SHADE, VIEW = 1.1, 0.2  # weight of an error in a colour's constant part and in its other harmonics
AT_ONCE = 16            # frames the network is evaluated for at a time


@dataclass
class DistilledMotion:
    """Raw values of N Gaussians (before activation) as functions of the conditions of a frame.

    The D values of a Gaussian are 3 of the mean, 3 logarithms of scales, 4 of the quaternion, the logit of the opacity,
    and 3 per spherical harmonic.

    Attributes:
        base: [N, D] float32, values under the mean of the conditions.
        bases: [K, N, D] int8.
        steps: [K, D] float32, what one unit of `bases` is worth.
        network: from conditions [B, 27] (see `condition_values`) to coefficients [B, K].
    """

    base: Tensor
    bases: Tensor
    steps: Tensor
    network: nn.Sequential

    @torch.no_grad()
    def values(self, given: Conditions) -> Tensor:
        """Raw values [B, N, D] of B frames."""
        coefficients = self.network(condition_values(given))
        return self.base + torch.einsum("bk,knd->bnd", coefficients, self.bases.float() * self.steps[:, None])

    def offsets(self, head: Head, given: Conditions) -> dict[str, Tensor]:
        """The same as offsets from the canonical Gaussians of `head`, see `Head.splat`."""
        return split_values(self.values(given) - canonical_values(head))


def condition_values(given: Conditions) -> Tensor:
    """What the small network sees of B frames, on the CPU: mouth (8), eyes (7), rotation (9), translation (3): [B, 27].
    """
    pose = given.network_pose
    return torch.cat([given.mouth, given.eyes, pose[:, :3, :3].flatten(1), pose[:, :3, 3]], 1).cpu()


def canonical_values(head: Head) -> Tensor:
    """Raw values [N, D] of the canonical Gaussians."""
    g = head.gaussians
    parts = (g["means"], g["scales"], g["quats"], g["opacities"][:, None], g["sh0"].flatten(1), g["shN"].flatten(1))
    return torch.cat(parts, 1).detach().cpu()


def split_values(values: Tensor) -> dict[str, Tensor]:
    """Values [..., N, D] by the names of `Deformation.decode`."""
    widths = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "sh": values.shape[-1] - 11}
    return dict(zip(widths, values.split(list(widths.values()), -1)))


@torch.no_grad()
def distil(renderer: Renderer) -> DistilledMotion:
    """Fit bases and coefficients to the network of a trained head.

    The same head gives the same result; the caller's random numbers are not touched.

    Args:
        renderer: of the head, in the fine stage.
    """
    head = renderer.head
    most = min(MAX_BASES, MAX_BASIS_BYTES // canonical_values(head).numel(), BASIS_FRAMES - 1)
    with torch.random.fork_rng(devices=[]), Progress(BASIS_FRAMES + FIT_FRAMES + STEPS, "distil", "step") as bar:
        torch.manual_seed(0)
        given = _conditions(renderer, BASIS_FRAMES)
        offsets = torch.cat([*_offsets(head, given, bar)])                           # [F, N, D]
        mean, weight = offsets.mean(0), _weights(head)
        bases = _principal(((offsets - mean) * weight).flatten(1), most).unflatten(1, weight.shape)
        del offsets
        inputs, wanted = _wanted(renderer, mean, weight, bases, bar)
        network = _fit(inputs, wanted, bar)
    bases = bases / weight
    steps = bases.abs().amax(1).clamp_min(1e-12) / 127                              # [K, D]
    rounded = (bases / steps[:, None]).round().to(torch.int8)
    return DistilledMotion(canonical_values(head) + mean, rounded, steps, network)


def _conditions(renderer: Renderer, count: int) -> Conditions:
    """Random combinations of mouths, eyes and poses of the clip, on the CPU. Validation frames count, too: the page
    shows their poses, and the mouth that is predicted for them."""
    frames = len(renderer.ds)
    own = renderer.conditions(range(frames))
    mouth, other, eyes, pose = (torch.randint(frames, (count,)).to(own.mouth.device) for _ in range(4))
    mixed = torch.lerp(own.mouth[mouth].cpu(), own.mouth[other].cpu(), torch.rand(count, 1))
    shut = torch.rand(count, 1) < SHUT_SHARE
    mixed = torch.where(shut, renderer.head.mouth.shut.cpu(), mixed) + MOUTH_NOISE * torch.randn(count, mixed.shape[1])
    closed = torch.from_numpy(closed_eyes(renderer.ds))
    blinking = torch.lerp(own.eyes[eyes].cpu(), closed.expand(count, -1), torch.rand(count, 1))
    looking = torch.where(torch.rand(count, 1) < BLINK_SHARE, blinking, own.eyes[eyes].cpu())
    return Conditions(mixed, looking, own.w2c[pose].cpu())


def _offsets(head: Head, given: Conditions, bar: Progress, some: Optional[Tensor] = None) -> Iterator[Tensor]:
    """Offsets [B, N, D] by the trained network, some frames at a time, on the CPU; `some`: of these Gaussians."""
    device = head.w2c.device
    spatial = head.spatial()
    if some is not None:
        spatial = spatial[0][some], spatial[1][some]
    for first in range(0, len(given), AT_ONCE):
        part = given[first:first + AT_ONCE]
        moved = Conditions(part.mouth.to(device), part.eyes.to(device), part.w2c.to(device))
        yield torch.cat([*head.offsets(moved, spatial).values()], -1).cpu()
        bar.update(len(part))


def _weights(head: Head) -> Tensor:
    """How visible an error in each value is, [N, D]: a shift counts in standard deviations of its Gaussian, and large,
    opaque Gaussians count more."""
    values = canonical_values(head)
    scale, opacity = values[:, 3:6].exp().mean(1), values[:, 10].sigmoid()
    weight = torch.ones_like(values)
    weight[:, :3] = (1 / scale.clamp_min(0.005))[:, None]
    weight[:, 11:14], weight[:, 14:] = SHADE, VIEW
    return weight * (opacity * scale).clamp_min(1e-6).sqrt()[:, None]


def _principal(rows: Tensor, most: int) -> Tensor:
    """The first principal components of rows [F, M], as many as explain enough, `most` at most: [K, M], orthonormal."""
    values, vectors = torch.linalg.eigh((rows @ rows.t()).double())                 # F is small, M is not
    values, vectors = values.flip(0).clamp_min(1e-20), vectors.flip(1)
    count = min(most, int((values.cumsum(0) < EXPLAINED * values.sum()).sum()) + 1)
    return (vectors[:, :count] / values[:count].sqrt()).t().float() @ rows


def _wanted(renderer: Renderer, mean: Tensor, weight: Tensor, bases: Tensor, bar: Progress) -> tuple[Tensor, Tensor]:
    """Conditions [F, 27] and the coefficients [F, K] of the network's offsets, from a random part of the Gaussians."""
    head, given = renderer.head, _conditions(renderer, FIT_FRAMES)
    some = torch.randperm(len(head))[:FIT_GAUSSIANS]
    part = bases[:, some].flatten(1)
    along = torch.cat([((offsets - mean[some]) * weight[some]).flatten(1) @ part.t()
                       for offsets in _offsets(head, given, bar, some.to(head.w2c.device))])
    gram = part @ part.t()
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram))  # bases of a head that hardly moves
    return condition_values(given), torch.linalg.solve(gram, along.t()).t()


def _fit(inputs: Tensor, wanted: Tensor, bar: Progress) -> nn.Sequential:
    """A small network from conditions [F, 27] to coefficients [F, K]; standardising is folded into its layers."""
    middle, spread = inputs.mean(0), inputs.std(0).clamp_min(0.02)
    centre, size = wanted.mean(0), wanted.std(0).clamp_min(1e-9)
    importance = size.square() / size.square().sum()
    first, last = nn.Linear(inputs.shape[1], HIDDEN), nn.Linear(HIDDEN, wanted.shape[1])
    network = nn.Sequential(first, nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), last)
    x, y = (inputs - middle) / spread, (wanted - centre) / size
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            chosen = torch.randint(len(x), (BATCH,))
            loss = (F.mse_loss(network(x[chosen]), y[chosen], reduction="none") * importance).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
    first.bias.sub_(first.weight @ (middle / spread))
    first.weight.div_(spread)
    last.weight.mul_(size[:, None])
    last.bias.mul_(size).add_(centre)
    return network.eval().requires_grad_(False)
