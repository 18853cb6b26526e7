// The page of a live head: pictures and sound of one time line, drawn by the clock of the sound; see docs/live.md.
const RATE = 16000, FRAME = 640, HEADER = 16, KEPT = 2000;
const find = (id) => document.getElementById(id);
const picture = find("picture"), paint = picture.getContext("2d", { alpha: false });
const now = () => performance.timeOrigin + performance.now();
// what was measured, in ms: for the page's own figures, tests and benchmarks
const measured = { latency: [], offset: [], drawn: [] };
window.egsLive = measured;
const keep = (list, value) => { list.push(value); if (list.length > KEPT) list.shift(); };

// ---- pictures ----

let waiting = []; // {frame, bitmap, heard}, in order; of the future by the clock of the sound
let clock = null; // {sample, time} of the sound that plays
let sound = null; // {context, node}

function sounding() { // number of the sample that is heard now
  const delay = sound.context.outputLatency || sound.context.baseLatency || 0;
  return clock.sample + (sound.context.currentTime - delay - clock.time) * RATE;
}

function draw() {
  requestAnimationFrame(draw);
  const at = sound && clock ? sounding() : null;
  let next = null;
  while (waiting.length && (!waiting[0].timed || (at !== null && waiting[0].frame * FRAME <= at))) {
    if (next) next.bitmap.close();
    next = waiting.shift();
  }
  if (!next) return;
  paint.drawImage(next.bitmap, 0, 0, picture.width, picture.height);
  next.bitmap.close();
  keep(measured.drawn, now());
  if (next.heard >= 0) keep(measured.latency, now() - captured(next.heard));
  if (next.timed) keep(measured.offset, (at - next.frame * FRAME) / RATE * 1000);
}
requestAnimationFrame(draw);

function untimed() { // the sound stopped: what waits for it is drawn at once
  clock = null;
  for (const one of waiting) one.timed = false;
}

// ---- connection ----

let socket = null, confirmed = -1, retry = 500, decoding = Promise.resolve();

function connect() {
  const address = new URL("socket", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retry = 500; confirmed = -1; show("resting"); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? state(JSON.parse(data)) : received(data));
  socket.onclose = ({ code }) => {
    closeMicrophone();
    show(code === 1013 ? "too many listeners" : "disconnected");
    setTimeout(connect, retry);
    retry = Math.min(2 * retry, 8000);
  };
}

const tell = (wishes) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wishes)); };

function received(data) {
  const view = new DataView(data);
  const speaking = view.getUint8(1), count = view.getUint16(2, true), frame = view.getUint32(4, true);
  const heard = Number(view.getBigInt64(8, true));
  if (frame - confirmed >= 5 || frame < confirmed) {
    confirmed = frame;
    tell({ confirm: frame });
  }
  show(heard >= 0 && speaking ? "follows you" : speaking ? "speaking" : "resting");
  const heardHere = sound && count > 0 && sound.context.state === "running";
  if (heardHere) {
    const samples = new Int16Array(data.slice(HEADER, HEADER + 2 * count));
    sound.node.port.postMessage({ first: frame * FRAME, samples }, [samples.buffer]);
  } else if (clock || waiting.some((one) => one.timed)) untimed();
  if (data.byteLength > HEADER + 2 * count) {
    const jpeg = new Blob([new Uint8Array(data, HEADER + 2 * count)], { type: "image/jpeg" });
    const bitmap = createImageBitmap(jpeg);
    decoding = decoding.then(async () => { // in order
      waiting.push({ frame, heard, timed: Boolean(heardHere), bitmap: await bitmap });
      while (waiting.length > 50) waiting.shift().bitmap.close();
    }).catch(() => {});
  }
}

let shown = "";
function show(text) {
  if (text !== shown) find("state").textContent = shown = text;
}

function state(about) {
  find("listeners").textContent = about.listeners;
  if (about.error) {
    show("ended");
    note(`the head ended: ${about.error}`);
  }
  if (about.microphone === "taken" && microphone) {
    closeMicrophone();
    note("somebody else has the microphone");
  }
  if (!microphone) find("microphone").disabled = about.microphone === "taken";
}

const note = (text) => { find("note").textContent = text; };

