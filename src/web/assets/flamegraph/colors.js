//! Colours of boxes. Pure but for the hatch, which is drawn once per theme.
//!
//! Every kind has one hue, chroma and lightness in OKLCH, found by a search that kept the kinds apart for normal eyes and for
//! the three kinds of colour blindness, and text on them at 4.5 : 1 or better. `tests/web/colors.test.js` holds that line.

import { context2d } from "../dom.js";
import { FOLDED, hashText } from "./tree.js";

/** @typedef {import("./tree.js").Functions} Functions */
/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {[lightness: number, chroma: number, hue: number]} Lch */
/** @typedef {"kind" | "library" | "package" | "group" | "plain"} Mode */

/** Runtimes in the order of the legend: code of the documents, name, light, dark. @type {{code: number, name: string, light: Lch, dark: Lch}[]} */
export const KINDS = [
  { code: 4, name: "Kernel", light: [0.7, 0.113, 23], dark: [0.49, 0.084, 14] },
  { code: 3, name: "Native", light: [0.7, 0.097, 266], dark: [0.408, 0.115, 268] },
  { code: 11, name: "Go", light: [0.777, 0.071, 203], dark: [0.49, 0.085, 209] },
  { code: 5, name: "JVM", light: [0.885, 0.079, 164], dark: [0.345, 0.06, 164] },
  { code: 1, name: "Python", light: [0.778, 0.125, 91], dark: [0.418, 0.081, 89] },
  { code: 8, name: "JavaScript", light: [0.885, 0.125, 91], dark: [0.49, 0.102, 98] },
  { code: 6, name: "Ruby", light: [0.763, 0.107, 28], dark: [0.383, 0.112, 4] },
  { code: 2, name: "PHP", light: [0.774, 0.125, 291], dark: [0.356, 0.115, 293] },
  { code: 7, name: "Perl", light: [0.822, 0.07, 162], dark: [0.448, 0.098, 154] },
  { code: 10, name: ".NET", light: [0.885, 0.055, 294], dark: [0.347, 0.115, 326] },
  { code: 12, name: "BEAM", light: [0.7, 0.055, 334], dark: [0.422, 0.115, 342] },
  { code: 13, name: "LuaJIT", light: [0.828, 0.088, 286], dark: [0.49, 0.115, 283] },
];

/** Frames that are no known code: no name, truncated, an error. @type {{light: Lch, dark: Lch}} */
const UNKNOWN = { light: [0.83, 0.004, 250], dark: [0.4, 0.006, 250] };
/** Root and first level. @type {{light: Lch, dark: Lch}} */
const LEVEL = { light: [0.9, 0.012, 250], dark: [0.33, 0.014, 250] };
/** Boxes too narrow to draw. @type {{light: Lch, dark: Lch}} */
const MERGED = { light: [0.78, 0.006, 250], dark: [0.45, 0.008, 250] };

/** Lightness steps by the hash of the name, so that neighbours differ. */
export const STEPS = [-0.018, -0.006, 0.006, 0.018];
/** How much lighter an inlined function is. */
export const INLINED_LIGHTER = { light: 0.035, dark: 0.022 };

/** Text on boxes. @type {{light: string, dark: string}} */
export const INK = { light: "#15181c", dark: "#f4f6f8" };

/**
 * Categorical colours of series and groups, kept apart for every kind of eye by the same search.
 * @type {{light: Lch, dark: Lch}[]}
 */
export const SERIES = [
  { light: [0.687, 0.15, 263], dark: [0.559, 0.15, 269] },
  { light: [0.586, 0.12, 82], dark: [0.86, 0.13, 83] },
  { light: [0.761, 0.08, 160], dark: [0.86, 0.143, 180] },
  { light: [0.635, 0.15, 358], dark: [0.648, 0.11, 11] },
  { light: [0.82, 0.129, 218], dark: [0.655, 0.103, 235] },
  { light: [0.568, 0.15, 280], dark: [0.794, 0.105, 285] },
  { light: [0.701, 0.145, 96], dark: [0.68, 0.142, 101] },
  { light: [0.48, 0.116, 324], dark: [0.55, 0.133, 346] },
  { light: [0.48, 0.145, 21], dark: [0.758, 0.08, 39] },
  { light: [0.82, 0.15, 108], dark: [0.55, 0.122, 112] },
];

