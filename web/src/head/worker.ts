/** Deformation, projection and depth sort of frames, in a thread of their own. */
import type { Facts, Tensor } from "../container";
import { Head } from "../container";
import { Deformation } from "./deformation";
import type { Camera } from "./projection";
import { Projection } from "./projection";

/** The head, once; then the frames: conditions [27] and the camera. */
export type Request = { tensors: Map<string, Tensor>; facts: Facts }
  | { id: number; conditions: Float32Array; camera: Camera };

/** Splats of frame `id`, and the milliseconds that they took. */
export interface Answer { id: number; splats: Float32Array; ms: number }

let deformation: Deformation, projection: Projection;

self.onmessage = ({ data }: MessageEvent<Request>) => {
  if ("tensors" in data) {
    const head = new Head(data.tensors, data.facts);
    deformation = new Deformation(head);
    projection = new Projection(deformation.count, deformation.width, head.facts.sh_degree as number);
    return;
  }
  const began = performance.now();
  deformation.update(data.conditions);
  const splats = projection.splats(deformation.raw, data.camera);
  const answer: Answer = { id: data.id, splats, ms: performance.now() - began };
  self.postMessage(answer, { transfer: [splats.buffer] });
};
