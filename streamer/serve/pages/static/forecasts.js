// The page of forecasts: a list that the daemon searches, and one sensor with live updates.
import { ask, byId, make, openSocket, percent, shown, duration } from "./base.js";
import { ANOMALY, draw, loadLibrary } from "./chart.js";

const PAGE = 50; // sensors in the list
const KEPT = 144, KEPT_LONG = 1500; // readings in the chart
const LIST_SECONDS = 5, SCORES_SECONDS = 5;
let offset = 0, matching = 0, asked = 0, answered = 0, scoring = false;
let kept = KEPT;
let open = null; // the sensor that is shown: {stream, model, past, now, target}

function trouble(text = "") {
  byId("trouble").hidden = !text;
  byId("trouble").replaceChildren(...(text ? [make("p", {}, text)] : []));
}

// -- the list ------------------------------------------------------------------------------------------------------------

async function list() {
  const number = ++asked;
  const query = new URLSearchParams({ search: byId("search").value, order: byId("order").value, offset, limit: PAGE });
  try {
    const found = await ask(`/v1/sensor-list?${query}`);
    if (number !== asked) return; // the answer to an older request
    trouble();
    matching = found.matching;
    if (offset && offset >= matching) { // sensors have gone since
      offset = PAGE * Math.max(0, Math.ceil(matching / PAGE) - 1);
      return void list();
    }
    fill(found);
  } catch (error) {
    if (number === asked) trouble(error.message);
  }
  if (number === asked) answered = number;
}

const label = ({ stream, target }) => (target ? `${stream}.${target}` : stream);
const key = ({ stream, model, target }) => JSON.stringify([stream, model, target || ""]);

function fill({ total, sensors }) {
  const many = matching === total ? `${total.toLocaleString()} sensors` : `${matching.toLocaleString()} of ${total.toLocaleString()} sensors`;
  if (byId("count").textContent !== many) byId("count").textContent = many;
  byId("range").textContent = matching > PAGE ? `${offset + 1} to ${Math.min(offset + PAGE, matching)}` : "";
  byId("before").hidden = byId("after").hidden = matching <= PAGE;
  byId("before").disabled = offset === 0;
  byId("after").disabled = offset + PAGE >= matching;
  // lines that stay keep their elements: a click, the keyboard focus or a screen reader may be on them
  const old = new Map([...byId("sensors").children].map((item) => [item.firstChild.dataset.key, item]));
  const items = sensors.map((sensor) => line(sensor, old.get(key(sensor))));
  const same = items.length === old.size && items.every((item, at) => item === byId("sensors").children[at]);
  if (!same) {
    const focused = document.activeElement;
    byId("sensors").replaceChildren(...items);
    if (focused?.isConnected) focused.focus();
  }
}

/** A line of the list: `item` with other texts, or a new one. */
function line(sensor, item) {
  const odd = sensor.anomaly !== null && sensor.anomaly < ANOMALY;
  const texts = [shown(sensor.value, 4), odd ? `anomaly, p ${shown(sensor.anomaly, 1)}` : `${sensor.readings.toLocaleString()} readings`,
    sensor.mase === null ? "" : `${shown(sensor.mase, 2)} × naive`];
  if (!item) {
    const parts = ["name", "value right", "note", "note right"].map((className) => make("span", { className }));
    parts[0].append(...breakable(label(sensor)));
    item = make("li", {}, make("button", { type: "button", "data-key": key(sensor), onclick: () => go(sensor) }, ...parts));
  }
  const button = item.firstChild;
  texts.forEach((text, at) => button.children[at + 1].textContent !== text && (button.children[at + 1].textContent = text));
  button.children[2].className = odd ? "note bad" : "note";
  marks(button, open);
  return item;
}

