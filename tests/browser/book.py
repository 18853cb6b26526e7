"""A notebook in the browser, as a reader operates it."""
from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Any, Callable

SIZES = {1280: (1280, 900), 1920: (1920, 1080)}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
TALLEST = 16000  # px of one picture; Chromium's largest texture is 16384
PATIENCE = 180  # s of any wait: only a failure takes so long, and a busy machine is many times slower
# s that a page waits for its kernel before it is helped: the server says idle (or has none), or starts it
DEAF, SLOW = 20, 120
ASK = 2  # s between questions to the server
RENDER_LOOKS = 60  # looks at panels, half a second apart, before what is wrong with them counts
# console errors of JupyterLab itself, each with its reason; everything else fails a test
HARMLESS: dict[str, str] = {}


class Book:
    """One notebook in the browser, as a reader operates it.

    Attributes:
        page: Playwright's. complaints: errors on the browser's console, and uncaught ones.

    Args:
        kernels: asks the server for its kernels, as `/api/kernels` lists them.
        report: what the server thinks, in words, for the message of a wait in vain.
    """

    def __init__(self, page: Any, kernels: Callable[[], list[dict[str, Any]]] = list,
                 report: Callable[[], str] = lambda: ""):
        self.page, self.complaints, self._kernels, self._report = page, [], kernels, report
        page.on("console", lambda m: self._hear(m.text, m.location.get("url", "")) if m.type == "error" else None)
        page.on("pageerror", lambda error: self._hear(f"uncaught {error}", ""))

    def _hear(self, text: str, where: str) -> None:
        if not any(known in f"{text} {where}" for known in HARMLESS):
            self.complaints.append(f"{text} ({where})" if where else text)

    def command(self, name: str, **arguments: Any) -> None:
        """Execute one of JupyterLab's commands."""
        self.page.evaluate("([name, given]) => jupyterapp.commands.execute(name, given).then(() => null)",
                           [name, arguments])

    def theme(self, name: str) -> None:
        """light or dark."""
        self.command("apputils:change-theme", theme=THEMES[name])
        self.page.wait_for_function("light => document.body.dataset.jpThemeLight === light",
                                    arg=str(name == "light").lower())

    def wait_ready(self) -> None:
        """Until the kernel of a notebook just opened is idle; where it does not get there, do what a reader would.

        A kernel that starts slowly is waited for. Where the server has an idle kernel and the page does not know it,
        the message was lost: reconnect, reload the page, or restart the kernel, and warn with what was wrong.
        """
        asked = time.monotonic()
        remedies = [("reconnected to the kernel", self._reconnect), ("reloaded the page", self._reload),
                    ("restarted the kernel", self._restart)]
        known, since = None, time.monotonic()

        def ready() -> bool:
            nonlocal known, since, asked
            if not self.page.evaluate("() => eyes.busy()"):
                return True
            if time.monotonic() - asked < ASK:
                return False
            asked = time.monotonic()
            states = [kernel["execution_state"] for kernel in self._kernels()]
            if states != known:
                known, since = states, time.monotonic()
            if remedies and time.monotonic() - since > (DEAF if set(states) <= {"idle"} else SLOW):
                name, remedy = remedies.pop(0)
                warnings.warn(f"{name}: {self.state()}", stacklevel=2)
                remedy()
                self.complaints.clear()  # about the connection that was given up
                since = time.monotonic()
            return False

        self.wait(ready, "an idle kernel", pause=200)

    def _reconnect(self) -> None:
        """Kernel > Reconnect to Kernel."""
        self.page.evaluate("() => { eyes.session()?.kernel?.reconnect().catch(() => null); }")

    def _reload(self) -> None:
        self.page.reload()
        self.wait_loaded()

    def _restart(self) -> None:
        """Kernel > Restart Kernel."""
        self.page.evaluate("() => { eyes.session()?.kernel?.restart().catch(() => null); }")

    def wait_loaded(self) -> None:
        """Until JupyterLab shows the notebook."""
        self.page.wait_for_function("() => window.eyes?.notebook()?.model")

    def wait_idle(self) -> None:
        """Until no cell runs or waits to run."""
        self.wait(lambda: not self.page.evaluate("() => eyes.busy()"), "an idle kernel", pause=200)

    def wait(self, condition: Callable[[], Any], what: str = "a condition", pause: float = 50) -> Any:
        """Until `condition()` is true, asked every `pause` ms; the page lives on meanwhile. Returns its value.

        Raises:
            AssertionError: in vain, with what page and server say.
        """
        end = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE} s for {what} in vain\n{self.state()}")
            self.page.wait_for_timeout(pause)

    def state(self) -> str:
        """What the page and the server think of the kernel: for messages."""
        return f"page: {self.page.evaluate('() => eyes.state()')}\nconsole: {self.complaints}\n{self._report()}"

    # ---- running ----

    def start_all(self) -> None:
        """Run all cells, without waiting for them; the notebook is busy from now on."""
        self.page.evaluate("() => eyes.runAll()")

    def run_all(self) -> None:
        """Run all cells to their end, or to the first that fails."""
        self.start_all()
        self.wait_idle()

    def cells(self) -> list[dict[str, Any]]:
        """kind, source, count and outputs of all cells."""
        return self.page.evaluate("() => eyes.cells()")

    def errors(self) -> list[str]:
        """Error outputs, what a reader would stumble over on stderr, and cells that did not run."""
        found = [] if self.page.evaluate("() => eyes.ran()") else ["not every cell ran"]
        for number, output in self.page.evaluate("() => eyes.said()"):
            if output["output_type"] == "error":
                found.append(f"cell {number}: {output['ename']}: {output['evalue']}")
            else:
                found.append(f"cell {number}: stderr: {''.join(output['text'])}")
        return found

    # ---- looking ----

    def outputs(self, number: int) -> Any:
        """The output area of the cell with this number, scrolled to."""
        self.page.evaluate("n => jupyterapp.shell.currentWidget.content.scrollToItem(n)", number)
        return self.page.locator(f".jp-Notebook-cell[data-windowed-list-index='{number}'] .jp-OutputArea").first

    def faults(self) -> list[str]:
        """What is wrong with the panels, and stays so: not rendered, or wider than there is room."""
        self.show_all()
        found: list[str] = []
        for _ in range(RENDER_LOOKS):  # the kernel is idle before the browser has drawn what it said
            found = self.page.evaluate("() => eyes.faults()")
            if not found:
                break
            self.page.wait_for_timeout(500)
        return found

    def pale(self) -> list[str]:
        """Texts in panels that are hard to read in the theme that is on."""
        self.show_all()
        return self.page.evaluate("() => eyes.pale()")

    def show_all(self) -> None:
        """Make the window as high as the notebook: cells out of sight are not laid out."""
        tall, wide = 0, self.page.viewport_size["width"]
        while tall != (tall := min(self.page.evaluate("() => eyes.height()"), TALLEST)):  # guesses, until it is seen
            self.page.set_viewport_size({"width": wide, "height": tall})
            self.page.evaluate("() => eyes.settled()")

    def look(self, area: Any) -> list[str]:
        """What pictures and charts below an element look like; compare it with an earlier look."""
        return area.evaluate("e => eyes.look(e)")

    # ---- operating ----

    def control(self, name: str, area: Any = None) -> Any:
        """The widget with this description before it."""
        label = self.page.locator(".widget-label", has_text=name)
        return (area or self.page).locator(".widget-inline-hbox, .widget-hslider", has=label).first

    def button(self, name: str, area: Any = None) -> Any:
        exact = re.compile(rf"^\s*{re.escape(name)}\s*$")  # there is an icon before it
        return (area or self.page).locator("button.jupyter-button").filter(has_text=exact)

    def area(self, widget: Any) -> Any:
        """The output area of the cell in which a widget is."""
        return widget.locator("xpath=ancestor::div[contains(concat(' ', @class, ' '), ' jp-Cell-outputArea ')][1]")

    def move(self, slider: Any, key: str = "ArrowRight", times: int = 1) -> None:
        """Move a slider by the keyboard, and see it move."""
        handle = slider.get_by_role("slider").first
        handle.focus()
        for _ in range(times):
            before = handle.get_attribute("aria-valuenow")
            handle.press(key)
            self.wait(lambda: handle.get_attribute("aria-valuenow") != before, what="the slider to move")  # noqa: B023

    # ---- keeping ----

    def screenshot(self, path: Path, width: int = 1280, whole: bool = True) -> None:
        """The notebook as PNG: all of it (to 16000 px), or what fits on the screen."""
        wide, high = SIZES[width]
        self.page.set_viewport_size({"width": wide, "height": high})
        if whole:
            self.show_all()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, animations="disabled", caret="hide")
        self.page.set_viewport_size({"width": wide, "height": high})
