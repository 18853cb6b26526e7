"""Fit a speaker prior to clips of many people."""
from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ..core.files import check_target
from ..core.progress import Progress
from ..data.dataset import Dataset
from ..media.audio import FEATURE_CHANNELS, SAMPLES_PER_STEP, WINDOW_STEPS, steps_of
from ..media.rates import FPS, SAMPLE_RATE
from ..speech import phones, ridge
from ..speech.encoders import describe
from ..speech.prior import COMPONENTS, SHAPE, Prior, save_prior
from ..speech.sync import MIN_FRAMES, best_shift, scale_free

RIDGE = 3.0               # penalty per frame of the linear part
STEPS, BATCH, CROP = 120, 16, 75  # of the networks' training; crops of 3 s
RATE, WARM_UP, WEIGHT_DECAY = 4e-3, 30, 0.1
NOISE, DROP_INPUTS, DROP = 1.0, 0.1, 0.4  # of inputs of unit variance; shares of channels
FOLDS = 3                 # of the speakers, for the correlations on speakers left out
ROUNDS = 3                # of estimating how late each clip's audio is, and fitting again
MIN_SPEAKERS = 3
MIN_R = 0.25              # correlation at the best shift below which a clip stays as it is


@dataclass
class SpeakerClip:
    """What a clip contributes to a prior.

    Attributes:
        features: [N, 16, 29] float32 audio features.
        mouth: [N, 214] float32 shapes of lips and jaw (`Dataset.mouth`), of any scale.
        speaker: who speaks; clips of one speaker count together.
        in_sync: the audio is known to be in time, so no shift is estimated.
    """

    features: np.ndarray
    mouth: np.ndarray
    speaker: str
    in_sync: bool = False


