/** Records the picture and its sound as a video file. */

import { marked } from "./mark";

// H.264 plays everywhere; without it VP9, which players expect in a WebM rather than in an MP4
const TYPES = ["video/mp4;codecs=avc1.640028,mp4a.40.2", "video/mp4;codecs=avc1.42E01F,mp4a.40.2",
               "video/mp4;codecs=avc1.42E01F,opus", "video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus",
               "video/webm", "video/mp4"];
const PICTURE_BITS = 8_000_000, SOUND_BITS = 128_000;  // per second

export interface Recording {
  blob: Blob;
  name: string;
}

export class Recorder {
  private readonly recorder: MediaRecorder;
  private readonly picture: MediaStream;
  private readonly chunks: Blob[] = [];

  /**
   * Begin a recording. Its error says what the user can do.
   *
   * @param canvas that the picture is drawn on
   * @param sound of a `Player` or a `Microphone`; none: a video without sound
   */
  constructor(canvas: HTMLCanvasElement, sound?: MediaStream) {
    const type = typeof MediaRecorder === "undefined" ? undefined
      : TYPES.find((name) => MediaRecorder.isTypeSupported(name));
    if (!type) {
      throw new Error("This browser cannot record video. Open the page in a current Chrome, Firefox or Safari.");
    }
    this.picture = canvas.captureStream();
    const tracks = [...this.picture.getVideoTracks(), ...(sound?.getAudioTracks() ?? [])];
    this.recorder = new MediaRecorder(new MediaStream(tracks), {
      mimeType: type, videoBitsPerSecond: PICTURE_BITS, audioBitsPerSecond: SOUND_BITS,
    });
    this.recorder.ondataavailable = ({ data }) => this.chunks.push(data);
    this.recorder.start(1000);
  }

  /** End the recording. The video says that it is synthetic, in its metadata and in its name. */
  stop(): Promise<Recording> {
    return new Promise((resolve) => {
      const finish = () => {
        for (const track of this.picture.getTracks()) track.stop();
        const type = this.recorder.mimeType.split(";")[0], end = type === "video/mp4" ? "mp4" : "webm";
        const name = `talking-head-synthetic.${end}`;
        resolve(marked(new Blob(this.chunks, { type })).then((blob) => ({ blob, name })));
      };
      if (this.recorder.state === "inactive") return finish();
      this.recorder.onstop = finish;
      this.recorder.stop();
    });
  }
}
