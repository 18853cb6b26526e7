"""Protects: the kit works for users without a writable home, and compiled code is not read from a folder of others."""
import os
import stat
import subprocess
import sys
from pathlib import Path

from egstalker_nb.core import numba_cache

PROGRAM = """
import os
from egstalker_nb.core import numba_cache
numba_cache._writable = lambda folder: False
numba_cache.ensure_cache()
print(os.environ["NUMBA_CACHE_DIR"], oct(os.stat(os.environ["NUMBA_CACHE_DIR"]).st_mode & 0o777))
"""


def test_without_a_writable_place_there_is_a_private_one_until_the_end():
    environment = {k: v for k, v in os.environ.items() if k != numba_cache.VARIABLE}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    folder, mode = done.stdout.split()
    assert int(mode, 8) == stat.S_IRWXU and not Path(folder).exists()


def test_where_numba_can_write_it_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.delenv(numba_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "made" / "yet"))
    numba_cache.ensure_cache()
    assert numba_cache.VARIABLE not in os.environ
