"""Protects: what is said of a package that is missing, lacks one itself, or is broken."""
import sys

import pytest

from egstalker_nb.core.errors import MissingPackageError, require_package


@pytest.mark.parametrize("text, found", [
    (None, "found no package 'made_up_package'"),
    ("import absent_part.of_it", "found no package 'absent_part', which it needs"),
    ("raise ImportError('libGL.so.1: cannot open\\nmore')", "cannot be imported (libGL.so.1: cannot open). Install"),
    ("value = 3", None),
])
def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch, text, found):
    if text is not None:
        (tmp_path / "made_up_package.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_up_package", raising=False)
    if found is None:
        assert require_package("made_up_package", "it", "Install it.").value == 3
        return
    with pytest.raises(MissingPackageError) as error:
        require_package("made_up_package", "it, which does something", "Install it.")
    assert found in str(error.value)
