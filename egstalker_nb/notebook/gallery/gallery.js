// Plots are drawn when they come near the screen; one button opens all code.
function drawPlot(id, figure) {
  const frames = figure.frames || [];
  Plotly.newPlot(id, { data: figure.data, layout: { ...figure.layout, width: undefined, autosize: true }, frames,
                       config: { responsive: true, displaylogo: false } });
}

document.addEventListener("DOMContentLoaded", () => {
  const load = (entries, observer) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    observer.unobserve(entry.target);
    const script = document.createElement("script");
    script.src = entry.target.dataset.script;
    document.body.append(script);
  });
  const near = new IntersectionObserver(load, { rootMargin: "800px" });
  document.querySelectorAll(".plot").forEach((plot) => near.observe(plot));

  const button = document.getElementById("code");
  button?.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") === "false";
    document.querySelectorAll("details.code").forEach((part) => { part.open = open; });
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Hide all code" : "Show all code";
  });
});
