"""The torso as a layer of its own: a learned picture that follows the head, over the clean plate.

Nothing of it is lent from a frame of the video, so that it can be drawn for any head pose and for any length.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dataset import Dataset
from .progress import Progress

if TYPE_CHECKING:
    from .frames import Frames

CODES = 8           # numbers that say how the torso of a frame is bent
POSE = 6            # numbers of a head pose: rotation (against the mean, about rad) and shift (head units)
CHANNELS = 6        # of a field: shift x and y (half pictures), red, green, blue and opacity
GRID = 12           # control points of a field along each axis
REACH = 3.0         # standard deviations of the training poses; beyond, the torso stays where it is
SPACING = 4         # frames between the knots of what the pose does not explain
SAMPLES = 48        # frames behind the first picture
EDGE = 20.0         # a pixel counts this many times its share of the head less: no hair is mixed into the torso
SCALES = (0.4, 4), (0.75, 2), (1.0, 1)  # up to this share of the steps, pictures are so many times smaller
RATES = {"picture": 6e-3, "fields": 2e-3, "mix": 5e-3, "knots": 2e-2}
#: of the terms that hold the layer back, against the mean absolute error of the picture
WEIGHTS = {"smooth": 2.0, "colour": 2e-3, "first": 2e-3, "knots": 1e-2, "jump": 1e-4}


class Torso(nn.Module):
    """What lies behind the splats: plate and torso.

    A picture of the torso with opacity is bent by a smooth field and laid over the plate. The field is a sum of
    learned ones, weighed by the codes of a frame. They change colours a little as well, for the shadow of the chin.

    Attributes:
        plate: [S, S, 3] uint8. picture: [4, S, S] uint8, colours and opacity. fields: [CODES, CHANNELS, GRID, GRID].
        codes: [N, CODES] of the dataset's frames; validation frames have theirs from the pose alone.
        turned: [3, 3] and shifted: [3], the mean training pose; spread, low, high: [POSE], standard deviation and
            range around it. mix: [POSE, CODES], from poses to codes.
    """

    def __init__(self, size: int, num_frames: int):
        super().__init__()
        self.fields = nn.Parameter(torch.zeros(CODES, CHANNELS, GRID, GRID), requires_grad=False)
        self.mix = nn.Parameter(torch.eye(POSE, CODES), requires_grad=False)
        for name, value in {"picture": torch.zeros(4, size, size, dtype=torch.uint8),
                            "plate": torch.zeros(size, size, 3, dtype=torch.uint8),
                            "codes": torch.zeros(num_frames, CODES), "turned": torch.eye(3), "shifted": torch.zeros(3),
                            "spread": torch.ones(POSE), "low": torch.zeros(POSE), "high": torch.zeros(POSE)}.items():
            self.register_buffer(name, value)

    @classmethod
    def blank(cls, size: int, num_frames: int) -> "Torso":
        """A layer of the right shapes for loading a checkpoint; size in px."""
        return cls(size, num_frames)

    def forward(self, codes: Tensor) -> Tensor:
        """Backgrounds [B, S, S, 3] 0...1 of codes [B, CODES]."""
        return self.layer(codes, self.picture.float() / 255, self.clean_plate()).permute(0, 2, 3, 1)

    def codes_of(self, w2c: Tensor) -> Tensor:
        """Codes [B, CODES] for head poses [B, 4, 4].

        Poses beyond those of the training frames count as the last ones inside: neither an orbit nor another clip's
        poses bend the torso as it never was.
        """
        return self.pose_of(w2c) @ self.mix

    def pose_of(self, w2c: Tensor) -> Tensor:
        """Head poses [B, 4, 4] against the mean one in standard deviations, kept within the range: [B, POSE]."""
        return (self.away(w2c) / self.spread).clamp(self.low, self.high)

    def away(self, w2c: Tensor) -> Tensor:
        """Rotation (sine of the angle times the axis) and shift of heads [B, 4, 4] against the mean: [B, POSE]."""
        turn = w2c[:, :3, :3] @ self.turned.T
        skew = (turn - turn.transpose(1, 2)) / 2
        return torch.cat([skew[:, 2, 1, None], skew[:, 0, 2, None], skew[:, 1, 0, None],
                          w2c[:, :3, 3] - self.shifted], -1)

    def clean_plate(self) -> Tensor:
        """[3, S, S] 0...1."""
        return self.plate.permute(2, 0, 1).float() / 255

    def layer(self, codes: Tensor, picture: Tensor, plate: Tensor, top: int = 0) -> Tensor:
        """Bend `picture` [4, S, S] by `codes` [B, CODES] and lay it over `plate` [3, S, S]; any S.

        Returns:
            [B, 3, S - top, S] 0...1, the rows from `top` down.
        """
        size = picture.shape[-1]
        field = torch.einsum("bk,kcgh->bcgh", codes, self.fields)
        # cubic first, so that control points cannot be seen; then linear, which is cheap
        field = F.interpolate(field, (4 * GRID, 4 * GRID), mode="bicubic", align_corners=True)
        field = F.interpolate(field, (size, size), mode="bilinear", align_corners=True)[:, :, top:]
        at = (torch.arange(size, device=codes.device) + 0.5) * (2 / size) - 1
        grid = torch.stack([at + field[:, 0], at[top:, None] + field[:, 1]], -1)       # [B, S - top, S, 2]
        bent = F.grid_sample(picture.expand(len(codes), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        colour = (bent[:, :3] + field[:, 2:5]).clamp(0, 1)
        opacity = (bent[:, 3:] * (1 + field[:, 5:])).clamp(0, 1)  # a product: where there is no torso, none appears
        return torch.lerp(plate[:, top:].expand_as(colour), colour, opacity)


def fit_torso(ds: Dataset, frames: Frames, steps: int = 300, batch: int = 4, seed: int = 0) -> Torso:
    """Learn the torso layer from the training frames, where the head does not hide it.

    The codes of a frame are what its head pose says plus a part of its own (shoulders move by themselves). One frame in
    each batch is shown without its own part, so that poses alone draw the best torso that they can.

    Args:
        frames: the training frames; the layer is learned and stays on their device. steps, batch: of Adam on shuffled
            mini-batches.
    """
    device, generator = frames.device, torch.Generator().manual_seed(seed)
    start, top = _first_picture(ds)
    torso = _begin(ds, generator).to(device)
    first = torch.from_numpy(start).to(device)
    learned = {"picture": nn.Parameter(first.clone()), "fields": torso.fields, "mix": torso.mix,
               "knots": nn.Parameter(torch.zeros((ds.num_train - 1) // SPACING + 2, CODES, device=device))}
    optimizer = _optimizer(learned)
    most, plate, pose = _most_opaque(first), torso.clean_plate(), torso.pose_of(frames.w2c)
    own = (torch.arange(batch, device=device) > 0).float()[:, None]
    order = [i for _ in range(-(-steps * batch // ds.num_train))
             for i in torch.randperm(ds.num_train, generator=generator).tolist()]
    with Progress(steps, "torso", "step") as bar:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATES[group["name"]] * min(1.0, 4 * (1 - step / steps))
            given = frames.batch(order[step * batch:(step + 1) * batch])
            frames.prefetch(order[(step + 1) * batch:(step + 2) * batch])
            shrink = next(scale for share, scale in SCALES if step < share * steps)
            codes = pose[given["ids"]] @ torso.mix + own * _between(learned["knots"], given["ids"])
            counts, target = (_small(x[:, top:].permute(0, 3, 1, 2), shrink)
                              for x in ((1 - EDGE * given["head"]).clamp_min(0), given["frame"]))
            shown = torso.layer(codes, _small(learned["picture"], shrink), _small(plate, shrink), top // shrink)
            loss = ((shown - target).abs() * counts).mean() + _restraint(learned, first)
            optimizer.zero_grad(set_to_none=True)
            (loss * ds.size ** 2).backward()
            optimizer.step()
            with torch.no_grad():
                learned["picture"].clamp_(0, 1)[3].clamp_(max=most)
            bar.update()
    for parameter in (torso.fields, torso.mix):
        parameter.requires_grad_(False)
    with torch.no_grad():
        torso.picture.copy_((learned["picture"] * 255).round())
        torso.codes.copy_(torso.codes_of(frames.w2c))
        torso.codes[:ds.num_train] += _between(learned["knots"], torch.arange(ds.num_train, device=device))
    return torso


def _optimizer(learned: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Adam. Its epsilon keeps pixels still that are hardly ever seen: they would wander at the full rate."""
    groups = [{"params": [value.requires_grad_()], "name": name, "lr": RATES[name],
               "eps": 1e-2 if name == "picture" else 1e-8} for name, value in learned.items()]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)


