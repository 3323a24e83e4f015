// What the engine does: /v1/engine, twice in a few seconds, since rates and late results are differences.
import { ask, byId, bytes, duration, make, percent, shown } from "./base.js";

const SECONDS = 2, STREAMS_SECONDS = 6, WINDOW = 15; // lags and rates are those of this many seconds
const looks = []; // {at, page}, the oldest first
let held = false, first = null, served = [];
let looking = false, listing = false; // a request is under way: no second one is sent

function trouble(text = "") {
  byId("trouble").hidden = !text;
  byId("trouble").replaceChildren(...(text ? [make("p", {}, text)] : []));
}

async function look() {
  if (held || looking || document.hidden) return;
  looking = true;
  try {
    const [page, known] = await Promise.all([ask("/v1/engine"), ask("/v1/models")]);
    served = known.models;
    trouble();
    const at = performance.now() / 1000;
    if (looks.length && startedAnew(looks[looks.length - 1].page, page)) first = looks.length = 0;
    first ||= { at, page };
    looks.push({ at, page });
    while (looks.length > 2 && looks[1].at < at - WINDOW) looks.shift();
    show();
  } catch (error) {
    trouble(error.message);
  }
  looking = false;
}

/** Whether counters fell: then the daemon was restarted, and counts from zero. */
const startedAnew = (old, now) =>
  Object.keys(now.metrics).some((name) => name.endsWith("_total") && now.metrics[name].some(({ labels, value: count }) => count < (value(old, name, labels) ?? 0)));

// -- numbers out of pages ------------------------------------------------------------------------------------------------

const fits = (labels, wanted) => Object.entries(wanted).every(([name, value]) => labels[name] === value);
const value = (page, name, labels = {}) => page.metrics[name]?.find((sample) => fits(sample.labels, labels))?.value ?? null;
const sum = (page, name, labels = {}) => (page.metrics[name] ?? []).reduce((total, sample) => total + (fits(sample.labels, labels) ? sample.value : 0), 0);
const rate = (name, labels) => {
  const [old, now] = [looks[0], looks[looks.length - 1]];
  return now.at > old.at ? (sum(now.page, name, labels) - sum(old.page, name, labels)) / (now.at - old.at) : null;
};

/** Counts by bucket in the last WINDOW seconds, [[upper edge, count], ...]; since the start if there are none in them. */
function buckets(name, model) {
  const of = (page) => page.histograms[name].find((each) => each.labels.model === model)?.buckets ?? {};
  const now = of(looks[looks.length - 1].page), old = of(looks[0].page);
  const apart = (all) => {
    let below = 0;
    return Object.entries(all).map(([edge, count]) => [Number(edge.replace("+Inf", "Infinity")), count])
      .sort((a, b) => a[0] - b[0]).map(([edge, count]) => { const own = count - below; below = count; return [edge, own]; });
  };
  const recent = apart(Object.fromEntries(Object.entries(now).map(([edge, count]) => [edge, count - (old[edge] ?? 0)])));
  return recent.some(([, count]) => count > 0) ? { recent: true, rows: recent } : { recent: false, rows: apart(now) };
}

/** The upper edge of the bucket that holds this share of all; null: there are none. */
function quantile(rows, share) {
  const all = rows.reduce((total, [, count]) => total + count, 0);
  let below = 0;
  for (const [edge, count] of rows) if (all && (below += count) >= share * all) return edge;
  return null;
}

const upTo = (seconds) => (seconds === null ? "–" : seconds === Infinity ? "more than 10 s" : `≤ ${duration(seconds)}`);

// -- what is shown -------------------------------------------------------------------------------------------------------

function show() {
  const { page } = looks[looks.length - 1];
  byId("when").textContent = `Read at ${new Date().toLocaleTimeString()}.`;
  tiles(page);
  models(page);
  refusals(page);
}

const fact = (name, text, kind = "", small = "") => make("div", {}, make("dt", {}, name), make("dd", { className: kind }, text, small && make("small", {}, ` ${small}`)));

