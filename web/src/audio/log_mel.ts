/** Log-mel power of audio, as `phones.log_power` computes it. */

import type { Head } from "../container";
import { audioFacts } from "./facts";

export class LogMel {
  readonly bands: number;
  private readonly filters: Float32Array;
  private readonly ranges: [first: number, last: number][];  // where each filter is not zero
  private readonly hann: Float64Array;
  private readonly fft: Fft;
  private readonly hop: number;
  private readonly logFloor: number;
  private readonly floor: number;

  constructor(head: Head) {
    const facts = audioFacts(head), [bands, bins] = head.get("audio.mel").shape;
    this.bands = bands;
    this.filters = head.floats("audio.mel");
    this.ranges = Array.from({ length: bands }, (_, band) => {
      let from = band * bins, to = from + bins;
      while (from < to && this.filters[from] === 0) from++;
      while (from < to && this.filters[to - 1] === 0) to--;
      return [from, to];
    });
    const { window } = facts;
    this.hann = Float64Array.from({ length: window }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / window));
    this.fft = new Fft(facts.fft);
    this.hop = facts.hop;
    this.floor = facts.power_floor;
    this.logFloor = Math.log(facts.power_floor);
  }

  /**
   * Log power of the windows centred at samples `hop * first`, `hop * (first + 1)`, ...; silence outside of the wave.
   *
   * @param wave 16 kHz samples, the first of which is number `origin` of the audio
   * @param count even: two windows share a transform, one as its real, one as its imaginary part
   * @returns [count * bands]
   */
  rows(wave: Float32Array, origin: number, first: number, count: number): Float32Array {
    const out = new Float32Array(count * this.bands), { re, im } = this.fft;
    for (let i = 0; i < count; i += 2) {
      this.cut(wave, (first + i) * this.hop - origin, re);
      this.cut(wave, (first + i + 1) * this.hop - origin, im);
      this.fft.transform();
      this.powers(out, i * this.bands);
    }
    return out;
  }

  /** A Hann window of the wave around a sample. */
  private cut(wave: Float32Array, centre: number, into: Float64Array): void {
    const { hann } = this, begin = centre - hann.length / 2;
    const from = Math.max(0, -begin), to = Math.min(hann.length, wave.length - begin);
    into.fill(0);
    for (let i = from; i < to; i++) into[i] = wave[begin + i] * hann[i];
  }

  /** Two rows of log power of the two windows that were transformed together. */
  private powers(out: Float32Array, at: number): void {
    const { re, im } = this.fft, size = re.length, bins = size / 2 + 1;
    for (let k = 0; k < bins; k++) {  // in place of the spectra, of which only the first half is needed
      const j = (size - k) % size;
      const a = re[k] + re[j], b = im[k] - im[j], c = im[k] + im[j], d = re[j] - re[k];
      re[k] = (a * a + b * b) / 4;
      im[k] = (c * c + d * d) / 4;
    }
    for (let band = 0; band < this.bands; band++) {
      const [from, to] = this.ranges[band], offset = band * bins;
      let one = 0, two = 0;
      for (let i = from; i < to; i++) {
        one += this.filters[i] * re[i - offset];
        two += this.filters[i] * im[i - offset];
      }
      out[at + band] = one > this.floor ? Math.log(one) : this.logFloor;
      out[at + this.bands + band] = two > this.floor ? Math.log(two) : this.logFloor;
    }
  }
}

/** Complex fast Fourier transform of `re` and `im`, in place; the size is a power of two. */
class Fft {
  readonly re: Float64Array;
  readonly im: Float64Array;
  private readonly cos: Float64Array;
  private readonly sin: Float64Array;
  private readonly reversed: Uint16Array;

  constructor(readonly size: number) {
    this.re = new Float64Array(size);
    this.im = new Float64Array(size);
    this.cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos(2 * Math.PI * i / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, i) => -Math.sin(2 * Math.PI * i / size));
    this.reversed = new Uint16Array(size);
    for (let i = 1; i < size; i++) this.reversed[i] = this.reversed[i >> 1] >> 1 | (i & 1 ? size / 2 : 0);
  }

  transform(): void {
    const { re, im, cos, sin, reversed, size } = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j <= i) continue;
      const real = re[i], imaginary = im[i];
      re[i] = re[j]; im[i] = im[j];
      re[j] = real; im[j] = imaginary;
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const i = start + k, j = i + half, c = cos[k * stride], s = sin[k * stride];
          const real = re[j] * c - im[j] * s, imaginary = re[j] * s + im[j] * c;
          re[j] = re[i] - real; im[j] = im[i] - imaginary;
          re[i] += real; im[i] += imaginary;
        }
      }
    }
  }
}
