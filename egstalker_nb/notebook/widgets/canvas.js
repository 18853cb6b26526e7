// A plotly chart that always shows the newest state of its figure, and tells where it was clicked, dragged and zoomed.
//
// plotly.js comes from the kernel, once for each page: charts ask for it until one of them has it.
const page = (globalThis.egsPlotly ??= { library: null, waiting: [], asked: 0 });
const PATIENCE = 4000; // ms before asking again: the kernel may have been busy, or have ended

function receive(code) {
  if (page.library) return;
  const parts = ["(function () { var module = { exports: {} }, exports = module.exports, define;\n", code,
    "\nglobalThis.egsPlotly.library = module.exports; })();"];
  const script = document.createElement("script");
  script.src = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
  script.onload = () => {
    URL.revokeObjectURL(script.src);
    script.remove();
    for (const call of page.waiting.splice(0)) call(page.library);
  };
  document.head.appendChild(script);
}

function library(model, ended) {
  return new Promise((resolve) => {
    if (page.library) { resolve(page.library); return; }
    page.waiting.push(resolve);
    const ask = () => {
      if (page.library || ended.now) return;
      if (Date.now() - page.asked >= PATIENCE) {
        page.asked = Date.now();
        model.send({ want: "plotly" });
      }
      setTimeout(ask, PATIENCE / 4);
    };
    ask();
  });
}

async function render({ model, el }) {
  const ended = { now: false };
  const onMessage = (content, buffers) => { if (content.plotly) receive(buffers[0]); };
  model.on("msg:custom", onMessage);
  const chart = document.createElement("div");
  chart.className = "egs-canvas";
  chart.textContent = "loading the chart ...";
  el.classList.add("egs-canvas-room");
  el.appendChild(chart);
  let resizer = null;

  const begin = async () => {
    const plotly = await library(model, ended);
    if (ended.now) return;
    chart.textContent = "";
    let drawing = false;
    let stale = true;
    const draw = async () => {
      stale = true;
      if (drawing) return;
      drawing = true;
      try {
        while (stale && !ended.now) {
          stale = false;
          const figure = JSON.parse(model.get("figure"));
          // its room decides; without a height of its own the room would follow the chart, down to nothing
          chart.style.height = `${figure.layout.height ?? 450}px`;
          const { width, height, ...layout } = { ...figure.layout, autosize: true };
          await plotly.react(chart, figure.data, layout, { responsive: true, displaylogo: false, ...model.get("config") });
        }
      } finally {
        drawing = false;
      }
    };
    await draw();
    chart.on("plotly_click", (event) => {
      const point = event.points[0];
      model.set("clicked", { x: point.x, y: point.y, trace: point.curveNumber, count: (model.get("clicked").count ?? 0) + 1 });
      model.save_changes();
    });
    chart.on("plotly_relayout", (change) => {
      const told = Object.fromEntries(Object.entries(change).filter(([key]) => /range|camera|^shapes/.test(key)));
      if (!Object.keys(told).length) return;
      model.set("changed", { ...told, count: (model.get("changed").count ?? 0) + 1 });
      model.save_changes();
    });
    model.on("change:figure", draw);
    resizer = new ResizeObserver(() => { if (chart.offsetWidth) plotly.Plots.resize(chart); });
    resizer.observe(el);
    ended.call = () => { model.off("change:figure", draw); plotly.purge(chart); };
  };
  begin();
  return () => {
    ended.now = true;
    model.off("msg:custom", onMessage);
    resizer?.disconnect();
    ended.call?.();
  };
}
export default { render };
