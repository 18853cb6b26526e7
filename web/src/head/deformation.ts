/** Raw values of the Gaussians as a function of the conditions of a frame: a sum over bases, see `distil.py`. */
import type { Head } from "../container";

interface Layer {
  weight: Float32Array;  // [outputs, inputs]
  bias: Float32Array;
}

export class Deformation {
  /** Number of Gaussians, of values of each, and of bases. */
  readonly count: number;
  readonly width: number;
  readonly ranks: number;
  private readonly means: Float32Array;
  private readonly values: Float32Array;
  private readonly bases: Int8Array;   // [count, width, ranks]
  private readonly steps: Float32Array;  // [ranks, width]
  private readonly layers: Layer[];
  private readonly weights: Float32Array;
  /** [count, width] values of the frame that `update` was last called for. */
  readonly raw: Float32Array;

  constructor(head: Head) {
    const bases = head.get("gaussians.bases");
    [this.count, this.width, this.ranks] = bases.shape;
    this.bases = bases.data as Int8Array;
    this.steps = head.floats("gaussians.steps");
    this.means = head.floats("gaussians.means");
    this.values = head.floats("gaussians.values");
    this.layers = [0, 1, 2].map((i) => ({
      weight: head.floats(`motion.${i}.weight`), bias: head.floats(`motion.${i}.bias`),
    }));
    this.raw = new Float32Array(this.count * this.width);
    this.weights = new Float32Array(this.width * this.ranks);
  }

  /** Compute `raw` for conditions [27]: mouth (8), eyes (7), rotation (9) and translation (3). */
  update(conditions: Float32Array): void {
    let x = conditions;
    this.layers.forEach((layer, i) => {
      x = linear(layer, x);
      if (i < this.layers.length - 1) x = x.map(Math.tanh);
    });
    const { width, ranks, weights, steps } = this;
    for (let d = 0; d < width; d++)
      for (let k = 0; k < ranks; k++) weights[d * ranks + k] = x[k] * steps[k * width + d];
    this.sum();
  }

  private sum(): void {
    const { count, width, ranks, weights, bases, means, values, raw } = this;
    const row = width * ranks, rest = width - 3, even = ranks & ~1;
    let at = 0;
    for (let n = 0; n < count; n++) {
      for (let w = 0, d = 0; w < row; d++) {
        const end = w + even;
        let one = 0, two = 0;  // two sums, which do not wait for each other
        for (; w < end; w += 2, at += 2) {
          one += weights[w] * bases[at];
          two += weights[w + 1] * bases[at + 1];
        }
        if (even < ranks) one += weights[w++] * bases[at++];
        raw[n * width + d] = one + two + (d < 3 ? means[3 * n + d] : values[rest * n + d - 3]);
      }
    }
  }
}

function linear({ weight, bias }: Layer, x: Float32Array): Float32Array {
  const out = new Float32Array(bias.length);
  for (let j = 0; j < out.length; j++) {
    let sum = bias[j];
    for (let i = 0; i < x.length; i++) sum += weight[j * x.length + i] * x[i];
    out[j] = sum;
  }
  return out;
}