function tiles(page) {
  const loop = value(page, "loop_late_seconds");
  const all = ({ refused }) => refused.reduce((total, { count }) => total + count, 0);
  const since = all(page) - all(first.page);
  byId("tiles").replaceChildren(
    fact("Streams", shown(sum(page, "sessions", { state: "active" })), "", `of ${shown(sum(page, "capacity"))}`),
    fact("Sensors", shown(sum(page, "sensors"))),
    fact("Readings", rate("readings_total") === null ? "–" : shown(rate("readings_total")), "", "a second"),
    fact("Steps", rate("steps_total") === null ? "–" : shown(rate("steps_total")), "", "a second"),
    fact("Connections", shown(sum(page, "connections") + sum(page, "http_connections"))),
    fact("Event loop late", duration(loop ?? NaN), loop > 0.1 ? "warn" : ""),
    fact("Refused", shown(since), since ? "warn" : "", "since this page opened"),
    ...(sum(page, "disk_trouble") ? [fact("Disk", "can't be written", "bad")] : []),
  );
}

function models(page) {
  const names = served.map((model) => model.name);
  const known = new Map([...byId("models").children].map((section) => [section.dataset.model, section]));
  byId("models").replaceChildren(...names.map((name) => known.get(name) ?? make("section", { className: "card model", "data-model": name })));
  for (const section of byId("models").children) section.replaceChildren(...model(page, section.dataset.model));
}

function model(page, name) {
  const of = { model: name };
  const { task, horizon, streams: sensors, capacity, version } = served.find((each) => each.name === name);
  const state = (kind) => sum(page, "sessions", { ...of, state: kind });
  const lag = buckets("lag_seconds", name), batch = buckets("batch_size", name);
  const load = value(page, "load", of);
  const waiting = value(page, "lag_max_seconds", of);
  const meter = make("meter", { min: 0, max: 1, high: 0.8, optimum: 0.1, value: Math.min(1, load ?? 0), "aria-label": `Load of ${name}` });
  const total = batch.rows.reduce((count, [, own]) => count + own, 0);
  const lags = lag.rows.some(([, count]) => count);
  const run = page.histograms.run_seconds.find((each) => each.labels.model === name);
  const facts = make("dl", { className: "facts" },
    ...(task === "forecast"
      ? [fact("Sensors", shown(sensors), "", `of ${shown(capacity)}`), fact("Horizon", `${horizon} steps`)]
      : [fact("Streams", `${shown(state("active"))} active`, "", `${shown(state("detached"))} away, of ${shown(value(page, "capacity", of) ?? capacity)}`)]),
    ...(lags
      ? [fact("Lag, half of results", upTo(quantile(lag.rows, 0.5))), fact("Lag, 95 of 100", upTo(quantile(lag.rows, 0.95)), quantile(lag.rows, 0.95) > 1 ? "warn" : "")]
      : []),
    ...(waiting === null ? [] : [fact("Oldest chunk waits", duration(waiting), waiting > 1 ? "warn" : "")]),
    ...(value(page, "lanes", of) === null ? [] : [fact("Lanes", shown(value(page, "lanes", of)))]),
    ...(value(page, "max_batch", of) === null ? [] : [fact("Largest batch", shown(value(page, "max_batch", of)), "", `waits ${duration(value(page, "batch_wait_seconds", of) ?? 0)}`)]),
    fact("Chunks", rate("chunks_total", of) === null ? "–" : shown(rate("chunks_total", of)), "", "a second"),
    ...(run?.count ? [fact("A batch takes", duration(run.sum / run.count), "", "on average")] : []),
    ...(value(page, "state_bytes", of) === null ? [] : [fact("State", bytes(value(page, "state_bytes", of)), "", `of ${bytes(value(page, "state_bytes_bound", of) ?? NaN)}`)]),
    ...(value(page, "buffered_seconds", of) === null ? [] : [fact("Waiting sound", duration(value(page, "buffered_seconds", of)))]),
    fact("Failed batches", shown(sum(page, "failed_batches_total", of)), sum(page, "failed_batches_total", of) ? "bad" : ""),
    ...(load === null ? [] : [make("div", {}, make("dt", {}, "Load"), make("dd", {}, percent(load), " ", meter))]));
  const head = make("h2", {}, name, make("small", {}, `${task} ${version ?? ""}`), make("small", {}, lag.recent || batch.recent ? `of the last ${WINDOW} s` : total ? "idle, since the start" : "nothing was run yet"));
  return [head, facts, ...(total ? [make("h3", { className: "soft only-heard" }, "Batch sizes"), bars(batch, total)] : [])];
}

