/** The controls of the page. */
import { COMMENT } from "../audio/mark";
import type { Background } from "../draw/compositor";
import type { Session, State } from "./session";

const MAX_YAW = 0.5, MAX_PITCH = 0.25;  // rad: farther from the front the head shows what no frame of the clip did
const PER_PIXEL = 0.005, PER_KEY = 0.05;
const BLINKS_PER_MINUTE = 17;

const SAYS: Record<State, string> = {
  resting: "Press Speak and talk, or play a sound.", speaking: "Speaking.", paused: "Paused.",
  listening: "Listening: the head says what you say.",
};

/** Build the controls of a head into `root`. */
export function buildControls(root: HTMLElement, canvas: HTMLCanvasElement, show: Session): void {
  const { facts } = show.talking.head;
  root.innerHTML = `
    <h1></h1>
    <div class="stage"></div>
    <div class="bar">
      <button id="listen" class="main"><span class="level"></span><span class="text">Speak</span></button>
      <label class="button">Play a sound<input id="file" type="file" accept="audio/*,video/*"></label>
      <button id="toggle" disabled>Pause</button>
      <button id="record">Save video</button>
    </div>
    <progress id="progress" max="1" value="0" aria-label="Position in the sound" hidden></progress>
    <p id="status" role="status"></p>
    <div class="bar">
      <label>Background <select id="background">
        <option value="clip">as in the clip</option><option value="color">a colour</option>
        <option value="picture">a picture</option><option value="transparent">none</option>
      </select></label>
      <input id="color" type="color" value="#00a060" aria-label="Colour of the background" hidden>
      <input id="picture" type="file" accept="image/*" aria-label="Picture for the background" hidden>
      <label>Blinks <select id="blinks">
        <option value="clip">as in the clip</option><option value="${BLINKS_PER_MINUTE}">natural</option>
        <option value="0">none</option>
      </select></label>
      <button id="front">Face the front</button>
    </div>
    <footer><p></p><p>Make it say only what this person agreed to, and say that the result is synthetic where you show it.
    Nothing leaves this page: it can neither load nor send anything.</p><p id="speed"></p></footer>`;
  const find = <T extends HTMLElement>(name: string) => root.querySelector<T>(name)!;
  find("h1").textContent = facts.title as string;
  find("footer p").textContent = COMMENT;
  find(".stage").append(canvas);

  const status = find("#status");
  const update = () => {
    const { state } = show, loaded = show.progress.duration > 0;
    status.textContent = state === "speaking" ? `Speaking ${show.sound}.` : SAYS[state];
    status.classList.remove("error");
    find("#listen .text").textContent = state === "listening" ? "Stop" : "Speak";
    find("#listen").setAttribute("aria-pressed", String(state === "listening"));
    find<HTMLButtonElement>("#toggle").disabled = !loaded || state === "listening";
    find("#toggle").textContent = state === "speaking" ? "Pause" : state === "paused" ? "Resume" : "Play again";
    find("#record").textContent = show.recording ? "Stop and save" : "Save video";
    find("#progress").hidden = !loaded;
  };
  show.onchange = update;
  show.onerror = (message) => {
    update();
    status.textContent = message;
    status.classList.add("error");
  };
  find("#listen").onclick = () => void show.listen();
  find("#toggle").onclick = () => void show.toggle();
  find("#record").onclick = async () => {
    if (show.recording) return show.stopRecording();
    const recording = await show.record();
    if (!recording) return;
    save(recording.blob, recording.name);
    update();
  };
  find<HTMLInputElement>("#file").onchange = ({ target }) => {
    const file = (target as HTMLInputElement).files?.[0];
    if (file) void show.speak(file);
    (target as HTMLInputElement).value = "";  // the same file may be chosen again
  };
  buildBackground(find, show);
  find<HTMLSelectElement>("#blinks").onchange = ({ target }) => {
    const { value } = target as HTMLSelectElement;
    show.talking.blinks = value === "clip" ? "clip" : Number(value);
  };
  buildTurning(canvas, find("#front"), show);
  setInterval(() => {
    const { position, duration } = show.progress;
    find<HTMLProgressElement>("#progress").value = duration ? position / duration : 0;
    find<HTMLElement>(".level").style.width = `${100 * show.level}%`;
    find("#speed").textContent = `${show.rate} frames/s`;
  }, 100);
  update();
}

type Find = <T extends HTMLElement>(name: string) => T;

function buildBackground(find: Find, show: Session): void {
  const choice = find<HTMLSelectElement>("#background"), color = find<HTMLInputElement>("#color");
  const picture = find<HTMLInputElement>("#picture");
  const apply = async () => {
    color.hidden = choice.value !== "color";
    picture.hidden = choice.value !== "picture";
    let background: Background = "clip";
    if (choice.value === "transparent") background = "transparent";
    else if (choice.value === "color") {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.value.slice(at, at + 2), 16) / 255);
      background = { color: [r, g, b] };
    } else if (choice.value === "picture" && picture.files?.[0]) {
      try {
        background = { picture: await square(picture.files[0]) };
      } catch {
        show.onerror?.("This browser cannot read this picture. Choose a JPEG, PNG or WebP.");
      }
    }
    show.talking.setBackground(background);
  };
  for (const input of [choice, color, picture]) input.oninput = () => void apply();
}

/** The middle of a picture as a square. */
async function square(file: File): Promise<ImageBitmap> {
  const whole = await createImageBitmap(file), edge = Math.min(whole.width, whole.height);
  return createImageBitmap(whole, (whole.width - edge) / 2, (whole.height - edge) / 2, edge, edge);
}

function buildTurning(canvas: HTMLCanvasElement, front: HTMLElement, show: Session): void {
  const { talking } = show;
  const turn = (yaw: number, pitch: number) => {
    talking.yaw = Math.min(MAX_YAW, Math.max(-MAX_YAW, talking.yaw + yaw));
    talking.pitch = Math.min(MAX_PITCH, Math.max(-MAX_PITCH, talking.pitch + pitch));
  };
  const home = () => { talking.yaw = talking.pitch = 0; };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "The talking head. Drag it, or use the arrow keys, to turn it.");
  canvas.onpointerdown = ({ pointerId }) => canvas.setPointerCapture(pointerId);
  canvas.onpointermove = ({ pointerId, movementX, movementY }) => {
    if (canvas.hasPointerCapture(pointerId)) turn(PER_PIXEL * movementX, -PER_PIXEL * movementY);
  };
  canvas.ondblclick = front.onclick = home;
  canvas.onkeydown = (event) => {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
    if (!x && !y) return;
    event.preventDefault();
    turn(PER_KEY * x, PER_KEY * y);
  };
}

function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
