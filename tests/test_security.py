"""Protects what SECURITY.md promises: nothing from a file is executed, names are no markup, no network is used."""
import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_gallery import CLIP, executed, shown
from test_pipeline import PARAMETERS, SAMPLE, write_notebook

import egstalker_nb as egs
from egstalker_nb.core.progress import _Line
from egstalker_nb.core.reading import digest
from egstalker_nb.core.table import Table
from egstalker_nb.evaluation.evaluate import SCORES, Scores
from egstalker_nb.media.audio import save_wav
from egstalker_nb.notebook import widgets
from egstalker_nb.notebook.gallery import website
from egstalker_nb.notebook.gallery.clean import clean
from egstalker_nb.notebook.widgets import base
from egstalker_nb.rendering.render import Video
from egstalker_nb.training import checkpoint, snapshots

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "a\"><img src=x onerror=alert(1)><script>alert(2)<!--'&amp;$\\x$"
TINY = dict(iterations=4, coarse_iterations=2, batch_size=1, plane_resolution=[8, 16])


# ---- names are no markup ----

class Tags(HTMLParser):
    """What a browser would make of HTML: `bad` lists scripts, handlers and fetched addresses."""

    def __init__(self, html: str):
        super().__init__()
        self.bad: list[str] = []
        self.tags: list[tuple] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))
        handlers = [name for name, _ in attrs if name.startswith("on") or name == "srcdoc"]
        there = dict(attrs)
        fetched = tag != "a" and re.match(r"\s*([a-z]+:|//)", there.get("src") or there.get("href") or "")
        if tag in ("script", "iframe", "object", "embed", "style", "link", "base", "form") or handlers or fetched:
            self.bad.append(self.get_starttag_text() or tag)
        if there.get("src") == "x":
            self.bad.append("an image of the name")

    def handle_data(self, data):
        self.words += data


def htmls(widget: ipywidgets.Widget) -> list[str]:
    """What a widget and its children show as HTML."""
    found = [widget.value] if isinstance(widget, ipywidgets.HTML) else []
    if getattr(widget, "description_allow_html", False):
        found.append(widget.description)
    for child in getattr(widget, "children", ()):
        found += htmls(child)
    return found


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    """A short run in a folder with a hostile name."""
    folder = tmp_path_factory.mktemp("names") / HOSTILE
    return egs.train(tiny_dataset, egs.load_config("quick_test", **TINY), folder, device="cpu")


def test_no_name_becomes_markup_in_what_a_notebook_shows(run, tiny_dataset, tmp_path):
    """A clip or a run from a stranger brings its name along."""
    file = tmp_path / f"clip.{HOSTILE}"
    file.write_bytes(b"x")
    scores = Scores(dict.fromkeys(SCORES), run=HOSTILE, iteration=1, split="val", note=HOSTILE)
    parts = [Video(file, 1, 1.0, 1.0), scores, Table((HOSTILE,), [(HOSTILE,)], HOSTILE), _Line(HOSTILE, 0.5),
             egs.compare([run, egs.load_run(shutil.copytree(run.root, tmp_path / f"{HOSTILE}2"), tiny_dataset.root)])]
    pages = [part._repr_html_() for part in parts]
    job = widgets.Job(lambda: 1, HOSTILE)
    wav = save_wav(tmp_path / f"{HOSTILE}.wav", np.zeros(3200, np.float32))
    video = shutil.copy(SAMPLE, tmp_path / f"{HOSTILE}.mp4")
    panels = [job, widgets.TrainingPanel(tiny_dataset, run.config, run.root, device="cpu"),
              widgets.RunChooser([run.root], tiny_dataset.root), widgets.VideoPicker(video, [tmp_path]),
              widgets.Preparation(video, tmp_path / HOSTILE[:20]), widgets.Studio(run, wav, size=64).speech]
    for panel in panels:
        pages += htmls(panel.widget)
        if isinstance(panel.still(), Figure):  # `$...$` is a formula to matplotlib, and an error if it is none
            base.png(panel.still())
        panel.show_message(HOSTILE, error=True)
        pages.append(panel.note.value)
    shown_names = 0
    for page in pages:
        read = Tags(page)
        media_inside = page.startswith("<video")  # its data URL is no address
        assert [tag for tag in read.bad if not (media_inside and tag.startswith("<video"))] == [], page[:300]
        shown_names += HOSTILE in read.words or "a\">" in read.words
    assert shown_names >= 10, "the names are not shown at all"


