// A plotly chart that always shows the latest state of its figure, and reports clicks, drags and zooms.
//
// plotly.js is sent by the kernel, once per page: charts request it until it has arrived.
const page = (globalThis.egsPlotly ??= { library: null, waiting: [], requested: 0 });
const RETRY_MS = 4000; // before requesting again: the kernel may have been busy, or restarted

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
    const request = () => {
      if (page.library || ended.now) return;
      if (Date.now() - page.requested >= RETRY_MS) {
        page.requested = Date.now();
        model.send({ want: "plotly" });
      }
      setTimeout(request, RETRY_MS / 4);
    };
    request();
  });
}

async function render({ model, el }) {
  const ended = { now: false };
  const onMessage = (content, buffers) => { if (content.plotly) receive(buffers[0]); };
  model.on("msg:custom", onMessage);
  const chart = document.createElement("div");
  chart.className = "egs-canvas";
  chart.textContent = "loading the chart ...";
  el.classList.add("egs-canvas-box");
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
          // the box determines the width; without an explicit height it would collapse together with the chart
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
      const reported = Object.fromEntries(Object.entries(change).filter(([key]) => /range|camera|^shapes/.test(key)));
      if (!Object.keys(reported).length) return;
      model.set("changed", { ...reported, count: (model.get("changed").count ?? 0) + 1 });
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
