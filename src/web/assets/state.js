//! Everything a person chose, kept in the URL. The only module that touches `location` and `history`.
//!
//! Each key has a default that is left out of the URL. `docs/ui.md` lists the keys for people.

/** Defaults; the type of the state is their type: every value is text, flags are "" or "1". */
export const DEFAULTS = {
  view: "flamegraph",
  from: "now-15m",
  to: "now",
  filter: "",
  live: "",
  // Flame graph
  by: "process",
  order: "name",
  dir: "icicle",
  color: "kind",
  q: "",
  zoom: "",
  x: "",
  sel: "",
  focus: "",
  ignore: "",
  collapse: "",
  table: "",
  details: "",
  // Functions
  sort: "self",
  rows: "",
  // Stacktraces
  split: "process",
  share: "",
};

/** @typedef {typeof DEFAULTS} State */
/** @typedef {keyof State} Key */

/** Kept when the page changes; everything else belongs to one page. @type {Key[]} */
const SHARED = ["from", "to", "filter", "live"];

/** @type {Set<(now: State, before: State) => void>} */
const listeners = new Set();

/** @type {State} */
let state = typeof location === "undefined" ? { ...DEFAULTS } : parse(location);

/**
 * The page is the last word of the path (none for the flame graph), the rest stands in the query.
 * @param {{pathname: string, search: string}} url
 * @returns {State}
 */
export function parse(url) {
  const params = new URLSearchParams(url.search);
  const word = url.pathname.slice(url.pathname.lastIndexOf("/") + 1);
  const result = { ...DEFAULTS, view: word === "" || word.includes(".") ? DEFAULTS.view : word };
  for (const key of /** @type {Key[]} */ (Object.keys(DEFAULTS))) {
    const value = key === "view" ? null : params.get(key);
    if (value !== null) result[key] = value;
  }
  return result;
}

/**
 * Last word of the path and query for a state; keys at their default are left out.
 * @param {State} wanted
 */
export function serialize(wanted) {
  const page = wanted.view === DEFAULTS.view ? "" : encodeURIComponent(wanted.view);
  const parts = [];
  for (const key of /** @type {Key[]} */ (Object.keys(DEFAULTS))) {
    if (key !== "view" && wanted[key] !== DEFAULTS[key]) {
      parts.push(`${key}=${readable(wanted[key])}`);
    }
  }
  return page + (parts.length ? `?${parts.join("&")}` : "");
}

/** Address of a state on this server, also below a proxy's prefix. @param {State} wanted */
function path(wanted) {
  return location.pathname.slice(0, location.pathname.lastIndexOf("/") + 1) + serialize(wanted);
}

/** Percent-encodes only what a query needs, so that links can be read. @param {string} text */
function readable(text) {
  return encodeURIComponent(text).replace(/%3A/g, ":").replace(/%2F/g, "/").replace(/%2C/g, ",").replace(/%40/g, "@").replace(/%20/g, "+");
}

/** @returns {Readonly<State>} */
export function current() {
  return state;
}

/**
 * URL of a state that differs from the present one by `patch`; another `view` drops the keys of the old one.
 * @param {Partial<State>} patch
 */
export function link(patch) {
  return path(after(patch));
}

/** @param {Partial<State>} patch @returns {State} */
function after(patch) {
  if (patch.view === undefined || patch.view === state.view) return { ...state, ...patch };
  const kept = { ...DEFAULTS };
  for (const key of SHARED) kept[key] = state[key];
  return { ...kept, ...patch };
}

/**
 * Changes the state. `replace` leaves no step for the back button (typing, panning); `mark` is kept with the step.
 * @param {Partial<State>} patch
 * @param {{replace?: boolean, mark?: string}} [how]
 */
export function change(patch, how = {}) {
  const before = state;
  const next = after(patch);
  if (serialize(next) === serialize(before)) return;
  state = next;
  const url = path(next);
  if (how.replace) history.replaceState(history.state, "", url);
  else history.pushState({ mark: how.mark ?? "" }, "", url);
  tell(before);
}

/** What `change` was given as `mark` when the present step was made. @returns {string} */
export function mark() {
  return history.state?.mark ?? "";
}

export function back() {
  history.back();
}

/**
 * Calls `listener` after each change.
 * @param {(now: State, before: State) => void} listener
 */
export function listen(listener) {
  listeners.add(listener);
}

/** @param {State} before */
function tell(before) {
  for (const listener of listeners) listener(state, before);
}

if (typeof window !== "undefined") {
  window.addEventListener("popstate", () => {
    const before = state;
    state = parse(location);
    tell(before);
  });
}
