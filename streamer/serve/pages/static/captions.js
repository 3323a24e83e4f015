// Live captions: microphone, stream, transcript, and the messages about them.
import { ask, byId, copy, download, duration, make } from "./base.js";
import { openMicrophone, unusable } from "./microphone.js";
import { takeRecordings } from "./recordings.js";
import { LiveStream } from "./stream.js";
import { Transcript, srt } from "./transcript.js";

const BEHIND_SECONDS = 3; // sound that waits in this page before a message says so

// A page may be open for days. A sentence is a few hundred bytes of text, and twenty elements in the page.
const BOUNDS = { shown: 500, kept: 20_000 };

const transcript = new Transcript(byId("captions"), "Press Start and speak. Space or Enter works, too.", BOUNDS);
let live = null; // {microphone, stream}
let starting = false;
let lost = 0, behind = 0, screen = null;

const status = (text) => { if (byId("status").textContent !== text) byId("status").textContent = text; };

function trouble(text = "") {
  byId("trouble").hidden = !text;
  byId("trouble").replaceChildren(...(text ? [make("p", {}, text)] : []));
}

const wish = () => {
  const written = byId("written").value;
  return { model: byId("model").value, ...(written && { text: written, numbers: written }) };
};

// -- start and stop ------------------------------------------------------------------------------------------------------

async function start() {
  trouble();
  const { model, ...options } = wish();
  if (starting) return;
  starting = true; // the button stays as it is: one that is disabled loses the keyboard
  status("The browser asks for the microphone.");
  const own = {};
  try {
    const early = []; // blocks from before the stream is open
    const hear = (block, peak) => {
      byId("level").value = peak;
      if (own.stream) own.stream.push(block);
      else early.push(block);
    };
    own.microphone = await openMicrophone(byId("cleanup").checked, hear, () => void stop("The microphone is gone."));
    own.stream = new LiveStream({ model, rate: own.microphone.rate, options }, (kind, detail) => hears(own, kind, detail));
    early.forEach((block) => own.stream.push(block));
    live = own;
    lost = behind = 0;
    screen = await navigator.wakeLock?.request("screen").catch(() => null);
  } catch (error) {
    void own.microphone?.stop();
    trouble(error.message);
    status("");
  }
  starting = false;
  shows();
}

async function stop(why = "") {
  const own = live;
  if (!own) return;
  if (own.stopping) return own.stream.abandon();
  own.stopping = true;
  status(why || "Decoding the rest.");
  shows();
  await own.microphone.stop();
  own.stream.end();
}

function over() {
  const own = live;
  live = null;
  void own?.microphone.stop();
  void screen?.release();
  byId("level").value = 0;
  shows();
}

function shows() {
  const button = byId("start");
  button.textContent = live ? (live.stopping ? "Don't wait" : "Stop") : "Start";
  button.toggleAttribute("data-live", Boolean(live));
  for (const id of ["model", "written", "cleanup"]) byId(id).disabled = Boolean(live) || (id === "model" && !byId("model").options.length);
}

// -- events of the stream ------------------------------------------------------------------------------------------------

const REMEDIES = {
  capacity: "All places are taken. Stop another stream, or raise the setting capacity.",
  overload: "The daemon is busy with other streams.",
  quota: "Your token has as many streams as it may. Stop one of them.",
  store: "The daemon's disk can't be written.",
};

function hears(own, kind, detail) {
  if (kind === "event") {
    if (detail.type === "warning") trouble(detail.message);
    else transcript.take(detail);
  } else if (kind === "lost") {
    lost += detail;
    transcript.note(`${duration(detail)} of sound were not heard: the daemon did not take them in time.`);
  } else if (kind === "behind") {
    if (detail > BEHIND_SECONDS !== behind > BEHIND_SECONDS) {
      behind = detail;
      if (!own.stopping) status(detail > BEHIND_SECONDS ? "The daemon takes the sound more slowly than it comes. Nothing is lost yet: what waits is kept for two minutes. Fewer streams at a time, or a smaller model, help." : "Listens.");
    }
  } else {
    states(own, detail);
  }
}

function states(own, { state, message, seconds, code }) {
  byId("status").classList.toggle("pulse", state === "connecting" || state === "waiting");
  if (state === "connecting" && !own.stopping) status("Connecting to the daemon.");
  if (state === "live" && !own.stopping) {
    trouble();
    status("Listens.");
  }
  if (state === "waiting") {
    const known = REMEDIES[code] ? `${REMEDIES[code]} ` : "";
    trouble(`${known}${message} What you say is kept, two minutes of it at most. The next try is in ${duration(seconds)}.`);
    status("Waits for the daemon.");
  }
  if (state === "ended") {
    status(message || (lost ? `Done. ${duration(lost)} of sound were not heard.` : "Done."));
    trouble();
    over();
  }
  if (state === "failed") {
    status("Stopped.");
    trouble(message);
    over();
  }
}

// -- the page ------------------------------------------------------------------------------------------------------------

async function models() {
  const { models: known } = await ask("/v1/models");
  const speech = known.filter((model) => model.task === "transcribe");
  byId("model").replaceChildren(...speech.map((model) => make("option", { value: model.name }, model.name)));
  byId("model").disabled = !speech.length;
  byId("start").disabled = !speech.length;
  if (!speech.length) return trouble("No model for speech is served here. Name one in the setting models, such as english.");
  const why = unusable();
  if (why) {
    byId("start").disabled = true;
    trouble(`${why} Recordings work all the same.`);
  } else if (byId("status").textContent === "") status("Ready.");
}

byId("start").addEventListener("click", () => void (live ? stop() : start()));
byId("numbers").addEventListener("click", ({ currentTarget }) => {
  const on = byId("captions").classList.toggle("numbers");
  currentTarget.setAttribute("aria-pressed", on);
});
byId("copy").addEventListener("click", async () => status((await copy(transcript.text)) ? "Copied." : "The browser does not let this page copy."));
const name = () => `captions-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}`;
const save = (end, text, type) => {
  download(`${name()}.${end}`, text, type);
  if (transcript.forgotten) status(`The first ${transcript.forgotten.toLocaleString()} sentences are not in it: the last ${BOUNDS.kept.toLocaleString()} are kept.`);
};
byId("save-text").addEventListener("click", () => save("txt", `${transcript.text}\n`));
byId("save-srt").addEventListener("click", () => save("srt", srt(transcript.finals), "application/x-subrip"));
byId("clear").addEventListener("click", () => transcript.clear());

byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", ({ target }) => {
  takeRecordings([...target.files], wish);
  target.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a file dropped beside the box must not replace the page
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) takeRecordings([...event.dataTransfer.files], wish);
  });
}
addEventListener("beforeunload", (event) => live && event.preventDefault());

byId("start").disabled = true;
models().catch((error) => trouble(error.message));
