/** Head poses, eyes and torso codes of the frames of the page: the clip's own, back and forth (`rendering/motion.py`). */
import type { Head } from "../container";

const EYES = 7;
const CLOSE = 0.09, HOLD = 0.05, OPEN = 0.18, MIN_INTERVAL = 0.8;  // seconds of a blink, and between two

/** "clip": the clip's own; otherwise blinks per minute, at random times. */
export type Blinks = "clip" | number;

/** What moves a frame besides the mouth. */
export interface Pose {
  w2c: Float32Array;    // [12]
  eyes: Float32Array;   // [7]
  codes: Float32Array;  // of the torso, see `TorsoField`
}

export class Motion {
  /** Frames of the clip. */
  readonly frames: number;
  private readonly w2c: Float32Array;
  private readonly eyes: Float32Array;
  private readonly lids: Float32Array;
  private readonly closed: Float32Array;
  private readonly codes: Float32Array;
  private readonly ease: number;
  private readonly fps: number;
  private onset = -Infinity;
  private next = 0;

  constructor(head: Head) {
    this.w2c = head.floats("clip.w2c");
    this.eyes = head.floats("clip.eyes");
    this.lids = head.floats("clip.lids");
    this.closed = head.floats("clip.closed");
    this.codes = head.floats("torso.codes");
    this.frames = this.lids.length;
    this.ease = Math.min(head.facts.ease_frames as number, (this.frames - 1) / 2);
    this.fps = head.facts.fps as number;
  }

  /** Frame `i` of an endless video: its number in the clip, back and forth, slower where it turns. */
  at(i: number): number {
    const last = this.frames - 1;
    if (last === 0) return 0;
    const phase = i % (2 * last), there = phase <= last ? phase : 2 * last - phase;
    const far = last - this.eased(last - there);
    return i > last ? this.eased(far) : far;
  }

  private eased(distance: number): number {
    return distance < this.ease ? (distance ** 2 / Math.max(this.ease, 1e-9) + this.ease) / 2 : distance;
  }

  /** The pose of frame `i`; frames with random blinks are to be asked for in order. */
  pose(i: number, blinks: Blinks): Pose {
    const at = this.at(i), low = Math.floor(at), high = Math.ceil(at), share = at - low, near = even(at);
    const eyes = new Float32Array(EYES);
    for (let j = 0; j < EYES; j++)
      eyes[j] = (1 - share) * this.eyes[EYES * low + j] + share * this.eyes[EYES * high + j];
    if (blinks !== "clip") {
      eyes[0] = this.lids[near];
      const closing = this.closing(i / this.fps, blinks);
      for (let j = 0; j < EYES; j++) eyes[j] += closing * (this.closed[j] - eyes[j]);
    }
    const width = this.codes.length / this.frames;
    return { w2c: this.between(low, high, share), eyes, codes: this.codes.slice(width * near, width * (near + 1)) };
  }

  /** Closing of the eyelids at a time in seconds, 0 open ... 1 closed. */
  private closing(time: number, rate: number): number {
    if (rate <= 0) return 0;
    while (this.next <= time) {
      this.onset = this.next;
      // a minimum plus a gamma distribution of shape 2, as in `blink_intervals`
      const spread = (60 / rate - MIN_INTERVAL) / 2;
      this.next += MIN_INTERVAL - spread * Math.log((1 - Math.random()) * (1 - Math.random()));
    }
    const since = time - this.onset;
    const phase = since < CLOSE ? since / CLOSE : since < CLOSE + HOLD ? 1
      : Math.max(0, 1 - (since - CLOSE - HOLD) / OPEN);
    return phase * phase * (3 - 2 * phase);
  }

  private between(low: number, high: number, share: number): Float32Array {
    const a = this.w2c.subarray(12 * low, 12 * low + 12), b = this.w2c.subarray(12 * high, 12 * high + 12);
    if (share === 0) return a.slice();
    const out = matrix(slerp(quaternion(a), quaternion(b), share));
    for (const t of [3, 7, 11]) out[t] = (1 - share) * a[t] + share * b[t];
    return out;
  }
}

/** Nearest integer, halves to the even one, as NumPy rounds. */
function even(x: number): number {
  const low = Math.floor(x), part = x - low;
  return part < 0.5 ? low : part > 0.5 ? low + 1 : low + (low % 2);
}

/** Turn the camera around the head: by yaw and pitch, as the orbit of `rendering/motion.py`. */
export function turned(w2c: Float32Array, yaw: number, pitch: number): Float32Array {
  const angle = Math.hypot(yaw, pitch);
  if (angle < 1e-6) return w2c;
  const s = Math.sin(angle / 2) / angle, r = matrix([Math.cos(angle / 2), pitch * s, yaw * s, 0]);
  const out = w2c.slice();
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++)
      out[4 * i + j] = w2c[4 * i] * r[j] + w2c[4 * i + 1] * r[4 + j] + w2c[4 * i + 2] * r[8 + j];
  return out;
}

type Quaternion = [number, number, number, number];  // wxyz

function quaternion(m: Float32Array): Quaternion {
  const [a, b, c, , d, e, f, , g, h, i] = m, trace = a + e + i;
  let q: Quaternion;
  if (trace > 0) q = [1 + trace, h - f, c - g, d - b];
  else if (a > e && a > i) q = [h - f, 1 + a - e - i, b + d, c + g];
  else if (e > i) q = [c - g, b + d, 1 - a + e - i, f + h];
  else q = [d - b, c + g, f + h, 1 - a - e + i];
  const length = Math.hypot(...q);
  return q.map((x) => x / length) as Quaternion;
}

function slerp(a: Quaternion, b: Quaternion, share: number): Quaternion {
  let dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  const sign = dot < 0 ? -1 : 1;
  dot = Math.min(1, Math.abs(dot));
  const angle = Math.acos(dot), sine = Math.sin(angle);
  const [p, q] = sine < 1e-6 ? [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  return a.map((x, i) => p * x + sign * q * b[i]) as Quaternion;
}

/** A rotation as [12], without translation. */
function matrix([w, x, y, z]: Quaternion): Float32Array {
  return new Float32Array([
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 0,
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 0,
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), 0,
  ]);
}
