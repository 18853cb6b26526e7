/** Deformation, projection, depth sort and tile lists of frames, in a thread of their own. */
import type { Facts, Tensor } from "../container";
import { Head } from "../container";
import { Deformation } from "./deformation";
import type { Camera } from "./projection";
import { Projection } from "./projection";
import { Tiles } from "./tiles";

/** The head, once; then the frames: conditions [27] and the camera. */
export type Request = { tensors: Map<string, Tensor>; facts: Facts }
  | { id: number; conditions: Float32Array; camera: Camera };

/** Splats of frame `id`, their numbers by tile (see `Tiles`), and the milliseconds that they took. */
export interface Answer { id: number; splats: Float32Array; starts: Uint32Array; list: Uint32Array; ms: number }

let deformation: Deformation, projection: Projection, tiles: Tiles;

self.onmessage = ({ data }: MessageEvent<Request>) => {
  if ("tensors" in data) {
    const head = new Head(data.tensors, data.facts);
    deformation = new Deformation(head);
    projection = new Projection(deformation.count, deformation.width, head.facts.sh_degree as number);
    tiles = new Tiles(head.facts.size as number);
    return;
  }
  const began = performance.now();
  deformation.update(data.conditions);
  const splats = projection.splats(deformation.raw, data.camera);
  tiles.fill(splats);
  const starts = tiles.starts.slice(), list = tiles.list.slice(0, starts[starts.length - 1]);
  const answer: Answer = { id: data.id, splats, starts, list, ms: performance.now() - began };
  self.postMessage(answer, { transfer: [splats.buffer, starts.buffer, list.buffer] });
};
