//! Light or dark, and the colours of the style sheet that canvases need.

/** @typedef {"light" | "dark"} Theme */
/** @typedef {"system" | Theme} Choice */

const STORED = "everflame.theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");
/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {Choice} */
let choice = readChoice();
/** @type {ReturnType<typeof read> | null} */
let cached = null;

/** @returns {Choice} */
function readChoice() {
  try {
    const stored = localStorage.getItem(STORED);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    return "system"; // Storage may be forbidden; then the choice lasts as long as the page.
  }
}

/** @returns {Theme} */
export function theme() {
  return choice === "system" ? (system.matches ? "dark" : "light") : choice;
}

/** The other one; back to the system's when that is the same. */
export function toggle() {
  const wanted = theme() === "dark" ? "light" : "dark";
  choice = wanted === (system.matches ? "dark" : "light") ? "system" : wanted;
  try {
    if (choice === "system") localStorage.removeItem(STORED);
    else localStorage.setItem(STORED, choice);
  } catch {
    // See above.
  }
  apply();
}

/** @param {() => void} listener */
export function onTheme(listener) {
  listeners.add(listener);
}

export function apply() {
  if (choice === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", choice);
  cached = null;
  for (const listener of listeners) listener();
}

system.addEventListener("change", apply);

function read() {
  const style = getComputedStyle(document.documentElement);
  /** @param {string} name */
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    background: value("--ground"),
    text: value("--text"),
    faint: value("--faint"),
    line: value("--line"),
    accent: value("--accent"),
    outline: value("--outline"),
    outlineStrong: value("--outline-strong"),
    bars: value("--bars"),
    mono: value("--mono"),
    sans: value("--sans"),
  };
}

/** Colours and fonts of the present theme. */
export function tokens() {
  cached ??= read();
  return cached;
}
