"""Exercises of notebook 03: what the fine stage gained, what the mouth attends to, when validation was nearly at its
best."""
from __future__ import annotations

import numpy as np

from ...analysis import attribution
from ...metrics.image_metrics import psnr
from ...rendering import inspection
from ...rendering.renderer import Renderer
from ...training.history import History
from ...training.run import Run
from . import Exercise, Exercises

NEAR = 1.0  # dB below the best


def mouth_psnr(renderer: Renderer, i: int) -> float:
    """PSNR in dB inside the lip rectangle of frame i, as the head renders it."""
    ds = renderer.ds
    x0, y0, x1, y1 = ds.lip_rect[i]
    shown = inspection.render_frames(renderer, [i])[0, y0:y1, x0:x1]
    return float(psnr(shown, ds.frame(i)[y0:y1, x0:x1]))


def fine(run: Run) -> Exercises:
    """The three questions about a run with a fine stage."""
    ds = run.dataset
    widest, coarse = int(np.argmax(ds.aperture[:ds.num_train])), max(run.config.coarse_iterations, 1)

    def gained() -> float:
        return mouth_psnr(Renderer.from_run(run), widest) - mouth_psnr(Renderer.from_run(run, coarse), widest)

    def attended() -> str:
        return attribution.most_attended_token(Renderer.from_run(run), widest, "mouth")

    def when() -> int:
        at, value = History(run.root).curve("val_psnr", "eval", points=10**9)
        return int(at[np.argmax(value >= value.max() - NEAR)])

    return Exercises([
        Exercise(f"How many dB did the fine stage gain on the mouth (the lip rectangle) of training frame {widest}, "
                 "in which it is widest (to 0.1)?", gained, 0.1,
                 "Render the frame by nb.render_frames, with start and with end. Cut ds.lip_rect (x0, y0, x1, y1) out "
                 "of both and out of ds.frame; compare by nb.psnr.",
                 f"i = {widest}\nx0, y0, x1, y1 = ds.lip_rect[i]\n"
                 "images = [*(nb.render_frames(renderer, [i])[0] for renderer in (start, end)), ds.frame(i)]\n"
                 "before, after, truth = [image[y0:y1, x0:x1] for image in images]\n"
                 "nb.psnr(after, truth) - nb.psnr(before, truth)"),
        Exercise(f"To which token do mouth, chin and jaw attend most in frame {widest}? (its name in quotes)", attended,
                 hint="The highest line in the left chart of the attention panel; they may be close.",
                 solution=f"weights = end.head.attention(end.conditions([{widest}]))[0]  # [Gaussians, tokens]\n"
                          "net, means = end.head.deformation, end.head.gaussians['means']\n"
                          "mouth = nb.share_of_parts(means, net.mouth_landmarks, net.eye_landmarks)[:, 1]\n"
                          "mean = (weights * mouth[:, None]).sum(0) / mouth.sum()\n"
                          "nb.TOKENS[int(mean.argmax())]"),
        Exercise(f"At which evaluation (its iteration) was the PSNR of validation frames first within {NEAR:g} dB of "
                 "its best?", when, 0.0, "Each is a point on the curve of validation frames; the numbers are val_psnr "
                 "in trained.metrics('eval').",
                 "rows = trained.metrics('eval')\nbest = max(row['val_psnr'] for row in rows)\n"
                 f"next(row['iteration'] for row in rows if row['val_psnr'] >= best - {NEAR:g})"),
    ])