def test_no_name_becomes_markup_in_a_plot(run, tiny_dataset, tmp_path):
    """plotly takes tags in names for bold text and links; no scripts, but a link to anywhere under a run's name."""
    other = egs.load_run(shutil.copytree(run.root, tmp_path / "<a href='http:&#47;&#47;x'>b"), tiny_dataset.root)
    result = egs.compare([run, other])
    for plot in (widgets.run_curves(result), widgets.cost_plot(result)):
        base.png(plot.still())
        text = json.dumps(plot.figure.to_plotly_json(), default=str)
        assert "<img" not in text and "<a href" not in text and "&lt;" in text


# ---- the gallery ----

EVIL_HTML = (HOSTILE, "<svg onload=alert(1)></svg>", "<a href='javascript:alert(1)'>x</a>",
             "<img src='http://evil/x.png'>", "<iframe srcdoc='<script>alert(1)</script>'></iframe>", "<style>@import 'http://evil/x.css'</style>",
             "<div class='plot' data-script='http://evil/x.js'></div>", "<base href='http://evil/'>",
             "<meta http-equiv=refresh content='0;url=http://evil/'>", "<p style='background:url(http://evil/x)'>x</p>",
             "<math><mtext></p><img src=x onerror=alert(1)></mtext></math>", "<form action='http://evil/'></form>",
             "<link rel=stylesheet href='http://evil/x.css'>", "<object data='http://evil/x'></object>",
             "<video poster='http://evil/x.png'></video>",
             "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>")


@pytest.mark.parametrize("html", EVIL_HTML)
def test_html_of_a_notebook_is_cleaned(html):
    read = Tags(clean(html).replace('src="x"', ""))
    assert read.bad == []
    for _, attributes in read.tags:
        assert not re.search("evil|javascript", " ".join(str(value) for name, value in attributes if name != "title"))


def test_what_our_own_outputs_need_survives_cleaning():
    """Players, progress bars, tables, folded solutions, coloured cells and formulas."""
    kept = ('<video controls src="a/b.mp4" width="512"></video><br><code>x</code>',
            '<progress max="1" style="width: 16em;" value="0.5"></progress>',
            '<table><caption>c</caption><tbody><tr><td style="text-align: left;">&lt;x&gt;</td></tr></tbody></table>',
            "<details><summary>solution</summary><pre>x</pre></details>",
            '<span style="background: #1b7f4b; color: white;">ok</span>',
            '<math display="inline" xmlns="http://www.w3.org/1998/Math/MathML"><mrow><mi>a</mi></mrow></math>',
            '<a href="https://arxiv.org/abs/1">paper</a><a href="#part-1">part</a>')
    for html in kept:
        assert clean(html) == html


def test_a_strangers_notebook_puts_no_script_into_the_gallery(tmp_path):
    """Names, titles, prose, formulas and outputs; checked in every page, and in the data of the plots."""
    folder = tmp_path / "outputs" / "a'><img src=x onerror=alert(1)>" / "notebooks"
    plot = {"data": [{"type": "scatter", "y": [1], "name": "</script><script>alert(1)</script>"}], "layout": {}}
    outputs = [shown({"text/html": html}) for html in EVIL_HTML]
    outputs += [shown({"text/markdown": HOSTILE}), shown({"text/latex": HOSTILE}), shown({"text/plain": HOSTILE}),
                shown({"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"}),
                shown({"application/javascript": "alert(1)", "text/plain": "js"}), shown({website.PLOTLY: plot}),
                nbformat.v4.new_output("stream", name="stdout", text=HOSTILE),
                nbformat.v4.new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE])]
    path = folder / "odd\"><script>alert(1).ipynb".replace("/", "")
    executed(path, HOSTILE, *outputs)
    book = nbformat.read(path, as_version=4)
    book.cells[1].source = (f"## {HOSTILE}\n\n{HOSTILE} $\\text{{<img src=x onerror=alert(1)>}}$ "
                            "[x](javascript:alert(1))")
    book.cells.append(nbformat.v4.new_raw_cell(HOSTILE))
    book.metadata.papermill.update(parameters={"video": HOSTILE, "config": HOSTILE, "size": HOSTILE},
                                   start_time=HOSTILE, duration=HOSTILE)
    nbformat.write(book, path)
    index = website.export(tmp_path / "outputs").index
    pages = sorted(index.parent.rglob("*.html"))
    assert len(pages) == 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        own = ('<script src="assets/', '<script src="../assets/', '<link rel="icon" href="data:,"', '<link rel="style',
               "an image of the name")
        assert [tag for tag in Tags(text).bad if not tag.startswith(own)] == []
        assert "script-src 'self' file:;" in text and "default-src 'none'" in text
    for script in index.parent.rglob("plot_*.js"):
        assert "</script>" not in script.read_text()