/** A name that breaks after its points and dashes, and elsewhere only if it has to. */
function breakable(name) {
  return name.split(/(?<=[._\-/:,])/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
}

function marks(button, shown) {
  if (shown && button.dataset.key === key(shown)) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function arrows(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const buttons = [...byId("sensors").querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const next = event.currentTarget === byId("search") ? buttons[0] : buttons[at + step] ?? (step < 0 ? byId("search") : null);
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function turn(step) {
  offset = Math.max(0, offset + step * PAGE);
  byId("sensors").scrollTop = 0;
  void list();
}

// -- one sensor ----------------------------------------------------------------------------------------------------------

function go({ stream, model, target }) {
  location.hash = new URLSearchParams({ sensor: stream, model, ...(target && { target }) });
}

async function chosen() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const stream = wanted.get("sensor");
  if (!stream) return;
  const own = (open = { stream, model: wanted.get("model") ?? "", target: wanted.get("target") ?? "" });
  for (const button of byId("sensors").querySelectorAll("button")) marks(button, own);
  try {
    await load(own);
  } catch (error) {
    if (open !== own) return;
    trouble(error.message);
    if (error.status === 0 || error.status === 429 || error.status >= 500) later(own); // the daemon is away, or starts
    return;
  }
  if (open !== own) return;
  byId("nothing").hidden = true;
  byId("shown").hidden = false;
  show();
  subscribe();
  if (matchMedia("(max-width: 52rem)").matches) byId("detail").scrollIntoView();
}

async function load(own) {
  const name = encodeURIComponent(own.stream);
  const which = own.model ? `model=${encodeURIComponent(own.model)}` : "";
  const [past, now] = await Promise.all([ask(`/v1/history/${name}?limit=${kept}&${which}`), ask(`/v1/forecast/${name}?${which}`)]);
  own.past = past.targets;
  own.levels = past.levels;
  own.served = past.model; // another model may have a sensor of the same name
  own.now = now;
  if (!(own.target in own.past)) own.target = Object.keys(own.past)[0];
}

const current = () => open.now.targets?.[open.target] ?? open.now;

/** A forecast from the socket: its reading joins the past, with the band that was forecast for it. */
function goOn(frame) {
  for (const [target, past] of Object.entries(open.past)) {
    const before = open.now.targets?.[target] ?? open.now;
    const now = frame.targets?.[target] ?? frame;
    if (frame.time <= past.times[past.times.length - 1]) continue;
    const [low, middle, high] = open.levels.map((level) => before.quantiles?.[level]?.[0] ?? null);
    const reached = open.now.step && frame.time - open.now.time < 1.5 * open.now.step; // else that forecast was for another time
    const column = { times: frame.time, values: now.value, low: reached ? low : null, middle: reached ? middle : null, high: reached ? high : null, anomalies: now.anomaly };
    for (const [name, value] of Object.entries(column)) {
      past[name].push(value);
      if (past[name].length > kept) past[name].shift();
    }
  }
  const scores = open.now.targets ? null : open.now.scores;
  const merged = frame.targets
    ? { targets: Object.fromEntries(Object.entries(frame.targets).map(([name, each]) => [name, { ...each, scores: open.now.targets[name]?.scores }])) }
    : { scores };
  open.now = { ...frame, ...merged };
  dirty();
}

let drawing = false;
function dirty() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    if (open?.now && !document.hidden) show();
  }, 200);
}

function show() {
  const { past, target, now } = open;
  const own = current(), column = past[target];
  byId("name").textContent = label(open);
  const targets = Object.keys(past);
  byId("target-label").hidden = targets.length < 2;
  if (targets.length > 1) {
    byId("target").replaceChildren(...targets.map((name) => make("option", { value: name, selected: name === target }, name)));
  }
  byId("level").textContent = percent(open.levels[2] - open.levels[0]);
  byId("summary").textContent = summary(own, now);
  tiles(own, now);
  record(own.scores);
  steps(own, now);
  void chart(column, own, now);
}

function summary(own, now) {
  const at = new Date(now.time * 1000).toLocaleString();
  const read = own.value === null ? `No value at ${at}.` : `${shown(own.value, 4)} at ${at}.`;
  const [low, middle, high] = open.levels.map((level) => own.quantiles[level]?.[0]);
  if (middle === undefined) return `${read} There is no forecast yet.`;
  const odd = own.anomaly !== null && own.anomaly < ANOMALY ? ` This reading is an anomaly: one so far off is expected once in ${Math.round(1 / Math.max(own.anomaly, 1e-9)).toLocaleString()}.` : "";
  const when = now.step ? ` in ${duration(now.step)}` : "";
  return `${read} Next${when}: ${shown(middle, 4)}, between ${shown(low, 4)} and ${shown(high, 4)} with ${percent(open.levels[2] - open.levels[0])} probability.${odd}`;
}

async function chart(column, own, now) {
  const plotly = await loadLibrary();
  byId("no-charts").hidden = byId("chart").hidden = byId("legend").hidden = false;
  byId("no-charts").hidden = plotly !== null;
  byId("chart").hidden = byId("legend").hidden = plotly === null;
  if (!plotly) return;
  byId("chart").dataset.of = key(open);
  const next = Object.keys(own.quantiles ?? {}).length ? { time: now.time, step: now.step, quantiles: own.quantiles } : null;
  const count = column.times.length;
  await draw(plotly, byId("chart"), column, next);
  byId("chart").dataset.readings = count; // the number of readings in the chart
}

function tiles(own, now) {
  const scores = own.scores ?? {};
  const recent = scores["last 1000"]?.all ?? {};
  const wanted = open.levels[2] - open.levels[0];
  const items = [
    ["Last reading", shown(own.value, 4), ""],
    ["Probability", own.anomaly === null ? "–" : shown(own.anomaly, 2), own.anomaly !== null && own.anomaly < ANOMALY ? "bad" : ""],
    ["Drift", own.drift === null ? "–" : shown(own.drift, 2), own.drift > 2 ? "warn" : ""],
    ["Error over naive", recent.mase == null ? "–" : shown(recent.mase, 2), recent.mase > 1 ? "warn" : recent.mase ? "good" : ""],
    [`Inside ${percent(wanted)} band`, recent.coverage == null ? "–" : percent(recent.coverage, 1), Math.abs(recent.coverage - wanted) > 0.1 && recent.coverage != null ? "warn" : ""],
    ["Step", now.step ? duration(now.step) : "–", ""],
  ];
  byId("tiles").replaceChildren(...items.map(([name, value, kind]) => make("div", {}, make("dt", {}, name), make("dd", { className: kind }, value))));
}

