// Two images of the same scene, split at a line that is dragged or moved with the arrow keys.
function render({ model, el }) {
  el.classList.add("egs-wipe");
  const frame = document.createElement("div");
  frame.className = "egs-wipe-frame";
  frame.tabIndex = 0;
  frame.setAttribute("role", "slider");
  frame.setAttribute("aria-valuemin", "0");
  frame.setAttribute("aria-valuemax", "100");
  const [under, over] = ["right", "left"].map((side) => {
    const image = document.createElement("img");
    image.draggable = false;
    image.className = `egs-wipe-${side}`;
    frame.appendChild(image);
    return image;
  });
  const line = document.createElement("div");
  line.className = "egs-wipe-line";
  frame.appendChild(line);
  const names = ["left", "right"].map((side) => {
    const label = document.createElement("span");
    label.className = `egs-wipe-name egs-wipe-name-${side}`;
    frame.appendChild(label);
    return label;
  });
  el.appendChild(frame);

  const addresses = {};
  const show = (image, key) => {
    if (addresses[key]) URL.revokeObjectURL(addresses[key]);
    addresses[key] = URL.createObjectURL(new Blob([model.get(key)], { type: "image/jpeg" }));
    image.src = addresses[key];
  };
  const place = () => {
    const share = 100 * model.get("position");
    over.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    line.style.left = `${share}%`;
    frame.setAttribute("aria-valuenow", String(Math.round(share)));
    frame.setAttribute("aria-valuetext", `${Math.round(share)} % of ${model.get("names")[0]}`);
  };
  const label = () => {
    model.get("names").forEach((name, k) => { names[k].textContent = name; });
    frame.setAttribute("aria-label", `wipe between ${model.get("names").join(" and ")}`);
  };
  const move = (position) => {
    model.set("position", Math.min(1, Math.max(0, position)));
    model.save_changes();
  };
  const drag = (event) => {
    const box = frame.getBoundingClientRect();
    move((event.clientX - box.left) / box.width);
  };
  frame.addEventListener("pointerdown", (event) => {
    frame.setPointerCapture(event.pointerId);
    frame.focus({ preventScroll: true });
    drag(event);
  });
  frame.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
  frame.addEventListener("keydown", (event) => {
    const at = model.get("position");
    const target = { ArrowLeft: at - 0.05, ArrowRight: at + 0.05, Home: 0, End: 1 }[event.key];
    if (target === undefined) return;
    move(target);
    event.preventDefault();
    event.stopPropagation();  // otherwise JupyterLab selects another cell
  });
  const width = () => { frame.style.width = `${model.get("width")}px`; };
  const listeners = [["change:left", () => show(over, "left")], ["change:right", () => show(under, "right")],
    ["change:position", place], ["change:names", label], ["change:width", width]];
  for (const [event, call] of listeners) { model.on(event, call); call(); }
  return () => {
    for (const [event, call] of listeners) model.off(event, call);
    for (const address of Object.values(addresses)) URL.revokeObjectURL(address);
  };
}
export default { render };
