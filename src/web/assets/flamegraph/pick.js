//! What lies under a place of the picture: by binary search in the row, never by colours. Pure.

import { firstFrom, placeAt } from "./layout.js";

/** @typedef {import("./layout.js").Layout} Layout */

/**
 * `count` is 1 for a box of its own; more when boxes under one pixel are merged there, `samples` is then their sum.
 * @typedef {{node: number, count: number, samples: number}} Pick
 */

/**
 * @param {Layout} layout
 * @param {number} depth row
 * @param {number} x samples
 * @param {number} scale pixels per sample
 * @returns {Pick | null}
 */
export function pick(layout, depth, x, scale) {
  if (depth < 0 || depth > layout.tree.maxDepth) return null;
  const { rowX, rowNode, tree } = layout;
  const from = layout.rowStart[depth] ?? 0;
  const to = layout.rowStart[depth + 1] ?? 0;
  const pixel = 1 / scale;
  const exact = placeAt(layout, depth, x);
  if (exact >= 0) {
    const node = rowNode[exact] ?? 0;
    if ((tree.total[node] ?? 0) >= pixel) return { node, count: 1, samples: tree.total[node] ?? 0 };
  }
  // Narrow boxes within half a pixel to both sides.
  let at = Math.max(from, firstFrom(rowX, from, to, x - pixel / 2) - 1);
  let node = -1;
  let count = 0;
  let samples = 0;
  for (; at < to && (rowX[at] ?? 0) <= x + pixel / 2; at += 1) {
    const candidate = rowNode[at] ?? 0;
    const width = tree.total[candidate] ?? 0;
    if (width >= pixel || (rowX[at] ?? 0) + width < x - pixel / 2) continue;
    if (node < 0 || width > (tree.total[node] ?? 0)) node = candidate;
    count += 1;
    samples += width;
  }
  return node < 0 ? null : { node, count, samples };
}
