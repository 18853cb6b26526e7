"""Fixtures of the browser tests."""
import pytest


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
