"""What the speaker prior predicts for the clip of a head, and what the person's map adds to it."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..face.expression import LOWER
from ..metrics.landmark_metrics import aperture
from ..model.audio_link import PriorLink
from ..rendering import inspection
from ..rendering.renderer import Renderer
from ..speech.prior import Prior, built_in_prior


def prior_of(renderer: Renderer) -> Optional[Prior]:
    """The speaker prior of a head; None if its mouth is predicted without one (see `FeatureLink`)."""
    link = renderer.head.mouth.link
    return link.prior if isinstance(link, PriorLink) else None


def new_speakers_r(prior: Prior) -> list[float]:
    """Correlation of each component with its prediction, on speakers that were left out when the prior was fitted.

    Returns:
        [8] numbers; empty where it is not known: a head keeps the tensors of its prior, not how it was fitted.
    """
    shipped = built_in_prior()
    same = all(torch.equal(value.cpu(), shipped.state_dict()[name]) for name, value in prior.state_dict().items())
    return (shipped if same else prior).facts.get("cross_validated_r", [])


def clip_size(renderer: Renderer) -> float:
    """How much the mouth of the clip moves: standard deviation over all numbers of its training shapes, head units."""
    shapes = renderer.ds.mouth[:renderer.ds.num_train]
    return float((shapes - shapes.mean(0)).std())


@torch.no_grad()
def openings(renderer: Renderer) -> dict[str, np.ndarray]:
    """Mouth opening of each frame of the clip, lip gap over face height, [N] each, before anything shuts the lips.

    Returns:
        `tracked`, and what the audio predicts. With a speaker prior: `prior alone`, its motion on this face, moved as
        much as the clip, and `prior and person`, by the person's map. Without: `ridge regression`, fitted to the clip.
    """
    ds, mouth, link = renderer.ds, renderer.head.mouth, renderer.head.mouth.link
    features = torch.from_numpy(ds.features).to(mouth.mean)
    found = {"tracked": ds.aperture}
    if isinstance(link, PriorLink):
        motion = link.prior.motion(link.prior(features) - link.rest)
        found["prior alone"] = aperture(faces_of_shapes(ds, mouth.mean + clip_size(renderer) * motion))
    name = "prior and person" if isinstance(link, PriorLink) else "ridge regression"
    return {**found, name: aperture(inspection.mean_faces(renderer, link(features)))}


def faces_of_shapes(ds: Dataset, shapes: Tensor) -> np.ndarray:
    """The frontal mean face with the mouth shapes [F, 2 * len(LOWER)]: [F, 478, 2] head units, x right, y down."""
    faces = np.repeat(ds.mean_face[None, :, :2], len(shapes), 0)
    faces[:, LOWER] += shapes.cpu().numpy().reshape(len(shapes), len(LOWER), 2)
    return faces
