"""Exercises of notebook 00: reach and weight of a Gaussian, and what the faintest of them contribute."""
from __future__ import annotations

from functools import cache
from typing import Callable

import numpy as np
from torch import Tensor

from . import Exercise, Exercises

ALPHAS = (0.5, 0.8, 0.4)  # of three Gaussians, front to back


def gaussians_2d(gaussians: dict[str, Tensor], psnr: Callable[[dict[str, Tensor]], float]) -> Exercises:
    """Three questions about the 2D Gaussians of an image.

    Args:
        gaussians: parameter -> [N, ...], with the logits `opacities` [N] among them.
        psnr: how well such Gaussians reproduce the image, in dB.
    """
    def lost() -> float:
        keep = gaussians["opacities"] > gaussians["opacities"].quantile(0.1)
        return psnr(gaussians) - psnr({name: values[keep] for name, values in gaussians.items()})

    return Exercises([
        Exercise("How many standard deviations from its centre has the alpha of a Gaussian of opacity 0.5 fallen to "
                 "1/255 (to 0.05)?", lambda: float(np.sqrt(2 * np.log(0.5 * 255))), 0.05,
                 "At a distance of d standard deviations alpha is 0.5 * exp(-d² / 2); solve for d.",
                 "float(np.sqrt(2 * np.log(0.5 * 255)))"),
        Exercise(f"Three Gaussians cover a pixel with alphas of {ALPHAS[0]}, {ALPHAS[1]} and {ALPHAS[2]}, from front "
                 "to back. With what weight does the colour of the last one count (to 0.001)?",
                 lambda: float(ALPHAS[2] * np.prod(1 - np.array(ALPHAS[:2]))), 0.001,
                 "Its alpha, times what each of the two in front lets through.",
                 f"alphas = np.array({list(ALPHAS)})\nfloat(alphas[2] * np.prod(1 - alphas[:2]))"),
        Exercise("How many dB does the fit lose if the tenth of the Gaussians that have the lowest opacity is removed "
                 "(to 0.05)?", cache(lost), 0.05,
                 "Keep those above gaussians['opacities'].quantile(0.1), in all five tensors, and call psnr again.",
                 "keep = gaussians['opacities'] > gaussians['opacities'].quantile(0.1)\n"
                 "fewer = {name: values[keep] for name, values in gaussians.items()}\n"
                 "psnr(gaussians) - psnr(fewer)"),
    ])
