"""Protects: whatever file or argument a user gives, there is one clear error, exit status 2, and nothing is lost."""
import pytest

from .array_cases import CASES as ARRAYS
from .bad_input import Case, check
from .checkpoint_cases import CASES as CHECKPOINTS
from .config_cases import CASES as CONFIGS
from .dataset_cases import CASES as DATASETS
from .gaussian_cases import CASES as GAUSSIANS
from .live_cases import CASES as LIVE
from .media_cases import CASES as MEDIA
from .notebook_cases import CASES as NOTEBOOKS
from .prepare_cases import CASES as PREPARE
from .score_cases import CASES as SCORES
from .sweep_cases import CASES as SWEEPS
from .upstream_folder_cases import CASES as UPSTREAM_FOLDERS
from .viewer_cases import CASES as VIEWER
from .web_cases import CASES as WEB

CASES: list[Case] = [*ARRAYS, *CHECKPOINTS, *CONFIGS, *DATASETS, *GAUSSIANS, *LIVE, *MEDIA, *NOTEBOOKS, *PREPARE,
                     *SCORES, *SWEEPS, *UPSTREAM_FOLDERS, *VIEWER, *WEB]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check(case, tmp_path, capsys)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
