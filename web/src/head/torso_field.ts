/** The field that warps the torso: a sum of learned fields with the codes of a frame, see `model/torso.py`. */
import type { Head } from "../container";

const CHANNELS = 6, VIEW = 4;

export class TorsoField {
  /** Points along each axis. */
  readonly side: number;
  private readonly count: number;         // codes of a field; the view of a camera that moves follows them
  private readonly fields: Float32Array;  // [count, 6, side, side]

  constructor(head: Head) {
    const { shape } = head.get("torso.fields");
    this.count = shape[0];
    this.side = shape[3];
    this.fields = head.floats("torso.fields");
  }

  /** Two textures [side, side, 4]: shift x and y (half images), red, green; blue and opacity, and two unused. */
  at(codes: Float32Array): [Float32Array, Float32Array] {
    const points = this.side ** 2, first = new Float32Array(4 * points), second = new Float32Array(4 * points);
    for (let c = 0; c < CHANNELS; c++) {
      const out = c < 4 ? first : second, offset = c % 4;
      for (let k = 0; k < this.count; k++) {
        const from = (k * CHANNELS + c) * points;
        for (let p = 0; p < points; p++) out[4 * p + offset] += codes[k] * this.fields[from + p];
      }
    }
    return [first, second];
  }

  /** How the camera sees plate and torso: shift x and y (half images), log scale, roll; zeros of one that stands still. */
  view(codes: Float32Array): Float32Array {
    return codes.length > this.count ? codes.subarray(this.count) : new Float32Array(VIEW);
  }
}