setInterval(() => {
  const since = now() - 2000, recent = measured.drawn.filter((time) => time > since).length;
  find("rate").textContent = (recent / 2).toFixed(0);
  const sorted = measured.latency.slice(-50).sort((a, b) => a - b);
  find("latency").textContent = microphone && sorted.length
    ? `${sorted[sorted.length >> 1].toFixed(0)} ms` : "with a microphone";
}, 1000);

// ---- sound ----

async function openSound() {
  const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  await context.audioWorklet.addModule("speaker.js");
  const node = new AudioWorkletNode(context, "speaker", { numberOfInputs: 0, outputChannelCount: [1] });
  node.connect(context.destination);
  node.port.onmessage = ({ data }) => { if (data.playing) clock = data; else untimed(); };
  await context.resume();
  sound = { context, node };
}

find("sound").addEventListener("click", async () => {
  const button = find("sound"), on = button.getAttribute("aria-pressed") !== "true";
  button.disabled = true;
  try {
    if (on) await openSound();
    else {
      await sound.context.close();
      sound = null;
      untimed();
    }
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Sound off" : "Sound on";
    note("");
  } catch (error) {
    note(`no sound: ${error.message}`);
  }
  button.disabled = false;
});

// ---- microphone ----

const REASONS = {
  NotAllowedError: "the browser denied the microphone: allow it for this page, then try again",
  NotFoundError: "no microphone was found",
  NotReadableError: "another program uses the microphone",
};
let microphone = null; // {context, stream}
let times = []; // {first, last: when its last sample was captured}, of the last seconds

function captured(sample) { // when a sample of the microphone was captured
  const chunk = times.findLast((one) => one.first <= sample);
  return chunk ? chunk.last - (chunk.first + 159 - sample) / RATE * 1000 : NaN;
}

async function openMicrophone() {
  if (!navigator.mediaDevices) throw new Error("browsers give it to pages at localhost and over https only");
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...plain } });
  const context = new AudioContext({ latencyHint: "interactive" });
  microphone = { context, stream };
  await context.audioWorklet.addModule("microphone.js");
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 1 });
  times = [];
  measured.latency.length = 0;
  node.port.onmessage = ({ data }) => {
    times.push(data);
    if (times.length > 300) times.shift();
    const bytes = new ArrayBuffer(4 + 2 * data.samples.length);
    new DataView(bytes).setUint32(0, data.first, true);
    new Int16Array(bytes, 4).set(data.samples);
    if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < 16000) socket.send(bytes);
    find("level").value = Math.max(0, 1 + Math.log10(data.peak + 1e-5) / 3);
  };
  context.createMediaStreamSource(stream).connect(node).connect(context.destination); // silent, but pulled
  tell({ microphone: true });
}

function closeMicrophone() {
  if (!microphone) return;
  microphone.stream.getTracks().forEach((track) => track.stop());
  microphone.context.close();
  microphone = null;
  if (socket.readyState === WebSocket.OPEN) tell({ microphone: false });
  const button = find("microphone");
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Microphone on";
  find("level").value = 0;
}

find("microphone").addEventListener("click", async () => {
  const button = find("microphone");
  if (microphone) { closeMicrophone(); return; }
  button.disabled = true;
  try {
    await openMicrophone();
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Microphone off";
    note("");
  } catch (error) {
    closeMicrophone();
    note(`no microphone: ${REASONS[error.name] || error.message}`);
  }
  button.disabled = false;
});

// ---- speech ----

async function post(path, body, values = {}) {
  const address = new URL(path, location.href);
  for (const [name, value] of Object.entries(values)) address.searchParams.set(name, value);
  note("");
  try {
    const answer = await fetch(address, { method: "POST", body });
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      note(said.error || `the server answered ${answer.status}`);
    }
  } catch (error) {
    note("the server does not answer");
  }
}
const afterwards = () => ({ interrupt: String(!find("queue").checked) });

find("speech").addEventListener("submit", (event) => {
  event.preventDefault();
  post("text", find("words").value, afterwards());
});
find("words").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); find("speech").requestSubmit(); }
});
find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) post("file", file, afterwards());
  event.target.value = "";
});
find("stop").addEventListener("click", () => tell({ stop: true }));
connect();
