"""Learn the torso layer of a clip."""
from __future__ import annotations

from typing import Optional, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cuda_graph import Captured, in_place
from ..core.progress import Progress
from ..data.camera_view import to_canvas
from ..data.dataset import Dataset
from ..data.frame_loader import Frames
from ..media.rates import FPS
from ..model.torso import CODES, Torso
from .optimizers import fused_on, rate_on, set_rate

REACH = 3.0         # standard deviations of the training poses; beyond, the torso stays as it is
SPACING = 4         # frames between the knots of the part of the codes that the pose does not explain
BASE_FRAMES, MAX_FRAMES = 10 * FPS, 30 * FPS  # training frames that `steps` are for, and up to which they grow
SAMPLES = 48        # frames that the initial image is averaged from
EDGE = 20.0         # weight of a pixel: 1 - EDGE * head mask, at least 0, so that no hair is mixed into the torso
SCALES = (0.4, 4), (0.75, 2), (1.0, 1)  # up to this share of the steps, images are downsampled by this factor
RATES = {"picture": 6e-3, "fields": 2e-3, "mix": 5e-3, "knots": 2e-2}
#: of the regularisation terms, relative to the mean absolute error of the image
WEIGHTS = {"smooth": 2.0, "colour": 2e-3, "first": 2e-3, "knots": 1e-2, "jump": 1e-4}
#: of the codes that are fitted to single frames: share of the steps, learning rate, frames at a time, factor by which
#: images are downsampled, and the weight of their difference from what the layer was learned with
CODE_SHARE, CODE_RATE, CODE_BATCH, CODE_SCALE, CODE_WEIGHT = 1 / 40, 5e-2, 16, 2, 1e-4


