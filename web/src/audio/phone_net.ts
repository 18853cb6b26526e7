/** The audio encoder: phone posteriors from normalised log-mel power, see `speech/phones.py`. */

import type { Head } from "../container";
import { Conv, gelu, layerNorm } from "./conv";
import { audioFacts } from "./facts";

const KEPT = 32;               // final steps that stay in the buffers: at least what a block looks back, and a window
const MARGIN = 8;              // rows after the newest step: at least what a block looks ahead

interface Block {
  conv: Conv;
  mix: Conv;
  back: number;                // taps before a step
  ahead: number;               // taps after it
  dilation: number;
}

export class PhoneNet {
  readonly first: Conv;
  readonly blocks: Block[];
  readonly last: Conv;

  constructor(head: Head) {
    this.first = Conv.read(head, "audio.phones.first");
    this.blocks = audioFacts(head).blocks.map(([back, ahead, dilation], i) => ({
      conv: Conv.read(head, `audio.phones.blocks.${i}.conv`), mix: Conv.read(head, `audio.phones.blocks.${i}.mix`),
      back, ahead, dilation,
    }));
    this.last = Conv.read(head, "audio.phones.last");
  }

  /** Bands and loudness. */
  get channels(): number {
    return this.first.inner;
  }

  get width(): number {
    return this.first.out;
  }

  get classes(): number {
    return this.last.out;
  }
}

/**
 * The network over one audio, a few steps at a time.
 *
 * What a step outputs depends on steps after it. Each layer's outputs are computed once they have their context, and
 * kept; those of the newest steps are computed as at the end of the audio, and again when more has come in. So a few
 * steps cost little more than their own share, and all steps that are final are what the network gives for the whole.
 */
export class PhoneSequence {
  /** The step after the last one that has come in, and after the last one whose posteriors are final. */
  steps = 0;
  final = 0;

  private base = -KEPT;        // step of the buffers' first row
  private origin = 0;          // the first step
  private readonly done: number[];           // final steps of each layer
  private readonly inputs: Float32Array;     // [2 * rows, channels]
  private readonly x: Float32Array[];        // [rows, width] per layer
  private readonly normal: Float32Array[];   // their layer norm; 0 before the first and after the newest step
  private readonly hidden: Float32Array;
  private readonly posteriors: Float32Array; // [rows, classes]

  /** @param most steps that come in at once */
  constructor(private readonly net: PhoneNet, most: number) {
    const rows = KEPT + MARGIN + 2 * most + MARGIN, layers = net.blocks.length + 1;
    this.done = new Array(layers).fill(0);
    this.inputs = new Float32Array(2 * rows * net.channels);
    const buffer = () => new Float32Array(rows * net.width);
    this.x = Array.from({ length: layers }, buffer);
    this.normal = Array.from({ length: layers - 1 }, buffer);
    this.hidden = buffer();
    this.posteriors = new Float32Array(rows * net.classes);
  }

  /** Begin anew with any step: what comes before it counts as outside of the audio. */
  restart(origin: number): void {
    this.origin = this.steps = this.final = origin;
    this.base = origin - KEPT;
    this.done.fill(origin);
    for (const rows of this.normal) rows.fill(0);
  }

  /** Square roots of a step's class probabilities, provisional from `final` on; the last 32 final ones are kept. */
  posterior(step: number): Float32Array {
    const { classes } = this.net, row = step - this.base;
    return this.posteriors.subarray(row * classes, (row + 1) * classes);
  }

  /**
   * Append steps.
   *
   * @param inputs normalised log-mel power [2 * steps * channels], at least one step
   * @param ended whether these are the last
   */
  push(inputs: Float32Array, ended: boolean): void {
    const { channels, first, width, blocks } = this.net, added = inputs.length / (2 * channels);
    this.makeRoom(added);
    this.append(inputs, added);
    let from = this.done[0];
    this.done[0] = ended ? this.steps : this.steps - 1;
    first.apply(this.inputs, (2 * (from - this.base) - 2) * channels, 2 * channels, channels, this.x[0],
                (from - this.base) * width, width, this.steps - from);
    blocks.forEach((block, i) => {
      const next = this.done[i + 1];
      this.run(block, i, from, next);
      this.done[i + 1] = ended ? this.steps : Math.max(next, this.done[i] - block.ahead * block.dilation);
      from = next;
    });
    this.classify(from);
    this.final = this.done[blocks.length];
  }

  /** Drop rows that no later step needs. */
  private makeRoom(added: number): void {
    const { width, channels, classes } = this.net, rows = this.hidden.length / width;
    if (this.steps + added - this.base + MARGIN <= rows) return;
    const dropped = this.final - KEPT - this.base;
    this.base += dropped;
    for (const buffer of [...this.x, ...this.normal]) {
      buffer.copyWithin(0, dropped * width);
      buffer.fill(0, (rows - dropped) * width);
    }
    this.inputs.copyWithin(0, 2 * dropped * channels);
    this.posteriors.copyWithin(0, dropped * classes);
  }

  /** New inputs; before the first and after the last they are held. */
  private append(inputs: Float32Array, added: number): void {
    const { channels } = this.net, at = 2 * (this.steps - this.base) * channels;
    this.inputs.set(inputs, at);
    if (this.steps === this.origin) {
      for (const row of [-1, -2]) this.inputs.set(inputs.subarray(0, channels), at + row * channels);
    }
    for (const row of [0, 1]) {
      this.inputs.set(inputs.subarray(inputs.length - channels), at + inputs.length + row * channels);
    }
    this.steps += added;
  }

  /** Outputs of block i for the steps from `first` on; its inputs are new from step `from` on. */
  private run(block: Block, i: number, from: number, first: number): void {
    const { width } = this.net, { hidden } = this, x = this.x[i], y = this.x[i + 1], normal = this.normal[i];
    const row = first - this.base, end = this.steps - this.base, rows = end - row;
    layerNorm(x, normal, width, from - this.base, end);
    block.conv.apply(normal, (row - block.back * block.dilation) * width, width, block.dilation * width, hidden, 0,
                     width, rows);
    gelu(hidden, hidden, 0, rows * width);
    block.mix.apply(hidden, 0, width, width, y, row * width, width, rows);
    for (let k = row * width; k < end * width; k++) y[k] += x[k];
  }

  /** Posteriors of the steps from `first` on. */
  private classify(first: number): void {
    const { width, classes, last } = this.net, { hidden, posteriors } = this, x = this.x[this.x.length - 1];
    const row = first - this.base, end = this.steps - this.base;
    for (let k = 0; k < (end - row) * width; k++) hidden[k] = x[row * width + k];
    gelu(hidden, hidden, 0, (end - row) * width);
    last.apply(hidden, 0, width, width, posteriors, row * classes, classes, end - row);
    for (let at = row * classes; at < end * classes; at += classes) {
      let highest = -Infinity, sum = 0;
      for (let k = at; k < at + classes; k++) highest = Math.max(highest, posteriors[k]);
      for (let k = at; k < at + classes; k++) sum += posteriors[k] = Math.exp(posteriors[k] - highest);
      for (let k = at; k < at + classes; k++) posteriors[k] = Math.sqrt(posteriors[k] / sum);
    }
  }
}
