/** The mouth model for the main thread; it computes in a worker. */

import type { Head } from "../container";
import { audioFacts } from "./facts";
import type { Answer, Request } from "./worker";
import MouthWorker from "./worker?worker&inline";

const MOST_BEHIND = 3;         // seconds of audio that may wait for a machine that is too slow

interface Waiting {
  resolve: (coefficients: Float32Array) => void;
  reject: (error: Error) => void;
}

export class MouthClient {
  /** Gets the 8 coefficients of each frame of a stream, and its number: it shows the mouth at frame / 25 s. */
  onframe?: (coefficients: Float32Array, frame: number) => void;
  /** Gets what went wrong in a stream. */
  onerror?: (error: Error) => void;

  private readonly worker = new MouthWorker();
  private readonly waiting = new Map<number, Waiting>();
  private readonly rate: number;
  private readonly samplesPerFrame: number;
  private requests = 0;
  private id = 0;              // of the stream; answers to an earlier one are dropped
  private pending: Float32Array[] = [];      // chunks that the worker has not got yet: it gets one at a time
  private busy = false;
  private pushed = 0;          // samples since `start`
  private frame = 0;           // number of the next frame
  private ended?: () => void;  // resolves `ending`
  private ending?: Promise<void>;

  constructor(head: Head) {
    const facts = audioFacts(head);
    this.rate = facts.sample_rate;
    this.samplesPerFrame = facts.samples_per_frame;
    const tensors = head.part("audio.");
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => this.receive(data);
    this.worker.onerror = (event) => this.onerror?.(new Error(event.message));
    this.send({ kind: "head", tensors, facts: { audio: head.facts.audio } });  // copies, the page may need them
  }

  /** Coefficients of a whole audio, see `MouthModel.predict`. */
  predict(wave: Float32Array): Promise<Float32Array> {
    const id = ++this.requests, copy = wave.slice();
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ kind: "predict", id, wave: copy }, [copy.buffer]);
    });
  }

  /** Begin a stream; one that is still running is dropped. */
  start(): void {
    this.pushed = this.frame = 0;
    this.begin([]);
  }

  /**
   * Append live audio to the stream. On a machine that falls too far behind, some frames are left out: their numbers
   * are skipped, so that picture and sound stay in step.
   *
   * @param samples 16 kHz mono, any number; copied. Ignored where no stream is running
   */
  push(samples: Float32Array): void {
    if (!this.id || this.ending) return;
    this.pushed += samples.length;
    this.pending.push(samples.slice());
    if (this.pushed - this.frame * this.samplesPerFrame > MOST_BEHIND * this.rate) {
      this.frame = Math.floor(this.pushed / this.samplesPerFrame);
      this.begin([new Float32Array(this.pushed - this.frame * this.samplesPerFrame)]);  // from where that frame begins
    }
    this.next();
  }

  /** End the stream: resolves when its last frames have come. */
  stop(): Promise<void> {
    if (!this.id) return Promise.resolve();
    this.ending ??= new Promise((resolve) => { this.ended = resolve; });
    this.next();
    return this.ending;
  }

  /** End the worker. */
  close(): void {
    this.worker.terminate();
  }

  private begin(pending: Float32Array[]): void {
    this.end();
    this.pending = pending;
    this.busy = false;
    this.id = ++this.requests;
    this.send({ kind: "start", id: this.id });
  }

  /** The next chunk to the worker, or after the last one the end. */
  private next(): void {
    if (this.busy || !this.id) return;
    const samples = this.pending.shift();
    if (!samples && !this.ending) return;
    this.busy = true;
    if (samples) this.send({ kind: "push", id: this.id, samples }, [samples.buffer as ArrayBuffer]);
    else this.send({ kind: "stop", id: this.id });
  }

  private receive(answer: Answer): void {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if (answer.kind === "predicted") waiting?.resolve(answer.coefficients);
    else if (answer.kind === "frames" && answer.id === this.id) this.show(answer.frames, answer.ended);
    else if (answer.kind === "failed") {
      const error = new Error(answer.message);
      if (waiting) return waiting.reject(error);
      if (answer.id === this.id) this.end();
      this.onerror?.(error);
    }
  }

  private show(frames: Float32Array[], ended: boolean): void {
    this.busy = false;
    for (const coefficients of frames) this.onframe?.(coefficients, this.frame++);
    if (ended) this.end();
    else this.next();
  }

  private end(): void {
    this.id = 0;
    this.ended?.();
    this.ended = this.ending = undefined;
  }

  private send(request: Request, buffers: ArrayBuffer[] = []): void {
    this.worker.postMessage(request, buffers);
  }
}
