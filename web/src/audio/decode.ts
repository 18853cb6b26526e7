/** Audio files -> 16 kHz mono. */

const RATE = 16_000;
const PCM = 1, EXTENSIBLE = 0xfffe;          // formats of a WAV

/**
 * Samples of any file that the browser decodes, video files with sound included.
 *
 * A 16-bit WAV of 16 kHz is exact, as `load_audio` reads it. Others are resampled by the browser. Channels are
 * averaged; `load_audio` also looks for channels of opposite phase and without speech.
 *
 * @param bytes of the file; taken by the browser, so unusable afterwards
 * @returns float32, -1...1, at least one sample
 */
export async function decodeAudio(bytes: ArrayBuffer): Promise<Float32Array> {
  const plain = readWav(bytes);
  if (plain) return plain;
  let decoded: AudioBuffer;
  try {
    decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error("This browser finds no sound in this file that it can decode. Choose a WAV, MP3 or M4A file.");
  }
  if (decoded.length === 0) throw new Error("There is no sound in this file. Choose another one.");
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  const mono = average(channels);
  if (!mono.every(Number.isFinite)) {
    throw new Error("Some samples of this file are no numbers. Save it again as a WAV.");
  }
  return mono.map((x) => Math.min(Math.max(x, -1), 1));
}

/** A WAV with 16-bit samples at 16 kHz; undefined for any other file. */
function readWav(bytes: ArrayBuffer): Float32Array | undefined {
  const view = new DataView(bytes);
  if (bytes.byteLength < 12 || tag(view, 0) !== "RIFF" || tag(view, 8) !== "WAVE") return undefined;
  let channels = 0;
  for (let at = 12; at + 8 <= bytes.byteLength;) {
    const name = tag(view, at), size = view.getUint32(at + 4, true), left = bytes.byteLength - at - 8;
    if (name === "fmt " && size >= 16 && left >= size) {
      const format = view.getUint16(at + 8, true);
      const known = format === PCM || (format === EXTENSIBLE && size >= 26 && view.getUint16(at + 32, true) === PCM);
      if (!known || view.getUint32(at + 12, true) !== RATE || view.getUint16(at + 22, true) !== 16) return undefined;
      channels = view.getUint16(at + 10, true);
    } else if (name === "data" && channels) {
      return samples(view, at + 8, Math.floor(Math.min(size, left) / (2 * channels)), channels);
    }
    at += 8 + size + size % 2;
  }
  return undefined;
}

function samples(view: DataView, at: number, count: number, channels: number): Float32Array | undefined {
  if (count === 0) return undefined;
  return average(Array.from({ length: channels }, (_, channel) => Float32Array.from({ length: count }, (_, i) =>
    view.getInt16(at + 2 * (i * channels + channel), true) / 32768)));
}

function average(channels: Float32Array[]): Float32Array {
  return channels.length === 1 ? channels[0]
    : channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

function tag(view: DataView, at: number): string {
  return String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
}
