//! The picture's stacks in formats that other tools read. Pure, but for `save`.

import { pathTo } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./tree.js").Functions} Functions */

/** Name of a function in an export; the library stands with names that mean nothing without it. @param {Functions} functions @param {number} f */
function exportedName(functions, f) {
  return functions.name(f) || "[unknown]";
}

/**
 * Collapsed stacks: `process;main;work 42`, one line per stack, root first.
 * @param {Tree} tree
 * @param {Functions} functions
 */
export function collapsed(tree, functions) {
  /** @type {string[]} */
  const lines = [];
  for (let i = 1; i < tree.count; i += 1) {
    const self = tree.self[i] ?? 0;
    if (self > 0) lines.push(`${stackText(tree, functions, i, ";")} ${self}`);
  }
  return `${lines.join("\n")}\n`;
}

/**
 * Names from the outermost frame to `node`.
 * @param {Tree} tree @param {Functions} functions @param {number} node @param {string} separator
 */
export function stackText(tree, functions, node, separator) {
  return pathTo(tree, node).map((i) => exportedName(functions, tree.fn[i] ?? 0).replaceAll(separator === ";" ? ";" : "\u0000", ":")).join(separator);
}

/**
 * A profile of speedscope's file format (https://www.speedscope.app/file-format-schema.json), type `sampled`.
 * @param {Tree} tree
 * @param {Functions} functions
 * @param {string} name
 */
export function speedscope(tree, functions, name) {
  /** @type {Map<number, number>} */
  const places = new Map();
  /** @type {{name: string, file?: string}[]} */
  const frames = [];
  const samples = [];
  const weights = [];
  for (let i = 1; i < tree.count; i += 1) {
    const self = tree.self[i] ?? 0;
    if (self === 0) continue;
    samples.push(
      pathTo(tree, i).map((node) => {
        const f = tree.fn[node] ?? 0;
        let place = places.get(f);
        if (place === undefined) {
          place = frames.length;
          places.set(f, place);
          const file = functions.file(f) || functions.library(f);
          frames.push(file ? { name: exportedName(functions, f), file } : { name: exportedName(functions, f) });
        }
        return place;
      }),
    );
    weights.push(self);
  }
  return JSON.stringify({
    $schema: "https://www.speedscope.app/file-format-schema.json",
    exporter: "everflame",
    name,
    activeProfileIndex: 0,
    shared: { frames },
    profiles: [{ type: "sampled", name, unit: "none", startValue: 0, endValue: tree.total[0] ?? 0, samples, weights }],
  });
}

/**
 * Hands a text to the browser's downloads.
 * @param {string} text
 * @param {string} name
 * @param {string} type
 */
export function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
