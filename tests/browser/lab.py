"""JupyterLab with the notebooks in a real browser: for the tests and for `make screenshots`."""
from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

import psutil
from book import PATIENCE, SIZES, THEMES, Book

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# no sandbox: it does not start for root in containers; the pages are our own. Nothing leaves the machine.
BROWSER_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                "--enable-unsafe-swiftshader"]  # WebGL without a GPU
#: further arguments: WebGL2 drawn by the CPU, at once and not after a try with a graphics card
SOFTWARE = ["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
INSTALL_SECONDS, END_SECONDS, LOG_LINES = 300, 15, 40


class NoBrowser(Exception):
    """There is no browser and none can be installed; the message says why."""


# ---- the browser ----

@lru_cache(maxsize=None)
def find_browser() -> str:
    """Path of a Chromium: the variable CHROMIUM, the PATH, or Debian's, installed where root can.

    Raises:
        NoBrowser: there is none, with the reason.
    """
    named = os.environ.get("CHROMIUM")
    if named:
        if found := shutil.which(named):
            return found
        raise NoBrowser(f"CHROMIUM={named} is no program")
    if found := _on_path():
        return found
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoBrowser(f"none of {', '.join(BROWSERS)} is on the PATH, and only root with apt-get can install one; "
                        "install chromium, or name it in the variable CHROMIUM")
    _install()
    if found := _on_path():
        return found
    raise NoBrowser("apt-get installed chromium, but there is no such program")


def _on_path() -> Optional[str]:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _install() -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    end = time.monotonic() + INSTALL_SECONDS
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        try:
            subprocess.run(command, env=quiet, check=True, timeout=max(1, end - time.monotonic()),
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired:
            raise NoBrowser(f"`{' '.join(command)}` took longer than {INSTALL_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            last = error.output.decode(errors="replace").strip().splitlines()[-1:]
            raise NoBrowser(f"`{' '.join(command)}` failed: {' '.join(last)}") from None


# ---- the server ----

class Lab:
    """A JupyterLab of its own on a free loopback port, and the browser that looks at it; a context manager.

    It reads none of the user's settings, leaves none, asks nobody for news, and its `python3` is this very Python.

    Args:
        folder: the notebooks' folder.
        base: base URL, as a hub gives each of its users one.
        browser_args: further arguments of the browser.
    """

    def __init__(self, folder: Path, base: str = "/", browser_args: Sequence[str] = ()):
        self.folder, self._base, self._browser_args = Path(folder), base, browser_args
        self.token = secrets.token_hex(16)
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        with ExitStack() as stack:  # what was started is ended where the rest fails
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egs-lab-", ignore_cleanup_errors=True)))
            self.log = home / "log.txt"
            self.url = stack.enter_context(_server(self.folder, home, self.token, self._base))
            self.browser = stack.enter_context(chromium(self._browser_args))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @contextmanager
    def open(self, path: str, theme: str = "light", width: int = 1280,
             sockets: Optional[Callable[[Any], None]] = None) -> Iterator[Book]:
        """A notebook in simple mode, with its kernel; both are removed at the end.

        Args:
            sockets: gets Playwright's WebSocketRoute of each connection to a kernel, to spoil it.
        """
        from playwright.sync_api import expect

        wide, high = SIZES[width]
        context = self.browser.new_context(viewport={"width": wide, "height": high}, reduced_motion="reduce")
        try:
            context.set_default_timeout(PATIENCE * 1000)
            context.add_init_script(path=HERE / "eyes.js")
            page = context.new_page()
            if sockets:
                page.route_web_socket(re.compile("/channels"), sockets)
            book = Book(page, self.kernels, self.report)
            page.goto(f"{self.url}/doc/tree/{path}?token={self.token}&reset")
            book.wait_loaded()
            book.theme(theme)  # JupyterLab remembers the last one
            book.wait_ready()
            expect(page.locator(".jp-Notebook-cell").first).to_be_visible(timeout=PATIENCE * 1000)
            yield book
        finally:
            context.close()
            for session in self.api("sessions"):
                self.api(f"sessions/{session['id']}", "DELETE")

    def api(self, path: str, method: str = "GET") -> Any:
        """The answer of the server's REST interface below /api/."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def kernels(self) -> list[dict[str, Any]]:
        """The server's kernels: their execution_state, connections and last_activity.

        The server answers with an error while it registers a new kernel; such an answer is told as a state.
        """
        try:
            return self.api("kernels")
        except OSError as error:
            return [{"execution_state": f"no answer: {error}"}]

    def report(self) -> str:
        """What the server thinks: its kernels and the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        kernels = map(json.dumps, self.kernels())
        return "\n".join([f"load: {os.getloadavg()}", "the server's kernels:", *kernels, "its log:", *lines])


@contextmanager
def _server(folder: Path, home: Path, token: str, base: str) -> Iterator[str]:
    from ipykernel.kernelspec import write_kernel_spec

    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
              "IPYTHONDIR": "ipython", "JUPYTER_PATH": "first"}
    for name in places.values():
        (home / name).mkdir(parents=True)
    write_kernel_spec(home / "first" / "kernels" / "python3", extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
    _settings(home / "settings", "@jupyterlab/apputils-extension/notification",
              {"fetchNews": "false", "checkForUpdates": False})
    # cells out of sight stay in the page, so that all of them can be looked at
    _settings(home / "settings", "@jupyterlab/notebook-extension/tracker", {"windowingMode": "none"})
    environment = {**os.environ, **{key: str(home / name) for key, name in places.items()},
                   "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    for name in ("EGS_STATIC", "EGS_PROGRESS_FILE", "JUPYTER_TOKEN", "MPLBACKEND"):
        environment.pop(name, None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # if somebody takes it now, the server tries the next ones
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.base_url={base}",
               f"--IdentityProvider.token={token}",
               "--ServerApp.terminals_enabled=False", "--LabApp.extension_manager=readonly",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(home / "log.txt", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent)
    try:
        yield _address(process, home)
    finally:
        _end(process)


def _end_with_parent() -> None:
    """Linux: the server is asked to end when the program that started it is killed and cannot do so itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _settings(folder: Path, plugin: str, values: dict[str, Any]) -> None:
    file = folder / f"{plugin}.jupyterlab-settings"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def _address(process: subprocess.Popen, home: Path) -> str:
    """Where the server listens; it writes that down as soon as it does."""
    note, end = home / "runtime" / f"jpserver-{process.pid}.json", time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            return json.loads(note.read_text())["url"].rstrip("/")
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start within {PATIENCE} s:\n{(home / 'log.txt').read_text()[-3000:]}")


def _end(process: subprocess.Popen) -> None:
    """The server and its kernels, which have process groups of their own."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=END_SECONDS)
    for one in left:
        one.kill()
    psutil.wait_procs(left, timeout=END_SECONDS)
    process.wait()


@contextmanager
def chromium(arguments: Sequence[str] = ()) -> Iterator[Any]:
    """A browser of Playwright's, with further arguments."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=[*BROWSER_ARGS, *arguments],
                                             timeout=PATIENCE * 1000,
                                             ignore_default_args=["--hide-scrollbars"])  # readers have them
        try:
            yield browser
        finally:
            browser.close()


# ---- the notebooks ----

def write_notebook(name: str, folder: Path, **values: Any) -> str:
    """Copy a notebook of the project into `folder`, with those of the values that it declares as parameters."""
    import nbformat
    import papermill
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    from egstalker_nb.scheduling.runner import NOTEBOOK_DIR

    path = NOTEBOOK_DIR / f"{name}.ipynb"
    known = papermill.inspect_notebook(str(path))
    nb = parameterize_notebook(load_notebook_node(str(path)), {k: v for k, v in values.items() if k in known})
    nbformat.write(nb, folder / path.name)
    return path.name


# ---- screenshots ----

def main() -> None:
    """Whole notebooks, as `make demo` leaves their data, in both themes and widths."""
    from egstalker_nb.scheduling.runner import NOTEBOOKS

    out, demo, sample = Path(sys.argv[1]), ROOT / "outputs" / "demo", ROOT / "data" / "sample"
    run = demo / "runs" / "quick_test"
    values = {"video": sample / "clip.mp4", "dataset": ROOT / "data" / "demo", "run": run,
              "audio": sample / "speech.wav", "out": demo / "screenshots.mp4"}
    values = {key: str(value) for key, value in values.items()} | {"runs": [str(run)]}
    with tempfile.TemporaryDirectory(prefix="egs-notebooks-") as folder, Lab(Path(folder)) as lab:
        for name in NOTEBOOKS:
            with lab.open(write_notebook(name, Path(folder), **values)) as book:
                book.run_all()
                keep(book, out, name)
                print(name, *book.errors(), *book.complaints, *book.faults(), sep="\n  ", flush=True)


def keep(book: Book, out: Path, name: str) -> None:
    """Screenshots of the whole notebook at each width in each theme."""
    for theme in THEMES:
        book.theme(theme)
        for width in SIZES:
            book.screenshot(out / f"{name}_{width}_{theme}.png", width)
    book.theme("light")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
