// Plays samples by their number, in a context of 16 kHz, and says which one sounds when. The sound card's clock is not
// the server's: in pauses, a block is dropped where too much waits, and silence added where too little does.
const SIZE = 65536, TARGET = 1280, HIGH = 2240, LOW = 640, MOST = 8000, QUIET = 0.004, SECOND = 125; // samples, blocks

class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Float32Array(SIZE);
    this.read = this.write = 0; // numbers of samples
    this.playing = false;
    this.least = Infinity; // what waited at least in the last second
    this.blocks = 0;
    this.port.onmessage = ({ data }) => this.take(data.first, data.samples);
  }

  take(first, samples) {
    if (first < this.write || first - this.write > SIZE / 4) { // another time line, or a long gap
      this.read = this.write = first;
      this.stop();
    }
    while (this.write < first) this.ring[this.write++ % SIZE] = 0;
    for (const sample of samples) this.ring[this.write++ % SIZE] = sample / 32768;
    if (this.write - this.read > MOST) {
      this.read = this.write - TARGET;
      this.tell();
    }
  }

  stop() {
    if (this.playing) this.port.postMessage({ playing: false });
    this.playing = false;
  }

  tell() {
    if (this.playing) this.port.postMessage({ playing: true, sample: this.read, time: currentTime });
  }

  correct() {
    this.least = Math.min(this.least, this.write - this.read);
    this.blocks += 1;
    if (this.blocks < SECOND) return 0;
    let quiet = true;
    for (let i = 0; i < 128; i += 1) quiet = quiet && Math.abs(this.ring[(this.read + i) % SIZE]) < QUIET;
    if (!quiet) return 0;
    const change = this.least > HIGH ? 1 : this.least < LOW ? -1 : 0;
    this.blocks = 0;
    this.least = Infinity;
    return change;
  }

  process(_, outputs) {
    const out = outputs[0][0];
    if (!this.playing && this.write - this.read >= TARGET) {
      this.playing = true;
      this.least = Infinity;
      this.blocks = 0;
      this.tell();
    }
    if (!this.playing) return true;
    if (this.write - this.read < out.length) {
      this.stop();
      return true;
    }
    const change = this.correct();
    if (change < 0) {
      this.port.postMessage({ playing: true, sample: this.read, time: currentTime + out.length / sampleRate });
      return true;
    }
    if (change > 0 && this.write - this.read >= 2 * out.length) {
      this.read += out.length;
      this.tell();
    }
    for (let i = 0; i < out.length; i += 1) out[i] = this.ring[this.read++ % SIZE];
    return true;
  }
}
registerProcessor("speaker", Speaker);
