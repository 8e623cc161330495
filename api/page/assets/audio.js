// Plays speech while it is being made, and makes a file of it at the end. Speech comes as 16-bit samples.

/** Player plays pieces one after the other, the first a moment after it came. */
export class Player {
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.pieces = [];
    this.context = new AudioContext();
    this.at = 0;
  }

  /** add takes base64 of little-endian samples. */
  add(base64) {
    const raw = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const samples = new Int16Array(raw.buffer, 0, raw.length >> 1);
    if (samples.length === 0) return;
    this.pieces.push(samples);
    const buffer = this.context.createBuffer(1, samples.length, this.sampleRate);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.at = Math.max(this.at, this.context.currentTime + 0.05);
    source.start(this.at);
    this.at += buffer.duration;
  }

  get seconds() {
    return this.pieces.reduce((n, p) => n + p.length, 0) / this.sampleRate;
  }

  close() {
    this.context.close();
  }

  /** wav is everything that has come, as a file. */
  wav() {
    const size = 2 * this.pieces.reduce((n, p) => n + p.length, 0);
    const head = new DataView(new ArrayBuffer(44));
    const text = (at, s) => [...s].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
    text(0, 'RIFF'); head.setUint32(4, 36 + size, true); text(8, 'WAVEfmt ');
    head.setUint32(16, 16, true); head.setUint16(20, 1, true); head.setUint16(22, 1, true);
    head.setUint32(24, this.sampleRate, true); head.setUint32(28, 2 * this.sampleRate, true);
    head.setUint16(32, 2, true); head.setUint16(34, 16, true); text(36, 'data'); head.setUint32(40, size, true);
    return new Blob([head, ...this.pieces], { type: 'audio/wav' });
  }
}
