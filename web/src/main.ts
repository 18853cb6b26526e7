import { unpack } from "./container";
import { TalkingHead } from "./head/talking_head";
import { buildControls } from "./ui/controls";
import { Session } from "./ui/session";
import "./ui/style.css";

async function start(root: HTMLElement): Promise<void> {
  root.textContent = "Unpacking the head ...";
  const data = document.getElementById("head")!, head = await unpack(data.textContent!);
  data.remove();  // the text is not needed any more, and large
  const canvas = document.createElement("canvas"), talking = await TalkingHead.load(head, canvas);
  buildControls(root, canvas, new Session(talking));
  // for pages and tests that drive the head themselves: a frame at a time, and the mouth of a sound
  Object.assign(window, { talkingHead: talking });
}

const root = document.getElementById("app")!;
start(root).catch((error: Error) => {
  root.textContent = `The head cannot be shown: ${error.message}`;
  root.className = "error";
});
