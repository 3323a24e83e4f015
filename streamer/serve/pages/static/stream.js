// One stream of /v1/stream (docs/protocols/streams.md): sound in, events out, over as many connections as it takes. Sound
// that the daemon has not acknowledged is kept, and sent again after a lost connection or a restart.
import { openSocket, whyNot } from "./base.js";

const KEPT_SECONDS = 120; // sound that is kept for a daemon that does not answer; beyond that the oldest is dropped, and reported
const REPORTED_SECONDS = 10; // lost sound is reported in portions of this size, or when the daemon is back; not block by block
const UNSENT_SECONDS = 4; // sound in the socket's own buffer; the rest waits here
const FIRST_PAUSE = 0.5, LONGEST_PAUSE = 8; // seconds between two tries
// Errors that another try does not cure.
const FINAL = new Set(["options", "rate", "key", "unknown_model", "bad_audio", "not_pcm", "bad_frame", "bad_order", "model_failed", "taken_over", "deleted", "moved", "scope"]);
const LOST = new Set(["unknown_stream", "snapshot"]); // the stream is gone: a new one takes its place

/** Calls `on(kind, detail)`: `state` {state: "connecting" | "live" | "waiting" | "ended" | "failed", message, seconds},
 * `event` (partial, final, gap, warning; times in seconds since the first sample), `behind` seconds, `lost` seconds. */
export class LiveStream {
  constructor({ model, rate, options }, on) {
    this.wish = { model, sample_rate: rate, options };
    this.rate = rate;
    this.on = on;
    this.blocks = []; // sound that is not acknowledged
    this.first = 0; // position of the first sample in `blocks`
    this.next = 0; // index in `blocks` of the next one to send
    this.total = 0; // position behind the last sample
    this.cuts = [{ at: 0, by: 0 }]; // from the daemon's position `at` on, a sample lies `by` samples later in the whole sound
    this.heard = 0; // position behind the last final
    this.missing = 0; // lost samples that are not reported yet
    this.stream = null;
    this.seq = 0;
    this.ready = this.ending = this.done = false;
    this.pause = FIRST_PAUSE;
    this.connect();
  }

  push(block) {
    if (this.done || !block.length) return;
    this.blocks.push(block);
    this.total += block.length;
    while (this.total - this.first > KEPT_SECONDS * this.rate && this.blocks.length > 1) {
      if (this.next > 0) this.drop(); // the block was sent, and is lost only if the daemon goes back before it
      else this.leaveOut();
    }
    if (this.ready && this.missing > REPORTED_SECONDS * this.rate) this.reportLost();
    this.send();
  }

  /** No more sound: the rest is decoded, then `ended` comes. */
  end() {
    this.ending = true;
    this.send();
    if (!this.ready && !this.stream) this.finish("ended", "Stopped before the daemon had answered.");
  }

  // -- sound out ---------------------------------------------------------------------------------------------------

  drop() {
    this.first += this.blocks.shift().length;
    this.next = Math.max(0, this.next - 1);
  }

  /** The oldest block is never sent. The daemon counts what it gets, so everything behind it moves up. */
  leaveOut() {
    const gone = this.blocks.shift().length;
    this.total -= gone;
    this.cut(gone);
  }

  /** `count` samples that would follow at `first` are lost. */
  cut(count) {
    const last = this.cuts[this.cuts.length - 1];
    if (last.at === this.first) last.by += count;
    else this.cuts.push({ at: this.first, by: count });
    this.missing += count;
  }

  reportLost() {
    if (this.missing) this.on("lost", this.missing / this.rate);
    this.missing = 0;
  }

  send() {
    if (!this.ready) return;
    const most = 2 * UNSENT_SECONDS * this.rate;
    while (this.next < this.blocks.length && this.socket.bufferedAmount < most) this.socket.send(this.blocks[this.next++]);
    const unsent = this.blocks.slice(this.next).reduce((sum, block) => sum + block.length, 0);
    this.on("behind", (unsent + this.socket.bufferedAmount / 2) / this.rate);
    if (this.next < this.blocks.length) {
      this.later ??= setTimeout(() => { this.later = null; this.send(); }, 100); // the socket is full
    } else if (this.ending && !this.endSent) {
      this.endSent = true;
      this.socket.send('{"type":"end"}');
    }
  }

