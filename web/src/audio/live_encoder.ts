/** Phone posteriors of audio that is still coming in, while level and spectrum of the voice are being estimated. */

import type { MouthModel } from "./mouth_model";
import { PhoneSequence } from "./phone_net";
import { energies, normalised, type Voice } from "./speaker";

const MOST = 32;               // steps that come in at once, those of the look-ahead included
/** Change of level or spectrum, natural log of power, from which the past is encoded anew. */
const CHANGE = 0.2;
/** Steps of the past that are encoded anew with each frame, which bounds its time. */
const CAUGHT_UP = 24;

/**
 * Encodes each step once, normalised by what is known of the voice when it comes in. `LiveFeatures` normalises the
 * whole context anew for each frame, which costs ten times as much: here, that is done once level or spectrum have
 * changed, by a second sequence that catches up with the first within a few frames and replaces it.
 */
export class LiveEncoder {
  private current: PhoneSequence;
  private spare: PhoneSequence;
  private catching = false;    // whether the spare one is catching up
  private voice?: Voice;       // that the current one began with
  private log = new Float32Array(0);         // log-mel power of the steps from `first` on
  private first = 0;

  constructor(private readonly model: MouthModel) {
    this.current = new PhoneSequence(model.net, MOST);
    this.spare = new PhoneSequence(model.net, MOST);
  }

  /** Number of steps that have come in. */
  get steps(): number {
    return this.current.steps;
  }

  /** See `PhoneSequence.posterior`. */
  posterior(step: number): Float32Array {
    return this.current.posterior(step);
  }

  /**
   * Append steps.
   *
   * @param log their log-mel power
   * @param voice with which they are normalised
   * @param context the first step that a frame still to come depends on
   * @param ended whether these are the last
   */
  push(log: Float32Array, voice: Voice, context: number, ended: boolean): void {
    const size = 2 * this.model.logMel.bands, kept = this.log.subarray(Math.max(0, context - this.first) * size);
    this.first = Math.max(this.first, context);
    this.log = new Float32Array(kept.length + log.length);
    this.log.set(kept);
    this.log.set(log, kept.length);
    this.encode(this.current, this.steps + log.length / size, voice, ended);
    if (ended) return;
    this.voice ??= voice;
    if (!this.catching && difference(voice, this.voice) > CHANGE) {
      this.catching = true;
      this.voice = voice;
      this.spare.restart(this.first);
    }
    if (this.catching) this.catchUp(voice);
  }

  private catchUp(voice: Voice): void {
    this.encode(this.spare, Math.min(this.spare.steps + CAUGHT_UP, this.steps), voice, false);
    if (this.spare.steps < this.steps) return;
    [this.current, this.spare] = [this.spare, this.current];
    this.catching = false;
  }

  /** Encode up to a step. */
  private encode(sequence: PhoneSequence, until: number, voice: Voice, ended: boolean): void {
    const { logMel: { bands }, facts } = this.model, size = 2 * bands;
    const log = this.log.subarray((sequence.steps - this.first) * size, (until - this.first) * size);
    sequence.push(normalised(log, energies(log, bands), bands, voice, facts), ended);
  }
}

function difference(a: Voice, b: Voice): number {
  let squares = 0;
  for (let i = 0; i < a.mean.length; i++) squares += (a.mean[i] - b.mean[i]) ** 2;
  return Math.max(Math.abs(a.level - b.level), Math.sqrt(squares / a.mean.length));
}
