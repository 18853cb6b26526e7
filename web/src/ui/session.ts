/** What the head does over time: it speaks a sound or what is said to the microphone, and rests in between. */
import { decodeAudio } from "../audio/decode";
import { Microphone } from "../audio/capture";
import { MouthClient } from "../audio/mouth_client";
import { Player } from "../audio/player";
import { Recorder, type Recording } from "../audio/record";
import type { TalkingHead } from "../head/talking_head";

const MOUTH = 8;
const REST = 0.3;           // share of the way to the resting mouth in each frame
const HELD = 0.3;           // seconds without a new frame of the microphone after which the mouth rests
const MAX_SECONDS = 600;    // of a sound file

/** What the head does. */
export type State = "resting" | "speaking" | "paused" | "listening";

export class Session {
  /** Called when `state` has changed. */
  onchange?: () => void;
  /** Gets what went wrong, in words for the user. */
  onerror?: (message: string) => void;
  /** Name of the sound that is loaded. */
  sound = "";
  /** Frames drawn in the last second. */
  rate = 0;

  private readonly fps: number;
  private readonly client: MouthClient;
  private player?: Player;
  private microphone?: Microphone;
  private recorder?: Recorder;
  private finished?: (recording: Recording) => void;
  private spoken = new Float32Array(0);   // coefficients of the sound's frames
  private heard?: { mouth: Float32Array; at: number };
  private mouth: Float32Array;
  private shown = -1;
  private drawing = false;
  private drawn: number[] = [];

  constructor(readonly talking: TalkingHead) {
    this.fps = talking.head.facts.fps as number;
    this.mouth = talking.shut;
    this.client = new MouthClient(talking.head);
    this.client.onframe = (mouth) => { this.heard = { mouth, at: performance.now() }; };
    this.client.onerror = (error) => this.failed(error);
    const tick = () => { void this.draw(); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  get state(): State {
    if (this.microphone) return "listening";
    if (this.player?.playing) return "speaking";
    return this.player && this.player.position > 0 && this.player.position < this.player.duration ? "paused" : "resting";
  }

  get recording(): boolean {
    return this.recorder !== undefined;
  }

  /** Seconds of the sound, and where it is. */
  get progress(): { position: number; duration: number } {
    return { position: this.player?.position ?? 0, duration: this.player?.duration ?? 0 };
  }

  /** Loudness of the microphone, 0...1. */
  get level(): number {
    return Math.min(1, 5 * (this.microphone?.level ?? 0));
  }

  /** Speak a file. Call it where the user has pressed a button. */
  async speak(file: File): Promise<void> {
    await this.attempt(async () => {
      this.stopListening();
      const wave = await decodeAudio(await file.arrayBuffer());
      if (wave.length > MAX_SECONDS * 16_000)
        throw new Error(`At most ${MAX_SECONDS / 60} minutes of sound; this file has ${Math.round(wave.length / 960_000)}. `
          + "Choose a shorter one.");
      this.spoken = await this.client.predict(wave) as Float32Array<ArrayBuffer>;
      this.sound = file.name;
      this.player ??= this.newPlayer();
      this.player.load(wave);
      await this.player.play();
    });
  }

  /** Pause the sound, or go on. */
  async toggle(): Promise<void> {
    await this.attempt(async () => {
      if (this.player?.playing) this.player.pause();
      else {
        this.stopListening();
        await this.player?.play();
      }
    });
  }

  /** Speak what is said to the microphone, or stop listening. */
  async listen(): Promise<void> {
    await this.attempt(async () => {
      if (this.microphone) return this.stopListening();
      this.player?.pause();
      this.client.start();
      this.microphone = await Microphone.open((samples) => this.client.push(samples));
      this.microphone.onended = (message) => {
        this.stopListening();
        this.onchange?.();
        this.onerror?.(message);
      };
    });
  }

  /** Record the picture and the sound: the loaded one from its start to its end, otherwise until `stopRecording`. */
  async record(): Promise<Recording | undefined> {
    let ended: Promise<Recording> | undefined;
    await this.attempt(async () => {
      const { player, microphone } = this;
      if (!microphone) player?.stop();
      this.recorder = new Recorder(this.talking.compositor.canvas, microphone ? microphone.delayed : player?.stream);
      ended = new Promise((resolve) => { this.finished = resolve; });
      if (!microphone) await player?.play();
    });
    return ended;
  }

  async stopRecording(): Promise<void> {
    const { recorder } = this;
    this.recorder = undefined;
    if (!recorder) return;
    this.finished?.(await recorder.stop());
    this.onchange?.();
  }

  private newPlayer(): Player {
    const player = new Player();
    player.onended = () => {
      void this.stopRecording();
      this.onchange?.();
    };
    return player;
  }

  private stopListening(): void {
    this.microphone?.close();
    this.microphone = this.heard = undefined;
    void this.client.stop();
  }

  private async attempt(work: () => Promise<void>): Promise<void> {
    let failure: Error | undefined;
    try {
      await work();
    } catch (error) {
      failure = error as Error;
    }
    this.onchange?.();
    if (failure) this.failed(failure);
  }

  private failed(error: Error): void {
    this.onerror?.(error.message);
  }

  /** Draw the frame of this moment. A frame that is not ready in time is left out. */
  private async draw(): Promise<void> {
    const now = performance.now(), i = Math.floor(now / 1000 * this.fps);
    if (this.drawing || i === this.shown) return;
    this.drawing = true;
    this.shown = i;
    this.mouth = this.next(now);
    try {
      await this.talking.show(i, this.mouth);
    } catch (error) {
      this.failed(error as Error);
    }
    this.drawn = this.drawn.filter((time) => time > now - 1000);
    this.drawn.push(now);
    this.rate = this.drawn.length;
    this.drawing = false;
  }

  private next(now: number): Float32Array {
    const { player, heard, talking } = this;
    if (player?.playing) {
      const frame = Math.min(Math.floor(player.position * this.fps), this.spoken.length / MOUTH - 1);
      return this.spoken.subarray(MOUTH * frame, MOUTH * (frame + 1));
    }
    if (this.microphone && heard && now - heard.at < 1000 * HELD) return heard.mouth;
    return this.mouth.map((x, j) => x + REST * (talking.shut[j] - x));
  }
}
