/** Plays sound with a clock for the picture: the time of what is heard, which is later than what is computed. */

const RATE = 16_000;
const DOUBT = 0.5;             // seconds; browsers whose time stamp is further off than this do not keep one

export class Player {
  /** Called when the sound has been heard to its end, not after `pause` or `stop`. */
  onended?: () => void;

  private readonly context = new AudioContext({ sampleRate: RATE });
  private readonly recorded: MediaStreamAudioDestinationNode;
  private readonly delay: DelayNode;         // of the recorded sound: as late as it is heard, as the picture is
  private wave = new Float32Array(0);
  private source?: AudioBufferSourceNode;
  private offset = 0;          // seconds of the sound at which `source` began, or at which it was paused
  private begun = 0;           // time of the context at which `source` began
  private heard = 0;           // newest position, which never goes back while the sound plays

  constructor() {
    this.recorded = new MediaStreamAudioDestinationNode(this.context, { channelCount: 1 });
    this.delay = new DelayNode(this.context, { maxDelayTime: 2 });
    this.delay.connect(this.recorded);
  }

  /** The sound for a recording. */
  get stream(): MediaStream {
    return this.recorded.stream;
  }

  get playing(): boolean {
    return this.source !== undefined;
  }

  /** Seconds. */
  get duration(): number {
    return this.wave.length / RATE;
  }

  /** Seconds of the sound that is heard now; 0 until the first of it is. */
  get position(): number {
    if (!this.source) return this.offset;
    const now = this.offset + this.audible() - this.begun;
    this.heard = Math.min(Math.max(now, this.heard), this.duration);
    return this.heard;
  }

  /** @param wave 16 kHz mono, -1...1 */
  load(wave: Float32Array): void {
    this.stop();
    this.wave = new Float32Array(wave);
  }

  /** Play from the present position, from the start if that is the end. Call it where the user has pressed a button. */
  async play(): Promise<void> {
    if (this.source || this.wave.length === 0) return;
    await this.context.resume();
    if (this.source) return;
    if (this.offset >= this.duration) this.offset = 0;
    const buffer = new AudioBuffer({ length: this.wave.length, sampleRate: RATE });
    buffer.copyToChannel(this.wave, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.connect(this.delay);
    this.delay.delayTime.value = Math.min(this.latency(), 2);
    source.onended = () => this.finish(source);
    this.begun = this.context.currentTime;
    this.heard = this.offset;
    source.start(this.begun, this.offset);
    this.source = source;
  }

  pause(): void {
    this.offset = this.position;
    this.end();
  }

  /** Back to the start. */
  stop(): void {
    this.offset = 0;
    this.end();
  }

  /** @param seconds from the start of the sound */
  async seek(seconds: number): Promise<void> {
    const { playing } = this;
    this.end();
    this.offset = Math.min(Math.max(seconds, 0), this.duration);
    if (playing) await this.play();
  }

  /** Release the device. */
  close(): void {
    this.end();
    void this.context.close();
  }

  private end(): void {
    const { source } = this;
    this.source = undefined;
    source?.stop();
    source?.disconnect();
  }

  /** The last sample has been computed; it is heard a little later. */
  private finish(source: AudioBufferSourceNode): void {
    if (this.source !== source) return;
    const left = this.duration - this.position;
    if (left > 0.001) {
      setTimeout(() => this.finish(source), 1000 * Math.min(left, 0.1));
      return;
    }
    this.end();
    this.offset = this.duration;
    this.onended?.();
  }

  /** Time of the context that is heard now. */
  private audible(): number {
    const { contextTime, performanceTime } = this.context.getOutputTimestamp();
    const computed = this.context.currentTime - this.latency();
    if (!contextTime || !performanceTime) return computed;
    const stamped = contextTime + (performance.now() - performanceTime) / 1000;
    return Math.abs(stamped - computed) < DOUBT ? stamped : computed;
  }

  private latency(): number {
    return (this.context.baseLatency || 0) + (this.context.outputLatency || 0);
  }
}