function table(box, caption, heads, rows) {
  const cells = (row, at) => row.map((cell, column) => make(column === 0 ? "th" : "td", { className: column ? "number" : "", ...(column === 0 && { scope: "row" }) }, cell));
  box.replaceChildren(make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head, at) => make("th", { scope: "col", className: at ? "number" : "" }, head)))),
    make("tbody", {}, ...rows.map((row, at) => make("tr", {}, ...cells(row, at)))));
}

function record(scores) {
  if (!scores) return;
  const faults = ["missing", "late", "duplicate", "gap"].filter((kind) => scores[kind]).map((kind) => `, ${scores[kind].toLocaleString()} ${kind}`);
  periods("record", `The last 1,000 readings at most, by steps ahead.`, scores["last 1000"]);
  periods("life", `${scores.readings.toLocaleString()} readings${faults.join("")}.`, scores.life);
}

function periods(id, caption, bands) {
  const ahead = (band) => (band === "all" ? "all together" : band === "1" ? "1 step" : `${band.replace("-", " to ")} steps`);
  const rows = Object.entries(bands ?? {}).map(([band, each]) => [ahead(band), shown(each.mae), shown(each.mase, 2), shown(each.pinball), percent(each.coverage ?? NaN, 1)]);
  table(byId(id), caption, ["Ahead", "Mean error", "Error over naive", "Pinball", "Inside the band"], rows);
}

function steps(own, now) {
  const levels = Object.keys(own.quantiles ?? {}).sort((a, b) => a - b);
  const count = levels.length ? own.quantiles[levels[0]].length : 0;
  const rows = Array.from({ length: count }, (_, at) => [
    now.step ? new Date((now.time + (at + 1) * now.step) * 1000).toLocaleString() : `step ${at + 1}`,
    ...levels.map((level) => shown(own.quantiles[level][at], 4)),
  ]);
  table(byId("steps"), "Quantiles of each step ahead.", ["When", ...levels.map((level) => percent(Number(level)))], rows);
}

// -- live ----------------------------------------------------------------------------------------------------------------

let socket = null, pause = 1;

/** Requests the sensor again later, unless another one is chosen by then. */
function later(own) {
  setTimeout(() => void (open === own && chosen()), 1000 * pause);
  pause = Math.min(30, 2 * pause);
}

/** Escapes a name: the daemon reads subscriptions as patterns, and a name must stand for itself. */
const literal = (name) => name.replace(/[*?[]/g, "[$&]");

function subscribe() {
  const frame = () => open && socket.send(JSON.stringify({ type: "subscribe", streams: [literal(open.stream)] }));
  if (socket?.readyState === WebSocket.OPEN) return frame();
  if (socket?.readyState === WebSocket.CONNECTING) return;
  socket = openSocket("/v1/sensors");
  socket.onopen = () => {
    pause = 1;
    frame();
  };
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "subscribed") byId("live").textContent = "live";
    if (frame.type === "forecast" && open?.now && frame.stream === open.stream && frame.model === open.served) goOn(frame);
  };
  socket.onclose = () => {
    byId("live").textContent = "not live, tries again";
    if (open) later(open);
  };
}

async function scores() {
  const own = open;
  if (!own?.now || scoring || document.hidden) return;
  scoring = true;
  const which = own.model ? `?model=${encodeURIComponent(own.model)}` : "";
  const found = await ask(`/v1/forecast/${encodeURIComponent(own.stream)}${which}`).catch(() => null);
  scoring = false;
  if (!found || open !== own) return;
  if (found.targets) for (const [name, each] of Object.entries(found.targets)) own.now.targets[name].scores = each.scores;
  else own.now.scores = found.scores;
  dirty();
}

// -- the page ------------------------------------------------------------------------------------------------------------

let typing = null;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  offset = 0;
  typing = setTimeout(list, 150);
});
byId("order").addEventListener("change", () => {
  offset = 0;
  void list();
});
byId("search").addEventListener("keydown", arrows);
byId("sensors").addEventListener("keydown", arrows);
byId("before").addEventListener("click", () => turn(-1));
byId("after").addEventListener("click", () => turn(1));
byId("long").addEventListener("click", ({ currentTarget }) => {
  kept = kept === KEPT ? KEPT_LONG : KEPT;
  currentTarget.setAttribute("aria-pressed", kept === KEPT_LONG);
  void chosen();
});
byId("target").addEventListener("change", ({ target }) => go({ ...open, target: target.value }));
addEventListener("hashchange", () => void chosen());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dirty);
setInterval(() => document.hidden || asked !== answered || void list(), 1000 * LIST_SECONDS); // not while a request is under way
setInterval(scores, 1000 * SCORES_SECONDS);
void list();
void chosen();
