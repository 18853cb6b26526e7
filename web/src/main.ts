import { unpack } from "./container";
import { TalkingHead } from "./head/talking_head";

async function start(): Promise<void> {
  const packed = document.getElementById("head")?.textContent ?? "";
  const head = await unpack(packed);
  const canvas = document.createElement("canvas");
  document.getElementById("app")!.append(canvas);
  const talking = await TalkingHead.load(head, canvas);
  await talking.show(head.facts.still_frame as number, talking.shut);
  Object.assign(window, { talkingHead: talking });
}
void start();