def test_the_gallery_publishes_no_other_files_of_this_computer(tmp_path):
    """A link in an output would copy a private key, or a video of another folder, into a site that is shared."""
    private, folder = tmp_path / "private", tmp_path / "project" / "outputs" / "me" / "notebooks"
    private.mkdir()
    folder.mkdir(parents=True)
    for place in (private, folder.parent):
        (place / "talk.mp4").write_bytes(CLIP)
        (place / "id_rsa").write_text("a secret")
    (folder.parent / "link.mp4").symlink_to(private / "talk.mp4")
    names = ["../talk.mp4", "../id_rsa", "../../../../private/talk.mp4", "../../../../private/id_rsa", "../link.mp4"]
    executed(folder / "01_data_prep.ipynb", "1", shown({"text/html": "".join(f"<a href='{n}'>x</a>" for n in names)}))
    index = website.export(tmp_path / "project" / "outputs").index
    assert len(list(index.parent.rglob("*.mp4"))) == 1
    assert not any(p.read_bytes() == b"a secret" for p in index.parent.rglob("*") if p.is_file())


# ---- nothing in a file is executed ----

class Payload:
    """Unpickling it makes the file `marker`."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def plant(kind: str, path: Path, marker: Path) -> None:
    """Write a file of this kind that makes the folder `marker` when its content is executed."""
    code = f"!!python/object/apply:os.mkdir ['{marker}']\n"
    if kind == "yaml":
        path.write_text(f"iterations: {code}")
    elif kind == "npy":
        np.save(path.open("wb"), np.array([Payload(marker)], object), allow_pickle=True)
    elif kind == "npz":
        arrays = dict.fromkeys(("landmarks", "found", "w2c", "mean_face", "blink"), np.array([Payload(marker)], object))
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif kind == "torch":
        torch.save({"step": Payload(marker)}, path)
    elif kind == "ply":
        path.write_text(f"ply\nformat ascii 1.0\ncomment {code}element vertex __import__('os').mkdir('{marker}')\n"
                        "end_header\n")
    elif kind == "npy header":
        text = f"{{'descr': __import__('os').mkdir('{marker}'), 'fortran_order': False, 'shape': (1,)}}"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    else:
        path.write_bytes(pickle.dumps(Payload(marker)))


@pytest.fixture
def marker(tmp_path):
    """A folder that a payload would make; the test fails if it is there at its end."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "a payload was executed"


def refused(call, *arguments, **named) -> None:
    """The call ends with an error. Which one is the business of `tests/faults`; a TypeError would be the test's own."""
    with pytest.raises(Exception) as caught:
        call(*arguments, **named)
    assert type(caught.value) is not TypeError


