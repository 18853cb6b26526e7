/** The head of the page: a frame from mouth coefficients, its motion and the user's choices. */
import { MouthModel } from "../audio/mouth_model";
import type { Head } from "../container";
import type { Background } from "../draw/compositor";
import { Compositor } from "../draw/compositor";
import type { Blinks } from "./motion";
import { Motion, turned } from "./motion";
import type { Camera } from "./projection";
import { TorsoField } from "./torso_field";
import type { Answer } from "./worker";
import FrameWorker from "./worker?worker&inline";

const MOUTH = 8, EYES = 7;

export class TalkingHead {
  blinks: Blinks = "clip";
  /** Angles that the head is turned by, rad. */
  yaw = 0;
  pitch = 0;
  /** Milliseconds of the last frame: in the worker, and for drawing. */
  readonly cost = { worker: 0, draw: 0 };
  /** Coefficients of the shut mouth. */
  readonly shut: Float32Array;
  readonly motion: Motion;
  readonly compositor: Compositor;
  private readonly camera: Omit<Camera, "w2c">;
  private readonly torso: TorsoField;
  private readonly worker = new FrameWorker();
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private asked = 0;
  private model?: MouthModel;

  private constructor(readonly head: Head, canvas: HTMLCanvasElement) {
    const { facts } = head, K = facts.K as number[][], size = facts.size as number;
    this.camera = { fx: K[0][0], fy: K[1][1], cx: K[0][2], cy: K[1][2], size };
    this.shut = head.floats("audio.shut");
    this.motion = new Motion(head);
    this.torso = new TorsoField(head);
    this.compositor = new Compositor(canvas, size, this.torso.side);
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      this.waiting.get(data.id)?.(data);
      this.waiting.delete(data.id);
    };
    this.worker.postMessage({ tensors: head.part("gaussians.", "motion."), facts });
  }

  static async load(head: Head, canvas: HTMLCanvasElement): Promise<TalkingHead> {
    const made = new TalkingHead(head, canvas);
    await made.compositor.load(head);
    return made;
  }

  /** The mouth of sounds, for pages and tests that drive the head themselves; made when it is asked for. */
  get audio(): MouthModel {
    return this.model ??= new MouthModel(this.head);
  }

  setBackground(background: Background): void {
    this.compositor.setBackground(background);
  }

  /** Draw frame `i` with mouth coefficients [8]. The clip's own motion, turned by `yaw` and `pitch`. */
  async show(i: number, mouth: Float32Array): Promise<void> {
    const { w2c, eyes, codes } = this.motion.pose(i, this.blinks);
    const conditions = new Float32Array(MOUTH + EYES + 12);
    conditions.set(mouth);
    conditions.set(eyes, MOUTH);
    for (let row = 0; row < 3; row++) {
      conditions.set(w2c.subarray(4 * row, 4 * row + 3), MOUTH + EYES + 3 * row);
      conditions[MOUTH + EYES + 9 + row] = w2c[4 * row + 3];
    }
    // the network is told the clip's own pose: the camera may leave what it has learned, the head does not
    const answer = await this.splats(conditions, { ...this.camera, w2c: turned(w2c, this.yaw, this.pitch) });
    const began = performance.now();
    this.compositor.draw(answer, this.torso.at(codes), this.torso.view(codes));
    this.cost.worker = answer.ms;
    this.cost.draw = performance.now() - began;
  }

  private splats(conditions: Float32Array, camera: Camera): Promise<Answer> {
    const id = this.asked++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.worker.postMessage({ id, conditions, camera });
    });
  }
}
