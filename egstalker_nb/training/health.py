"""The guard that stops a run which has gone wrong: a loss that is not finite, a head that collapses."""
from __future__ import annotations

from typing import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..core.errors import TrainingError
from .run import Run

#: a head has collapsed when one of these falls below this share of its highest value so far: mean opacity of the
#: Gaussians, share of the head mask that the (deformed) splats cover, number of Gaussians
COLLAPSE = {"opacity": 0.3, "coverage": 0.3, "points": 0.5}


class HealthGuard:
    """Raises a TrainingError that names the iteration, the loss terms and the last good checkpoint.

    Attributes:
        peak: the highest values so far of what `COLLAPSE` lists; part of a checkpoint.
    """

    def __init__(self, run: Run):
        self.run = run
        self.peak: dict[str, float] = {name: 0.0 for name in COLLAPSE}

    def check_losses(self, names: Sequence[str], rows: Tensor, first: int) -> None:
        """Stop where a loss term is not finite.

        Args:
            names: of the terms.
            rows: [steps, terms] their values.
            first: iteration of the first row.
        """
        for offset in (~torch.isfinite(rows).all(1)).nonzero()[:1, 0].tolist():
            raise self._stopped(f"a loss that is not finite at iteration {first + offset}",
                                dict(zip(names, rows[offset].tolist())))

    def check_collapse(self, iteration: int, now: Mapping[str, float], terms: Mapping[str, float]) -> None:
        """Stop where a value of `COLLAPSE` has fallen too far below its peak."""
        self.peak = {k: max(self.peak[k], now[k]) for k in COLLAPSE}
        if any(now[k] < share * self.peak[k] for k, share in COLLAPSE.items()):
            facts = ", ".join(f"{k} {now[k]:.4g} (peak {self.peak[k]:.4g})" for k in COLLAPSE)
            raise self._stopped(f"a collapse by iteration {iteration}: {facts}", terms)

    def check_parameters(self, module: nn.Module, iteration: int) -> None:
        """Stop where a parameter is not finite."""
        bad = [name for name, p in module.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            raise self._stopped(f"parameters that are not finite at iteration {iteration}: {', '.join(bad)}", {})

    def _stopped(self, what: str, terms: Mapping[str, float]) -> TrainingError:
        listed = ", ".join(f"{k} {v:.4g}" for k, v in terms.items())
        good = self.run.iterations
        kept = f"The last good checkpoint is iteration {good[-1]}." if good else "No checkpoint was written yet."
        return TrainingError("a finite loss and a head that does not collapse", f"{what} ({listed})",
                             f"{kept} Lower the learning rates or check the dataset's report, and train again.")
