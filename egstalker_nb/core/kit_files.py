"""The notebooks and the sample, wherever the package is installed, and copies of them to work in."""
from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .files import foreign_files, make_folder, shortened, write_bytes

_PACKAGE = Path(__file__).resolve().parents[1]
#: the folder with `notebooks/` and `data/sample/`: in a wheel `setup.py` puts it into the package, else the source tree
KIT = _PACKAGE / "kit" if (_PACKAGE / "kit").is_dir() else _PACKAGE.parent
NOTEBOOK_DIR = KIT / "notebooks"
SAMPLE = "clip.mp4", "speech.wav", "README.md"


def copy_kit(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks and the sample into a folder; files that are there already are never overwritten.

    Args:
        folder: gets `notebooks/` and `data/sample/`, which the notebooks' own paths lead to.

    Returns:
        the files that were written, and those that were there with other content, such as edited notebooks.

    Raises:
        InputError: it is a file, or the kit's own folder.
        StorageError: it cannot be written to.
    """
    folder = Path(folder)
    foreign_files(folder)  # an error where a file stands
    if folder.resolve() == KIT.resolve():
        raise InputError("another folder than the kit's own", f"'{shortened(folder)}'", "Its notebooks are there.")
    sources = [*sorted(NOTEBOOK_DIR.glob("*.ipynb")), *(KIT / "data" / "sample" / name for name in SAMPLE)]
    written, kept = [], []
    for source in sources:
        target, data = folder / source.relative_to(KIT), source.read_bytes()
        make_folder(target.parent)
        if not target.exists():
            write_bytes(target, data)
            written.append(target)
        elif not target.is_file() or target.read_bytes() != data:
            kept.append(target)
    return written, kept
