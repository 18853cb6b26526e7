/** Mouth coefficients frame by frame as audio comes in, as `streaming.LiveFeatures` has them. */

import { LiveEncoder } from "./live_encoder";
import type { MouthModel } from "./mouth_model";
import { energies, SpeakerStatistics } from "./speaker";
import { blockPower, blurred, loudness } from "./voice_activity";

/**
 * Each frame is computed once, from the audio up to its look-ahead, so the frames do not depend on how the audio is cut
 * into chunks. All buffers are bounded.
 */
export class MouthStream {
  private readonly encoder: LiveEncoder;
  private readonly speaker: SpeakerStatistics;
  private readonly features: Float32Array;   // one window
  private frame = 0;
  private samples = 0;
  private wave = new Float32Array(0);
  private begin = 0;           // number of the first sample of `wave`
  private hops = 0;            // spectra so far
  private levels: number[];    // dBFS of the frames around the next one, silence before the first
  private measured = 0;        // frames whose level is known
  private ended = false;

  constructor(private readonly model: MouthModel) {
    const { facts, net, logMel, link } = model;
    this.encoder = new LiveEncoder(model);
    this.speaker = new SpeakerStatistics(model.head, logMel.bands);
    this.features = new Float32Array(link.stepsOf(1) * net.classes);
    this.levels = new Array(facts.hangover + facts.blur_radius).fill(-Infinity);
  }

  /**
   * Append audio.
   *
   * @param samples 16 kHz mono, -1...1, any number
   * @returns the 8 coefficients of each frame that has its look-ahead now
   */
  push(samples: Float32Array): Float32Array[] {
    if (this.ended) throw new Error("The stream has ended. Begin another one.");
    const { samples_per_frame: length, look_ahead: ahead } = this.model.facts, found: Float32Array[] = [];
    const joined = new Float32Array(this.wave.length + samples.length);
    joined.set(this.wave);
    joined.set(samples, this.wave.length);
    this.wave = joined;
    this.samples += samples.length;
    while (this.samples >= this.frame * length + ahead) found.push(this.next(this.frame * length + ahead));
    return found;
  }

  /** The audio has ended: the remaining frames. */
  finish(): Float32Array[] {
    const found: Float32Array[] = [];
    this.ended = true;
    while (this.samples && this.frame < this.model.framesOf(this.samples)) found.push(this.next(this.samples));
    return found;
  }

  /** The next frame, from the samples up to `until`. */
  private next(until: number): Float32Array {
    this.hear(until);
    this.measure(until);
    const { classes } = this.model.net, before = this.model.facts.window_steps / 2, first = 2 * this.frame - before;
    this.features.fill(0);
    for (let i = 0; i < this.features.length / classes; i++) {
      const step = first + i;
      if (step >= 0 && step < this.encoder.steps) this.features.set(this.encoder.posterior(step), i * classes);
    }
    const coefficients = this.model.link.predict(this.features, new Float32Array([this.silence()]));
    this.frame++;
    this.discard();
    return coefficients;
  }

  /** Encode the new steps whose spectra are complete; at the end, all. */
  private hear(until: number): void {
    const { facts, logMel } = this.model, { hop, window, samples_per_step: step } = facts;
    const hops = this.ended ? 2 * Math.ceil(until / step)
      : Math.floor((Math.floor((until - window / 2) / hop) + 1) / 2) * 2;
    if (hops <= this.hops) return;
    const log = logMel.rows(this.wave, this.begin, this.hops, hops - this.hops);
    const energy = energies(log, logMel.bands), from = this.hops * hop - this.begin;
    this.speaker.update(log, energy, blockPower(this.wave.subarray(from), (hops - this.hops) / 2, step));
    const context = Math.max(0, 2 * this.frame - facts.back - facts.window_steps / 2);
    this.encoder.push(log, this.speaker.voice, context, this.ended);
    this.hops = hops;
  }

  /** Levels of the frames that are complete. */
  private measure(until: number): void {
    const { samples_per_frame: length } = this.model.facts;
    const frames = this.ended ? this.model.framesOf(until) : Math.floor(until / length);
    const wave = this.wave.subarray(this.measured * length - this.begin);
    if (frames > this.measured) this.levels.push(...loudness(wave, frames - this.measured, length));
    this.measured = Math.max(this.measured, frames);
  }

  /** How far silence shuts the mouth in the next frame, from the frames up to the look-ahead. */
  private silence(): number {
    const { facts } = this.model, { hangover, blur_radius: radius } = facts;
    const levels = this.ended ? [...this.levels, ...new Array(hangover + radius).fill(-Infinity)] : this.levels;
    const threshold = Math.max(this.speaker.loudness - facts.quiet_db, facts.inaudible_db);
    const silent = Float32Array.from({ length: levels.length - 2 * hangover }, (_, i) =>
      levels.slice(i, i + 2 * hangover + 1).every((level) => level < threshold) ? 1 : 0);
    return blurred(silent, facts)[radius];
  }

  /** Drop what no later frame needs. */
  private discard(): void {
    const { hop, samples_per_frame: length } = this.model.facts;
    this.levels.shift();
    const needed = Math.min(Math.max(0, this.hops - 2) * hop, this.measured * length);
    this.wave = this.wave.subarray(needed - this.begin);
    this.begin = needed;
  }
}
