"""Find a person's mouth shapes, and the sounds that call for them."""
from __future__ import annotations

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..model.mouth import INPUTS, MODES, OPEN_TAPS, Mouth
from ..speech import ridge
from ..speech.phones import CLASSES, OPENNESS
from ..speech.voice_activity import shut_in_silence

RANK = 1e-4             # of the first component's spread: components of less are rounding errors
OPEN_WEIGHT = 3.0       # how much less the weights of openness are drawn to 0
RIDGE = 3.0             # penalty per frame, inputs having unit variance
MIN_R = 0.1           # correlation from which a mode counts as heard
SHUT_SHARE = 0.1        # share of the training frames that show a shut mouth


def fit_mouth(ds: Dataset) -> Mouth:
    """Find a dataset's mouth shapes on its training frames, and the sounds that call for them.

    The link is a ridge regression, whose few degrees of freedom suit a few seconds. What it explains of a shape is
    small, and the rest of the motion would be missing: codes are scaled so that their spread lies between what is
    explained (a share r of the mouth's own) and all of it, at sqrt(r).
    """
    mouth, shapes, features = Mouth(len(ds)), torch.from_numpy(ds.mouth), torch.from_numpy(ds.features)
    known = shapes[:ds.num_train]
    mouth.mean.copy_(known.mean(0))
    _, values, modes = torch.linalg.svd((known - mouth.mean).double(), full_matrices=False)
    # what is left beyond the mouth's own degrees of freedom is rounding, which no sound calls for
    count = min(MODES, int((values > RANK * values[0]).sum()))
    mouth.modes[:count] = modes[:count].float()
    mouth.spread[:count] = values[:count].float() / len(known) ** 0.5
    mouth.spread.clamp_(min=1e-6)
    if ds.encoder.get("name") == "phones":
        mouth.openness.copy_(torch.tensor([OPENNESS[name] for name in CLASSES]))
    codes = mouth.encode(shapes)
    aperture = torch.from_numpy(ds.aperture[:ds.num_train])
    least = aperture.argsort()[:max(1, round(SHUT_SHARE * len(aperture)))]
    mouth.shut.copy_(codes[least].mean(0))
    _fit_link(mouth, mouth.inputs(features)[:ds.num_train], codes[:ds.num_train])
    silent = torch.from_numpy(shut_in_silence(ds.audio(), len(ds)))
    mouth.coefficients.copy_(torch.cat([codes[:ds.num_train], mouth.predict(features, silent)[ds.num_train:]]))
    return mouth


def _fit_link(mouth: Mouth, inputs: Tensor, codes: Tensor) -> None:
    """Weights from inputs [N, INPUTS] to codes [N, 8]."""
    mouth.input_mean.copy_(inputs.mean(0))
    # constant inputs (a silent class, no openness) stay without effect
    spread = inputs.std(0)
    mouth.input_spread.copy_(torch.where(spread > 1e-4, spread, torch.inf))
    x = ((inputs - mouth.input_mean) / mouth.input_spread).double()
    free = torch.ones(INPUTS, dtype=torch.float64)
    free[-len(OPEN_TAPS):] = OPEN_WEIGHT
    x, y = x * free, codes.double()
    guessed = torch.from_numpy(ridge.left_out(x.numpy(), y.numpy(), RIDGE))
    r = torch.nan_to_num(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(guessed.t(), y.t())]))
    mouth.cross_validated_r.copy_(r)
    scale = r.clamp_min(MIN_R).sqrt() / guessed.std(0).clamp_min(1e-3)
    scale = torch.where(r > 0, scale, MIN_R)
    mouth.weights.copy_(torch.from_numpy(ridge.weights(x.numpy(), y.numpy(), RIDGE)) * free[:, None] * scale)
