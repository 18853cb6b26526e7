"""Puts the notebooks and the sample into the wheel; everything else is in pyproject.toml.

An editable installation takes them from the source tree, see `egstalker_nb.core.kit_files`.
"""
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

KIT = "notebooks/*.ipynb", "data/sample/README.md", "data/sample/clip.mp4", "data/sample/speech.wav"


class BuildWithNotebooks(build_py):
    """`build_py`, and the files of KIT in the package's folder `kit`."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in self.kit().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def kit(self):
        """Where each file goes: source -> place in the build."""
        root, found = Path(__file__).resolve().parent, {}
        for pattern in KIT:
            paths = sorted(root.glob(pattern))
            if not paths:
                raise FileNotFoundError(f"no {pattern} in {root}")
            found |= {str(p): str(Path(self.build_lib, "egstalker_nb", "kit", p.relative_to(root))) for p in paths}
        return found

    def get_outputs(self, include_bytecode=True):
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self.kit().values()))


setup(cmdclass={"build_py": BuildWithNotebooks})
