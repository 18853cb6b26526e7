/** From phone posteriors to the mouth of the head: speaker prior, link and closures. See `Mouth.predict`. */

import type { Head } from "../container";
import { Conv, gelu } from "./conv";
import { type AudioFacts, audioFacts } from "./facts";

const MOST = 64;               // frames computed at once

export class MouthLink {
  readonly classes: number;
  /** Number of mouth coefficients. */
  readonly modes: number;
  private readonly facts: AudioFacts;
  private readonly prior: Prior;
  private readonly rest: Float32Array;
  private readonly weights: Float32Array;    // [components, modes]
  private readonly shut: Float32Array;

  constructor(head: Head) {
    this.facts = audioFacts(head);
    this.classes = this.facts.classes.length;
    this.prior = new Prior(head, this.facts);
    this.rest = head.floats("audio.link.rest");
    this.weights = head.floats("audio.link.weights");
    this.shut = head.floats("audio.shut");
    this.modes = this.shut.length;
  }

  /** Steps of audio features that this many frames see. */
  stepsOf(frames: number): number {
    return 2 * frames + this.facts.window_steps - 2;
  }

  /**
   * Coefficients of consecutive frames.
   *
   * @param features [stepsOf(frames) * classes] from 8 steps before the first frame's own time on, 0 outside of the
   *   audio
   * @param silent [frames] how far the mouth is shut because of silence
   * @returns [frames * modes]
   */
  predict(features: Float32Array, silent: Float32Array): Float32Array {
    const frames = silent.length, { modes, rest, weights, shut, facts, classes } = this;
    const out = new Float32Array(frames * modes);
    for (let first = 0; first < frames; first += MOST) {
      const count = Math.min(MOST, frames - first), at = 2 * first * classes;
      const predicted = this.prior.predict(features.subarray(at, at + this.stepsOf(count) * classes), count);
      for (let i = 0; i < count; i++) {
        const frame = first + i;
        const closed = Math.max(silent[frame], this.closed(features, 2 * frame * classes));
        for (let m = 0; m < modes; m++) {
          let spoken = 0;
          for (let k = 0; k < rest.length; k++) {
            spoken += (predicted[i * rest.length + k] - rest[k]) * weights[k * modes + m];
          }
          spoken = Math.min(Math.max(spoken, -facts.max_coefficient), facts.max_coefficient);
          out[frame * modes + m] = spoken + closed * (shut[m] - spoken);
        }
      }
    }
    return out;
  }

  /** How far b, p, m or an audible pause shut the lips, 0...1; the frame's window begins at `features[at]`. */
  private closed(features: Float32Array, at: number): number {
    const { facts, classes } = this, [firstShut, lastShut] = facts.shut_steps, [firstNear, lastNear] = facts.near_steps;
    let near = 0, own = 0, other = 0;
    for (let step = 0; step < facts.window_steps; step++) {
      const row = at + step * classes;
      let labial = 0;
      for (let k = 0; k < classes; k++) {
        const probability = features[row + k] ** 2;
        if (facts.labials.includes(k)) labial += probability;
        if (!facts.pauses.includes(k)) other += probability;
      }
      if (step >= firstNear && step < lastNear) near = Math.max(near, labial);
      if (step >= firstShut && step < lastShut) own = Math.max(own, labial);
    }
    const labial = Math.min(facts.shut_gain * near, 1) * (own / Math.max(near, 1e-6)) ** 2;
    const [from, full] = facts.pause, silence = 1 - other / facts.window_steps;
    return Math.max(labial, Math.min(Math.max((silence - from) / (full - from), 0), 1));
  }
}

/**
 * The speaker prior: the mean of a ridge regression and of several small networks, see `speech/prior.py`.
 *
 * The networks are convolutions without padding, so consecutive frames share what their windows have in common.
 */
