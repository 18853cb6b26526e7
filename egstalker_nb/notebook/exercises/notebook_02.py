"""Exercises of notebook 02: progress, shares and gradients of the loss terms in the coarse stage."""
from __future__ import annotations

from ...analysis import attribution
from ...core.errors import DatasetError
from ...rendering.renderer import Renderer
from ...training.history import History
from ...training.run import Run
from . import Exercise, Exercises


def goal(run: Run, last: int) -> int:
    """A PSNR in whole dB that training batches exceed about half-way up in the coarse stage."""
    values = History(run.root).upto(last).curve("psnr", points=10**9)[1]
    if not len(values):
        raise DatasetError("a run with logged steps", f"none in '{run.root}'", "Train it first.")
    return int((values.min() + values.max()) // 2)


def coarse(run: Run) -> Exercises:
    """When a level of PSNR was passed, which term is largest, which has the largest gradient; of the coarse stage.

    Raises:
        DatasetError: nothing was trained yet.
    """
    last = max(run.config.coarse_iterations, 1)
    decibels = goal(run, last)

    def when() -> int:
        rows = History(run.root).upto(last).of("train")
        return next(row["iteration"] for row in rows if row["psnr"] > decibels)

    def largest() -> str:
        shares = History(run.root).upto(last).shares()[1]
        return max(shares, key=lambda name: shares[name][-1])

    def strongest() -> str:
        renderer = Renderer.from_run(run, last)
        norms = attribution.gradient_norms(attribution.term_gradients(renderer, [run.dataset.num_train // 2]))
        return max((name for name in norms if name != "loss"), key=lambda name: norms[name]["opacities"])

    rows = f"rows = [row for row in trained.metrics('train') if row['iteration'] <= {last}]\n"
    return Exercises([
        Exercise(f"At which iteration of the log did the PSNR of training batches first exceed {decibels} dB?",
                 when, 0.0, "Hover over the curve, or look through trained.metrics('train') for the first such row.",
                 rows + f"next(row['iteration'] for row in rows if row['psnr'] > {decibels})"),
        Exercise("Which loss term has the largest share of the loss at the end of the coarse stage? (its name in "
                 "quotes)", largest, hint="The thickest layer at the right end of the chart of shares.",
                 solution=rows + "terms = {name: rows[-1].get(name, 0) for name in ('l1', 'dssim', 'mask')}\n"
                                 "max(terms, key=terms.get)"),
        Exercise("Which loss term has the largest gradient with respect to the opacities of the Gaussians, in the "
                 f"middle training frame ({run.dataset.num_train // 2})? (its name in quotes)",
                 strongest, hint="Show that frame with nb.widgets.LossTerms(trained, last, ds.num_train // 2), and "
                 "find the highest bar for opacity.",
                 solution="found = nb.attribution.term_gradients(renderer, [ds.num_train // 2])\n"
                          "norms = {term: float(gradients['opacities'].norm()) for term, gradients in found.items()}\n"
                          "del norms['loss']  # the sum of the terms\n"
                          "max(norms, key=norms.get)"),
    ])
