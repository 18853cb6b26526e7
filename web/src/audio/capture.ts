/** The microphone as 16 kHz mono. */

import { Resampler } from "./resampler";

const RATE = 16_000;
const DELAY = 0.25;            // seconds from a sound to its picture: look-ahead of the stream, a chunk, and computing

/** Collects 20 ms of the average of all channels. Its code is text: a page opened from disk may load no other file. */
const PROCESSOR = `
registerProcessor("samples", class extends AudioWorkletProcessor {
  chunk = new Float32Array(Math.round(sampleRate / 50));
  filled = 0;
  process([channels]) {
    const length = channels.length ? channels[0].length : 0;
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.chunk[this.filled++] = sum / channels.length;
      if (this.filled < this.chunk.length) continue;
      this.port.postMessage(this.chunk.slice());
      this.filled = 0;
    }
    return true;
  }
});`;

/** What to do about what `getUserMedia` fails with. */
const REASONS: Record<string, string> = {
  NotAllowedError: "This page may not use the microphone. Allow it in the browser's settings for this page, then try "
    + "again.",
  NotFoundError: "There is no microphone. Connect one, then try again.",
  NotReadableError: "The microphone cannot be opened; another program may be using it. Close that program, then try "
    + "again.",
};

export class Microphone {
  /** Level of the last 20 ms, root mean square, 0...1. */
  level = 0;
  /** Gets a message when the microphone has gone, for instance because it was unplugged. */
  onended?: (message: string) => void;
  /** The sound for a recording, as late as the picture. */
  readonly delayed: MediaStream;

  private node?: AudioWorkletNode;

  private constructor(private readonly stream: MediaStream, private readonly context: AudioContext,
                      source: AudioNode) {
    const recorded = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    source.connect(new DelayNode(context, { delayTime: DELAY })).connect(recorded);
    this.delayed = recorded.stream;
  }

  /**
   * Ask for the microphone and listen to it.
   *
   * Call it where the user has pressed a button. Its errors say what the user can do.
   *
   * @param onsamples gets 16 kHz mono, chunks of about 20 ms
   */
  static async open(onsamples: (samples: Float32Array) => void): Promise<Microphone> {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the microphone only to pages from https:// or from this device. Save this page "
        + "and open the file.");
    }
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      const { name, message } = error as DOMException;
      throw new Error(REASONS[name] ?? `The microphone cannot be opened: ${message}`);
    }
    const { context, source } = connect(stream), microphone = new Microphone(stream, context, source);
    try {
      await microphone.listen(source, onsamples);
    } catch (error) {
      microphone.close();
      throw error;
    }
    return microphone;
  }

  /** Release the microphone. */
  close(): void {
    this.onended = undefined;
    if (this.node) this.node.port.onmessage = null;  // chunks that are still on their way
    for (const track of this.stream.getTracks()) track.stop();
    void this.context.close();
  }

  private async listen(source: AudioNode, onsamples: (samples: Float32Array) => void): Promise<void> {
    // not as a blob: to Chromium, a blob of a page on disk belongs to another origin
    await this.context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(PROCESSOR)}`);
    const { sampleRate } = this.context, resampler = sampleRate === RATE ? undefined : new Resampler(sampleRate);
    const node = this.node = new AudioWorkletNode(this.context, "samples", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }: MessageEvent<Float32Array>) => {
      const samples = resampler ? resampler.push(data) : data;
      this.level = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / Math.max(samples.length, 1));
      onsamples(samples);
    };
    source.connect(node);
    await this.context.resume();
    const [track] = this.stream.getAudioTracks();
    track.onended = () => this.onended?.("The microphone has gone. Connect it, then try again.");
  }
}

/** At 16 kHz where the browser resamples a microphone; Firefox does not, and gives it at its own rate. */
function connect(stream: MediaStream): { context: AudioContext; source: AudioNode } {
  const context = new AudioContext({ sampleRate: RATE });
  try {
    return { context, source: context.createMediaStreamSource(stream) };
  } catch {
    void context.close();
    const own = new AudioContext();
    return { context: own, source: own.createMediaStreamSource(stream) };
  }
}
