// Recordings that are dropped on the page: one request each, one after the other, with the progress of its upload.
import { authorization, askToken, byId, copy, download, make, reasonIn, duration } from "./base.js";
import { Transcript, srt } from "./transcript.js";

const PATH = "/v1/audio/transcriptions";
const waiting = [];
let working = false;

/** `wish()` gives `{model, text, numbers}`; the daemon chooses for empty values. */
export function takeRecordings(files, wish) {
  for (const file of files) waiting.push(card(file, wish()));
  if (!working) void work();
}

async function work() {
  working = true;
  for (let next; (next = waiting.shift()); ) await next();
  working = false;
}

/** Shows the file, and returns the function that transcribes it. */
function card(file, wish) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  // a screen reader announces a change of state, not each percent, and not the whole text
  const state = make("p", { className: "soft", role: "status" }, "Waits for the recordings before it.");
  const share = make("span", { className: "soft", "aria-hidden": "true" });
  const box = make("div", { className: "text", tabIndex: 0, role: "region", "aria-label": `Text of ${file.name}`, hidden: true });
  const says = (text) => { if (state.textContent !== text) state.textContent = text; };
  const tools = make("div", { className: "row middle", hidden: true });
  const section = make("section", { className: "card file", "aria-label": file.name },
    make("div", { className: "row middle" }, make("h2", { className: "grow" }, file.name), tools), state, make("div", { className: "row middle" }, bar, share), box);
  byId("recordings").prepend(section);
  return async () => {
    try {
      const found = await send(file, wish, (sent) => {
        says(sent < 1 ? "Sending." : "Transcribing.");
        share.textContent = sent < 1 ? `${Math.round(100 * sent)} %` : "";
        if (sent < 1) bar.value = sent;
        else bar.removeAttribute("value");
      });
      const transcript = new Transcript(box, "Nothing was said in it.");
      const finals = sentences(found);
      finals.forEach((final) => transcript.take(final));
      const base = file.name.replace(/\.[^.]*$/, "");
      const button = (text, act) => make("button", { type: "button", className: "small", onclick: act }, text);
      const done = button("Copy", async () => (done.textContent = (await copy(transcript.text)) ? "Copied" : "Can't copy"));
      tools.append(done, button("Text", () => download(`${base}.txt`, `${transcript.text}\n`)),
        button("SRT", () => download(`${base}.srt`, srt(finals), "application/x-subrip")));
      says(`${duration(found.duration)} of sound.`);
      tools.hidden = box.hidden = false;
    } catch (error) {
      says(error.message);
      state.className = "bad";
    }
    bar.parentNode.remove();
  };
}

function send(file, wish, progress) {
  const form = new FormData();
  form.append("file", file);
  form.append("response_format", "verbose_json");
  for (const each of ["word", "segment"]) form.append("timestamp_granularities[]", each);
  for (const [name, value] of Object.entries(wish)) if (value) form.append(name, value);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report an upload's progress
    request.open("POST", PATH);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    request.upload.onload = () => progress(1);
    request.onerror = () => reject(new Error("The daemon can't be reached, or it refused the recording (setting max_upload_bytes)."));
    request.onload = () => {
      if (request.status === 200) return resolve(JSON.parse(request.responseText));
      if (request.status === 401) askToken(reasonIn(request.responseText));
      const retry = request.getResponseHeader("Retry-After");
      const why = request.status === 404 ? "Recordings are not taken here (setting openai)." : reasonIn(request.responseText);
      reject(new Error(retry ? `${why} Try again in ${duration(Number(retry))}.` : why));
    };
    request.send(form);
  });
}

/** Finals as a stream gives them. The answer has one confidence for a sentence, not for each word. */
function sentences({ segments = [], words = [] }) {
  let at = 0;
  return segments.map((segment) => {
    const own = [];
    const confidence = Math.exp(segment.avg_logprob);
    while (at < words.length && words[at].start < segment.end + 0.001) own.push({ ...words[at++], confidence });
    return { type: "final", text: segment.text, start: segment.start, end: segment.end, words: own };
  });
}
