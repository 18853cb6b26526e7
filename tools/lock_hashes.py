"""Adds the hashes of all files of every pinned version to the lock: `make lock` calls it.

    python3 tools/lock_hashes.py requirements.lock requirements.lock    # the same versions, hashed again

torch is left out: its builds for the CPU and for CUDA are different files of one version. `requirements.in` pins it.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """\
# Every version that `make setup` installs, on Python 3.10-3.12, with the SHA-256 of each of its files: pip refuses any
# other file. Made by `make lock` from pyproject.toml and requirements.in. Only torch is not here: its builds for the
# CPU and for CUDA are different files, so requirements.in pins its version; it is installed last (see the Makefile).
"""


def pins(text: str) -> list[str]:
    """The requirements of a lock, with or without hashes: `name==version ; marker`, without torch and without those
    for Python 3.13 on, which mediapipe does not have."""
    lines = [line.rstrip("\\ ") for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    return [line for line in lines if not line.startswith("torch==") and "python_full_version >= '3.13'" not in line]


def pip_index() -> list[str]:
    """The index that pip is set to, as arguments of uv; [] for the usual one."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found = dict(re.findall(r"^(\S+)\.index-url='(.*)'$", listed, re.MULTILINE))
    return next((["--default-index", found[place]] for place in (":env:", "install", "global") if place in found), [])


def hashed(lines: list[str]) -> str:
    """The same requirements as uv writes them, each with the hashes of its files below it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pins.txt"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [os.environ.get("UV") or "uv", "pip", "compile", str(source), "--no-deps", "--generate-hashes",
                   "--universal", "--python-version", "3.10", "--no-header", "--no-annotate", "--no-config", "--quiet"]
        return subprocess.run([*command, *pip_index()], check=True, stdout=subprocess.PIPE, text=True).stdout


def check(lines: list[str], text: str) -> None:
    """Raise ValueError where a requirement is missing, differs, or has no hash."""
    if sorted(pins(text)) != sorted(lines):
        raise ValueError(f"the index gave other versions: {sorted({*pins(text)} ^ {*lines})}")
    bare = [block.split()[0] for block in re.split(r"\n(?! )", text.strip()) if "--hash=sha256:" not in block]
    if bare:
        raise ValueError(f"the index has no hash of {', '.join(bare)}")


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    lines = pins(source.read_text(encoding="utf-8"))
    text = hashed(lines)
    check(lines, text)
    target.write_text(HEADER + text, encoding="utf-8")


if __name__ == "__main__":
    main()
