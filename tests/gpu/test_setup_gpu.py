"""After the set-up the card draws, in any later process, and a second set-up has nothing to do."""
import os
import subprocess
import sys

import pytest
import torch

from egstalker_nb import cuda_setup
from egstalker_nb.core.device import rendering_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DRAW = """
from egstalker_nb.cuda_setup import check_rendering
from egstalker_nb.core.device import rendering_device
rendering_device("cuda")
assert check_rendering() < 1e-3
"""


def test_driver_and_torch_see_the_same_cards():
    cards = cuda_setup.find_driver().cards
    assert [card.capability for card in cards] == [torch.cuda.get_device_capability(i) for i in range(len(cards))]
    assert cards[0].name == torch.cuda.get_device_name(0)


def test_a_new_process_renders_without_a_compiler(tmp_path):
    """Protects people without nvcc, ninja and g++ on PATH: what was built is loaded as it is."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")} | {"PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_set_up_builds_nothing(monkeypatch):
    monkeypatch.setattr(cuda_setup, "_build", lambda *args: pytest.fail("built again"))
    assert "is ready" in cuda_setup.setup_gpu()
    assert rendering_device().type == "cuda"