class Prior {
  private readonly mean: Float32Array;
  private readonly projection: Conv;
  private readonly linear: Conv;
  private readonly first: Conv;
  private readonly wider: Conv[][];          // per layer and network
  private readonly frame: Conv[];
  private readonly last: Conv[];
  private readonly seen: Float32Array;       // [steps, expanded channels]
  private readonly projected: Float32Array;  // [steps, projected channels]
  private readonly x: Float32Array;          // [steps, networks * width]
  private readonly active: Float32Array;
  private readonly added: Float32Array;
  private readonly each: Float32Array;       // [frames, networks * components]

  constructor(head: Head, private readonly facts: AudioFacts) {
    this.mean = head.floats("audio.prior.mean");
    const { shape, data } = head.get("audio.prior.projection");
    this.projection = new Conv(data as Float32Array, new Float32Array(shape[0]), 1, shape[1]);
    this.linear = Conv.read(head, "audio.prior.linear");
    this.first = Conv.read(head, "audio.prior.first");
    const grouped = (name: string) => Conv.read(head, `audio.prior.${name}`).split(facts.nets);
    this.wider = [grouped("wider.0"), grouped("wider.1")];
    this.frame = grouped("frame");
    this.last = grouped("last");
    const steps = 2 * MOST + facts.window_steps - 2;
    this.seen = new Float32Array(steps * shape[1]);
    this.projected = new Float32Array(steps * shape[0]);
    this.x = new Float32Array(steps * this.first.out);
    this.active = new Float32Array(steps * this.first.out);
    this.added = new Float32Array(steps * this.first.out);
    this.each = new Float32Array(MOST * facts.nets * this.linear.out);
  }

  /** Features [2 * frames + 14, classes] -> [frames, components]. */
  predict(features: Float32Array, frames: number): Float32Array {
    const { projection, linear, projected } = this, steps = 2 * frames + this.facts.window_steps - 2;
    this.expand(features, steps);
    projection.apply(this.seen, 0, projection.inner, projection.inner, projected, 0, projection.out, steps);
    const out = new Float32Array(frames * linear.out);
    linear.apply(projected, 0, 2 * linear.inner, linear.inner, out, 0, linear.out, frames);
    this.networks(steps, frames);
    const { nets } = this.facts, components = linear.out;
    for (let i = 0; i < out.length; i++) {
      const frame = Math.floor(i / components), component = i % components;
      let sum = 0;
      for (let net = 0; net < nets; net++) sum += this.each[(frame * nets + net) * components + component];
      out[i] = (out[i] + sum / nets) / 2;
    }
    return out;
  }

  /** Posteriors as square roots and as logarithms, without their mean. */
  private expand(features: Float32Array, steps: number): void {
    const { mean, seen } = this, classes = mean.length / 2, { root_weight, min_root } = this.facts;
    for (let step = 0; step < steps; step++) {
      for (let k = 0; k < classes; k++) {
        const root = features[step * classes + k], at = step * 2 * classes + k;
        seen[at] = root_weight * root - mean[k];
        seen[at + classes] = 2 * Math.log(Math.max(root, min_root)) - mean[classes + k];
      }
    }
  }

  /** Predictions of each network, into `each`. */
  private networks(steps: number, frames: number): void {
    const { first, x, active, facts } = this, wide = first.out, width = wide / facts.nets;
    first.apply(this.projected, 0, first.inner, first.inner, x, 0, wide, steps);
    for (const layer of this.wider) {
      const edge = layer[0].taps >> 1;
      gelu(x, active, 0, steps * wide);
      x.copyWithin(0, edge * wide, (steps - edge) * wide);
      steps -= 2 * edge;
      layer.forEach((conv, g) => conv.apply(active, g * width, wide, wide, this.added, g * width, wide, steps));
      for (let i = 0; i < steps * wide; i++) x[i] += this.added[i];
    }
    gelu(x, active, 0, steps * wide);
    this.frame.forEach((conv, g) => conv.apply(active, g * width, 2 * wide, wide, x, g * width, wide, frames));
    gelu(x, active, 0, frames * wide);
    const components = this.last[0].out, step = facts.nets * components;
    this.last.forEach((conv, g) => conv.apply(active, g * width, wide, wide, this.each, g * components, step, frames));
  }
}
