/** The mouth model in a worker, so that the page stays fluent; `MouthClient` talks to it. */

import { type Facts, Head, type Tensor } from "../container";
import { MouthModel } from "./mouth_model";
import type { MouthStream } from "./mouth_stream";

/** What the worker is asked. */
export type Request =
  | { kind: "head"; tensors: Map<string, Tensor>; facts: Facts }
  | { kind: "predict"; id: number; wave: Float32Array }
  | { kind: "start"; id: number }
  | { kind: "push"; id: number; samples: Float32Array }
  | { kind: "stop"; id: number };

/** What it answers, each request but `head` and `start` once. */
export type Answer =
  | { kind: "predicted"; id: number; coefficients: Float32Array }
  | { kind: "frames"; id: number; frames: Float32Array[]; ended: boolean }
  | { kind: "failed"; id: number; message: string };

let model: MouthModel;
let stream: MouthStream;

function answer(request: Request): Answer | undefined {
  switch (request.kind) {
    case "head":
      model = new MouthModel(new Head(request.tensors, request.facts));
      return undefined;
    case "predict":
      return { kind: "predicted", id: request.id, coefficients: model.predict(request.wave) };
    case "start":
      stream = model.stream();
      return undefined;
    case "push":
      return { kind: "frames", id: request.id, frames: stream.push(request.samples), ended: false };
    case "stop":
      return { kind: "frames", id: request.id, frames: stream.finish(), ended: true };
  }
}

self.onmessage = ({ data }: MessageEvent<Request>) => {
  try {
    const reply = answer(data);
    if (!reply) return;
    const buffers = reply.kind === "predicted" ? [reply.coefficients.buffer]
      : reply.kind === "frames" ? reply.frames.map((frame) => frame.buffer) : [];
    self.postMessage(reply, { transfer: buffers });
  } catch (error) {
    self.postMessage({ kind: "failed", id: "id" in data ? data.id : 0, message: String(error) } satisfies Answer);
  }
};
