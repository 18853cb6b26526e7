/** Level and mean spectrum of a voice, which the encoder's input is normalised by: of a whole file, or running. */

import type { Head } from "../container";
import { type AudioFacts, audioFacts } from "./facts";
import { speechLevel } from "./voice_activity";

const LOUD = 0.97;             // quantile of the energies that is the level, see `phones.level_and_mean`

export interface Voice {
  level: number;
  mean: Float32Array;
}

/** Log of the total power of each row of log power. */
export function energies(log: Float32Array, bands: number): Float32Array {
  const out = new Float32Array(log.length / bands);
  for (let row = 0; row < out.length; row++) {
    let highest = -Infinity, sum = 0;
    for (let i = row * bands; i < (row + 1) * bands; i++) highest = Math.max(highest, log[i]);
    for (let i = row * bands; i < (row + 1) * bands; i++) sum += Math.exp(log[i] - highest);
    out[row] = highest + Math.log(sum);
  }
  return out;
}

/** See `phones.level_and_mean`: log [rows * bands], energy [rows]. */
export function levelAndMean(log: Float32Array, energy: Float32Array, bands: number, facts: AudioFacts): Voice {
  const level = energy.slice().sort()[halfToEven(LOUD * (energy.length - 1))];
  const floor = level + facts.min_log_power, sums = new Float64Array(bands);
  let count = 0;
  for (let row = 0; row < energy.length; row++) {
    if (!(energy[row] > Math.fround(level + facts.speech))) continue;
    count++;
    for (let i = 0; i < bands; i++) sums[i] += Math.max(log[row * bands + i], floor);
  }
  return { level, mean: Float32Array.from(sums, (sum) => sum / Math.max(count, 1)) };
}

/** Rounded as Python does it. */
function halfToEven(x: number): number {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + below % 2 : Math.round(x);
}

/** See `phones.normalised`: rows of log power [rows * bands] -> inputs of the network [rows * (bands + 1)]. */
export function normalised(log: Float32Array, energy: Float32Array, bands: number, voice: Voice, facts: AudioFacts
                           ): Float32Array {
  const { level, mean } = voice, width = bands + 1, out = new Float32Array(energy.length * width);
  for (let row = 0; row < energy.length; row++) {
    const at = row * width;
    for (let i = 0; i < bands; i++) {
      out[at + i] = (Math.max(log[row * bands + i], level + facts.min_log_power) - mean[i]) / 3;
    }
    out[at + bands] = Math.max(energy[row] - level, facts.min_log_power + 3) / 3;
  }
  return out;
}

/** Running statistics of the speech in the last ten seconds, see `streaming.SpeakerStatistics`. */
export class SpeakerStatistics {
  voice: Voice;
  loudness: number;            // dBFS
  private log: Float32Array;   // [steps * 2 * bands]
  private energy: Float32Array;  // [steps * 2]
  private power: Float64Array; // [steps]
  private referenceSteps: number;
  private readonly replaced: number;
  private quiet = 0;
  private readonly facts: AudioFacts;

  constructor(head: Head, private readonly bands: number) {
    this.facts = audioFacts(head);
    this.log = head.floats("audio.reference.log");
    this.energy = energies(this.log, bands);
    this.power = Float64Array.from(head.floats("audio.reference.power"));
    this.referenceSteps = this.power.length;
    this.replaced = Math.ceil(this.referenceSteps / this.facts.adaptation_steps);
    this.voice = levelAndMean(this.log, this.energy, bands, this.facts);
    this.loudness = speechLevel(this.power);
  }

  /** Add new steps: log power [steps * 2 * bands], energy [steps * 2], mean square of the samples [steps]. */
  update(log: Float32Array, energy: Float32Array, power: Float64Array): void {
    const threshold = Math.fround(this.voice.level + this.facts.speech), size = 2 * this.bands, kept: number[] = [];
    for (let step = 0; step < power.length; step++) {
      const quiet = !(Math.max(energy[2 * step], energy[2 * step + 1]) > threshold);
      if (quiet) this.quiet = (this.quiet + 1) % this.facts.silence_stride;
      if (!quiet || this.quiet === 0) kept.push(step);
    }
    const dropped = Math.min(this.referenceSteps, this.replaced * kept.length);
    this.referenceSteps -= dropped;
    const limit = this.facts.statistics_steps;
    this.log = shifted(this.log, dropped, log, kept, size, limit);
    this.energy = shifted(this.energy, dropped, energy, kept, 2, limit);
    this.power = shifted(this.power, dropped, power, kept, 1, limit);
    this.voice = levelAndMean(this.log, this.energy, this.bands, this.facts);
    this.loudness = speechLevel(this.power);
  }
}

/** The last `limit` of: old steps without the first `dropped`, then the kept new ones. A step has `size` values. */
function shifted<T extends Float32Array | Float64Array>(old: T, dropped: number, added: T, kept: number[],
                                                        size: number, limit: number): T {
  const steps = old.length / size, left = steps - dropped, skipped = Math.max(0, left + kept.length - limit);
  const first = Math.min(left, skipped);
  const out = new (old.constructor as new (length: number) => T)((left + kept.length - skipped) * size);
  out.set(old.subarray((dropped + first) * size));
  kept.slice(skipped - first).forEach((step, i) => {
    out.set(added.subarray(step * size, (step + 1) * size), (left - first + i) * size);
  });
  return out;
}
