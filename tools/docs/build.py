"""The documentation as a web site that works offline: README, the pages under `docs/`, and the API reference.

    python tools/docs/build.py outputs/docs     # make docs

The reference holds the public names of `egstalker_nb` and `egstalker_nb.notebook`, the modules that are public
themselves, and those of the classes that public functions return. pdoc makes its pages from the docstrings, and turns
Markdown into pages.
"""
from __future__ import annotations

import argparse
import html
import inspect
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import get_type_hints
from urllib.parse import unquote, urlsplit

import pdoc
import pygments.formatters

import egstalker_nb as egs
from egstalker_nb import notebook as nb
from egstalker_nb.core.errors import EgsError, InputError
from egstalker_nb.core.files import atomic_folder, foreign_files, make_folder

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = egs, nb
#: in this order in the navigation; pages that these link to follow
FIRST = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "SECURITY.md")
LINK = re.compile(r'(?P<before><(?:a|img)\b[^>]*?\b(?:href|src)=")(?P<target>[^"]*)(?P<after>"[^>]*>)')


# ---- the API reference ----

def modules() -> list[str]:
    """Modules with a page in the reference. As a side effect all lazy names are imported: pdoc reads `__dict__`."""
    names = [package.__name__ for package in PACKAGES] + [EgsError.__module__]
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            if isinstance(value, ModuleType):
                names.append(value.__name__)
                for lazy in getattr(value, "__all__", ()):
                    getattr(value, lazy)
            elif package is egs:
                names += [cls.__module__ for cls in returned(value)]
    first = len(PACKAGES)
    return names[:first] + sorted(set(names[first:]))


def returned(value: object) -> list[type]:
    """Classes of this package that a function, or a method of a class, returns."""
    members = [*vars(value).values()] if inspect.isclass(value) else [value]
    found = []
    for member in members:
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and not function.__name__.startswith("_"):
            words = re.findall(r"\w+", str(function.__annotations__.get("return", "")))
            known = inspect.unwrap(function).__globals__
            found += [known[word] for word in words if inspect.isclass(known.get(word))]
    return [cls for cls in found if cls.__module__.startswith(egs.__name__) and cls.__name__ not in egs.__all__]


def write_reference(out: Path, names: list[str]) -> None:
    """One page a module, and the index of the search."""
    documented = {name: pdoc.doc.Module.from_name(name) for name in names}
    for name, module in documented.items():
        for cls in vars(module.obj).values():
            if inspect.isclass(cls) and hasattr(cls, "_fields"):  # annotations of a NamedTuple lack their module
                cls.__new__.__annotations__ = get_type_hints(cls)
        page = out / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(pdoc.render.html_module(module, documented), encoding="utf-8")
    (out / "index.html").write_text(pdoc.render.html_index(documented), encoding="utf-8")
    (out / "search.js").write_text(pdoc.render.search_index(documented), encoding="utf-8")


# ---- pages from Markdown ----

def page_of(source: str) -> str:
    """Path of the page of a Markdown file; both relative, with slashes."""
    return "index.html" if source == "README.md" else source[:-len(".md")] + ".html"


def write_pages(out: Path, names: list[str]) -> None:
    """Markdown files and those that they link to; what else they link to is copied."""
    waiting, texts, links, files = list(FIRST), {}, {}, set()
    for source in waiting:  # grows meanwhile
        texts[source] = pdoc.render_helpers.to_html((ROOT / source).read_text(encoding="utf-8"))
        links[source] = {target for _, target, _ in LINK.findall(texts[source])}
        for target in sorted(links[source]):
            path = destination(source, target)
            if path and path.endswith(".md"):
                waiting += [path] if path not in waiting else []
            elif path and (ROOT / path).is_file():
                files.add(path)
    titles = {source: heading((ROOT / source).read_text(encoding="utf-8")) for source in texts}
    for source, text in texts.items():
        page = out / page_of(source)
        page.parent.mkdir(parents=True, exist_ok=True)
        body = LINK.sub(partial(relinked, source), text)
        page.write_text(pdoc.render.env.get_template("page.html.jinja2").render(
            title=titles[source], body=body, source=source, modules=names, toc=text.toc_html, upwards=upwards(source),
            pages=[(title, page_of(name)) for name, title in titles.items()]), encoding="utf-8")
    for path in files:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, out / path)


def destination(source: str, target: str) -> str | None:
    """The file in the repository that a link leads to, or None: another site, an anchor, a folder without README.

    Raises:
        InputError: no such file.
    """
    parts = urlsplit(html.unescape(target))
    if parts.scheme or parts.netloc or not parts.path:
        return None
    path = Path(os.path.normpath(ROOT / Path(source).parent / unquote(parts.path)))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise InputError(f"links in {source} to files of the repository", f"'{target}'", "Mend the link.")
    path = path / "README.md" if path.is_dir() else path
    return path.relative_to(ROOT).as_posix() if path.is_file() else None


def relinked(source: str, match: re.Match[str]) -> str:
    """A link of a Markdown file as a link of its page. One to a folder without README becomes plain text."""
    target = match["target"]
    parts = urlsplit(html.unescape(target))
    if parts.scheme or parts.netloc or not parts.path:
        return match[0]
    path = destination(source, target)
    if path is None:
        return "<a>"
    page = page_of(path) if path.endswith(".md") else path
    return match["before"] + upwards(source) + page + (f"#{parts.fragment}" if parts.fragment else "") + match["after"]


def upwards(source: str) -> str:
    """From the folder of a page to that of the site."""
    return "../" * source.count("/")


def heading(text: str) -> str:
    """The first heading of a Markdown text."""
    return re.search(r"^# (.+)$", text, re.MULTILINE)[1].replace("`", "")


# ---- the site ----

def build(out: Path) -> None:
    """Write the site; a site that is there is replaced.

    Raises:
        InputError: a folder with other files.
        StorageError: it cannot be written to.
    """
    if foreign_files(out) and not (out / "api" / "search.js").is_file():
        raise InputError("a new folder for the documentation, or one made before", f"other files in '{out}'",
                         "Choose another folder.")
    make_folder(out.parent)
    pdoc.render.configure(docformat="google", show_source=False, template_directory=HERE)
    dark = pygments.formatters.HtmlFormatter(style="github-dark").get_style_defs(".pdoc-code")
    pdoc.render.env.globals.update(dark_code=dark)
    names = modules()
    with atomic_folder(out) as fresh:
        write_pages(fresh, names)
        write_reference(fresh / "api", names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the site")
    out = parser.parse_args().out
    try:
        build(out)
    except EgsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out / 'index.html'}: open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
