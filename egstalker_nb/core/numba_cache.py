"""A place for Numba's compiled code on computers without a writable home: to be called before Numba is imported."""
from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def ensure_cache() -> None:
    """Give Numba a temporary cache if it can write neither beside the compiled files nor into the user's cache.

    Without one, importing librosa fails, and our own kernels are compiled in each process.
    """
    if VARIABLE in os.environ or _writable(_user_cache()) or all(map(_writable, _sources())):
        return
    # a fresh folder of our own: what lies in a cache is executed
    folder = os.environ[VARIABLE] = tempfile.mkdtemp(prefix="egs-numba-")
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not at the end of a forked child
        shutil.rmtree(folder, ignore_errors=True)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def _sources() -> list[Path]:
    """Folders whose files are compiled."""
    spec = importlib.util.find_spec("librosa")
    return [Path(__file__).parents[1], *([Path(spec.origin).parent] if spec and spec.origin else [])]


def _writable(folder: Path) -> bool:
    """Whether files can be made in the folder, or the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)