@pytest.mark.parametrize("kind", ["pickle", "yaml", "npy", "npz", "torch", "npy header", "ply"])
def test_a_planted_payload_never_runs(kind, run, tiny_dataset, marker, tmp_path):
    """In each file that the package reads: datasets, runs, configurations, audio features, poses, priors, exports."""
    file = tmp_path / "planted"
    plant(kind, file, marker)
    wav = save_wav(tmp_path / "a.wav", np.full(12 * 640, 0.1, np.float32))
    for suffix in (".yaml", ".npy", ".npz", ".ply", ".spz", ".safetensors", ".wav", ".mp4", ".json"):
        shutil.copy(file, file.with_suffix(suffix))
    refused(egs.load_config, file.with_suffix(".yaml"))
    refused(egs.trim, wav, file.with_suffix(".npy"), 0.0, 0.2, tmp_path / "cut")
    refused(egs.render, run, wav, poses=str(file.with_suffix(".npy")), device="cpu")
    refused(egs.render, run, wav, features=file.with_suffix(".npy"), device="cpu")
    refused(egs.render, run, wav, blink=str(file.with_suffix(".npy")), device="cpu")
    refused(egs.render, run, file.with_suffix(".wav"), device="cpu")
    refused(egs.prepare, file.with_suffix(".mp4"), tmp_path / "prepared")
    refused(egs.read_gaussians, file.with_suffix(".ply"))
    refused(egs.read_gaussians, file.with_suffix(".spz"))
    refused(egs.train, tiny_dataset, egs.load_config("quick_test", **TINY, prior=str(file.with_suffix(".safetensors"))),
            tmp_path / "with prior", device="cpu")
    for name in ("dataset.json", "tracking.npz", "features.npy"):
        damaged = shutil.copytree(tiny_dataset.root, tmp_path / f"dataset {name}")
        shutil.copy(file, damaged / name)
        refused(egs.load_dataset, damaged)
    for name in ("manifest.json", "config.yaml"):
        damaged = shutil.copytree(run.root, tmp_path / f"run {name}")
        shutil.copy(file, damaged / name)
        refused(egs.load_run, damaged)
    for name in (checkpoint.HEAD, checkpoint.TRAINER, checkpoint.STATE):
        damaged = shutil.copytree(run.root, tmp_path / f"run {name}")
        place = checkpoint.folder(damaged, run.iterations[-1])
        shutil.copy(file, place / name)
        if name != checkpoint.STATE:  # whoever plants something can make the checksum fit
            state = json.loads((place / checkpoint.STATE).read_text())
            state["sha256"][name] = digest(place / name)
            (place / checkpoint.STATE).write_text(json.dumps(state))
        refused(checkpoint.load, damaged, run.iterations[-1], name)
    damaged = shutil.copytree(run.root, tmp_path / "run snapshots")
    for path in (damaged / "snapshots").glob("*.safetensors"):
        shutil.copy(file, path)
    refused(snapshots.load, damaged, run.snapshots[0])


def test_a_gallery_executes_no_notebook(marker, tmp_path):
    """Building it only reads."""
    folder = tmp_path / "outputs" / "me" / "notebooks"
    executed(folder / "01_data_prep.ipynb", "1", shown({"text/plain": "x"}))
    book = nbformat.read(folder / "01_data_prep.ipynb", as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(f"import os; os.mkdir({str(marker)!r})"))
    nbformat.write(book, folder / "01_data_prep.ipynb")
    website.export(tmp_path / "outputs")


@pytest.mark.parametrize("how", ["pickled weights", "code beside the model"])
def test_a_speech_recogniser_brings_no_code(how, marker, tmp_path):
    """Folders of models are passed around; one may hold a pickle, or Python files that `transformers` could import."""
    pytest.importorskip("transformers", reason="the extra 'asr' is not installed")
    from test_encoders import save_model

    folder = save_model(tmp_path / "model")
    if how == "pickled weights":
        (folder / "model.safetensors").unlink()
        torch.save({"lm_head.weight": Payload(marker)}, folder / "pytorch_model.bin")
    else:
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCTC": "code.Own"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Own: pass\n")
    refused(lambda: egs.load_encoder(folder).steps(np.full(1600, 0.1, np.float32)))


