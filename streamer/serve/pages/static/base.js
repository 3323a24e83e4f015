// Shared by all pages: elements made from text (never from markup), requests with a token, and the dialog that asks for one.

const KEPT = "streamer.token"; // sessionStorage: this tab's, gone when it is closed
const SUBPROTOCOL = "streamer"; // a browser can't set headers of a WebSocket: the token is offered as a second one

export const byId = (id) => document.getElementById(id);

/** An element. `properties` are set on it (`data-`, `aria-` and `role` as attributes), `children` are nodes or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (/^(data-|aria-|role$|scope$|colspan$)/.test(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const token = () => sessionStorage.getItem(KEPT) ?? "";

/** An answer that is an error: `status`, the daemon's own sentence, and `retryAfter` seconds, if given. */
export class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** `fetch` of this daemon's JSON. Throws {@link ApiError}; status 0: it can't be reached. Asks for a token where one is missing. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
  } catch {
    throw new ApiError(0, "The daemon can't be reached. It may be starting again.");
  }
  if (answer.ok) return answer.json();
  const error = new ApiError(answer.status, reasonIn(await answer.text()), Number(answer.headers.get("Retry-After")) || undefined);
  if (answer.status === 401 && !declined) askToken(error.message);
  throw error;
}

/** The sentence of an error's body: `{"error": "..."}`, OpenAI's `{"error": {"message"}}`, or plain text. */
export function reasonIn(body) {
  try {
    const { error } = JSON.parse(body);
    return typeof error === "string" ? error : error.message;
  } catch {
    return body.slice(0, 500).trim() || "The daemon gave no reason.";
  }
}

export function openSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url, token() ? [SUBPROTOCOL, `streamer.token.${token()}`] : []);
}

/** Why a handshake failed. Browsers give no reason, so the daemon is asked over HTTP. */
export async function whyNot(path = "/v1/models") {
  try {
    await ask(path);
    return "";
  } catch (error) {
    return error.message;
  }
}

// -- the dialog ---------------------------------------------------------------------------------------------------------

let asking = null;
let declined = false; // the dialog was closed: a page with a request every few seconds must not open it again

/** Shows the dialog; `reason` says why. The page starts over with the token that is given. */
export function askToken(reason = "") {
  if (asking) return;
  const field = make("input", { type: "password", autocomplete: "off", spellcheck: false, value: token(), id: "token" });
  const form = make(
    "form",
    { method: "dialog" },
    make("h2", { id: "token-title" }, "Access token"),
    make("p", { className: "soft" }, reason || "This daemon needs a token if it has a file of tokens. Ask its administrator."),
    make("label", {}, "Token", field),
    make(
      "div",
      { className: "row" },
      make("button", { className: "main", value: "use" }, "Use it"),
      make("button", { value: "forget" }, "Forget it"),
      make("button", { value: "" }, "Cancel"),
    ),
    make("p", { className: "soft" }, make("small", {}, "It stays in this tab and is sent to this daemon alone.")),
  );
  asking = make("dialog", { "aria-labelledby": "token-title" }, form);
  asking.addEventListener("close", () => {
    const choice = asking.returnValue;
    asking.remove();
    asking = null;
    declined = true;
    if (choice === "use" && field.value.trim()) sessionStorage.setItem(KEPT, field.value.trim());
    else if (choice === "forget") sessionStorage.removeItem(KEPT);
    else return;
    location.reload();
  });
  document.body.append(asking);
  asking.showModal();
}

byId("access")?.addEventListener("click", () => askToken());

// -- numbers for people -------------------------------------------------------------------------------------------------

/** A number with as many digits as make sense: three, or all before the point. */
export function shown(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  return value.toLocaleString(undefined, { maximumSignificantDigits: Math.max(digits, Math.ceil(Math.log10(size + 1)) + (size < 100 ? 1 : 0)) });
}

export const percent = (share, digits = 0) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–");

/** Seconds as readable text. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${shown(seconds)} s`;
  if (seconds < 3600) return `${shown(seconds / 60)} min`;
  return seconds < 172800 ? `${shown(seconds / 3600)} h` : `${shown(seconds / 86400)} days`;
}

export function bytes(count) {
  const size = Math.abs(count);
  if (!Number.isFinite(size)) return "–";
  const step = size < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(size) / 10));
  return `${shown(count / 1024 ** step)} ${["B", "KiB", "MiB", "GiB"][step]}`;
}

/** Text into the clipboard, also where the page is no secure context. True if it worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, className: "only-heard" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

export function download(name, text, type = "text/plain") {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