def fit_torso(ds: Dataset, frames: Frames, steps: int = 1200, batch: int = 4, seed: int = 0) -> Torso:
    """Learn the torso layer from the training frames, where the head does not cover it.

    The codes of a frame are predicted from its head pose, plus a residual of its own (shoulders also move by
    themselves). One frame in each batch is rendered without its residual, so that poses alone render the best torso
    that they can. With the layer fixed, the codes of every frame are then fitted to its image, see `_fit_codes`.

    Args:
        ds: the dataset.
        frames: its training frames; the layer is learned and stays on their device.
        steps: of Adam, for a clip of up to 10 s; a longer one has more, in proportion to its frames, up to those of
            half a minute: the same steps for more frames fit each less.
        batch: frames per step, from shuffled epochs.
        seed: of the shuffle and of the initial fields.
    """
    device, generator = frames.device, torch.Generator().manual_seed(seed)
    code_steps = max(1, round(CODE_SHARE * steps))
    steps = steps * min(max(ds.num_train, BASE_FRAMES), MAX_FRAMES) // BASE_FRAMES
    start, top = _initial_image(ds)
    torso = _initial_torso(ds, generator).to(device)
    first = torch.from_numpy(start).to(device)
    learned = {"picture": nn.Parameter(first.clone()), "fields": torso.fields, "mix": torso.mix,
               "knots": nn.Parameter(torch.zeros((ds.num_train - 1) // SPACING + 2, CODES, device=device))}
    optimizer = _optimizer(learned)
    most, plate, views = _max_opacity(first), torso.clean_plate(), torso.views
    pose = torso.pose_of(torso.steadied(frames.w2c, views))
    own = (torch.arange(batch, device=device) > 0).float()[:, None]
    order = [i for _ in range(-(-steps * batch // ds.num_train))
             for i in torch.randperm(ds.num_train, generator=generator).tolist()]
    batches = [order[n:n + batch] for n in range(0, steps * batch, batch)]
    slot: Optional[Sequence[Tensor]] = None
    factor = SCALES[0][1]

    def device_step() -> None:
        """Forward, backward and update on the frames in `slot`, without waiting."""
        assert slot is not None
        given = frames.unpack(*slot)
        codes = pose[given["ids"]] @ torso.mix + own * _interpolated(learned["knots"], given["ids"])
        if views is not None:
            codes = torch.cat([codes, views[given["ids"]]], -1)
        weight, target = (_downsampled(x[:, top:].permute(0, 3, 1, 2), factor)
                          for x in ((1 - EDGE * given["head"]).clamp_min(0), given["frame"]))
        image, behind = _downsampled(learned["picture"], factor), _downsampled(plate, factor)
        rendered = torso.layer(codes, image, behind, top // factor)
        loss = ((rendered - target).abs() * weight).mean() + _regularisation(learned, first)
        (loss * ds.size ** 2).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            learned["picture"].clamp_(0, 1)[3].clamp_(max=most)

    captured = Captured(device_step, device)
    with Progress(steps, "torso", "step") as bar:
        for step, numbers in enumerate(batches):
            for group in optimizer.param_groups:
                set_rate(group, RATES[group["name"]] * min(1.0, 4 * (1 - step / steps)))
            slot = in_place(slot, frames.fetch(numbers))
            frames.prefetch(batches[step + 1] if step + 1 < steps else [])
            scale = next(scale for share, scale in SCALES if step < share * steps)
            if scale != factor:
                factor = scale
                captured.reset()
            captured()
            bar.update()
    for parameter in (torso.fields, torso.mix):
        parameter.requires_grad_(False)
    with torch.no_grad():
        torso.picture.copy_((learned["picture"] * 255).round())
        torso.codes.copy_(torso.codes_of(frames.w2c, views))
        residuals = _interpolated(learned["knots"], torch.arange(ds.num_train, device=device))
        torso.codes[:ds.num_train, :CODES] += residuals
    unseen = Frames(ds, ds.val_ids, device, place="disk")
    with Progress(len(ds), "torso of each frame", "frame") as bar:
        for part, ids in ((frames, ds.train_ids), (unseen, ds.val_ids)):
            _fit_codes(torso, part, ids, code_steps, bar)
    return torso


def _fit_codes(torso: Torso, frames: Frames, ids: range, steps: int, bar: Progress) -> None:
    """Fit the codes of frames to their images, where the head does not cover it; the layer stays as it is.

    They are the torso's pose, as a head has one: `CODES` numbers a frame along what was learned from training frames.
    Validation frames are fitted as well, as by any tracker: shoulders that move by themselves cannot be heard, nor
    follow from the pose of the head. Upstream pastes the torso of each frame, validation frames included.
    """
    size, device = min(CODE_BATCH, max(len(ids), 1)), frames.device
    chunks = [list(ids[i:i + size]) for i in range(0, len(ids), size)]
    picture, plate = (_downsampled(x, CODE_SCALE) for x in (torso.picture.float() / 255, torso.clean_plate()))
    own = nn.Parameter(torso.codes.new_zeros(size, CODES))
    optimizer = torch.optim.Adam([own], lr=rate_on(device, CODE_RATE), betas=(0.9, 0.99), **fused_on(device))
    slot: Optional[Sequence[Tensor]] = None

    def device_step() -> None:
        """Forward, backward and update on the frames in `slot`, without waiting."""
        assert slot is not None
        *packed, start = slot
        given = frames.unpack(*packed)
        weight, target = (_downsampled(x.permute(0, 3, 1, 2), CODE_SCALE)
                          for x in ((1 - EDGE * given["head"]).clamp_min(0), given["frame"]))
        rendered = torso.layer(torch.cat([own, start[:, CODES:]], -1), picture, plate)
        loss = ((rendered - target).abs() * weight).mean((1, 2, 3)).sum()
        loss = loss + CODE_WEIGHT * (own - start[:, :CODES]).square().mean(1).sum()
        (loss * frames.size ** 2).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    captured = Captured(device_step, device)
    for n, chunk in enumerate(chunks):
        # the last one is filled up with its last frame
        index, packed = frames.fetch(chunk + chunk[-1:] * (size - len(chunk)))
        frames.prefetch(chunks[n + 1] if n + 1 < len(chunks) else [])
        start = torso.codes[index]
        slot = in_place(slot, (index, packed, start))
        own.data.copy_(start[:, :CODES])
        for value in optimizer.state[own].values():
            value.zero_()
        for step in range(steps):
            set_rate(optimizer.param_groups[0], CODE_RATE * min(1.0, 2 * (1 - step / steps)))
            captured()
        torso.codes[index[:len(chunk)], :CODES] = own.detach()[:len(chunk)]
        bar.update(len(chunk))


def _optimizer(learned: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Adam. The large epsilon keeps pixels still that are hardly ever visible: they would drift at the full rate."""
    device = learned["picture"].device
    groups = [{"params": [value.requires_grad_()], "name": name, "lr": rate_on(device, RATES[name]),
               "eps": 1e-2 if name == "picture" else 1e-8} for name, value in learned.items()]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), **fused_on(device))


def _regularisation(learned: dict[str, nn.Parameter], first: Tensor) -> Tensor:
    """Smooth fields that change colours little, an image near the initial one, and small, smooth residuals."""
    fields, knots = learned["fields"], learned["knots"]
    terms = {"smooth": fields.diff(dim=-1).square().mean() + fields.diff(dim=-2).square().mean(),
             "colour": fields[:, 2:].square().mean(), "first": (learned["picture"] - first).square().mean(),
             "knots": knots.square().mean(), "jump": knots.diff(dim=0).square().mean()}
    total = fields.new_zeros(())
    for name, term in terms.items():
        total = total + WEIGHTS[name] * term
    return total


def _downsampled(images: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(images, factor) if factor > 1 else images


def _interpolated(knots: Tensor, ids: Tensor) -> Tensor:
    """Residuals [B, CODES] of frames `ids` [B], interpolated linearly in time between the knots, against jitter."""
    share = (ids % SPACING).float()[:, None] / SPACING
    return torch.lerp(knots[ids // SPACING], knots[ids // SPACING + 1], share)


def _initial_torso(ds: Dataset, generator: torch.Generator) -> Torso:
    """A layer with the range of the training poses that follows half of the head's translation."""
    views = torch.from_numpy(ds.views)
    torso = Torso(ds.size, ds.num_frames, (len(ds.canvas) - ds.size) // 2 if views.any() else None)
    torso.plate.copy_(torch.from_numpy(ds.canvas))
    w2c = torch.from_numpy(ds.w2c[:ds.num_train])
    if torso.views is not None:
        torso.lens.fill_(2 * ds.focal / ds.size)
        torso.codes[:, CODES:] = views
        w2c = torso.steadied(w2c, torso.views[:ds.num_train])
    u, _, vh = torch.linalg.svd(w2c[:, :3, :3].mean(0))
    torso.turned.copy_(u @ vh)
    torso.shifted.copy_(w2c[:, :3, 3].mean(0))
    away = torso.away(w2c)
    torso.spread.copy_(away.std(0, correction=0).clamp_min(1e-3))
    torso.low.copy_((away / torso.spread).amin(0).clamp_min(-REACH))
    torso.high.copy_((away / torso.spread).amax(0).clamp_max(REACH))
    torso.fields.normal_(0, 1e-3, generator=generator)
    half_images = 2 * ds.focal / (torso.shifted[2] * ds.size)     # by which a translation of one head unit moves it
    for code, axis in ((3, 0), (4, 1)):
        torso.fields[code, axis] -= 0.5 * torso.spread[code] * half_images
    return torso


def _initial_image(ds: Dataset) -> tuple[np.ndarray, int]:
    """Mean colours and opacity of the torso, filled in under the head.

    Returns:
        [4, S + 2M, S + 2M] float32 0...1, in the reference view, and the row of a frame, a multiple of 4, above which
        none shows any of it.
    """
    ids = np.unique(np.linspace(0, ds.num_train - 1, SAMPLES).astype(int))
    side, shown = len(ds.canvas), np.zeros((ds.size, ds.size), np.float32)
    colour, torso, seen = (np.zeros((side, side, c), np.float32) for c in (3, 1, 1))
    for i in ids:
        frame, mask = (image.astype(np.float32) / 255 for image in (ds.frame(i), ds.mask(i)))
        clean = np.clip(1 - EDGE * mask[..., :1], 0, 1) / len(ids)
        shown += (clean * mask[..., 1:2])[..., 0]
        if ds.exposes:
            frame = frame / ds.gains[i]
        if ds.views.any():
            px = to_canvas(ds.views[i], ds.size, (side - ds.size) // 2)
            frame, mask, clean = (np.asarray(cv2.warpAffine(x, px, (side, side)), np.float32).reshape(side, side, -1)
                                  for x in (frame, mask, clean))
        colour += frame * clean * mask[..., 1:2]
        torso += clean * mask[..., 1:2]
        seen += clean
    rows = np.flatnonzero((shown > 0.5 / len(ids)).any(1))
    top = max(0, rows[0] - ds.size // 16) // 4 * 4 if len(rows) else 0
    opacity, sure = _filled_in(torso, seen), np.clip(SAMPLES * seen, 0, 1)
    # under the head it stays opaque further up, so that a rising chin uncovers a neck and not the plate
    opacity = sure * opacity + (1 - sure) * np.clip(4 * opacity - 0.6, 0, 1)
    return np.concatenate([_filled_in(colour, torso), opacity], -1).transpose(2, 0, 1).copy(), int(top)


def _filled_in(sums: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sums [H, W, C] / weight [H, W, 1]; where nothing is known, from coarser levels of an image pyramid."""
    height, width = weight.shape[:2]
    if min(height, width) < 4:
        return np.broadcast_to(sums.sum((0, 1)) / max(weight.sum(), 1e-6), sums.shape)
    half = [cv2.resize(x, (width // 2, height // 2), interpolation=cv2.INTER_AREA).reshape(height // 2, width // 2, -1)
            for x in (sums, weight)]
    wide = cv2.resize(_filled_in(*half), (width, height), interpolation=cv2.INTER_LINEAR).reshape(sums.shape)
    sure = np.clip(SAMPLES * weight, 0, 1)  # one frame in which it is visible is enough
    return sure * sums / np.maximum(weight, 1e-6) + (1 - sure) * wide


def _max_opacity(picture: Tensor) -> Tensor:
    """[S, S] 0...1 of an image [4, S, S]: no torso far from where there was some, or stray hair would become torso."""
    near = F.max_pool2d(picture[None, 3:], 9, stride=1, padding=4)[0, 0]
    return (4 * (near - 0.1)).clamp(0, 1)
