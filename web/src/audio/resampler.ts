/** Any sample rate -> 16 kHz, chunk by chunk: for browsers that give the microphone at its own rate only. */

const OUT = 16_000;
const CROSSINGS = 48;          // zero crossings of the sinc at each side
const CUTOFF = 0.98;           // of half the lower of both rates
const BETA = 9;                // of the Kaiser window: 90 dB

export class Resampler {
  private readonly up: number;
  private readonly down: number;
  private readonly scale: number;            // of the filter's frequencies, relative to the input
  private readonly half: number;             // input samples at each side of an output
  private readonly filters = new Map<number, Float64Array>();  // by phase
  private buffer: Float32Array;
  private begin: number;       // number of the buffer's first sample
  private samples = 0;
  private made = 0;            // outputs so far

  /** @param rate Hz, a whole number */
  constructor(rate: number) {
    const divisor = gcd(rate, OUT);
    this.up = OUT / divisor;
    this.down = rate / divisor;
    this.scale = Math.min(1, OUT / rate) * CUTOFF;
    this.half = Math.ceil(CROSSINGS / this.scale);
    this.buffer = new Float32Array(this.half);
    this.begin = -this.half;
  }

  /** Samples at 16 kHz, as far as their filters have been filled. */
  push(samples: Float32Array): Float32Array {
    this.samples += samples.length;
    return this.append(samples, Infinity);
  }

  /** The rest, once the audio has ended; ceil(samples * 16,000 / rate) in total. */
  finish(): Float32Array {
    return this.append(new Float32Array(this.half + 1), Math.ceil(this.samples * this.up / this.down));
  }

  private append(samples: Float32Array, limit: number): Float32Array {
    const joined = new Float32Array(this.buffer.length + samples.length), out: number[] = [];
    joined.set(this.buffer);
    joined.set(samples, this.buffer.length);
    for (; this.made < limit; this.made++) {
      const centre = Math.floor(this.made * this.down / this.up), from = centre - this.half + 1 - this.begin;
      if (from + 2 * this.half > joined.length) break;
      const filter = this.filter(this.made * this.down % this.up);
      let sum = 0;
      for (let i = 0; i < filter.length; i++) sum += filter[i] * joined[from + i];
      out.push(sum);
    }
    const next = Math.floor(this.made * this.down / this.up) - this.half + 1;  // first sample that is still needed
    this.buffer = joined.slice(Math.max(0, next - this.begin));
    this.begin = Math.max(this.begin, next);
    return Float32Array.from(out);
  }

  /** A windowed sinc for outputs that lie phase / up after an input sample; it sums to 1. */
  private filter(phase: number): Float64Array {
    const known = this.filters.get(phase);
    if (known) return known;
    const filter = Float64Array.from({ length: 2 * this.half }, (_, i) => {
      const x = i - this.half + 1 - phase / this.up, y = Math.PI * x * this.scale, edge = x / this.half;
      return (y === 0 ? 1 : Math.sin(y) / y) * (Math.abs(edge) < 1 ? bessel(BETA * Math.sqrt(1 - edge * edge)) : 0);
    });
    const total = filter.reduce((a, b) => a + b);
    this.filters.set(phase, filter.map((x) => x / total));
    return this.filters.get(phase)!;
  }
}

function gcd(a: number, b: number): number {
  return b ? gcd(b, a % b) : a;
}

/** Modified Bessel function of order 0, by its series. */
function bessel(x: number): number {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}
