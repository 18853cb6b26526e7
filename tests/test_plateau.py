"""What a run says about whether more steps would have helped."""
import numpy as np
import pytest

from egstalker_nb.training.history import plateau


def rows(values, every=1000):
    return [{"kind": "eval", "iteration": every * (n + 1), "val_psnr": value} for n, value in enumerate(values)]


@pytest.mark.parametrize("values, said, iteration", [
    (30 - 5 * np.exp(-np.arange(30) / 2.0), "stopped helping", "of 30,000"),
    (np.linspace(20, 30, 30), "may help", "30,000"),
    (np.concatenate([np.linspace(20, 30, 10), np.linspace(30, 28, 20)]), "hurt", "More steps than 1"),
    ([30, 30, 30], "3 evaluations in training are too few", ""),
    ([], "0 evaluations", ""),
    ([30, None, 30, None], "2 evaluations", ""),
])
def test_the_curve_is_read_as_one_would(values, said, iteration):
    text = plateau(rows(values))
    assert said in text and iteration in text


def test_noise_of_single_evaluations_does_not_count():
    noise = np.random.default_rng(0).normal(0, 0.05, 30)
    assert "stopped helping" in plateau(rows(30 - 5 * np.exp(-np.arange(30) / 2.0) + noise))
