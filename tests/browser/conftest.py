"""Fixtures of the browser tests."""
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser():
    from lab import NoBrowser, find_browser

    try:
        return find_browser()
    except NoBrowser as error:
        pytest.skip(f"no browser: {error}")


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    from lab import Lab

    with Lab(tmp_path_factory.mktemp("notebooks")) as lab:
        yield lab


@pytest.fixture(scope="session")
def web_project(tmp_path_factory):
    """A copy of `web/` with the packages that pages are built with, which come from npm's registry."""
    sys.path.insert(0, str(ROOT / "tools"))
    import web_page

    project = tmp_path_factory.mktemp("web") / "web"
    shutil.copytree(ROOT / "web", project, ignore=shutil.ignore_patterns("node_modules", "dist"))
    try:
        web_page.install(project)
    except RuntimeError as error:
        pytest.skip(f"the page cannot be built here: {error}")
    return project
