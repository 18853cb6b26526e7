"""Protects: images are read and written whatever the path is called, on every system."""
import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.image_io import encode_jpeg, encode_png, read_rgb, write_jpeg, write_png

ROOT = Path(__file__).parents[1]


def picture():
    """Red to the left, a blue gradient to the right: [40, 60, 3] uint8."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0], image[:, 30:, 2] = 200, np.linspace(40, 240, 40, dtype=np.uint8)[:, None]
    return image


@pytest.mark.parametrize("folder", ["plain", "Übung für ñ", "顔の動画", "лицо", "emoji 🙂 #1 100%"])
def test_any_path_holds_images(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir()
    write_png(place / f"{folder}.png", picture())
    np.testing.assert_array_equal(read_rgb(place / f"{folder}.png"), picture())
    write_jpeg(place / f"{folder}.jpg", picture())
    assert np.abs(read_rgb(place / f"{folder}.jpg").astype(int) - picture()).max() <= 12, "colours or channels swapped"
    assert sorted(p.name for p in place.iterdir()) == [f"{folder}.jpg", f"{folder}.png"]


def test_encoded_bytes_are_those_of_the_files(tmp_path):
    write_png(tmp_path / "a.png", picture())
    write_jpeg(tmp_path / "a.jpg", picture(), quality=80)
    assert (tmp_path / "a.png").read_bytes() == encode_png(picture())
    assert (tmp_path / "a.jpg").read_bytes() == encode_jpeg(picture(), 80)
    assert len(encode_jpeg(picture(), 30)) < len(encode_jpeg(picture()))


def test_grey_images_and_images_with_alpha_become_rgb(tmp_path):
    for shape in ((8, 9), (8, 9, 4)):
        (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.full(shape, 90, np.uint8))[1].tobytes())
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.full((8, 9, 3), 90, np.uint8))


@pytest.mark.parametrize("content, words", [(None, "no file"), (b"", "0 bytes"), (b"text", "cannot be")])
def test_what_is_no_image_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "ü.png").write_bytes(content)
    with pytest.raises(InputError, match=f"{words}|ü.png.*{words}"):
        read_rgb(tmp_path / "ü.png")


def test_nothing_hands_paths_to_opencv():
    """`cv2.imread` and `cv2.imwrite` return None and False for non-ASCII paths on Windows, without a word."""
    wrong, folders = [], ("egstalker_nb", "benchmarks", "tools", "data")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.name if isinstance(node, ast.alias) else ""
            if name in ("imread", "imreadmulti", "imwrite", "imwritemulti", "VideoCapture", "VideoWriter"):
                wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '')} {name}")
    assert not wrong
