// The chart of one sensor, drawn by plotly.js from the installed package. It gets no names, since it interprets some markup.
import { make } from "./base.js";

export const ANOMALY = 0.001;
const AGAIN_SECONDS = 10; // pause before a library that is missing or failed to load is requested again
let library = null, failedAt = null;

/** The library; `null` if the package is not installed, or the library failed to load this time. */
export function loadLibrary() {
  if (failedAt !== null && performance.now() > failedAt + 1000 * AGAIN_SECONDS) library = failedAt = null;
  library ??= load().catch(() => null).then((found) => {
    failedAt = found ? null : performance.now();
    return found;
  });
  return library;
}

async function load() {
  const found = await fetch("/pages/charts.json");
  if (!found.ok) return null;
  const { script, styles } = await found.json();
  if (!script) return null;
  // the library adds a style element for each of these ids, unless an element with that id exists
  const missing = styles.filter((id) => !document.getElementById(id));
  document.body.append(...missing.map((id) => make("span", { id, hidden: true })));
  await new Promise((resolve, reject) => {
    document.head.append(make("script", { src: `/pages/${script}`, onload: resolve, onerror: reject }));
  });
  return window.Plotly;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Local time of the viewer; the library has no zones of its own.
const local = (seconds) => {
  const date = new Date(seconds * 1000);
  return new Date(date.getTime() - 60_000 * date.getTimezoneOffset()).toISOString().slice(0, 23);
};

/** `past`: columns of /v1/history; `next`: {time, step, quantiles by level} or null. */
export function draw(plotly, box, past, next) {
  const times = past.times.map(local);
  const plain = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false };
  const edge = { ...plain, line: { width: 0 }, connectgaps: false };
  const traces = [
    { ...edge, x: times, y: past.low },
    { ...edge, x: times, y: past.high, fill: "tonexty", fillcolor: colour("--band") },
  ];
  if (next) traces.push(...fan(past, next, edge, plain));
  const crowded = times.length > 80;
  traces.push({
    ...plain, x: times, y: past.values, name: "reading", hoverinfo: undefined, hovertemplate: "%{y:.5~g}<extra>reading</extra>",
    mode: crowded ? "lines" : "lines+markers", line: { color: colour("--series"), width: 1.8 }, marker: { size: 4 },
  });
  const odd = past.anomalies.flatMap((p, at) => (p !== null && p < ANOMALY ? [at] : []));
  traces.push({
    ...plain, mode: "markers", x: odd.map((at) => times[at]), y: odd.map((at) => past.values[at]), customdata: odd.map((at) => past.anomalies[at]),
    hoverinfo: undefined, hovertemplate: "anomaly, p %{customdata:.1~e}<extra></extra>",
    marker: { color: colour("--bad"), size: 9, line: { color: colour("--card"), width: 1.5 } },
  });
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, fixedrange: matchMedia("(pointer: coarse)").matches };
  const layout = {
    margin: { l: 8, r: 12, t: 8, b: 8 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent", hovermode: "x unified", dragmode: "zoom", uirevision: box.dataset.of,
    font: { color: colour("--soft"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    xaxis: { ...axis, type: "date", nticks: box.clientWidth < 500 ? 4 : 8 },
    yaxis: { ...axis, tickformat: "~g" },
    shapes: next ? [{ type: "line", x0: local(next.time), x1: local(next.time), yref: "paper", y0: 0, y1: 1, line: { color: colour("--soft"), width: 1, dash: "dot" } }] : [],
  };
  return plotly.react(box, traces, layout, { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset" });
}

/** Pairs of quantiles inside one another, from the last reading on, and the median. */
function fan(past, next, edge, plain) {
  const levels = Object.keys(next.quantiles).sort((a, b) => a - b);
  const middle = levels[Math.floor(levels.length / 2)];
  if (!levels.length || !next.step) return [];
  const last = past.values[past.values.length - 1];
  const from = last === null || last === undefined ? [] : [last];
  const start = from.length ? 0 : 1;
  const count = next.quantiles[middle].length;
  const x = Array.from({ length: count + 1 - start }, (_, at) => local(next.time + next.step * (at + start)));
  const pairs = Math.floor(levels.length / 2);
  const traces = [];
  for (let at = 0; at < pairs; at++) {
    const low = levels[at], high = levels[levels.length - 1 - at];
    traces.push({ ...edge, x, y: [...from, ...next.quantiles[low]] }, { ...edge, x, y: [...from, ...next.quantiles[high]], fill: "tonexty", fillcolor: colour("--fan") });
  }
  traces.push({
    ...plain, x, y: [...from, ...next.quantiles[middle]], hoverinfo: undefined, hovertemplate: "%{y:.4~g}<extra>forecast</extra>",
    line: { color: colour("--median"), width: 1.8, dash: "dash" },
  });
  return traces;
}
