"""Protects: connecting to a Ray cluster leaves nothing behind, and a cluster that is not there is named at once."""
import os
import signal
import socket
import sys

import pytest

from egstalker_nb.core import ray_cluster
from egstalker_nb.core.errors import InputError, MissingPackageError, UnfinishedError
from egstalker_nb.core.ray_cluster import connected


class FakeRay:
    """Notes what is asked of it; its `init` takes SIGTERM, as Ray's does."""

    def __init__(self, error=None):
        self.up, self.given, self.error = False, None, error

    def init(self, address, **options):
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.given = address, options
        if self.error:
            raise self.error
        self.up = True

    def is_initialized(self):
        return self.up

    def shutdown(self):
        self.up = False


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


def test_by_default_a_cluster_is_embedded_and_ends_with_the_block(fake):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), connected(num_cpus=3) as ray:
        assert ray is fake and fake.up and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        address, options = fake.given
        assert address == "local" and options["num_cpus"] == 3
        assert options["include_dashboard"] is False and options["log_to_driver"] is False
        raise KeyError
    assert not fake.up and signal.getsignal(signal.SIGTERM) is before


def test_a_connection_that_is_there_is_shared_and_kept(fake):
    with connected(), connected(num_cpus=9) as inner:
        assert inner is fake and "num_cpus" not in fake.given[1]
    assert not fake.up
    fake.up = True  # a user's own `ray.init()`
    with connected():
        pass
    assert fake.up


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_a_cluster_by_address_is_not_resized(fake, monkeypatch, place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if place == "environment":
            monkeypatch.setenv("RAY_ADDRESS", address)
        with connected(address if place == "argument" else None, num_cpus=3, object_store_memory=10 ** 8,
                       namespace="a"):
            assert fake.given == (address, {"log_to_driver": False, "logging_level": 40, "namespace": "a"})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "host:", ":1", "a\nb:7"])
def test_a_cluster_that_cannot_be_reached_is_named(fake, address):
    """Ray itself tries for more than five minutes."""
    with pytest.raises(InputError, match="a Ray cluster at") as raised, connected(address):
        pass
    assert fake.given is None and "\n" not in str(raised.value)


@pytest.mark.parametrize("address, error", [(None, UnfinishedError), ("auto", InputError)])
def test_a_start_that_fails_leaves_nothing_behind(fake, address, error):
    before, fake.error = signal.getsignal(signal.SIGTERM), RuntimeError("no memory\nand a trace")
    with pytest.raises(error, match="no memory") as raised, connected(address):
        pass
    assert signal.getsignal(signal.SIGTERM) is before and "trace" not in str(raised.value)


def test_the_token_of_a_new_cluster_is_for_its_owner_alone(fake, monkeypatch, tmp_path):
    """Whoever has it can run code here; Ray itself lets everybody read it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with connected():
        token = tmp_path / ".ray" / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text()) == 64
    before = token.read_text()
    token.chmod(0o644)
    with connected():
        assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == before


def test_without_a_home_the_token_lives_with_the_process(fake, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with connected():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")


def test_without_ray_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'egstalker-nb\[cluster\]'"), connected():
        pass
    assert ray_cluster  # imported without it
