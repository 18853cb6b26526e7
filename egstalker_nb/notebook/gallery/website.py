"""Executed notebooks as a web site that needs no server and no network: `make gallery`."""
from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any, Iterator, Optional
from urllib.parse import quote, unquote

from ...core.errors import InputError, MissingPackageError, first_line
from ...core.files import atomic_folder, make_folder, shortened, writing_to
from ...core.progress import clock, progress
from ...scheduling.report import REPORT
from ...scheduling.runner import RESULT
from .clean import clean
from .head_frames import FRAME_POLICY, frame, pictured_head
from .mathml import with_mathml
from .pages import Page, found_pages, plain, sentence

TITLE = "Audio-driven 3D Gaussian talking heads"
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
SVG, PICTURES = "image/svg+xml", {"image/png": "png", "image/jpeg": "jpg"}
#: which form of an output is shown where there are several, best first
SHOWN = (PLOTLY, "text/html", SVG, *PICTURES, "text/markdown", "text/latex", "text/plain")
#: the list of a gallery's files: a folder with it may be replaced by a new gallery if it holds nothing else
FILES = "assets/files.txt"
#: what file managers leave in folders
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
VIDEOS = ("mp4", "webm", "mov")
#: files that a notebook may refer to: copied into the gallery if they lie in the project
MEDIA = (*VIDEOS, "m4v", "wav", "mp3", "m4a", "ogg", "opus", "flac", "png", "jpg", "jpeg", "gif", "webp")
ENDINGS = {"jpeg": "jpg", "svg+xml": "svg", "mpeg": "mp3", "x-wav": "wav", "quicktime": "mov"}
_DATA = re.compile(r'src=(["\'])data:(image|video|audio)/([\w.+-]+);base64,([^"\']+)\1')
#: what HTML in an output refers to by a relative path: a file beside the notebook
_BESIDE = re.compile(r'\b(src|href)=(["\'])(?![a-zA-Z][\w+.-]*:|//|#)([^"\']+)\2')
_FETCHED = re.compile(r"<(?:script|link|iframe)[^>]*(?:src|href)=[\"'](?:https?:)?//", re.IGNORECASE)
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="{up}assets/gallery.css">
<script src="{up}assets/gallery.js" defer></script>{scripts}</head>
<body>{body}</body></html>
"""
#: of every page, for what `clean` might miss: scripts from files only, none in the page, nothing from a network
_POLICY = ("default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; "
           "img-src 'self' file: data: blob:; media-src 'self' file:; form-action 'none'; base-uri 'none'")


@dataclass
class Gallery:
    """A finished site.

    Attributes:
        index: its first page.
        pages: number of pages with a notebook.
        size: bytes of all its files.
    """

    index: Path
    pages: int
    size: int

    def __str__(self) -> str:
        return f"{self.index}: {self.pages} notebooks, {self.size / 2**20:.0f} MiB; open it in any browser"


def export(outputs: str | Path = "outputs", out: Optional[str | Path] = None) -> Gallery:
    """Make a static site of all executed notebooks, `outputs/<name>/notebooks/*.ipynb`.

    It opens from disk and offline: plots can be rotated, videos play, nothing is fetched from the network. An old
    gallery is replaced only by a complete new one, and only if nothing else lies in its folder.

    Prose and outputs are shown without scripts, and what they refer to is copied only if it is an image, audio, video
    or exported head of this project: a notebook may be a stranger's.

    Args:
        outputs: the folder of results that `make demo` and `egs run` write to.
        out: the folder of the site; default: `gallery` in `outputs`.

    Raises:
        InputError: there is no executed notebook, one cannot be read or shown, or `out` holds something else.
        StorageError: the site cannot be written.
        MissingPackageError: without nbconvert or plotly.
    """
    outputs = Path(outputs)
    out = Path(out) if out else outputs / "gallery"
    exporter = _exporter()
    sets = found_pages(outputs, out)
    _check_replaceable(out)
    make_folder(out.parent)
    with atomic_folder(out) as new:
        _write_assets(new / "assets")
        pages = [page for group in sets.values() for page in group]
        for page in progress(pages, "gallery"):
            try:
                _write_page(page, sets[page.html.split("/")[0]], new, exporter, outputs)
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
                raise InputError("a notebook with outputs that can be shown", f"'{shortened(page.path)}' "
                                 f"({type(error).__name__}: {first_line(error, 100)})",
                                 "Remove it, or run it again.") from error
        (new / "index.html").write_text(_index(sets), encoding="utf-8")
        (new / FILES).write_text("\n".join([*_files(new), FILES]) + "\n", encoding="utf-8", errors="surrogateescape")
    return Gallery(out / "index.html", len(pages), sum(p.stat().st_size for p in out.rglob("*") if p.is_file()))


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def _check_replaceable(out: Path) -> None:
    """Raise InputError if `out` holds anything but a gallery."""
    with writing_to(out):
        if not out.exists():
            return
        if out.is_file() or (not (out / FILES).is_file() and any(out.iterdir())):
            raise InputError("a new folder, or an older gallery to replace", f"'{shortened(out)}' with something else "
                             "in it", "Choose another folder, or delete it if an earlier version made it.")
        own = (out / FILES).read_text("utf-8", "surrogateescape").splitlines() if (out / FILES).is_file() else []
        foreign = [name for name in _files(out) if name not in own and Path(name).name not in LITTER]
    if foreign:
        raise InputError("a gallery with nothing else in its folder", f"'{shortened(out / foreign[0])}'"
                         + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""),
                         "Move it elsewhere: the folder is replaced by a new gallery.")


# ---- one page ----

def _exporter() -> Any:
    try:
        from jinja2 import FileSystemLoader
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise MissingPackageError("nbconvert, which turns notebooks into pages", "it is not installed",
                                  "pip install 'egstalker-nb[notebooks]'") from error
    exporter = HTMLExporter(template_name="base", template_file="gallery.j2", exclude_anchor_links=True,
                            extra_loaders=[FileSystemLoader(Path(__file__).parent)])
    exporter.register_filter("clean", clean)
    return exporter


def _write_page(page: Page, group: list[Page], root: Path, exporter: Any, outputs: Path) -> None:
    make_folder(root / page.folder)
    for cell, about in _with_context(page.notebook.cells):
        if cell.cell_type == "code":
            cell.outputs = [shown for output in cell.outputs if (shown := _shown(output, page, root, about, outputs))]
    for cell in page.notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    body, _ = exporter.from_notebook_node(page.notebook)
    for other in group:  # links between notebooks
        for name in {other.path.name, quote(other.path.name)}:
            body = body.replace(f'href="{name}"', f'href="{other.link}.html"')
    project = outputs.resolve().parent
    for place in {f"{project}{os.sep}", escape(f"{project}{os.sep}")} if project.name else ():
        body = body.replace(place, "")  # a page that is shared must not tell where the project is on this computer
    headings: list[str] = []

    def named(match: re.Match) -> str:
        headings.append(match[1])
        return f'<h2 id="part-{len(headings)}">{match[1]}</h2>'

    body = re.sub(r"<h2[^>]*>(.*?)</h2>", named, body, flags=re.DOTALL)
    contents = "".join(f'<li><a href="#part-{n}">{heading}</a></li>' for n, heading in enumerate(headings, 1))
    parts = [_navigation(page, group), f'<nav class="contents" aria-label="On this page"><ol>{contents}</ol></nav>',
             f"<main><p class='ran'>{escape(page.ran)} <button id='code' type='button' aria-pressed='false'>Show all "
             f"code</button></p>{body}</main>", _navigation(page, group)]
    scripts = '<script src="../assets/plotly.min.js" defer></script>' if 'class="plot"' in body else ""
    policy = _POLICY + FRAME_POLICY * bool(page.heads)
    text = _PAGE.format(title=escape(page.title), up="../", policy=policy, scripts=scripts, body="".join(parts))
    (root / page.html).write_text(text, encoding="utf-8")


def _navigation(page: Page, group: list[Page]) -> str:
    at = group.index(page)

    def link(other: list[Page], words: str) -> str:
        page = other[0] if other else None
        return f'<a href="{page.link}.html">{words.format(escape(page.title))}</a>' if page else "<span></span>"

    before, after = link(group[max(at - 1, 0):at], "&#8592; {}"), link(group[at + 1:at + 2], "{} &#8594;")
    return f'<nav class="steps" aria-label="Notebooks">{before}<a href="../index.html">All notebooks</a>{after}</nav>'


def _with_context(cells: list) -> Iterator[tuple[Any, str]]:
    """Each cell, and a description of its images: the heading and the first sentence of the prose before it."""
    heading, prose = "", ""
    for cell in cells:
        if cell.cell_type == "markdown":
            lines = cell.source.strip().splitlines()
            heading = next((plain(line) for line in lines if line.startswith("#")), heading)
            prose = sentence("\n".join(line for line in lines if not line.startswith("#")))
        yield cell, ". ".join(filter(None, (heading, prose)))


def _shown(output: Any, page: Page, root: Path, about: str, outputs: Path) -> Optional[Any]:
    """The output in the one form that the page shows, its images and videos as files; None: nothing to show."""
    if output.output_type not in ("display_data", "execute_result"):
        return output
    data = output.data
    kind = next((kind for kind in SHOWN if kind in data), None)
    if kind == "text/html" and PICTURES.keys() & data.keys() and _FETCHED.search(data[kind]):
        kind = "image/png" if "image/png" in data else "image/jpeg"
    if kind is None or kind == "text/plain" and WIDGET in data:
        return None  # a widget without a static form: the text is only the name of its class
    if kind == PLOTLY:
        kind, value = "text/html", _plot(data, page, root, about)
    elif kind in PICTURES:
        kind, value = "text/html", _picture(page, root, base64.b64decode(data[kind]), PICTURES[kind], about)
    elif kind == SVG:  # as a file: scripts in it are not run
        kind, value = "text/html", _picture(page, root, data[kind].encode(), "svg", about)
    else:
        value = data[kind]
        if kind == "text/html":
            if _FETCHED.search(value) or "requirejs" in value:
                return None  # it loads a script from the network
            project = outputs.resolve().parent
            if (head := pictured_head(value, page.path.parent, project)) is not None:
                name = _save(page, root, head, "html")
                page.heads.append(quote(f"{page.folder}/{name}"))
                value = frame(f"{page.link}/{name}", len(head))
            else:
                value = clean(_with_files(value, page, root, about, project))
    output.pop("execution_count", None)
    output.output_type, output.data = "display_data", {kind: value}  # the template knows no other
    return output


def _plot(data: dict, page: Page, root: Path, about: str) -> str:
    """A plotly figure: data in a script of its own, because pages opened from disk may not read other files."""
    number = len(list((root / page.folder).glob("*.js"))) + 1
    figure = {key: data[PLOTLY].get(key) for key in ("data", "layout", "frames")}
    text = json.dumps(figure, separators=(",", ":")).replace("</", "<\\/")
    (root / page.folder / f"plot_{number:02}.js").write_text(f"drawPlot('plot-{number}',{text})\n", encoding="utf-8")
    height = int((figure["layout"] or {}).get("height") or 450)
    still = ""
    if "image/png" in data:
        still = f"<noscript>{_picture(page, root, base64.b64decode(data['image/png']), 'png', about)}</noscript>"
    return (f'<div class="plot" id="plot-{number}" role="img" aria-label="{escape(about)}" style="height:{height}px" '
            f'data-script="{page.link}/plot_{number:02}.js"></div>{still}')


def _save(page: Page, root: Path, content: bytes | Path, ending: str) -> str:
    """Write the content, or copy the file, under a new name beside the page."""
    folder = root / page.folder
    name = f"{'video' if ending in VIDEOS else 'file'}_{len(list(folder.iterdir())) + 1:02}.{ending}"
    if isinstance(content, Path):
        shutil.copyfile(content, folder / name)
    else:
        (folder / name).write_bytes(content)
    return name


def _picture(page: Page, root: Path, content: bytes, ending: str, about: str) -> str:
    """Save an image, and return the HTML that shows it."""
    name = _save(page, root, content, ending)
    page.pictures.append(quote(f"{page.folder}/{name}"))
    return f'<img src="{page.link}/{name}" alt="{escape(about)}" loading="lazy">'


def _with_files(html: str, page: Page, root: Path, about: str, project: Path) -> str:
    """HTML with its data URLs written to files, so that videos can be sought in and pages open quickly, and with copies
    of the media that it refers to, of this project only: no notebook gets other files of this computer published."""
    copies: dict[str, str] = {}

    def copied(match: re.Match) -> str:
        name, _, address = match.groups()
        file = (page.path.parent / unquote(unescape(address))).resolve()
        if not file.is_file() or file.suffix[1:].lower() not in MEDIA or not file.is_relative_to(project):
            return ""  # deleted since: the link would be broken; or not to be published
        if address not in copies:
            copies[address] = _save(page, root, file, file.suffix[1:].lower())
            if copies[address].endswith(VIDEOS):
                page.videos[quote(f"{page.folder}/{copies[address]}")] = file.stat().st_size
        return f'{name}="{page.link}/{copies[address]}"'

    def replaced(match: re.Match) -> str:
        _, kind, ending, content = match.groups()
        try:
            decoded = base64.b64decode(content)
        except binascii.Error:
            return ""
        name = _save(page, root, decoded, ENDINGS.get(ending, ending))
        link = quote(f"{page.folder}/{name}")
        if kind == "video":
            page.videos[link] = len(decoded)
        elif kind == "image":
            page.pictures.append(link)
        return f'src="{page.link}/{name}"'

    html = _DATA.sub(replaced, _BESIDE.sub(copied, html))
    html = re.sub(r"<video(?![^>]*\bpreload=)", '<video preload="metadata"', html)
    html = re.sub(r"<video(?![^>]*\bcontrols\b)", "<video controls", html)
    words = escape(about)  # inserted by functions: in a replacement string backslashes would be escapes
    html = re.sub(r"<video(?![^>]*\baria-label=)", lambda _: f'<video aria-label="{words}"', html)
    return re.sub(r"<img(?![^>]*\balt=)", lambda _: f'<img alt="{words}"', html)


# ---- what all pages share ----

def _write_assets(folder: Path) -> None:
    try:
        import plotly
        from pygments.formatters import HtmlFormatter
    except ImportError as error:
        raise MissingPackageError("plotly and pygments", str(error), "pip install 'egstalker-nb[notebooks]'") from error
    make_folder(folder)
    own = Path(__file__).parent
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    style = (own / "gallery.css").read_text(encoding="utf-8")
    (folder / "gallery.css").write_text(
        f"{style}\n{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
        ".highlight { background: var(--soft); }\n", encoding="utf-8")
    shutil.copyfile(own / "gallery.js", folder / "gallery.js")
    shutil.copyfile(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder / "plotly.min.js")


def _index(sets: dict[str, list[Page]]) -> str:
    cards = "".join(_card(name, group) for name, group in sets.items())
    body = (f"<main class='index'><h1>{TITLE}</h1><p>Executed notebooks: from a video to a trained head that any "
            f"speech drives. Plots can be rotated and zoomed, videos play with sound.</p>{cards}</main>")
    return _PAGE.format(title=TITLE, up="", policy=_POLICY, scripts="", body=body)


def _card(name: str, group: list[Page]) -> str:
    noted: dict[str, Any] = {}
    for page in group:
        noted.update({} if page.run else page.parameters)
    facts = [f"{what}: {escape(Path(str(noted[key])).name)}" for key, what in
             (("video", "clip"), ("config", "configuration"), ("audio", "driven by")) if noted.get(key)]
    facts += [f"{escape(str(noted['size']))} px"] if noted.get("size") else []
    total = sum(page.seconds for page in group)
    facts += [f"all notebooks in {clock(total)}"] if total else []
    rows = "".join(f'<li><a href="{quote(page.html)}">{escape(page.title)}</a> <span class="ran">{escape(page.ran)}'
                   f"</span>{'' if page.run else f'<br>{escape(page.summary)}'}</li>" for page in group)
    return (f'<section class="card"><div>{_cover(name, group)}</div><div><h2>{escape(name)}</h2><p>'
            f"{'; '.join(facts)}</p><ul>{rows}</ul></div></section>")


def _cover(name: str, group: list[Page]) -> str:
    """The largest video of notebook 06, else of the last notebook that has one; without videos, the last image; of a
    sweep, that of its report."""
    pages = sorted(reversed(group), key=lambda page: page.path.stem not in (RESULT, REPORT))
    for page in pages:
        if page.videos:
            return (f'<video controls preload="metadata" src="{max(page.videos, key=lambda v: page.videos[v])}" '
                    f'aria-label="Video of {escape(name)}"></video>')
    for page in pages:
        if page.pictures:
            return f'<a href="{quote(page.html)}"><img src="{page.pictures[-1]}" alt="{escape(page.title)}"></a>'
    return ""
