// A button that sends a file to the kernel in chunks: in a single message it would be lost if it exceeded the message
// limit of the server (10 MB by default).
const CHUNK_BYTES = 1 << 20;

function render({ model, el }) {
  el.classList.add("egs-upload");
  const input = document.createElement("input");
  input.type = "file";
  input.setAttribute("aria-label", model.get("description"));
  const button = document.createElement("button");
  button.className = "jupyter-button widget-button";
  button.style.width = "auto";
  input.style.display = "none";
  el.append(button, input);

  let file = null;
  const name = () => { button.textContent = model.get("description"); input.accept = model.get("accept"); };
  const end = () => { file = null; input.value = ""; button.disabled = false; };
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    [file] = input.files;
    if (!file) return;
    button.disabled = true;
    model.send({ kind: "begin", name: file.name, size: file.size });
  });
  // the kernel requests each chunk after receiving the previous one, so that nothing queues up
  const answer = async (message) => {
    if (message.kind === "end") { end(); return; }
    if (message.kind !== "next" || !file) return;
    try {
      const piece = await file.slice(message.from, message.from + CHUNK_BYTES).arrayBuffer();
      model.send({ kind: "piece", from: message.from }, undefined, [piece]);
    } catch (error) {
      model.send({ kind: "broken", why: String(error) });
      end();
    }
  };
  model.on("msg:custom", answer);
  model.on("change:description", name);
  name();
  return () => { model.off("msg:custom", answer); model.off("change:description", name); };
}
export default { render };
