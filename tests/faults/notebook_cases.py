"""Bad input: notebooks, galleries, and the arguments of a headless run."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

from .bad_input import Case

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "data" / "sample" / "clip.mp4"
CODE: dict[str, Any] = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "execution_count": 1,
                        "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}


def book(*cells: Any, **changes: Any) -> str:
    """An executed notebook as JSON."""
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CODE, *cells], **changes})


def cell(**changes: Any) -> dict[str, Any]:
    """A code cell; a value of None removes a key."""
    return {key: value for key, value in {**CODE, "id": "b", **changes}.items() if value is not None}


def output(**data: Any) -> dict[str, Any]:
    """A code cell with one output."""
    data = {key.replace("_", "/"): value for key, value in data.items()}
    return cell(outputs=[{"output_type": "display_data", "metadata": {}, "data": data}])


def plot(value: Any) -> dict[str, Any]:
    return output(**{"application/vnd.plotly.v1+json": value})


def gallery(name: str, content: str | bytes, *words: str) -> Case:
    """A gallery of one good notebook and one with this content, which is named."""
    def command(folder: Path) -> list[Any]:
        place = folder / "outputs" / "me" / "notebooks"
        place.mkdir(parents=True)
        (place / "01_data_prep.ipynb").write_text(book())
        (place / "odd.ipynb").write_bytes(content.encode() if isinstance(content, str) else content)
        return ["gallery"]

    return Case(f"gallery_{name}", command, ("odd.ipynb", *words))


def gallery_folder(name: str, make: Callable[[Path], Any], *words: str) -> Case:
    """A gallery whose folders `make` has prepared beside one good notebook."""
    def command(folder: Path) -> list[Any]:
        (folder / "outputs" / "me" / "notebooks").mkdir(parents=True)
        (folder / "outputs" / "me" / "notebooks" / "01_data_prep.ipynb").write_text(book())
        make(folder / "outputs")
        return ["gallery"]

    return Case(f"gallery_{name}", command, words)


def foreign(outputs: Path) -> None:
    (outputs / "gallery" / "assets").mkdir(parents=True)
    (outputs / "gallery" / "assets" / "files.txt").write_text("index.html\nassets/files.txt\n")
    for name in ("index.html", "my notes.txt"):
        (outputs / "gallery" / name).write_text(name)


def run(name: str, words: tuple[str, ...], *arguments: Any, make: Callable[[Path], Any] = lambda folder: None) -> Case:
    """A headless run of the sample, or of the first argument that is no option."""
    def command(folder: Path) -> list[Any]:
        make(folder)
        video = [] if arguments and str(arguments[0])[0] != "-" else [CLIP]
        return ["run", *video, *arguments, "--config", "quick_test"]

    return Case(f"run_{name}", command, words)


LONG = "n" * 300

CASES: list[Case] = [
    gallery("not_json", "{", "JSON"),
    gallery("json_list", "[1, 2]"),
    gallery("empty", ""),
    gallery("utf16", book().encode("utf-16"), "UTF-8"),
    gallery("deeply_nested", 100_000 * "["),
    gallery("no_metadata", json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": []})),
    gallery("metadata_list", book(metadata=[1])),
    gallery("future_format", book(nbformat=99)),
    gallery("format_text", book(nbformat="four")),
    gallery("cells_text", book(cells="none")),
    gallery("cell_without_source", book(cell(source=None))),
    gallery("unknown_cell_type", book(cell(cell_type="video"))),
    gallery("unknown_output", book(cell(outputs=[{"output_type": "film"}]))),
    gallery("output_is_a_number", book(output(text_html=5))),
    gallery("image_not_base64", book(output(image_png="not base64!"))),
    gallery("plot_is_a_list", book(plot([1])), "outputs that can be shown"),
    gallery("plot_of_odd_height", book(plot({"data": [], "layout": {"height": "tall"}})), "outputs that can be shown"),
    gallery("plot_of_infinite_height", book(plot({"data": [], "layout": {"height": 1e999}}))),
    gallery_folder("notebook_is_a_folder", lambda outputs: (outputs / "me" / "notebooks" / "odd.ipynb").mkdir(),
                   "odd.ipynb", "not a file"),
    gallery_folder("notebook_is_a_pipe", lambda outputs: os.mkfifo(outputs / "me" / "notebooks" / "odd.ipynb"),
                   "odd.ipynb", "not a file"),
    gallery_folder("link_to_nothing", lambda outputs: (outputs / "me" / "notebooks" / "odd.ipynb").symlink_to("gone"),
                   "odd.ipynb"),
    gallery_folder("foreign_file_in_the_old_one", foreign, "my notes.txt", "elsewhere"),
    gallery_folder("folder_is_a_file", lambda outputs: (outputs / "gallery").write_text("x"), "something else"),
    Case("gallery_name_too_long", lambda folder: [*gallery("", book()).command(folder), "--out", LONG],
         ("a shorter name",)),
    Case("gallery_no_outputs", lambda folder: ["gallery", "--outputs", "no"], ("make demo",)),
    run("video_missing", ("a video at", "no such file"), "no.mp4"),
    run("video_name_with_newline", ("a video at", "no such file"), "a\nb.mp4"),
    run("video_name_too_long", ("a video at", "no such file"), f"{LONG}.mp4"),
    run("video_is_a_folder", ("a video at", "a folder"), ".."),
    run("audio_missing", ("an audio file at",), "--audio", "no.wav"),
    run("name_with_slash", ("slashes",), "--name", "../x"),
    run("name_with_newline", ("slashes and line breaks",), "--name", "a\nb"),
    run("name_too_long", ("a shorter name",), "--name", LONG),
    run("out_is_a_file", ("folder that can be written to", "out"), "--out", "out",
        make=lambda folder: (folder / "out").write_text("x")),
    run("notebooks_is_a_file", ("folder that can be written to",), "--out", "out",
        make=lambda folder: [(folder / "out").mkdir(), (folder / "out" / "notebooks").write_text("x")]),
]
