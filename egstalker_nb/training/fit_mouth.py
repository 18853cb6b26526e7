"""Fit the shape model of a person's mouth and its prediction from audio."""
from __future__ import annotations

import copy
from typing import Optional

import torch
from torch import Tensor

from ..core.errors import InputError
from ..data.dataset import Dataset
from ..face.expression import lip_gap
from ..model.audio_link import MODES, FeatureLink, PriorLink
from ..model.mouth import Mouth
from ..speech import ridge
from ..speech.encoders import describe
from ..speech.prior import Prior, built_in_prior, load_prior
from ..speech.voice_activity import shut_in_silence

RANK = 1e-4             # of the first component's spread: components of less are rounding errors
SHUT_SHARE = 0.1        # share of the training frames that show a closed mouth
CORRECTION = 200.0      # penalty of a person's deviation from the prior, in all: a longer clip deviates more
STYLE_FRAMES = 100      # frames of one person that count as much for its style as all other speakers together
STYLE_RANGE = 0.5, 2.0  # factor of the motion, so that the mouth opens as far as in the clip
RIDGE = 3.0             # without a prior: penalty per frame, inputs having unit variance
MIN_R = 0.1             # without a prior: a component's cross-validated correlation counts as at least this


def fit_mouth(ds: Dataset, prior: str = "") -> Mouth:
    """Fit a dataset's mouth: PCA of its shapes, and the prediction of the coefficients from audio.

    Only training frames are used. The speaker prior predicts how lips and jaw move; the clip says what that looks like
    on this person: how far the mouth opens and how round it gets, and, the longer the clip, what else is its own.

    Args:
        ds: shapes of lips and jaw (`Dataset.mouth`), audio features, aperture and audio are used.
        prior: file of a speaker prior. Default: the package's, or, for features of an encoder that it was not fitted
            for, none: then a ridge regression is fitted to the clip alone.

    Raises:
        InputError: the file is not a prior, or is one for another encoder.
    """
    found = prior_for(ds.encoder, prior)
    mouth = Mouth(len(ds), FeatureLink() if found is None else PriorLink(copy.deepcopy(found)))
    shapes, features = torch.from_numpy(ds.mouth), torch.from_numpy(ds.features)
    known = shapes[:ds.num_train]
    mouth.mean.copy_(known.mean(0))
    _, values, modes = torch.linalg.svd((known - mouth.mean).double(), full_matrices=False)
    # beyond the shapes' own degrees of freedom there are rounding errors only, which nothing can predict
    count = min(MODES, int((values > RANK * values[0]).sum()))
    mouth.modes[:count] = modes[:count].float()
    mouth.spread[:count] = values[:count].float() / len(known) ** 0.5
    mouth.spread.clamp_(min=1e-6)
    tracked = mouth.encode(shapes)
    aperture = torch.from_numpy(ds.aperture[:ds.num_train])
    narrowest = aperture.argsort()[:max(1, round(SHUT_SHARE * len(aperture)))]
    mouth.shut.copy_(tracked[narrowest].mean(0))
    fit = _fit_feature_link if isinstance(mouth.link, FeatureLink) else _fit_prior_link
    fit(mouth, features[:ds.num_train], known)
    silent = torch.from_numpy(shut_in_silence(ds.audio(), len(ds)))
    predicted = mouth.predict(features, silent)
    mouth.coefficients.copy_(torch.cat([tracked[:ds.num_train], predicted[ds.num_train:]]))
    return mouth


def prior_for(encoder: dict, path: str = "") -> Optional[Prior]:
    """The speaker prior for the features of an encoder.

    Args:
        encoder: its spec.
        path: file of a prior; "": the package's.

    Returns:
        the prior; None if the package has none for this encoder.

    Raises:
        InputError: the file is not a prior, or is one for another encoder.
    """
    if not path:
        return built_in_prior() if built_in_prior().encoder == encoder else None
    prior = load_prior(path)
    if prior.encoder != encoder:
        raise InputError(f"a speaker prior for the dataset's encoder, {describe(encoder)}",
                         f"one for {describe(prior.encoder)} in '{path}'",
                         "Fit a prior to clips prepared with that encoder, or leave it out.")
    return prior


def _fit_prior_link(mouth: Mouth, features: Tensor, shapes: Tensor) -> None:
    """Fit the map from the prior's mouth space to this person's coefficients.

    Args:
        mouth: its shape model is fitted already.
        features: [N, 16, 29] of the training frames.
        shapes: [N, D] of the training frames.
    """
    link = mouth.link
    assert isinstance(link, PriorLink)
    predicted, moved = link.prior(features), shapes - mouth.mean
    link.rest.copy_(predicted.mean(0))
    x, y = (predicted - link.rest).double(), mouth.encode(shapes).double()
    start = (_style(link.prior, moved)[:, None] * link.prior.basis @ mouth.modes.t() / mouth.spread).double()
    residual, penalty = (y - x @ start).numpy(), CORRECTION / len(x)
    left_out = x @ start + torch.from_numpy(ridge.leave_block_out(x.numpy(), residual, penalty))
    mouth.cross_validated_r.copy_(_correlations(left_out, y))
    weights = start + torch.from_numpy(ridge.weights(x.numpy(), residual, penalty))
    link.weights.copy_(link.prior.gain[:, None] * weights)
    spread = lip_gap(mouth.decode(link(features))).std()
    if spread > 0:
        link.weights.mul_((lip_gap(shapes).std() / spread).clamp(*STYLE_RANGE))


def _style(prior: Prior, moved: Tensor) -> Tensor:
    """How far this person moves along each component of the mouth space, [8] head units.

    Args:
        prior: gives the components, and how far other speakers move along each.
        moved: [N, D] shapes of the training frames without their mean.
    """
    size = moved.std()
    own = (moved @ prior.basis.t()).square().mean(0)
    others = (size * prior.spread).square()
    return ((len(moved) * own + STYLE_FRAMES * others) / (len(moved) + STYLE_FRAMES)).sqrt()


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each column of two [N, K] matrices; 0 for a constant one."""
    return torch.nan_to_num(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a.t(), b.t())]))


def _fit_feature_link(mouth: Mouth, features: Tensor, shapes: Tensor) -> None:
    """Fit a ridge regression to the clip alone; the arguments are those of `_fit_prior_link`.

    It explains a small part of the variance (a correlation of r), and the rest of the motion would be missing:
    predictions are scaled so that their standard deviation is sqrt(r) of the tracked one, between what is explained (r)
    and all of it (1).
    """
    link = mouth.link
    assert isinstance(link, FeatureLink)
    inputs, coefficients = link.inputs(features), mouth.encode(shapes)
    link.input_mean.copy_(inputs.mean(0))
    # constant inputs (a channel that never changes) stay without effect
    spread = inputs.std(0)
    link.input_spread.copy_(torch.where(spread > 1e-4, spread, torch.inf))
    x, y = ((inputs - link.input_mean) / link.input_spread).double().numpy(), coefficients.double()
    left_out = torch.from_numpy(ridge.leave_block_out(x, y.numpy(), RIDGE))
    r = _correlations(left_out, y)
    mouth.cross_validated_r.copy_(r)
    scale = r.clamp_min(MIN_R).sqrt() / left_out.std(0).clamp_min(1e-3)
    scale = torch.where(r > 0, scale, MIN_R)
    link.weights.copy_(torch.from_numpy(ridge.weights(x, y.numpy(), RIDGE)) * scale)
