/** Convolutions over time, of rows [time, channels] in one Float32Array: nearly all of the computing time. */

import type { Head } from "../container";

/** Weights [out, taps, inner] and bias [out]; a linear layer has one tap. */
export class Conv {
  constructor(readonly weight: Float32Array, readonly bias: Float32Array, readonly taps: number,
              readonly inner: number) {}

  get out(): number {
    return this.bias.length;
  }

  /** `name`.weight and `name`.bias of the head. */
  static read(head: Head, name: string): Conv {
    const { shape } = head.get(`${name}.weight`);
    return new Conv(head.floats(`${name}.weight`), head.floats(`${name}.bias`), shape[1], shape[2]);
  }

  /** The parts of a grouped convolution. */
  split(groups: number): Conv[] {
    const out = this.out / groups, size = out * this.taps * this.inner;
    return Array.from({ length: groups }, (_, g) => new Conv(
      this.weight.subarray(g * size, (g + 1) * size), this.bias.subarray(g * out, (g + 1) * out), this.taps,
      this.inner));
  }

  /**
   * Write `rows` rows of outputs, `yStep` apart from y[yAt] on. Row r reads x from `xAt + r * xStep` on, its taps
   * `tapStep` apart.
   *
   * Four rows and two outputs at a time, so that each value loaded is used several times; where fewer rows are left,
   * the last one is computed more than once, to the same value.
   */
  apply(x: Float32Array, xAt: number, xStep: number, tapStep: number, y: Float32Array, yAt: number, yStep: number,
        rows: number): void {
    const joined = tapStep === this.inner;  // the taps then lie in one piece
    const taps = joined ? 1 : this.taps, inner = joined ? this.taps * this.inner : this.inner;
    const { weight, bias } = this, out = bias.length, size = this.taps * this.inner;
    for (let o = 0; o < out; o += 2) {
      const second = Math.min(o + 1, out - 1), b0 = bias[o], b1 = bias[second];
      for (let row = 0; row < rows; row += 4) {
        const r1 = Math.min(row + 1, rows - 1), r2 = Math.min(row + 2, rows - 1), r3 = Math.min(row + 3, rows - 1);
        let s00 = b0, s01 = b0, s02 = b0, s03 = b0, s10 = b1, s11 = b1, s12 = b1, s13 = b1;
        for (let tap = 0; tap < taps; tap++) {
          const w0 = o * size + tap * inner, w1 = second * size + tap * inner, at = xAt + tap * tapStep;
          const i0 = at + row * xStep, i1 = at + r1 * xStep, i2 = at + r2 * xStep, i3 = at + r3 * xStep;
          for (let k = 0; k < inner; k++) {
            const p = weight[w0 + k], q = weight[w1 + k];
            const x0 = x[i0 + k], x1 = x[i1 + k], x2 = x[i2 + k], x3 = x[i3 + k];
            s00 += p * x0; s01 += p * x1; s02 += p * x2; s03 += p * x3;
            s10 += q * x0; s11 += q * x1; s12 += q * x2; s13 += q * x3;
          }
        }
        const j0 = yAt + row * yStep, j1 = yAt + r1 * yStep, j2 = yAt + r2 * yStep, j3 = yAt + r3 * yStep;
        y[j0 + o] = s00; y[j1 + o] = s01; y[j2 + o] = s02; y[j3 + o] = s03;
        y[j0 + second] = s10; y[j1 + second] = s11; y[j2 + second] = s12; y[j3 + second] = s13;
      }
    }
  }
}

/** GELU of x[from ... to) into y, at the same places. The error function is formula 7.1.26 of Abramowitz and Stegun. */
export function gelu(x: Float32Array, y: Float32Array, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    const value = x[i], z = Math.abs(value) * Math.SQRT1_2, t = 1 / (1 + 0.3275911 * z);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
      * Math.exp(-z * z);
    y[i] = value * (value < 0 ? 0.5 * tail : 1 - 0.5 * tail);
  }
}

/** Rows of `width` values [first ... last) to zero mean and unit variance. */
export function layerNorm(x: Float32Array, y: Float32Array, width: number, first: number, last: number): void {
  for (let row = first; row < last; row++) {
    const from = row * width, to = from + width;
    let sum = 0, squares = 0;
    for (let i = from; i < to; i++) sum += x[i];
    const mean = sum / width;
    for (let i = from; i < to; i++) squares += (x[i] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / width + 1e-5);
    for (let i = from; i < to; i++) y[i] = (x[i] - mean) * scale;
  }
}
