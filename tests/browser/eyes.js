// What the driver sees of a notebook in JupyterLab; lab.py puts it into every page.
window.eyes = {
  notebook: () => window.jupyterapp?.shell.currentWidget?.content,
  session: () => window.jupyterapp.shell.currentWidget?.sessionContext?.session,
  kernel: () => eyes.session()?.kernel?.status,
  // ask the kernel for something, which wakes it
  cells: () => eyes.notebook().model.sharedModel.cells.map((c) => ({
    kind: c.cell_type, source: c.source, count: c.execution_count ?? null,
    outputs: c.cell_type === "code" ? c.outputs : [] })),

  // [number of the cell, output] of errors and of stderr: all outputs are tens of megabytes
  said: () => eyes.cells().flatMap((cell, number) => cell.outputs
    .filter((o) => o.output_type === "error" || (o.output_type === "stream" && o.name === "stderr"))
    .map((o) => [number, o])),

  runs: 0,  // commands to run cells that did not come to their end yet
  runAll() {
    eyes.runs += 1;
    const ended = () => { eyes.runs -= 1; };
    window.jupyterapp.commands.execute("notebook:run-all-cells").then(ended, ended);
  },
  // the kernel's own state says too little: callbacks of widgets make it idle while a cell waits
  busy: () => eyes.runs > 0 || eyes.kernel() !== "idle" ||
    eyes.notebook().widgets.some((w) => w.model.executionState === "running"),
  // for messages: what the page thinks of its kernel, which cells run, and what asks for an answer
  state: () => JSON.stringify({
    kernel: eyes.kernel() ?? "none", connection: eyes.session()?.kernel?.connectionStatus ?? "none", runs: eyes.runs,
    running: eyes.notebook()?.widgets.flatMap((w, k) => (w.model.executionState === "running" ? [k] : [])),
    dialogs: [...document.querySelectorAll(".jp-Dialog")].map((e) => e.innerText) }),
  ran: () => eyes.cells().every((c) => c.kind !== "code" || c.count || !c.source.trim()),

  // height of a window in which the whole notebook can be seen, px
  height() {
    const outer = document.querySelector(".jp-WindowedPanel-outer");
    outer.scrollTop = 0;
    const last = [...document.querySelectorAll(".jp-Notebook-cell")].pop().getBoundingClientRect();
    return Math.ceil(last.bottom - outer.getBoundingClientRect().top + innerHeight - outer.clientHeight) + 30;
  },
  // until nothing changed its size for ten frames
  async settled() {
    const sizes = () => [...document.querySelectorAll(".jp-Notebook-cell")].map((e) => e.offsetHeight).join();
    const end = performance.now() + 60_000;  // something that never rests must not hang the tests
    for (let before = "", same = 0; same < 10 && performance.now() < end; before = sizes()) {
      // a page that the browser does not draw gets no frames at all
      await new Promise((done) => { requestAnimationFrame(done); setTimeout(done, 200); });
      same = before === sizes() ? same + 1 : 0;
    }
  },

  // what pictures and charts below an element look like: pixels, or plotly's drawing and data
  look: (root) => [...root.querySelectorAll("img, canvas, .js-plotly-plot, video")].map((e) => {
    if (e.classList.contains("js-plotly-plot")) {
      const drawing = [...e.querySelectorAll("svg.main-svg")].map((svg) => svg.outerHTML).join();
      return drawing + e.data?.map((trace) => JSON.stringify(trace.z ?? trace.y ?? null).slice(0, 4000)).join();
    }
    if (e.tagName === "VIDEO") return e.currentSrc;
    if (e.closest(".js-plotly-plot")) return "";  // 3D: its pixels cannot be read
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [e.naturalWidth ?? e.width, e.naturalHeight ?? e.height];
    if (!canvas.width || !canvas.height) return "";
    canvas.getContext("2d").drawImage(e, 0, 0);
    return canvas.toDataURL() + getComputedStyle(e).clipPath;
  }),

  where: (e) => `cell ${e.closest(".jp-Notebook-cell").dataset.windowedListIndex}`,
  // what is wrong with the panels that are shown, as sentences
  faults() {
    const faults = [], sad = /Error (displaying|creating) widget[^\n]*|Loading widget|Failed to load model class/;
    for (const e of document.querySelectorAll(".jp-Notebook .jp-OutputArea-output")) {
      const message = e.textContent.match(sad);
      if (message) faults.push(`${eyes.where(e)}: ${message[0]}`);
      if (e.dataset.mimeType?.includes("widget-view") && !e.offsetHeight)
        faults.push(`${eyes.where(e)}: an empty panel`);
      if (e.scrollWidth > e.clientWidth + 1 && e.querySelector(".jupyter-widgets, .js-plotly-plot"))
        faults.push(`${eyes.where(e)}: a panel ${e.scrollWidth} px wide in ${e.clientWidth} px of room`);
    }
    for (const e of document.querySelectorAll(".jp-OutputArea-output :is(.widget-box, .widget-label, .jupyter-button)"))
      if (e.offsetWidth && e.scrollWidth > e.clientWidth + 1)
        faults.push(`${eyes.where(e)}: ${e.scrollWidth} px in ${e.clientWidth} px of a ` +
                    `${e.className.match(/widget-[hv]?box|widget-label|button/)}: ${e.innerText.trim().slice(0, 60)}`);
    return faults;
  },
  // texts of panels with less contrast than WCAG's 4.5 to what lies behind them
  pale() {
    const parts = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, share, k) => sum + share * linear(c[k] / 255), 0);
    const behind = (e) => {
      for (; e; e = e.parentElement) {
        const colour = parts(getComputedStyle(e).backgroundColor);
        if (colour[3] > 0.5) return colour;
      }
      return [255, 255, 255];
    };
    const found = new Set();
    for (const e of document.querySelectorAll(".jp-OutputArea-output .jupyter-widgets *")) {
      const text = [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data.trim()).join("");
      if (!text || !e.offsetWidth || e.closest("button, svg, select, input")) continue;
      const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) found.add(`${eyes.where(e)}: contrast ${contrast.toFixed(1)}: ${text.slice(0, 60)}`);
    }
    return [...found];
  },
};
