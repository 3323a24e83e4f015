// In the audio thread: float samples of one channel become int16 blocks of 40 ms, at the rate of the device.
class Pcm extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 25);
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.peak = 0;
    this.on = true;
    this.port.onmessage = () => {
      this.on = false;
      this.give();
      this.port.postMessage(null); // no message follows this one
    };
  }

  give() {
    const block = this.block.slice(0, this.filled);
    this.port.postMessage({ block, peak: this.peak }, [block.buffer]);
    this.filled = 0;
    this.peak = 0;
  }

  process([channels]) {
    for (const sample of (this.on && channels[0]) || []) {
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.peak = Math.max(this.peak, Math.abs(sample));
      if (this.filled === this.size) this.give();
    }
    return this.on;
  }
}

registerProcessor("pcm", Pcm);