def test_parameters_of_a_notebook_are_values_and_never_code():
    """Papermill writes them into a cell as source code."""
    from papermill.translators import PythonTranslator

    names = [HOSTILE, '"""\nimport os', "\\", 'a"; import os; "', "{x}", "a\nb", "né 中", "\udcff", "'", "$(x)", "%s"]
    given = {"video": names[0], "overrides": {name: name for name in names}, "runs": names}
    found: dict = {}
    exec(PythonTranslator.codify(given), found)  # noqa: S102 - what a kernel would do
    assert {name: found[name] for name in given} == given


# ---- no shell, no network, nothing left behind ----

def sources():
    return [path for room in ("egstalker_nb", "tools", "benchmarks") for path in (ROOT / room).rglob("*.py")]


def test_no_shell_and_no_unsafe_reader_in_the_sources():
    """Each of these executes, or makes a file of a predictable name that another user can replace."""
    wrong = re.compile(r"shell\s*=\s*True|os\.(system|popen)\(|\bpickle\.loads?\(|yaml\.(unsafe_|full_)?load\("
                       r"(?!text, _)|allow_pickle\s*=\s*True|weights_only\s*=\s*False|trust_remote_code\s*=\s*True|"
                       r"(?<![\w.])(eval|exec)\(|mktemp\(|[\"']/tmp|0\.0\.0\.0|verify\s*=\s*False")
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path in sources()
             for match in wrong.finditer(path.read_text(encoding="utf-8"))]
    assert found == []
    loads = [path for path in sources() if re.search(r"torch\.load\((?![^)]*weights_only=True)", path.read_text())]
    assert loads == []


OFFLINE = """
import socket, sys
def refuse(*_, **__): raise SystemExit("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
import importlib, pkgutil
import egstalker_nb as egs
for module in pkgutil.walk_packages(egs.__path__, "egstalker_nb."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
data, folder = sys.argv[1:]
ds = egs.load_dataset(data)
cfg = egs.load_config("quick_test", iterations=2, coarse_iterations=1, batch_size=1, plane_resolution=[8, 16])
run = egs.train(ds, cfg, folder + "/run", device="cpu")
egs.replay(run, "val", folder + "/out.mp4", device="cpu")
egs.load_run(run.root)
for name in ("nobody/no-such-model", "https://example.com/model"):
    try:
        egs.load_encoder(name)
    except egs.EgsError:
        pass
"""


def test_nothing_uses_the_network(tiny_dataset, tmp_path):
    """Import of every module, training, rendering, and an encoder whose name is that of a model on a hub."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(tiny_dataset.root), str(tmp_path)], env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1500:]
    assert (tmp_path / "out.mp4").is_file()


def children(parent: int) -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process(parent).children(recursive=True)]


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_stopped_headless_run_leaves_no_kernel_and_no_temporary_folder(signal, tmp_path):
    """A kernel that lives on would hold the GPU; the temporary folders would pile up."""
    import psutil

    (tmp_path / "nb").mkdir()
    (tmp_path / "temporary").mkdir()
    write_notebook(tmp_path / "nb", "first", PARAMETERS["first"],
                   f"open({str(tmp_path / 'started')!r}, 'w').close()\nimport time\ntime.sleep(60)")
    # programs that a script starts in the background begin with SIGINT ignored
    script = ("import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
              "from egstalker_nb import cli\nfrom egstalker_nb.scheduling import runner\n"
              "old = runner.run_notebooks\n"
              f"runner.run_notebooks = lambda *a, **k: old(a[0], a[1], notebooks=('first',), "
              f"notebook_dir={str(tmp_path / 'nb')!r}, out={str(tmp_path / 'out')!r})\n"
              f"sys.exit(cli.main(['run', {str(SAMPLE)!r}, '--config', 'quick_test']))")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=tmp_path, stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, text=True) as process:
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.05)
        kernels = children(process.pid)
        for _ in range(4):  # as people do: again, if nothing happens (it may have come while the notebook was started)
            process.send_signal(getattr(__import__("signal"), signal))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
                break
        _, said = process.communicate(timeout=30)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[signal], said
    assert kernels and not any(psutil.pid_exists(pid) for pid in kernels)
    assert [p.name for p in (tmp_path / "temporary").iterdir() if p.name.startswith("egs-")] == []
    assert said.strip().splitlines()[-1].startswith("interrupted") and "Traceback" not in said
