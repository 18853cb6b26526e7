// An image with a virtual camera: drag or arrow keys turn the head, the wheel zooms; the kernel renders the new view.
const KEYS = {
  ArrowLeft: ["yaw", -5], ArrowRight: ["yaw", 5], ArrowUp: ["pitch", -5], ArrowDown: ["pitch", 5],
  PageUp: ["frame", 5], PageDown: ["frame", -5], ".": ["frame", 1], ",": ["frame", -1],
};

function render({ model, el }) {
  el.classList.add("egs-orbit");
  const image = document.createElement("img");
  image.draggable = false;
  image.tabIndex = 0;
  image.alt = "the head from the current viewpoint";
  image.setAttribute("role", "application");
  image.setAttribute("aria-roledescription", "rotatable view");
  const line = document.createElement("div");
  line.className = "egs-orbit-line";
  line.setAttribute("aria-live", "polite");
  const help = document.createElement("div");
  help.className = "egs-orbit-help";
  help.textContent = "drag or arrow keys: turn \u00b7 wheel or + \u2212: zoom \u00b7 , . frame \u00b7 0: front";
  el.append(image, line, help);

  let address = null;
  const show = () => {
    const old = address;
    address = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/jpeg" }));
    image.src = address;
    if (old) URL.revokeObjectURL(old);
  };
  const describe = () => {
    const text = `yaw ${Math.round(model.get("yaw"))}\u00b0, pitch ${Math.round(model.get("pitch"))}\u00b0, `
      + `zoom ${model.get("zoom").toFixed(2)}, frame ${model.get("frame")}`;
    line.textContent = text;
    image.setAttribute("aria-label", `the head, ${text}; ${help.textContent}`);
  };

  // Pointer events arrive faster than images: they are collected and sent once per screen refresh.
  let wanted = {}, waiting = null;
  const limit = (name, value) => {
    const [low, high] = name === "frame" ? [0, model.get("frames")] : model.get("limits")[name];
    return Math.min(high, Math.max(low, value));
  };
  const now = (name) => (name in wanted ? wanted[name] : model.get(name));
  const send = () => {
    waiting = null;
    for (const [name, value] of Object.entries(wanted)) model.set(name, value);
    wanted = {};
    model.save_changes();
  };
  const request = (change) => {
    for (const [name, value] of Object.entries(change)) wanted[name] = limit(name, value);
    if (waiting === null) waiting = requestAnimationFrame(send);
  };

  let last = null;
  image.addEventListener("pointerdown", (event) => {
    image.setPointerCapture(event.pointerId);
    image.focus({ preventScroll: true });
    last = [event.clientX, event.clientY];
    event.preventDefault();
  });
  image.addEventListener("pointermove", (event) => {
    if (!event.buttons || !last) return;
    const degrees = 120 / image.getBoundingClientRect().width; // across the whole image
    request({ yaw: now("yaw") + degrees * (event.clientX - last[0]), pitch: now("pitch") + degrees * (event.clientY - last[1]) });
    last = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) image.addEventListener(end, () => { last = null; });
  image.addEventListener("wheel", (event) => {
    request({ zoom: now("zoom") * Math.exp(-0.0015 * event.deltaY) });
    event.preventDefault();
    event.stopPropagation();
  }, { passive: false });
  image.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in KEYS) {
      const [name, step] = KEYS[event.key];
      request({ [name]: now(name) + step });
    } else if (event.key === "+" || event.key === "=") request({ zoom: now("zoom") * 1.15 });
    else if (event.key === "-") request({ zoom: now("zoom") / 1.15 });
    else if (event.key === "0" || event.key === "Home") request({ yaw: 0, pitch: 0, zoom: 1 });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const width = () => { image.style.width = `${model.get("width")}px`; };
  const listeners = [["change:picture", show], ["change:width", width]];
  for (const name of ["yaw", "pitch", "zoom", "frame"]) listeners.push([`change:${name}`, describe]);
  for (const [event, call] of listeners) { model.on(event, call); call(); }
  return () => {
    for (const [event, call] of listeners) model.off(event, call);
    if (waiting !== null) cancelAnimationFrame(waiting);
    if (address) URL.revokeObjectURL(address);
  };
}
export default { render };
