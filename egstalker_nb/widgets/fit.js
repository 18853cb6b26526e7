// An empty line as wide as its box: tells the kernel how much room a chart has, as plotly's widget looks only once.
function render({ model, el }) {
  el.style.width = "100%";
  const observer = new ResizeObserver(() => {
    const width = Math.floor(el.clientWidth);
    if (width && width !== model.get("width")) { model.set("width", width); model.save_changes(); }
  });
  observer.observe(el);
  return () => observer.disconnect();
}
export default { render };