  /** The daemon is at `position`: sound before it is done, sound after it is sent again. */
  goOnFrom(position) {
    if (position < this.first) { // it went back further than anything that is kept
      const gone = this.first - position;
      this.total -= gone;
      this.first = position;
      for (const cut of this.cuts) cut.at = Math.min(cut.at, position);
      this.cut(gone);
    }
    this.reportLost();
    this.forget(position);
    const ahead = position - this.first; // within a block
    if (ahead > 0 && this.blocks.length) {
      this.blocks[0] = this.blocks[0].subarray(ahead);
      this.first = position;
    }
    this.next = 0;
  }

  forget(position) {
    while (this.blocks.length && this.first + this.blocks[0].length <= position) this.drop();
  }

  // -- connections -------------------------------------------------------------------------------------------------

  connect() {
    if (this.done) return;
    this.on("state", { state: "connecting" });
    this.refusal = null;
    this.endSent = false;
    const socket = (this.socket = openSocket("/v1/stream"));
    socket.onopen = () => {
      const frame = this.stream ? { type: "resume", stream: this.stream, seq: this.seq } : { type: "start", ...this.wish };
      socket.send(JSON.stringify(frame));
    };
    socket.onmessage = ({ data }) => typeof data === "string" && this.take(JSON.parse(data));
    socket.onclose = (close) => this.closed(close);
  }

  take(frame) {
    if (frame.type === "ready") {
      this.stream = frame.stream;
      this.ready = true;
      this.pause = FIRST_PAUSE;
      this.goOnFrom(frame.position);
      this.on("state", { state: "live" });
      this.send();
    } else if (frame.type === "ack") {
      this.forget(frame.position);
    } else if (frame.type === "error" || frame.type === "restart") {
      this.refusal = frame;
    } else if (frame.type === "end") {
      this.finish("ended", "");
    } else if (!frame.seq || frame.seq > this.seq) {
      this.seq = frame.seq || this.seq;
      const moved = this.moved(frame);
      if (frame.type === "final") this.passed(Math.round(frame.end * this.rate));
      this.on("event", moved);
    }
  }

  passed(position) {
    this.heard = Math.max(this.heard, position);
    while (this.cuts.length > 1 && this.cuts[1].at <= this.heard) {
      const { by } = this.cuts.shift();
      this.cuts[0].by += by;
    }
  }

  /** The event with times since the very first sample, even if sound was lost or the daemon had to begin again. */
  moved(frame) {
    if (frame.start === undefined || this.cuts.every(({ by }) => !by)) return frame;
    const shift = (seconds) => this.cuts.reduce((sum, { at, by }, index) => (!index || at <= seconds * this.rate ? sum + by : sum), 0) / this.rate;
    const later = (each) => ({ ...each, start: each.start + shift(each.start), end: each.end + shift(each.start) });
    return { ...later(frame), words: (frame.words ?? []).map(later) };
  }

  async closed({ code, reason }) {
    this.ready = false;
    if (this.done) return;
    const refusal = this.refusal;
    if (refusal && FINAL.has(refusal.code)) return this.finish("failed", refusal.message);
    if (code === 1008) return this.finish("failed", reason || "The token does not allow this.");
    if (refusal && LOST.has(refusal.code)) this.startAgain();
    const why = refusal?.message ?? (refusal ? "The daemon starts again." : await whyNot());
    if (this.done) return; // stopped meanwhile
    const seconds = Math.max(this.pause, refusal?.retry_after ?? 0);
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
    this.on("state", { state: "waiting", message: why || "The connection is lost.", seconds, code: refusal?.code });
    this.retry = setTimeout(() => this.connect(), 1000 * seconds);
  }

  /** Starts a new stream after the last final: the text before it is on the page already. */
  startAgain() {
    this.goOnFrom(Math.max(this.first, Math.min(this.heard, this.total)));
    this.cuts = [{ at: 0, by: this.cuts.reduce((sum, { by }) => sum + by, this.first) }];
    this.total -= this.first;
    this.first = this.next = this.seq = this.heard = 0;
    this.stream = null;
    this.on("event", { type: "gap" });
  }

  /** Gives up the sound that is not decoded yet. */
  abandon() {
    this.finish("ended", "Stopped. What the daemon had not decoded is lost.");
  }

  finish(state, message) {
    if (this.done) return;
    this.done = true;
    clearTimeout(this.retry);
    clearTimeout(this.later);
    this.socket.close();
    this.reportLost();
    this.on("state", { state, message });
  }
}
