"""Fit the shape model of a person's mouth and its prediction from audio."""
from __future__ import annotations

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..model.mouth import INPUTS, MODES, OPEN_TAPS, Mouth
from ..speech import ridge
from ..speech.phones import CLASSES, OPENNESS
from ..speech.voice_activity import shut_in_silence

RANK = 1e-4             # of the first component's spread: components of less are rounding errors
OPEN_WEIGHT = 3.0       # how much less the weights of openness are penalised
RIDGE = 3.0             # penalty per frame, inputs having unit variance
MIN_R = 0.1             # a component's cross-validated correlation counts as at least this
SHUT_SHARE = 0.1        # share of the training frames that show a closed mouth


def fit_mouth(ds: Dataset) -> Mouth:
    """Fit a dataset's mouth: PCA of its shapes, and a ridge regression that predicts the coefficients from audio.

    Only training frames are used. Ridge regression has few degrees of freedom, which suits a few seconds of video. It
    explains a small part of the variance (a correlation of r), and the rest of the motion would be missing: predictions
    are scaled so that their standard deviation is sqrt(r) of the tracked one, between what is explained (r) and all of
    it (1).

    Args:
        ds: shapes of lips and jaw (`Dataset.mouth`), audio features, aperture and audio are used.
    """
    mouth, shapes, features = Mouth(len(ds)), torch.from_numpy(ds.mouth), torch.from_numpy(ds.features)
    known = shapes[:ds.num_train]
    mouth.mean.copy_(known.mean(0))
    _, values, modes = torch.linalg.svd((known - mouth.mean).double(), full_matrices=False)
    # beyond the shapes' own degrees of freedom there are rounding errors only, which nothing can predict
    count = min(MODES, int((values > RANK * values[0]).sum()))
    mouth.modes[:count] = modes[:count].float()
    mouth.spread[:count] = values[:count].float() / len(known) ** 0.5
    mouth.spread.clamp_(min=1e-6)
    if ds.encoder.get("name") == "phones":
        mouth.openness.copy_(torch.tensor([OPENNESS[name] for name in CLASSES]))
    tracked = mouth.encode(shapes)
    aperture = torch.from_numpy(ds.aperture[:ds.num_train])
    narrowest = aperture.argsort()[:max(1, round(SHUT_SHARE * len(aperture)))]
    mouth.shut.copy_(tracked[narrowest].mean(0))
    _fit_prediction(mouth, mouth.inputs(features)[:ds.num_train], tracked[:ds.num_train])
    silent = torch.from_numpy(shut_in_silence(ds.audio(), len(ds)))
    predicted = mouth.predict(features, silent)
    mouth.coefficients.copy_(torch.cat([tracked[:ds.num_train], predicted[ds.num_train:]]))
    return mouth


def _fit_prediction(mouth: Mouth, inputs: Tensor, coefficients: Tensor) -> None:
    """Fit the weights from inputs [N, I] to coefficients [N, 8]."""
    mouth.input_mean.copy_(inputs.mean(0))
    # constant inputs (a class that never occurs, no openness) stay without effect
    spread = inputs.std(0)
    mouth.input_spread.copy_(torch.where(spread > 1e-4, spread, torch.inf))
    x = ((inputs - mouth.input_mean) / mouth.input_spread).double()
    free = torch.ones(INPUTS, dtype=torch.float64)
    free[-len(OPEN_TAPS):] = OPEN_WEIGHT
    x, y = x * free, coefficients.double()
    left_out = torch.from_numpy(ridge.leave_block_out(x.numpy(), y.numpy(), RIDGE))
    r = torch.nan_to_num(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(left_out.t(), y.t())]))
    mouth.cross_validated_r.copy_(r)
    scale = r.clamp_min(MIN_R).sqrt() / left_out.std(0).clamp_min(1e-3)
    scale = torch.where(r > 0, scale, MIN_R)
    mouth.weights.copy_(torch.from_numpy(ridge.weights(x.numpy(), y.numpy(), RIDGE)) * free[:, None] * scale)
