"""Protects the documentation: every link and test that it names exists; `make docs` makes a site that works offline,
with every public name, its docstring and its parameters."""
import ast
import html
import inspect
import re
import sys
import warnings
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import egstalker_nb as egs
from egstalker_nb import notebook as nb

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")),
            *sorted((ROOT / "tools").rglob("README.md")), ROOT / "benchmarks" / "README.md"]
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "video": "src", "audio": "src",
         "source": "src", "object": "data", "embed": "src", "form": "action"}
HAVE_DOCSTRINGS = [(package, name) for package in (egs, nb) for name in package.__all__
                   if inspect.isroutine(getattr(package, name)) or inspect.isclass(getattr(package, name))]


# ---- Markdown ----

def prose(path: Path) -> str:
    """A Markdown text without its code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a Markdown file, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{i}" if i else slug for slug, count in found.items() for i in range(count + 1)}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere(path):
    targets = re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)", prose(path))
    for target in targets:
        parts = urlsplit(target)
        other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert other.exists() and other.is_relative_to(ROOT), target
        if parts.fragment and other.suffix == ".md":
            assert parts.fragment in anchors(other), target


@cache
def functions(file: str) -> set[str]:
    """Names of the functions of a file in the repository."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_that_a_page_names_exist(path):
    for file, name in set(re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", path.read_text(encoding="utf-8"))):
        assert not name or name in functions(file), (file, name)
        assert (ROOT / file).is_file(), file


def test_every_trouble_has_sources_tests_and_figures_of_the_page_that_they_link_to():
    path = ROOT / "docs" / "troubles.md"
    troubles = re.split(r"^## \d+\. ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(troubles) == 12
    for trouble in troubles:
        asked, here, held = re.split(r"^\*(?:Here|Held by):\*", trouble, flags=re.MULTILINE)
        assert re.search(r"https://github\.com/[\w-]+/[\w+-]+/issues/\d+\)", asked), trouble
        assert re.search(r"::test_\w+`\]\(", held), trouble
        for words, target in re.findall(r"\[([^]]*\d[^]]*)\]\(([^)#]+)[^)]*\)", here):
            there = (path.parent / target).read_text(encoding="utf-8")
            for figure in re.findall(r"\d[\d.,]*\d|\d", words):
                assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", there), (figure, target)


# ---- docstrings ----

@pytest.mark.parametrize("package, name", HAVE_DOCSTRINGS, ids=lambda part: getattr(part, "__name__", part))
def test_a_docstring_describes_the_arguments_that_there_are(package, name):
    value = getattr(package, name)
    methods = [member for key, member in vars(value).items() if inspect.isfunction(member) and key[0] != "_"
               ] if inspect.isclass(value) else [value]
    for method in methods:
        section = re.search(r"^Args:\n((?:[ \t]+.+(?:\n|\Z)|\n)+)", inspect.getdoc(method) or "", re.MULTILINE)
        if section:
            lines = re.findall(r"^([*\w]+(?:, [*\w]+)*):", dedent(section[1]), re.MULTILINE)
            told = [name.strip(" *") for line in lines for name in line.split(",")]
            assert told == [key for key in inspect.signature(method).parameters if key != "self"], method.__qualname__


# ---- the site ----

class Page(HTMLParser):
    """What a page links to and loads, its ids, its styles and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.ids, self.links, self.loads, self.styles, self.words = path, set(), [], [], [], []
        self.within = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found["id"]} if "id" in found else set()
        self.links += [found["href"]] if tag == "a" and found.get("href") else []
        self.loads += [found[LOADS[tag]]] if found.get(LOADS.get(tag, "")) else []
        self.styles.append(found.get("style") or "")
        self.within = tag

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        (self.styles if self.within == "style" else self.words).append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site: path of a page within it -> the page. Whatever pdoc warns of is an error."""
    pytest.importorskip("pdoc", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("docs") / "site"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        patch.syspath_prepend(str(ROOT / "tools" / "docs"))
        import build

        build.build(out)
        sys.modules.pop("build")
    return {path.relative_to(out).as_posix(): Page(path) for path in out.rglob("*.html")}


def test_the_site_has_every_page_of_the_documentation(site):
    pages = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"index.html", "SECURITY.html"} <= set(site)


@pytest.mark.parametrize("package", (egs, nb), ids=lambda package: package.__name__)
def test_every_public_name_is_there_with_docstring_and_parameters(site, package):
    page = site[f"api/{package.__name__.replace('.', '/')}.html"]
    text = re.sub(r"\W+", "", "".join(page.words))
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, ModuleType):
            assert f"api/{value.__name__.replace('.', '/')}.html" in site
            continue
        assert name in page.ids
        if (package, name) in HAVE_DOCSTRINGS:
            first = inspect.getdoc(value).split("\n\n")[0]
            assert re.sub(r"\W+", "", first) in text, name
        if inspect.isfunction(value):
            parameters = "".join(f"{key}.*?" for key in inspect.signature(value).parameters)
            assert re.search(rf"def{name}{parameters}", text), name


@pytest.mark.parametrize("name", ("scheduling.sweep:Sweep.results", "evaluation.lip_sync:SyncScore",
                                  "core.errors:EgsError", "notebook.widgets:Studio"))
def test_classes_that_users_meet_have_a_page(site, name):
    module, _, anchor = name.partition(":")
    assert anchor in site[f"api/egstalker_nb/{module.replace('.', '/')}.html"].ids


def test_sections_of_a_docstring_are_lists(site):
    text = site["api/egstalker_nb.html"].path.read_text(encoding="utf-8")
    train = text[text.index('<section id="train">'):text.index('<section id="load_run">')]
    for section in ("Arguments", "Returns", "Raises"):
        assert re.search(rf"<h6[^>]*>{section}:</h6>\s*<(ul|blockquote)>", train), section
    assert train.count("<li><strong>") == len(re.findall(r"^ {8}\w+: ", egs.train.__doc__, re.MULTILINE))


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.values():
        for load in page.loads:
            assert urlsplit(load).scheme in ("", "data") and not load.startswith("//"), (page.path, load)
        for style in page.styles:
            assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", style), page.path


def test_links_of_the_site_lead_somewhere(site):
    """Anchors, too, except those that pdoc makes of names of inherited members."""
    ids = {page.path.resolve(): page.ids for name, page in site.items() if not name.startswith("api/")}
    for page in site.values():
        for link in page.links + page.loads:
            parts = urlsplit(html.unescape(link))
            if parts.scheme or parts.query:
                continue
            path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path.resolve()
            assert path.is_file(), (page.path, link)
            assert not parts.fragment or path not in ids or parts.fragment in ids[path], (page.path, link)


def test_a_folder_with_other_files_is_left_alone(site, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools" / "docs"))
        import build

        with pytest.raises(egs.EgsError, match="other files"):
            build.build(tmp_path)
        sys.modules.pop("build")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
