//! Search in a tree: which functions match and how much of the picture they are. Pure.

import { FOLDED } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./tree.js").Functions} Functions */

/**
 * Reads what a person typed: `/…/` is a regular expression (case counts when it has capitals), all else plain text.
 * @param {string} text
 * @returns {{test: (name: string) => boolean, problem: string} | null} `null` for an empty search
 */
export function pattern(text) {
  if (text.trim() === "") return null;
  const regex = /^\/(.*?)\/?$/.exec(text);
  if (regex && text.length > 1 && (text.endsWith("/") || /[\\^$*+?()[\]{}|]/.test(text))) {
    const source = regex[1] ?? "";
    if (source === "") return null;
    try {
      const compiled = new RegExp(source, /[A-Z]/.test(source.replace(/\\./g, "")) ? "u" : "iu");
      return { test: (name) => compiled.test(name), problem: "" };
    } catch (error) {
      const why = error instanceof Error ? error.message.replace(/^Invalid regular expression: /, "").replace(/^\/.*\/[a-z]*: /, "") : "not a regular expression";
      return { test: () => false, problem: why.charAt(0).toLowerCase() + why.slice(1) };
    }
  }
  const wanted = text.trim().toLowerCase();
  return { test: (name) => name.toLowerCase().includes(wanted), problem: "" };
}

/**
 * One flag per function: its name, library or file matches. The root never does.
 * @param {Functions} functions
 * @param {(name: string) => boolean} test
 */
export function matchFunctions(functions, test) {
  /** Each text is tested once, however many functions carry it. */
  const texts = new Int8Array(functions.strings.length).fill(-1);
  /** @param {number} at */
  const hit = (at) => {
    let known = texts[at] ?? 0;
    if (known < 0) {
      known = test(functions.strings[at] ?? "") ? 1 : 0;
      texts[at] = known;
    }
    return known === 1;
  };
  const flags = new Uint8Array(functions.count);
  const { name, library } = functions.columns;
  for (let f = 0; f < functions.count; f += 1) {
    if (functions.kind[f] === 256 || functions.kind[f] === FOLDED) continue;
    if (hit(name[f] ?? 0) || ((library[f] ?? 0) !== 0 && hit(library[f] ?? 0))) flags[f] = 1;
  }
  return flags;
}

/**
 * Samples with at least one match on their stack (a match inside a match is not counted again), and the matches in order.
 * @param {Tree} tree
 * @param {Uint8Array} flags per function
 * @param {number} functionCount
 */
export function measure(tree, flags, functionCount) {
  let samples = 0;
  let covered = 0;
  const seen = new Uint8Array(functionCount);
  let functions = 0;
  /** @type {number[]} */
  const nodes = [];
  for (let i = 0; i < tree.count; i += 1) {
    const f = tree.fn[i] ?? 0;
    if (!flags[f]) continue;
    nodes.push(i);
    if (!seen[f]) {
      seen[f] = 1;
      functions += 1;
    }
    if (i >= covered) {
      samples += tree.total[i] ?? 0;
      covered = tree.end[i] ?? 0;
    }
  }
  return { samples, functions, nodes };
}
