/** Mouth coefficients from audio, computed in the page as `egs.render` computes them. */

import type { Head } from "../container";
import { type AudioFacts, audioFacts } from "./facts";
import { MouthLink } from "./link";
import { LogMel } from "./log_mel";
import { MouthStream } from "./mouth_stream";
import { PhoneNet, PhoneSequence } from "./phone_net";
import { energies, levelAndMean, normalised } from "./speaker";
import { shutInSilence } from "./voice_activity";

const CHUNK = 256;             // steps that the network gets at once, which bounds memory

export class MouthModel {
  readonly facts: AudioFacts;
  readonly logMel: LogMel;
  readonly net: PhoneNet;
  readonly link: MouthLink;

  /** @param head with the tensors and facts of `audio_tensors` */
  constructor(readonly head: Head) {
    this.facts = audioFacts(head);
    this.logMel = new LogMel(head);
    this.net = new PhoneNet(head);
    this.link = new MouthLink(head);
  }

  /** Number of video frames in this many samples: rounded, at least 1. */
  framesOf(samples: number): number {
    return Math.max(1, Math.floor(samples / this.facts.samples_per_frame + 0.5));
  }

  /** Log-mel power of a wave, [2 * steps * bands], see `phones.log_power`. */
  logPower(wave: Float32Array): Float32Array {
    return this.logMel.rows(wave, 0, 0, 2 * Math.ceil(wave.length / this.facts.samples_per_step));
  }

  /** Phone posteriors of a wave, square roots [steps * classes], see `phones.steps`. */
  phones(wave: Float32Array): Float32Array {
    const { bands } = this.logMel, log = this.logPower(wave), energy = energies(log, bands);
    const inputs = normalised(log, energy, bands, levelAndMean(log, energy, bands, this.facts), this.facts);
    const { channels, classes } = this.net, steps = energy.length / 2, out = new Float32Array(steps * classes);
    const sequence = new PhoneSequence(this.net, CHUNK);
    for (let begin = 0; begin < steps; begin += CHUNK) {
      const end = Math.min(begin + CHUNK, steps), before = sequence.final;
      sequence.push(inputs.subarray(2 * begin * channels, 2 * end * channels), end === steps);
      for (let step = before; step < sequence.final; step++) out.set(sequence.posterior(step), step * classes);
    }
    return out;
  }

  /**
   * Mouth coefficients of a whole audio, as `egs.render` has them.
   *
   * @param wave 16 kHz mono, -1...1, at least one sample
   * @returns [frames * 8] at 25 fps
   */
  predict(wave: Float32Array): Float32Array {
    if (wave.length === 0) throw new Error("There is no sound in it. Choose a recording of speech.");
    const frames = this.framesOf(wave.length), { classes } = this.net, before = this.facts.window_steps / 2;
    const steps = this.phones(wave), features = new Float32Array(this.link.stepsOf(frames) * classes);
    features.set(steps.subarray(0, features.length - before * classes), before * classes);
    return this.link.predict(features, shutInSilence(wave, frames, this.facts));
  }

  /** For audio that is still coming in. */
  stream(): MouthStream {
    return new MouthStream(this);
  }
}
