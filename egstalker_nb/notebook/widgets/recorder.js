// Records from the browser's microphone with a level meter; the file is sent to the kernel as one binary message.
const MEDIA_TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus", "audio/webm"];
const REASONS = {
  NotAllowedError: "microphone access was denied: allow it for this page, then try again",
  NotFoundError: "no microphone was found: upload a file, or type a text",
  NotReadableError: "another program is using the microphone: close it, then try again",
};

function render({ model, el }) {
  el.classList.add("egs-recorder");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button egs-recorder-button";
  const meter = document.createElement("meter");
  meter.min = 0;
  meter.max = 1;
  meter.setAttribute("aria-label", "microphone level");
  const clock = document.createElement("span");
  clock.className = "egs-recorder-clock";
  const line = document.createElement("span");
  line.className = "egs-recorder-line";
  line.setAttribute("role", "status");
  el.append(button, meter, clock, line);

  let recorder = null, stream = null, sound = null, timer = null, gone = false;
  const set = (state, message = "") => {
    if (gone) return;
    model.set("state", state);
    model.set("message", message);
    model.save_changes();
  };
  const release = () => {
    clearInterval(timer);
    if (stream) stream.getTracks().forEach((track) => track.stop());
    if (sound) sound.close();
    stream = sound = recorder = null;
    meter.value = 0;
  };
  const watch = () => {
    const analyser = sound.createAnalyser(), began = performance.now();
    sound.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
      meter.value = Math.min(1, Math.max(0, 1 + Math.log10(Math.sqrt(power) + 1e-5) / 3)); // -60 dB ... 0 dB
      const seconds = (performance.now() - began) / 1000;
      clock.textContent = `${seconds.toFixed(1)} s`;
      if (seconds >= model.get("longest")) stop();
    }, 100);
  };
  const start = async () => {
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      set("failed", "the browser blocks the microphone here: open JupyterLab at localhost or over https, "
        + "or upload a file");
      return;
    }
    set("asking", "waiting for permission to use the microphone");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
      if (gone) { release(); return; }
      const type = MEDIA_TYPES.find((name) => MediaRecorder.isTypeSupported(name));
      recorder = new MediaRecorder(stream, { ...(type && { mimeType: type }), audioBitsPerSecond: 64000 });
      const parts = [];
      recorder.ondataavailable = (event) => { if (event.data.size) parts.push(event.data); };
      const kind = recorder.mimeType || type;
      recorder.onstop = async () => {
        release();
        if (gone) return;
        set("sending", "sending");
        const bytes = await new Blob(parts, { type: kind }).arrayBuffer();
        model.send({ kind: "recording", type: kind }, undefined, [bytes]);
      };
      sound = new AudioContext();
      watch();
      recorder.start(500);
      set("recording", "speak, then press Stop");
    } catch (error) {
      release();
      set("failed", REASONS[error.name] || `recording failed: ${error.message}`);
    }
  };
  const stop = () => { if (recorder && recorder.state !== "inactive") recorder.stop(); };
  button.addEventListener("click", () => (recorder ? stop() : start()));

  const show = () => {
    const state = model.get("state");
    button.textContent = state === "recording" ? "\u25a0 Stop" : "\u25cf Record";
    button.setAttribute("aria-pressed", String(state === "recording"));
    button.disabled = state === "asking" || state === "sending";
    line.textContent = state === "done" ? "recorded" : model.get("message");
    line.classList.toggle("egs-recorder-failed", state === "failed");
  };
  const listeners = [["change:state", show], ["change:message", show]];
  for (const [event, call] of listeners) model.on(event, call);
  if (["asking", "recording", "sending"].includes(model.get("state"))) set("idle"); // the page was reloaded
  show();
  return () => {
    gone = true;
    stop();
    release();
    for (const [event, call] of listeners) model.off(event, call);
  };
}
export default { render };
