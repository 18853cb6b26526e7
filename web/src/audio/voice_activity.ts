/** Voice activity: speech and silence per video frame, from levels. See `speech/voice_activity.py`. */

import type { AudioFacts } from "./facts";

/** Mean square of samples [from ... to), silence outside of the wave. */
function meanSquare(wave: Float32Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < Math.min(to, wave.length); i++) sum += wave[i] * wave[i];
  return sum / (to - from);
}

/** Level of video frames in dBFS, at least -60; the wave begins with the first of them. */
export function loudness(wave: Float32Array, frames: number, samplesPerFrame: number): Float32Array {
  return Float32Array.from({ length: frames }, (_, i) => {
    const power = meanSquare(wave, i * samplesPerFrame, (i + 1) * samplesPerFrame);
    return 20 * Math.log10(Math.max(Math.sqrt(power), 1e-3));
  });
}

/** Mean square of `count` blocks of samples. */
export function blockPower(wave: Float32Array, count: number, block: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => meanSquare(wave, i * block, (i + 1) * block));
}

/** Speech level in dBFS, of the louder half of the blocks. */
export function speechLevel(power: Float64Array): number {
  const sorted = power.slice().sort(), half = sorted.length >> 1;
  let sum = 0;
  for (let i = half; i < sorted.length; i++) sum += sorted[i];
  return 10 * Math.log10(Math.max(sum / (sorted.length - half), 1e-10));
}

/** How far the mouth should be shut, [frames] 0...1, see `shut_in_silence`. */
export function shutInSilence(wave: Float32Array, frames: number, facts: AudioFacts): Float32Array {
  const block = facts.samples_per_step, count = Math.floor(wave.length / block);
  // what is shorter than a block is repeated, which leaves its mean square nearly as it is
  const power = count ? blockPower(wave, count, block) : new Float64Array([repeatedPower(wave, block)]);
  const threshold = Math.max(speechLevel(power) - facts.quiet_db, facts.inaudible_db);
  const levels = loudness(wave, frames, facts.samples_per_frame), silent = new Float32Array(frames);
  for (let begin = 0; begin < frames; begin++) {
    if (!(levels[begin] < threshold)) continue;
    let end = begin;
    while (end < frames && levels[end] < threshold) end++;
    const first = begin ? begin + facts.hangover : 0, last = end < frames ? end - facts.hangover : frames;
    if (first < last) silent.fill(1, first, last);
    begin = end;
  }
  return blurred(silent, facts);
}

function repeatedPower(wave: Float32Array, block: number): number {
  let sum = 0;
  for (let i = 0; i < block; i++) sum += wave[i % wave.length] ** 2;
  return sum / block;
}

/** Gaussian blur; the ends are held, as scipy's `gaussian_filter1d(mode="nearest")` does. */
export function blurred(values: Float32Array, facts: AudioFacts): Float32Array {
  const radius = facts.blur_radius, kernel = Array.from(
    { length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / facts.blur) ** 2));
  const total = kernel.reduce((a, b) => a + b);
  return values.map((_, i) => kernel.reduce((sum, weight, k) => {
    const at = Math.min(Math.max(i + k - radius, 0), values.length - 1);
    return sum + weight * values[at];
  }, 0) / total);
}
