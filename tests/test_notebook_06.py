"""Notebook 06: what it computes by hand is what the package computes, with a speaker prior and without."""
import copy
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from egstalker_nb import notebook
from egstalker_nb.analysis.audio_curves import compute_audio_curves
from egstalker_nb.config import load_config
from egstalker_nb.model.audio_link import FeatureLink, PriorLink
from egstalker_nb.rendering.renderer import Renderer
from egstalker_nb.rendering.script import audio_script
from egstalker_nb.scheduling import runner
from egstalker_nb.speech.encoders import load_encoder
from egstalker_nb.training.init_head import new_head


def cells_by_hand():
    """Sources of the code cells of the section."""
    cells = nbformat.read(runner.NOTEBOOK_DIR / f"{runner.RESULT}.ipynb", as_version=4).cells
    first = next(i for i, cell in enumerate(cells) if cell.source.startswith("## By hand"))
    last = next(i for i, cell in enumerate(cells) if i > first and cell.source.startswith("## "))
    return [cell.source for cell in cells[first:last] if cell.cell_type == "code"]


@pytest.mark.parametrize("encoder, link", [("phones", PriorLink), ("logmel", FeatureLink)])
def test_by_hand_as_the_package(sample_dataset, sample_clip, encoder, link):
    """The weights up to their common factor, and the coefficient of both frames: the mouth wide, and shut."""
    ds = copy.copy(sample_dataset)
    if encoder != "phones":
        net = load_encoder(encoder)
        ds.encoder, ds.features = net.spec, net.features(ds.audio(), len(ds))
    renderer = Renderer(new_head(ds, load_config("quick_test")), ds)
    assert type(renderer.head.mouth.link) is link
    script = audio_script(renderer, sample_clip.with_name("speech.wav"))
    curves = compute_audio_curves(renderer, script)
    names = {"np": np, "torch": torch, "nb": notebook,
             "trained": SimpleNamespace(dataset=ds, load_head=lambda device: copy.deepcopy(renderer.head).to(device)),
             "studio": SimpleNamespace(script=script, curves=curves, predicted_opening=curves.opening)}
    for source in cells_by_hand():
        exec(source, names)
    np.testing.assert_allclose(names["by_hand"], names["predicted"], atol=1e-4)
    np.testing.assert_allclose(names["package"], names["a"] * names["ours"], atol=1e-5)
    assert 0.4 < names["a"] and names["s"].any() == (encoder == "phones")
    assert names["c"][0] < 0.5 and (names["c"][1] > 0.5 or encoder != "phones")