function bars({ rows, recent }, total) {
  const used = rows.filter(([, count]) => count > 0);
  const list = make("dl", { className: "bars", "aria-label": "Batches by their size" });
  for (const [edge, count] of used) {
    const at = rows.findIndex(([other]) => other === edge);
    const low = (rows[at - 1]?.[0] ?? 0) + 1;
    const size = edge === Infinity ? `over ${low - 1}` : low < edge ? `${low} to ${edge}` : `${edge}`;
    const bar = make("div", { className: "bar" });
    bar.style.width = `${(100 * count) / total}%`;
    list.append(make("dt", {}, `batch of ${size}`), make("dd", { "aria-hidden": "true" }, bar), make("dd", { className: "number" }, `${count.toLocaleString()} (${percent(count / total)})`));
  }
  return make("div", { className: "wide" }, make("p", { className: "soft" }, recent ? `Batches of the last ${WINDOW} s, by streams in them` : "Batches since the start, by streams in them"), list);
}

const DROPPED = [
  ["dropped_seconds_total", "seconds of sound dropped", "model"], ["dropped_rows_total", "rows dropped", "model"], ["dropped_events_total", "events dropped", "model"],
  ["dropped_forecasts_total", "forecasts not delivered", "protocol"], ["store_errors_total", "failures of the disk", "kind"], ["failed_batches_total", "batches failed", "model"],
];

function refusals(page) {
  const before = new Map(first.page.refused.map(({ what, reason, count }) => [`${what}: ${reason}`, count]));
  const refused = page.refused.map(({ what, reason, count }) => [`${what}: ${reason}`, shown(count), shown(count - (before.get(`${what}: ${reason}`) ?? 0))]);
  const dropped = DROPPED.flatMap(([name, text, by]) => (page.metrics[name] ?? []).filter((sample) => sample.value > 0)
    .map((sample) => [`${text}: ${sample.labels[by]}`, shown(sample.value), shown(sample.value - (value(first.page, name, sample.labels) ?? 0))]));
  const rows = [...refused, ...dropped];
  table(byId("refusals"), rows.length ? "Counts since the start, and since this page was opened." : "Nothing was refused, and nothing dropped.", ["What", "Start", "Page"], rows);
}

function table(box, caption, heads, rows) {
  box.replaceChildren(make("caption", {}, caption),
    ...(rows.length ? [make("thead", {}, make("tr", {}, ...heads.map((head, at) => make("th", { scope: "col", className: at ? "number" : "" }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, at) => make(at ? "td" : "th", { className: at ? "number" : "", ...(!at && { scope: "row" }) }, cell)))))] : []));
}

async function streams() {
  if (held || listing || document.hidden) return;
  listing = true;
  try {
    const { sessions, after } = await ask("/v1/sessions");
    const rows = sessions.slice(0, 200).map((each) => [each.owner ? `${each.owner}/${each.stream}` : each.stream, each.model ?? "–", each.state, shown(each.position), shown(each.acknowledged), duration(each.age_seconds ?? NaN)]);
    table(byId("streams"), rows.length ? "Awake and asleep." : "There is no stream now.", ["Stream", "Model", "State", "Position", "On disk", "Silent"], rows);
    byId("streams-note").textContent = after || sessions.length > 200 ? "These are the first 200. streamer sessions lists all." : "";
  } catch (error) {
    table(byId("streams"), error.status === 403 ? "The list of streams needs a token with the scope admin." : error.message, [], []);
  }
  listing = false;
}

byId("pause").addEventListener("click", ({ currentTarget }) => {
  held = !held;
  currentTarget.setAttribute("aria-pressed", held);
});
setInterval(look, 1000 * SECONDS);
setInterval(streams, 1000 * STREAMS_SECONDS);
void look();
void streams();
