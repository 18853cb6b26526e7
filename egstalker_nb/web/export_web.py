"""`export_web`: a trained head as one HTML file that speaks what one says to it."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from ..core.errors import InputError
from ..core.files import check_target, write_text
from ..data.frame_loader import Frames
from ..metrics.image_metrics import psnr
from ..rendering.renderer import Renderer, check_mouth_driven
from ..training.run import Run
from .audio_tensors import audio_tensors
from .distil import DistilledMotion, distil
from .page_data import clip_tensors, gaussian_tensors, pack, page_facts, torso_tensors

PAGE = Path(__file__).with_name("page.html")  # `make web` builds it
HEAD, TITLE = '<script id="head" type="text/plain">', "<title>Talking head</title>"
MAX_BYTES = 15_000_000
AT_ONCE = 4


@dataclass
class WebHead:
    """An exported page, and what the distilled deformation costs.

    Attributes:
        path: the HTML file.
        bytes: its size.
        gaussians: how many the head has.
        bases: how many the deformation is a sum of.
        network_psnr: PSNR in dB of validation frames rendered by the trained network, against the clip.
        page_psnr: the same with the page's deformation.
        agreement: PSNR in dB of one against the other.
        picture: [S, S, 3] uint8, the first validation frame with the page's deformation.
    """

    path: Path
    bytes: int
    gaussians: int
    bases: int
    network_psnr: float
    page_psnr: float
    agreement: float
    picture: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        return (f"{self.path}: {self.bytes / 1e6:.1f} MB, {self.gaussians} Gaussians on {self.bases} bases, "
                f"{self.page_psnr:.2f} dB on validation frames ({self.network_psnr:.2f} dB by the trained network; "
                f"the two agree at {self.agreement:.1f} dB)")

    __repr__ = __str__


def export_web(run: Run, out: str | Path, iteration: Optional[int] = None, title: Optional[str] = None,
               device: Optional[str | torch.device] = None) -> WebHead:
    """Write a trained head as one HTML file, which opens from disk in any current browser, offline.

    In the page the head speaks what is said to it: audio encoder, mouth, deformation, splats and torso run in the
    browser. The deformation is distilled (see `distil`); the result says what that costs. The page says that it is
    synthetic, and may load and send nothing.

    Whoever has the file can make this person say anything: pass it on only as their consent allows.

    Args:
        run: see `load_run`; its dataset must have been prepared with the encoder `phones`, the default.
        out: the `.html` file to write; replaced if it is there.
        iteration: checkpoint, default the newest.
        title: of the page; default: the name of the run.
        device: that the network is evaluated on: default CUDA, else the CPU.

    Returns:
        The file and its facts.

    Raises:
        InputError: another ending, another encoder, a head without mouth coefficients, or a checkpoint of the coarse
            stage, whose mouth does not move.
        DatasetError: no such checkpoint; the dataset is missing or was changed.
    """
    out = check_target(out, ".html")
    renderer = Renderer.from_run(run, iteration, device)
    check_mouth_driven(renderer.head.cfg.audio_token, "a page")
    if not renderer.deform:
        raise InputError("a checkpoint of the fine stage", f"iteration {run.pick(iteration)} of the coarse stage, "
                         "whose mouth does not move", "Train on, or choose a later checkpoint.")
    sound, sound_facts = audio_tensors(renderer.head, renderer.ds.audio())  # raises an error before the long part
    distilled = distil(renderer)
    network_psnr, page_psnr, agreement, picture = _cost(renderer, distilled)
    title = run.root.name if title is None else title
    facts = page_facts(renderer, title) | {"audio": sound_facts}
    tensors = gaussian_tensors(distilled) | clip_tensors(renderer) | torso_tensors(renderer) | sound
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace(TITLE, f"<title>{escape(title)}</title>", 1).replace(HEAD, HEAD + pack(tensors, facts), 1)
    write_text(out, page)
    return WebHead(out, out.stat().st_size, len(renderer.head), len(distilled.bases), network_psnr, page_psnr,
                   agreement, picture)


def read_web_head(path: Path) -> Optional[bytes]:
    """A page that this version of `export_web` wrote: the page's own code, with a title and a packed head put in.

    Neither of these two is executed, so such a page may be shown whoever sent it.

    Args:
        path: any file.

    Returns:
        The whole page; None if the file is anything else, or above `MAX_BYTES`.
    """
    with path.open("rb") as file:
        page = file.read(MAX_BYTES + 1)
    return page if len(page) <= MAX_BYTES and _written().fullmatch(page) else None


@lru_cache(1)
def _written() -> re.Pattern[bytes]:
    page = re.escape(PAGE.read_bytes())
    title, head = re.escape(TITLE.encode()), re.escape(HEAD.encode())
    page = page.replace(title, b"<title>[^<>]*</title>", 1)
    return re.compile(page.replace(head, head + b"[A-Za-z0-9+/]+={0,2}", 1))


@torch.no_grad()
def _cost(renderer: Renderer, distilled: DistilledMotion) -> tuple[float, float, float, np.ndarray]:
    """PSNR of the network, of the distilled deformation, and between them, mean over the validation frames; and the
    first of these frames with the distilled deformation, [S, S, 3] uint8."""
    head, ds, device = renderer.head, renderer.ds, renderer.device
    ids = [int(i) for i in ds.split("val")]
    frames = Frames(ds, ids, device, place="disk").for_head(head)
    scores: list[torch.Tensor] = []
    picture = np.empty(0, np.uint8)
    for first in range(0, len(ids), AT_ONCE):
        batch = frames.batch(ids[first:first + AT_ONCE])
        given = frames.conditions(batch["ids"])
        exact, _ = renderer.batch(given, batch["background"])
        offsets = {name: value.to(device) for name, value in distilled.offsets(head, given).items()}
        page, _, _ = head.splat(offsets, given.w2c, renderer.K, ds.size, batch["background"])
        page.clamp_(0, 1)
        if not scores:
            picture = (page[0] * 255).round().byte().cpu().numpy()
        scores.append(torch.stack([psnr(exact, batch["frame"]), psnr(page, batch["frame"]), psnr(page, exact)]))
    network_psnr, page_psnr, agreement = torch.cat(scores, 1).mean(1).tolist()
    return network_psnr, page_psnr, agreement, picture
