// What was said, on the page and as files. Texts become text nodes, so that no word is markup.
import { make } from "./base.js";

export const FAIR = 0.9, POOR = 0.6; // below these a word is marked
// Subtitles must be readable: as those of `streamer transcribe` (streamer/render.py).
const CUE_CHARACTERS = 84, CUE_SECONDS = 7, MIN_CUE_SECONDS = 1;

export class Transcript {
  /** `box`: where paragraphs go. `shown` paragraphs of them at most, and `kept` finals for files: beyond that the oldest go;
   * `forgotten` counts finals. */
  constructor(box, empty = "", { shown = Infinity, kept = Infinity } = {}) {
    this.box = box;
    this.empty = empty;
    this.most = { shown, kept };
    this.partial = make("p", { className: "partial", "aria-live": "off" });
    this.clear();
  }

  clear() {
    this.finals = [];
    this.forgotten = 0;
    this.box.replaceChildren(make("p", { className: "empty" }, this.empty));
  }

  get text() {
    return this.finals.map((final) => final.text).join("\n");
  }

  take(event) {
    if (event.type === "partial") return this.show(event.text);
    if (event.type === "gap") return this.note("Some sound is missing here.");
    if (event.type !== "final" || !event.text) return;
    this.finals.push(event);
    if (this.finals.length > this.most.kept) {
      this.finals.shift();
      this.forgotten++;
    }
    this.put(make("p", {}, ...(event.words?.length ? spans(event.words) : [event.text])));
    this.show("");
  }

  note(text) {
    this.put(make("p", { className: "break" }, text));
  }

  show(text) {
    const follow = this.atEnd();
    this.partial.textContent = text;
    if (text) {
      this.box.querySelector(".empty")?.remove();
      this.box.append(this.partial);
    } else this.partial.remove();
    if (follow) this.box.scrollTop = this.box.scrollHeight;
  }

  put(paragraph) {
    const follow = this.atEnd();
    this.box.querySelector(".empty")?.remove();
    if (this.partial.parentNode) this.partial.before(paragraph);
    else this.box.append(paragraph);
    while (this.box.children.length > this.most.shown) this.box.firstElementChild.remove();
    if (follow) this.box.scrollTop = this.box.scrollHeight;
  }

  atEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
  }
}

/** Words with their confidence: low ones are marked, and the reader may turn numbers on. */
function spans(words) {
  const shown = words.filter((word) => (word.written ?? word.word) !== ""); // "": written as one with the word before
  return shown.flatMap((word, index) => {
    const sure = Math.round(100 * word.confidence);
    const kind = word.confidence < POOR ? "word poor" : word.confidence < FAIR ? "word fair" : "word";
    const number = make("sub", {}, `${sure}`);
    const span = make("span", { className: kind, title: `${sure} % sure`, "data-confidence": word.confidence }, word.written ?? word.word, number);
    return index ? [" ", span] : [span];
  });
}

// -- files ---------------------------------------------------------------------------------------------------------------

export function cues(finals) {
  const found = [];
  for (const final of finals) {
    const begin = found.length;
    const words = final.words?.length ? final.words : [{ word: final.text, start: final.start, end: final.end }];
    for (const word of words) {
      const text = word.written ?? word.word;
      const last = found.length > begin ? found[found.length - 1] : null;
      if (last && (!text || (last.text.length + 1 + text.length <= CUE_CHARACTERS && word.end - last.start <= CUE_SECONDS))) {
        last.end = word.end;
        if (text) last.text += ` ${text}`;
      } else found.push({ start: word.start, end: word.end, text });
    }
  }
  found.forEach((cue, index) => {
    const room = found[index + 1]?.start ?? Infinity;
    cue.end = Math.max(cue.end, Math.min(cue.start + MIN_CUE_SECONDS, room));
  });
  return found;
}

export function srt(finals) {
  return cues(finals).map((cue, index) => `${index + 1}\n${clock(cue.start)} --> ${clock(cue.end)}\n${cue.text}\n\n`).join("");
}

function clock(seconds) {
  const millis = Math.round(seconds * 1000);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  return `${two(millis / 3_600_000)}:${two((millis / 60_000) % 60)}:${two((millis / 1000) % 60)},${String(millis % 1000).padStart(3, "0")}`;
}
