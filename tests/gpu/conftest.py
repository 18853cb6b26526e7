"""Without gsplat's extension no test here can draw: it is built first, as by `make setup`."""
import pytest
import torch

from egstalker_nb.cuda_setup import setup_gpu


@pytest.fixture(scope="session", autouse=True)
def ready_card():
    if torch.cuda.is_available():
        setup_gpu()
