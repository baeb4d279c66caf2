//! The line below the graph: what is under the pointer, else the legend.

import { place, whyUnknown } from "../details.js";
import { fill, h } from "../dom.js";
import { coreTime, percent, share, short, whole } from "../format.js";
import { theme } from "../theme.js";
import { FOLDED, titleOf } from "./tree.js";
import { KINDS, css, isUnknown, unknownColor } from "./colors.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./tree.js").Functions} Functions */
/** @typedef {import("../types.js").Totals} Totals */

/**
 * The same facts as text, for screen readers.
 * @param {Tree} tree @param {Functions} functions @param {number} node @param {Totals} totals
 */
export function spoken(tree, functions, node, totals) {
  const f = tree.fn[node] ?? 0;
  const samples = Math.max(1, totals.samples);
  const name = titleOf(functions, f);
  const why = whyUnknown(functions, f);
  return `${name}, ${percent((tree.total[node] ?? 0) / samples)} of samples, ${percent((tree.self[node] ?? 0) / samples)} self, level ${tree.depth[node] ?? 0}${why ? `. ${why}` : ""}`;
}

/**
 * @param {HTMLElement} line
 * @param {Tree} tree @param {Functions} functions @param {import("./pick.js").Pick} pick @param {Totals} totals
 */
export function showBox(line, tree, functions, pick, totals) {
  const samples = Math.max(1, totals.samples);
  const nsPerSample = totals.cpu_ns / samples;
  if (pick.count > 1) {
    fill(
      line,
      h("span", { class: "line-name", text: `${whole(pick.count)} boxes too narrow to draw` }),
      h("span", { class: "faint", text: "zoom in to see them" }),
      h("span", { class: "grow" }),
      h("span", { class: "line-number", text: `${percent(pick.samples / samples)} (${short(pick.samples)})` }),
    );
    return;
  }
  const { node } = pick;
  const f = tree.fn[node] ?? 0;
  const self = tree.self[node] ?? 0;
  const total = tree.total[node] ?? 0;
  if (functions.kind[f] === FOLDED) {
    fill(
      line,
      h("span", { class: "line-name", text: `${whole(tree.line[node] ?? 0)} boxes folded away by the server` }),
      h("span", { class: "faint", text: "filter or narrow the range to see them" }),
      h("span", { class: "grow" }),
      h("span", { class: "line-number", text: `${percent(total / samples)} (${short(total)})` }),
    );
    return;
  }
  const source = place(functions.file(f), tree.line[node] ?? 0);
  const why = whyUnknown(functions, f);
  fill(
    line,
    h("span", { class: "line-name code", text: titleOf(functions, f) }),
    functions.inlined[f] ? h("span", { class: "faint", text: "inlined" }) : null,
    source !== "" && h("span", { class: "code faint line-place", text: source }),
    functions.library(f) !== "" && h("span", { class: "code faint", text: functions.library(f) }),
    why !== "" && h("span", { class: "faint line-why", text: why }),
    h("span", { class: "grow" }),
    h("span", { class: "line-number" }, h("span", { class: "faint", text: "self " }), `${share(self, samples, totals.precision)} (${short(self)})`),
    h("span", { class: "line-number" }, h("span", { class: "faint", text: "total " }), `${share(total, samples, totals.precision)} (${short(total)}, ${coreTime(total * nsPerSample)})`),
  );
}

/**
 * Kinds of code with their share of self time, largest first.
 * @param {Tree} tree @param {Functions} functions
 * @returns {{name: string, code: number, self: number}[]}
 */
export function kindShares(tree, functions) {
  /** @type {Map<number, number>} */
  const sums = new Map();
  for (let i = 0; i < tree.count; i += 1) {
    const self = tree.self[i] ?? 0;
    if (self === 0) continue;
    const f = tree.fn[i] ?? 0;
    const code = isUnknown(functions, f) ? -1 : functions.kind[f] ?? 0;
    if (code === FOLDED) continue;
    sums.set(code, (sums.get(code) ?? 0) + self);
  }
  return [...sums]
    .map(([code, self]) => ({ code, self, name: code === -1 ? "Without a name" : KINDS.find((k) => k.code === code)?.name ?? "Other" }))
    .sort((a, b) => b.self - a.self);
}

/**
 * @param {HTMLElement} line
 * @param {{name: string, code: number, self: number}[]} shares
 * @param {Totals} totals
 * @param {string} note
 */
export function showLegend(line, shares, totals, note) {
  fill(
    line,
    ...shares.slice(0, 8).map(({ name, code, self }) => {
      const mark = h("span", { class: code === -1 ? "dot dot-unknown" : "dot" });
      const kind = KINDS.find((k) => k.code === code);
      mark.style.backgroundColor = css(kind ? kind[theme()] : unknownColor(theme()));
      return h("span", { class: "legend-item", title: `${whole(self)} samples end in ${code === -1 ? "code without a name" : name}` }, mark, name, h("span", { class: "faint", text: ` ${percent(self / Math.max(1, totals.samples))}` }));
    }),
    h("span", { class: "grow" }),
    note !== "" && h("span", { class: "faint", text: note }),
  );
}
