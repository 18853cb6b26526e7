"""Exercises of notebook 02."""
from __future__ import annotations

from ...analysis import attribution
from ...core.errors import DatasetError
from ...rendering.renderer import Renderer
from ...training.metrics_log import History
from ...training.run import Run
from . import Exercise, Exercises


def goal(run: Run, last: int) -> int:
    """A PSNR in whole dB that training batches pass about half way up in the coarse stage."""
    values = History(run.root).upto(last).curve("psnr", points=10**9)[1]
    if not len(values):
        raise DatasetError("a run with logged steps", f"none in '{run.root}'", "Train it first.")
    return int((values.min() + values.max()) // 2)


def coarse(run: Run) -> Exercises:
    """When it got good, which term is largest, which term pulls hardest on opacity; on the coarse stage of `run`.

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

    rows = f"rows = [r for r in trained.metrics('train') if r['iteration'] <= {last}]\n"
    return Exercises([
        Exercise(f"At which iteration of the log did the PSNR of training batches first pass {decibels} dB?",
                 when, 0.0, "Hover over the curve, or look through trained.metrics('train') for the first such row.",
                 rows + f"next(r['iteration'] for r in rows if r['psnr'] > {decibels})"),
        Exercise("Which loss term has the largest share of the loss at the end of the coarse stage? (its name in "
                 "quotes)", largest, hint="The thickest layer at the right end of the chart of shares.",
                 solution=rows + "max(('l1', 'dssim', 'mask'), key=lambda name: rows[-1].get(name, 0))"),
        Exercise("Which loss term pulls hardest on the opacity of the Gaussians, in the middle training frame "
                 f"({run.dataset.num_train // 2})? (its name in quotes)",
                 strongest, hint="Show that frame with widgets.LossTerms(trained, last, ds.num_train // 2), and find "
                 "the highest bar of the pull on opacity.",
                 solution="found = nb.attribution.term_gradients(renderer, [ds.num_train // 2])\n"
                          "norms = nb.attribution.gradient_norms(found)\n"
                          "max((n for n in norms if n != 'loss'), key=lambda n: norms[n]['opacities'])"),
    ])
