/** Constants of the Python side, which `audio_tensors` stores with the head; each is documented where it is defined. */

import type { Head } from "../container";

export interface AudioFacts {
  sample_rate: number;         // Hz
  samples_per_step: number;    // of the encoder, 20 ms
  samples_per_frame: number;   // of the video, 40 ms
  window_steps: number;        // of a frame's window
  hop: number;                 // samples between two spectra, of which a step has two
  window: number;              // samples of a spectrum
  fft: number;
  power_floor: number;
  min_log_power: number;
  speech: number;
  blocks: [back: number, ahead: number, dilation: number][];
  back: number;                // steps
  classes: string[];
  min_root: number;
  root_weight: number;
  nets: number;
  labials: number[];
  pauses: number[];
  pause: [from: number, full: number];
  shut_steps: [first: number, last: number];
  near_steps: [first: number, last: number];
  shut_gain: number;
  max_coefficient: number;
  quiet_db: number;
  inaudible_db: number;
  hangover: number;            // frames
  blur: number;                // frames
  look_ahead: number;          // samples
  statistics_steps: number;
  silence_stride: number;
  adaptation_steps: number;
  blur_radius: number;         // frames
}

export function audioFacts(head: Head): AudioFacts {
  const facts = head.facts.audio;
  if (!facts) throw new Error("The head in this page has no audio encoder. Export it again with egs.export_web.");
  return facts as AudioFacts;
}