/** Linear sRGB of OKLCH. @param {Lch} color @returns {[number, number, number]} */
export function linear([lightness, chroma, hue]) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

/** Bytes of sRGB. @param {Lch} color @returns {[number, number, number]} */
export function rgb(color) {
  const [r, g, b] = linear(color).map((c) => {
    const clamped = Math.min(1, Math.max(0, c));
    return Math.round(255 * (clamped <= 0.0031308 ? 12.92 * clamped : 1.055 * clamped ** (1 / 2.4) - 0.055));
  });
  return [r ?? 0, g ?? 0, b ?? 0];
}

/** @param {Lch} color */
export function css(color) {
  return `rgb(${rgb(color).join(" ")})`;
}

/** A pixel as image data stores it (all machines that browsers run on are little-endian). @param {[number, number, number]} color */
function pixel([r, g, b]) {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** @param {string} color `#rrggbb` @returns {[number, number, number]} */
export function hex(color) {
  const n = Number.parseInt(color.trim().slice(1), 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

/** @param {[number, number, number]} a @param {[number, number, number]} b @param {number} share of b @returns {[number, number, number]} */
function blend(a, b, share) {
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share];
}

/** Whether a function is shown hatched: a marker, or code without a name. @param {Functions} functions @param {number} f */
export function isUnknown(functions, f) {
  const kind = functions.kind[f] ?? 0;
  return kind === 0 || (kind >= 128 && kind < 256) || (kind < 128 && functions.reason(f) !== "");
}

/** Colour of a runtime, `null` for codes that have none. @param {number} code @param {"light" | "dark"} theme @returns {Lch | null} */
export function kindColor(code, theme) {
  const kind = KINDS.find((k) => k.code === (code === 9 ? 2 : code));
  return kind ? kind[theme] : null;
}

/** Name of a kind for people. @param {number} code */
export function kindName(code) {
  if (code === 256) return "Everything";
  if (code === 257) return "Group";
  if (code === FOLDED) return "Folded away";
  if (code >= 128) return "Marker";
  return KINDS.find((k) => k.code === (code === 9 ? 2 : code))?.name ?? "Unknown";
}

/** @param {"light" | "dark"} theme */
export function unknownColor(theme) {
  return UNKNOWN[theme];
}

/** Module path of a function: what stands before its own name, else its library. @param {string} name @param {string} library */
export function packageOf(name, library) {
  const bare = name.split(/[<(]/, 1)[0] ?? "";
  const rust = bare.lastIndexOf("::");
  if (rust > 0) return bare.slice(0, bare.indexOf("::", bare.indexOf("::") + 2) > 0 ? bare.indexOf("::", bare.indexOf("::") + 2) : rust);
  const slash = bare.lastIndexOf("/");
  const dot = bare.indexOf(".", slash + 1);
  if (dot > 0 && !/\+0x/.test(name)) return bare.slice(0, dot);
  return library;
}

/** Colour of a group by its name: twelve hues, three tones. @param {string} text @param {"light" | "dark"} theme @returns {Lch} */
function hashed(text, theme) {
  const hash = hashText(text);
  const hue = (hash % 12) * 30 + 10;
  const tone = (hash >>> 8) % 3;
  return theme === "light" ? [0.74 + tone * 0.06, 0.085, hue] : [0.36 + tone * 0.05, 0.07, hue];
}

/**
 * Everything that painting needs to know about colours.
 * @typedef {object} Paint
 * @property {Uint32Array} node pixel of each node
 * @property {Uint8Array} hatched per function
 * @property {Uint8Array | null} match per function while a search is on
 * @property {string} ink
 * @property {string} inkFaded
 * @property {string} background
 * @property {number} backgroundPixel
 * @property {number} mergedPixel
 * @property {number} mergedFadedPixel
 * @property {string} font family of labels
 * @property {(context: CanvasRenderingContext2D, ratio: number) => CanvasPattern | string} hatch
 */

/**
 * Base colour of each function by mode; groups are coloured per node, see {@link mixPaint}.
 * @param {Functions} functions @param {Mode} mode @param {"light" | "dark"} theme @param {number} f
 * @returns {Lch}
 */
function functionColor(functions, mode, theme, f) {
  const kind = functions.kind[f] ?? 0;
  if (kind === FOLDED) return MERGED[theme];
  if (kind >= 256) return LEVEL[theme];
  if (isUnknown(functions, f) && mode !== "group") return UNKNOWN[theme];
  const name = functions.name(f);
  const step = STEPS[hashText(name) & 3] ?? 0;
  const lighter = functions.inlined[f] ? INLINED_LIGHTER[theme] : 0;
  /** @type {Lch} */
  let base;
  if (mode === "library") base = hashed(functions.library(f) || kindName(kind), theme);
  else if (mode === "package") base = hashed(packageOf(name, functions.library(f)) || kindName(kind), theme);
  else if (mode === "plain") base = theme === "light" ? [0.82, 0.075, 70] : [0.4, 0.06, 60];
  else base = kindColor(kind, theme) ?? UNKNOWN[theme];
  return [base[0] + step * (mode === "plain" ? 2 : 1) + lighter, base[1], base[2]];
}

/**
 * Pixels of all nodes for a mode, a theme and a search.
 * @param {Tree} tree
 * @param {Functions} functions
 * @param {Mode} mode
 * @param {"light" | "dark"} theme
 * @param {Uint8Array | null} match per function, `null` without a search
 * @param {{background: string, font: string}} page
 * @returns {Paint}
 */
export function mixPaint(tree, functions, mode, theme, match, page) {
  const background = hex(page.background);
  const own = new Uint32Array(functions.count);
  const hatched = new Uint8Array(functions.count);
  for (let f = 0; f < functions.count; f += 1) {
    const color = rgb(functionColor(functions, mode, theme, f));
    const fades = match && !match[f];
    own[f] = pixel(fades ? blend(color, background, 0.78) : color);
    hatched[f] = isUnknown(functions, f) ? 1 : 0;
  }
  const node = new Uint32Array(tree.count);
  if (mode === "group") {
    const steps = new Uint8Array(functions.count);
    for (let f = 0; f < functions.count; f += 1) steps[f] = functions.hash[f] ?? 0;
    /** @type {number[]} */
    let tones = [];
    let until = 0;
    for (let i = 1; i < tree.count; i += 1) {
      if (i >= until) {
        until = tree.end[i] ?? 0;
        const base = hashed(functions.name(tree.fn[i] ?? 0), theme);
        const colors = STEPS.map((step) => rgb([base[0] + step, base[1], base[2]]));
        tones = [...colors.map(pixel), ...colors.map((c) => pixel(blend(c, background, 0.78)))];
      }
      const f = tree.fn[i] ?? 0;
      node[i] = tones[((steps[f] ?? 0) & 3) + (match && !match[f] ? 4 : 0)] ?? 0;
    }
    node[0] = own[tree.fn[0] ?? 0] ?? 0;
  } else {
    for (let i = 0; i < tree.count; i += 1) node[i] = own[tree.fn[i] ?? 0] ?? 0;
  }
  const merged = rgb(MERGED[theme]);
  return {
    node,
    hatched,
    match,
    ink: INK[theme],
    inkFaded: theme === "light" ? "#5b626b" : "#959ca5",
    background: page.background,
    backgroundPixel: pixel(background),
    mergedPixel: pixel(merged),
    mergedFadedPixel: pixel(blend(merged, background, 0.7)),
    font: page.font,
    hatch: (context, ratio) => hatchOf(context, theme, ratio),
  };
}

/** @type {Map<string, CanvasPattern>} */
const hatches = new Map();

/** Diagonal lines, six CSS pixels apart. @param {CanvasRenderingContext2D} context @param {"light" | "dark"} theme @param {number} ratio */
function hatchOf(context, theme, ratio) {
  const id = `${theme} ${ratio}`;
  let hatch = hatches.get(id);
  if (!hatch) {
    const size = Math.max(4, Math.round(6 * ratio));
    const tile = document.createElement("canvas");
    tile.width = size;
    tile.height = size;
    const pen = context2d(tile);
    pen.strokeStyle = theme === "light" ? "rgb(0 0 0 / 0.10)" : "rgb(255 255 255 / 0.10)";
    pen.lineWidth = ratio * 1.5;
    for (const shift of [-size, 0, size]) {
      pen.beginPath();
      pen.moveTo(shift - 1, size + 1);
      pen.lineTo(shift + size + 1, -1);
      pen.stroke();
    }
    hatch = context.createPattern(tile, "repeat") ?? undefined;
    if (hatch) hatches.set(id, hatch);
  }
  return hatch ?? "rgb(0 0 0 / 0)";
}