def fit_prior(clips: Sequence[Dataset | SpeakerClip], out: Optional[str | Path] = None, seed: int = 0) -> Prior:
    """Fit a speaker prior: the link from audio to the motion of lips and jaw, learned from many people.

    Takes half a minute on two CPU cores for three minutes of video, and grows linearly. More speakers help more than
    longer clips. Use it with `load_config(preset, prior=out)`.

    Args:
        clips: prepared datasets, or `SpeakerClip`s, all with features of one encoder. A dataset counts as one speaker.
        out: the .safetensors file to write; None: none.
        seed: of the networks.

    Returns:
        the Prior, on the CPU.

    Raises:
        InputError: fewer than 3 speakers, features of several encoders, shapes that do not belong together, values
            that are not finite, or an `out` that cannot be written.
    """
    if out is not None:
        check_target(out, ".safetensors")  # before fitting, which takes long
    encoder, chosen = _checked(clips)
    prior = Prior(encoder)
    targets = _fit_space(prior, [clip.mouth for clip in chosen])
    _fit_inputs(prior, [torch.from_numpy(clip.features) for clip in chosen])
    shifts, spread = [0] * len(chosen), prior.spread.numpy()
    with Progress(STEPS * (FOLDS + 1), "fit prior", "step") as bar:
        for _ in range(ROUNDS):
            steps = [_shifted(prior, clip.features, shift) for clip, shift in zip(chosen, shifts)]
            _fit_linear(prior, steps, targets)
            found = [best_shift((prior.linear_inputs(_windows(x)) @ prior.linear).numpy(), target.numpy(), spread)
                     for x, target in zip(steps, targets)]
            # clips that are in sync stay, and all others are seen relative to them: else all could drift together
            anchors = [more for clip, (more, _) in zip(chosen, found) if clip.in_sync]
            drift = round(float(np.mean(anchors))) if anchors else 0
            shifts = [shift if clip.in_sync or r < MIN_R else shift + more - drift
                      for clip, shift, (more, r) in zip(chosen, shifts, found)]
        steps = [_shifted(prior, clip.features, shift) for clip, shift in zip(chosen, shifts)]
        r = _cross_validate(prior, chosen, steps, targets, seed, bar)
        _fit_parts(prior, steps, targets, seed, bar)
    prior.facts = {"clips": len(chosen), "speakers": len({clip.speaker for clip in chosen}),
                   "seconds": round(sum(map(len, targets)) / FPS, 1), "seed": seed,
                   "late_ms": [1000 * shift * SAMPLES_PER_STEP // SAMPLE_RATE for shift in shifts],
                   "cross_validated_r": [round(float(x), 3) for x in r]}
    prior.eval().requires_grad_(False)
    if out is not None:
        save_prior(prior, out)
    return prior


def _checked(given: Sequence[Dataset | SpeakerClip]) -> tuple[dict, list[SpeakerClip]]:
    """The encoder's spec and the clips, checked; clips that are too short to be centred are left out."""
    specs = [clip.encoder for clip in given if isinstance(clip, Dataset)]
    other = [spec for spec in specs if spec != specs[0]]
    if other:
        raise InputError("clips with features of one encoder", f"{describe(specs[0])} and {describe(other[0])}",
                         "Prepare all clips with the same encoder.")
    clips = [SpeakerClip(clip.features, clip.mouth, str(clip.root.resolve())) if isinstance(clip, Dataset) else clip
             for clip in given]
    for clip in clips:
        frames = len(clip.mouth)
        if clip.features.shape != (frames, WINDOW_STEPS, FEATURE_CHANNELS) or clip.mouth.shape != (frames, SHAPE):
            raise InputError(f"features [N, 16, 29] and mouth shapes [N, {SHAPE}] of the same frames",
                             f"{list(clip.features.shape)} and {list(clip.mouth.shape)} of '{clip.speaker}'",
                             "Take both from one dataset.")
        if not (np.isfinite(clip.features).all() and np.isfinite(clip.mouth).all()):
            raise InputError("finite features and mouth shapes", f"NaN or infinite values of '{clip.speaker}'",
                             "Prepare that clip again.")
    clips = [clip for clip in clips if len(clip.mouth) >= MIN_FRAMES and np.ptp(clip.mouth, axis=0).max() > 0]
    speakers = {clip.speaker for clip in clips}
    if len(speakers) < MIN_SPEAKERS:
        raise InputError(f"clips of {MIN_SPEAKERS} speakers or more, {MIN_FRAMES} frames or longer, with moving mouths",
                         f"{len(speakers)}", "Prepare more clips: a prior learns what speakers have in common.")
    return (specs[0] if specs else dict(phones.SPEC)), clips


def _fit_space(prior: Prior, mouths: Sequence[np.ndarray]) -> list[Tensor]:
    """Fit the mouth space; returns each clip's motion in it, [N, 8] in units of `Prior.spread`."""
    scaled = [torch.from_numpy(scale_free(mouth)).float() for mouth in mouths]
    prior.basis.copy_(torch.linalg.svd(torch.cat(scaled), full_matrices=False)[2][:COMPONENTS])
    prior.basis.mul_(prior.basis.sum(1, keepdim=True).sign())  # the sign of a component is arbitrary: fix it
    motion = [mouth @ prior.basis.t() for mouth in scaled]
    prior.spread.copy_(torch.cat(motion).std(0))
    return [mouth / prior.spread for mouth in motion]


def _fit_inputs(prior: Prior, features: Sequence[Tensor]) -> None:
    """Fit the projection of the inputs: principal components, all scaled alike, to a mean variance of 1."""
    raw = prior.expanded(torch.from_numpy(np.concatenate([steps_of(part.numpy()) for part in features])))
    prior.input_mean.copy_(raw.mean(0))
    rows = torch.linalg.svd(raw - prior.input_mean, full_matrices=False)[2][:len(prior.projection)]
    scale = ((raw - prior.input_mean) @ rows.t()).std(0).clamp_min(1e-3).mean()
    prior.projection.copy_(rows / scale)


def _shifted(prior: Prior, features: np.ndarray, shift: int) -> Tensor:
    """Projections of a clip's steps if its audio is `shift` steps late: [C, 2 N + 14], the first window's first."""
    steps = steps_of(features)
    before = features[0, :WINDOW_STEPS // 2]
    after = features[-1, WINDOW_STEPS // 2 + 2:]
    whole = np.concatenate([before, steps, after])                # step k of the clip is row k + 8
    at = np.clip(np.arange(len(whole)) + shift, 0, len(whole) - 1)
    return prior.inputs(torch.from_numpy(whole[at])).t().contiguous()


def _windows(x: Tensor) -> Tensor:
    """Projections [C, 2 N + 14] -> windows [N, 16, C]."""
    return x.unfold(1, WINDOW_STEPS, 2).permute(1, 2, 0)


def _fit_linear(prior: Prior, steps: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    x = torch.cat([prior.linear_inputs(_windows(part)) for part in steps])[:, :-1].double()
    y = torch.cat(list(targets)).double()
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-3)
    weights = torch.from_numpy(ridge.weights(((x - mean) / spread).numpy(), y.numpy(), RIDGE)) / spread[:, None]
    prior.linear.copy_(torch.cat([weights, y.mean(0, keepdim=True) - mean[None] @ weights]))


def _fit_parts(prior: Prior, steps: Sequence[Tensor], targets: Sequence[Tensor], seed: int, bar: Progress) -> None:
    """Fit the linear part and the networks."""
    _fit_linear(prior, steps, targets)
    _train_nets(prior, steps, targets, seed, bar)


@torch.no_grad()
def _cross_validate(prior: Prior, clips: Sequence[SpeakerClip], steps: Sequence[Tensor], targets: Sequence[Tensor],
                    seed: int, bar: Progress) -> Tensor:
    """Correlation of each component on speakers that were left out, [8]; sets the prior's gain from it.

    Least squares predicts a mouth that mumbles: a share of r of the motion. The gain makes it sqrt(r), between the
    share that is explained and all of it.
    """
    speakers = sorted({clip.speaker for clip in clips})
    found, spread = torch.zeros(2, len(clips), COMPONENTS)
    for fold in range(FOLDS):
        out = [speakers.index(clip.speaker) % FOLDS == fold for clip in clips]
        with torch.enable_grad():
            _fit_parts(prior, [x for x, left in zip(steps, out) if not left],
                       [y for y, left in zip(targets, out) if not left], seed, bar)
        for i in (i for i, left in enumerate(out) if left):
            predicted = prior.predict(_windows(steps[i]))
            a, b = predicted - predicted.mean(0), targets[i] - targets[i].mean(0)
            found[i] = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-9)
            spread[i] = predicted.std(0)
    r = found.mean(0).clamp_min(0)
    prior.gain.copy_(r.sqrt() / spread.mean(0).clamp_min(1e-3))
    return r


def _train_nets(prior: Prior, steps: Sequence[Tensor], targets: Sequence[Tensor], seed: int, bar: Progress) -> None:
    """Train the networks side by side: squared error and correlation of each component within crops of 3 s."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = type(prior.nets)(len(prior.projection)).train()
        optimizer = torch.optim.AdamW(nets.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
        chance = torch.tensor([len(target) ** 0.5 for target in targets])
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            chosen = torch.multinomial(chance, BATCH, replacement=True, generator=generator).tolist()
            x, y, known = _crops(steps, targets, chosen, generator)
            x = F.dropout1d(x + NOISE * torch.randn_like(x), DROP_INPUTS)
            loss = _loss(nets.each(x, DROP), y[:, None], known[:, None], prior.spread)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update()
        prior.nets.load_state_dict(nets.state_dict())


def _crops(steps: Sequence[Tensor], targets: Sequence[Tensor], chosen: Sequence[int], generator: torch.Generator
           ) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops: projections [B, C, 2 * CROP + 14], targets [B, 8, CROP], 1 in frames of the clip [B, 1, CROP]."""
    xs, ys, known = [], [], []
    for i in chosen:
        length = min(CROP, len(targets[i]))
        first = int(torch.randint(len(targets[i]) - length + 1, (1,), generator=generator))
        missing = CROP - length
        x = steps[i][:, 2 * first:2 * (first + length) + WINDOW_STEPS - 2]
        xs.append(F.pad(x, (0, 2 * missing), mode="replicate"))
        ys.append(F.pad(targets[i][first:first + length].t(), (0, missing)))
        known.append(F.pad(torch.ones(1, length), (0, missing)))
    return torch.stack(xs), torch.stack(ys), torch.stack(known)


def _loss(predicted: Tensor, target: Tensor, known: Tensor, weight: Tensor) -> Tensor:
    """Squared error, plus 1 - correlation over time; components count by their spread, networks add up.

    Args:
        predicted: [B, NETS, 8, T].
        target: [B, 1, 8, T].
        known: [B, 1, 1, T] 0 or 1.
        weight: [8].
    """
    weight = weight / weight.sum()
    squared = ((predicted - target).square() * known).sum((0, 3)) / known.sum()        # [NETS, 8]

    def centred(x: Tensor) -> Tensor:
        return (x - (x * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True)) * known

    p, t = centred(predicted), centred(target)
    norm = ((p.square().sum(-1) + 0.01) * (t.square().sum(-1) + 0.01)).sqrt()
    correlation = ((p * t).sum(-1) / norm).mean(0)                                     # [NETS, 8]
    return ((squared + 1 - correlation) * weight).sum()
