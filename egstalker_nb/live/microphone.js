// Microphone samples at the rate of the device -> chunks of 10 ms at 16 kHz, int16, each with its time.
const RATE = 16000, CHUNK = 160, CROSSINGS = 12, STEPS = 256;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ratio = sampleRate / RATE;
    this.scale = Math.max(1, this.ratio) * 1.07; // in input samples per zero crossing: passes up to 7.5 kHz
    this.half = Math.ceil(CROSSINGS * this.scale);
    this.kernel = new Float32Array(CROSSINGS * STEPS + 2);
    for (let i = 0; i <= CROSSINGS * STEPS; i += 1) {
      const x = i / STEPS, window = 0.5 + 0.5 * Math.cos(Math.PI * x / CROSSINGS);
      this.kernel[i] = (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1) * window / this.scale;
    }
    this.past = new Float32Array(4 * this.half + 1024); // the last input samples
    this.given = 0; // input samples so far
    this.made = 0;  // output samples so far
    this.first = 0; // number of the chunk's first sample
    this.chunk = new Int16Array(CHUNK);
    this.fill = 0;
    this.peak = 0;
  }

  at(position) {
    const low = Math.ceil(position - this.half), high = Math.floor(position + this.half);
    let sum = 0;
    for (let i = low; i <= high; i += 1) {
      if (i >= 0) {
        const where = Math.abs(i - position) / this.scale * STEPS;
        if (where < CROSSINGS * STEPS) {
          sum += this.past[i % this.past.length] * this.kernel[Math.round(where)];
        }
      }
    }
    return sum;
  }

  process(inputs) {
    const block = inputs[0][0];
    if (!block) return true;
    for (let i = 0; i < block.length; i += 1) this.past[(this.given + i) % this.past.length] = block[i];
    this.given += block.length;
    while (this.made * this.ratio + this.half < this.given) {
      const value = Math.max(-1, Math.min(1, this.at(this.made * this.ratio)));
      this.chunk[this.fill] = Math.round(value * 32767);
      this.peak = Math.max(this.peak, Math.abs(value));
      this.made += 1;
      this.fill += 1;
      if (this.fill === CHUNK) {
        // input that came after the chunk's last sample, which is therefore older than now
        const late = (this.given - (this.made - 1) * this.ratio) / sampleRate;
        this.port.postMessage({ first: this.first, samples: this.chunk.slice(), peak: this.peak,
                                last: Date.now() - 1000 * late });
        this.first += CHUNK;
        this.fill = 0;
        this.peak = 0;
      }
    }
    return true;
  }
}
registerProcessor("microphone", Microphone);