def _restraint(learned: dict[str, nn.Parameter], first: Tensor) -> Tensor:
    """Smooth fields that change colours little, a picture near the first one, and codes near what the pose says."""
    fields, knots = learned["fields"], learned["knots"]
    terms = {"smooth": fields.diff(dim=-1).square().mean() + fields.diff(dim=-2).square().mean(),
             "colour": fields[:, 2:].square().mean(), "first": (learned["picture"] - first).square().mean(),
             "knots": knots.square().mean(), "jump": knots.diff(dim=0).square().mean()}
    return sum(WEIGHTS[name] * term for name, term in terms.items())


def _small(pictures: Tensor, shrink: int) -> Tensor:
    return F.avg_pool2d(pictures, shrink) if shrink > 1 else pictures


def _between(knots: Tensor, ids: Tensor) -> Tensor:
    """Codes [B, CODES] of frames `ids` [B] between the knots, linear in time, so that they do not tremble."""
    share = (ids % SPACING).float()[:, None] / SPACING
    return torch.lerp(knots[ids // SPACING], knots[ids // SPACING + 1], share)


def _begin(ds: Dataset, generator: torch.Generator) -> Torso:
    """A layer that knows the training poses and follows the head's shift half way."""
    torso = Torso(ds.size, ds.num_frames)
    torso.plate.copy_(torch.from_numpy(ds.plate))
    w2c = torch.from_numpy(ds.w2c[:ds.num_train])
    u, _, vh = torch.linalg.svd(w2c[:, :3, :3].mean(0))
    torso.turned.copy_(u @ vh)
    torso.shifted.copy_(w2c[:, :3, 3].mean(0))
    away = torso.away(w2c)
    torso.spread.copy_(away.std(0, correction=0).clamp_min(1e-3))
    torso.low.copy_((away / torso.spread).amin(0).clamp_min(-REACH))
    torso.high.copy_((away / torso.spread).amax(0).clamp_max(REACH))
    torso.fields.normal_(0, 1e-3, generator=generator)
    half_pictures = 2 * ds.focal / (torso.shifted[2] * ds.size)     # that a shift of one head unit moves the head
    for code, axis in ((3, 0), (4, 1)):
        torso.fields[code, axis] -= 0.5 * torso.spread[code] * half_pictures
    return torso


def _first_picture(ds: Dataset) -> tuple[np.ndarray, int]:
    """Mean colours and opacity of the torso, carried on under the head: [4, S, S] float32 0...1; and the row, a
    multiple of 4, above which no frame shows any of it."""
    ids = np.unique(np.linspace(0, ds.num_train - 1, SAMPLES).astype(int))
    colour, torso, seen = (np.zeros((ds.size, ds.size, c), np.float32) for c in (3, 1, 1))
    for i in ids:
        frame, mask = ds.frame(i).astype(np.float32) / 255, ds.mask(i).astype(np.float32) / 255
        clean = np.clip(1 - EDGE * mask[..., :1], 0, 1) / len(ids)
        colour += frame * clean * mask[..., 1:2]
        torso += clean * mask[..., 1:2]
        seen += clean
    rows = np.flatnonzero((torso > 0.5 / len(ids)).any((1, 2)))
    top = max(0, rows[0] - ds.size // 16) // 4 * 4 if len(rows) else 0
    opacity, sure = _carried_on(torso, seen), np.clip(SAMPLES * seen, 0, 1)
    # under the head it stays whole further up, so that a chin that rises uncovers a neck and not the plate
    opacity = sure * opacity + (1 - sure) * np.clip(4 * opacity - 0.6, 0, 1)
    return np.concatenate([_carried_on(colour, torso), opacity], -1).transpose(2, 0, 1).copy(), int(top)


def _carried_on(sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sums [H, W, C] / weight [H, W, 1]; where nothing is known, from ever wider surroundings (a pyramid)."""
    height, width = weight.shape[:2]
    if min(height, width) < 4:
        return np.broadcast_to(sums.sum((0, 1)) / max(weight.sum(), 1e-6), sums.shape)
    half = [cv2.resize(x, (width // 2, height // 2), interpolation=cv2.INTER_AREA).reshape(height // 2, width // 2, -1)
            for x in (sums, weight)]
    wide = cv2.resize(_carried_on(*half), (width, height), interpolation=cv2.INTER_LINEAR).reshape(sums.shape)
    sure = np.clip(SAMPLES * weight, 0, 1)  # one frame that shows it is enough
    return sure * sums / np.maximum(weight, 1e-6) + (1 - sure) * wide


def _most_opaque(picture: Tensor) -> Tensor:
    """[S, S] 0...1 of picture [4, S, S]: no torso far from where there was some, or stray hair would become torso."""
    near = F.max_pool2d(picture[None, 3:], 9, stride=1, padding=4)[0, 0]
    return (4 * (near - 0.1)).clamp(0, 1)
