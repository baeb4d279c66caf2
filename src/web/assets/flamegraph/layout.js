//! Where boxes stand: x in samples, one row per depth, and which of them a row of pixels can show. Pure.

import { sequence } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */

/**
 * Row `d` is `[rowStart[d], rowStart[d + 1])` in the row arrays, from left to right.
 * @typedef {object} Layout
 * @property {Tree} tree
 * @property {Int32Array} rowStart
 * @property {Int32Array} rowNode node at each place
 * @property {Float64Array} rowX left edge in samples at each place
 * @property {Int32Array} place of each node in the row arrays
 */

/**
 * @param {Tree} tree
 * @param {"name" | "share"} order of siblings; the answer's own order is by name
 * @returns {Layout}
 */
export function layOut(tree, order) {
  const { count, parent, total, depth } = tree;
  const bySize = order === "share" ? sequence(tree, (a, b) => (total[b] ?? 0) - (total[a] ?? 0) || a - b) : null;
  const rowStart = new Int32Array(tree.maxDepth + 2);
  for (let i = 0; i < count; i += 1) rowStart[(depth[i] ?? 0) + 1] = (rowStart[(depth[i] ?? 0) + 1] ?? 0) + 1;
  for (let d = 1; d < rowStart.length; d += 1) rowStart[d] = (rowStart[d] ?? 0) + (rowStart[d - 1] ?? 0);
  const cursor = new Float64Array(count);
  const fillAt = rowStart.slice();
  const rowNode = new Int32Array(count);
  const rowX = new Float64Array(count);
  const place = new Int32Array(count);
  for (let k = 0; k < count; k += 1) {
    const i = bySize ? bySize[k] ?? 0 : k;
    const p = parent[i] ?? 0;
    const x = i === 0 ? 0 : cursor[p] ?? 0;
    if (i !== 0) cursor[p] = x + (total[i] ?? 0);
    cursor[i] = x;
    const d = depth[i] ?? 0;
    const at = fillAt[d] ?? 0;
    fillAt[d] = at + 1;
    rowNode[at] = i;
    rowX[at] = x;
    place[i] = at;
  }
  return { tree, rowStart, rowNode, rowX, place };
}

/** Left edge of a node in samples. @param {Layout} layout @param {number} node */
export function left(layout, node) {
  return layout.rowX[layout.place[node] ?? 0] ?? 0;
}

/**
 * First place in `[low, high)` whose left edge is at or right of `x`, by galloping from `low`.
 * @param {Float64Array} rowX
 * @param {number} low
 * @param {number} high
 * @param {number} x
 */
export function firstFrom(rowX, low, high, x) {
  let step = 1;
  let a = low;
  let b = low;
  while (b < high && (rowX[b] ?? 0) < x) {
    a = b + 1;
    b += step;
    step *= 2;
  }
  if (b > high) b = high;
  while (a < b) {
    const middle = (a + b) >>> 1;
    if ((rowX[middle] ?? 0) < x) a = middle + 1;
    else b = middle;
  }
  return a;
}

/**
 * Place of the box of row `depth` that covers `x`, or -1 between boxes.
 * @param {Layout} layout
 * @param {number} depth
 * @param {number} x samples
 */
export function placeAt(layout, depth, x) {
  if (depth < 0 || depth > layout.tree.maxDepth) return -1;
  const from = layout.rowStart[depth] ?? 0;
  const to = layout.rowStart[depth + 1] ?? 0;
  let at = firstFrom(layout.rowX, from, to, x);
  if (at === to || (layout.rowX[at] ?? 0) > x) at -= 1;
  if (at < from) return -1;
  // Empty boxes share their left edge with the next one; the last box that starts here is the one with width.
  return x < (layout.rowX[at] ?? 0) + (layout.tree.total[layout.rowNode[at] ?? 0] ?? 0) ? at : -1;
}

/** Boxes of the rows on the screen, in growing typed arrays. One is reused from frame to frame. */
export class Boxes {
  constructor() {
    this.count = 0;
    /** First place of the row arrays that the box stands for. */
    this.place = new Int32Array(1024);
    /** 1 for a box of its own, more for as many narrow ones merged, 0 for one narrow box alone. */
    this.merged = new Int32Array(1024);
    /** Edges in pixels, relative to the window; may lie outside of it. */
    this.x0 = new Float64Array(1024);
    this.x1 = new Float64Array(1024);
  }

  /** @param {number} place @param {number} merged @param {number} x0 @param {number} x1 */
  push(place, merged, x0, x1) {
    if (this.count === this.place.length) {
      this.place = grown(this.place, new Int32Array(this.count * 2));
      this.merged = grown(this.merged, new Int32Array(this.count * 2));
      this.x0 = grown(this.x0, new Float64Array(this.count * 2));
      this.x1 = grown(this.x1, new Float64Array(this.count * 2));
    }
    this.place[this.count] = place;
    this.merged[this.count] = merged;
    this.x0[this.count] = x0;
    this.x1[this.count] = x1;
    this.count += 1;
  }
}

/** @template {Int32Array | Float64Array} A @param {A} from @param {A} to @returns {A} */
function grown(from, to) {
  to.set(from);
  return to;
}

/**
 * Appends the boxes of one row that a window shows. Boxes under one pixel are merged with their neighbours under one
 * pixel; each step leaves at least one pixel behind, so the cost depends on the window's width, not on the row's length.
 * @param {Layout} layout
 * @param {number} depth
 * @param {number} x0 left edge of the window in samples
 * @param {number} x1 right edge
 * @param {number} scale pixels per sample
 * @param {Boxes} boxes
 */
export function collectRow(layout, depth, x0, x1, scale, boxes) {
  const { rowX, rowNode, tree } = layout;
  const { total } = tree;
  const to = layout.rowStart[depth + 1] ?? 0;
  const from = layout.rowStart[depth] ?? 0;
  let at = Math.max(from, firstFrom(rowX, from, to, x0) - 1);
  const pixel = 1 / scale;
  while (at < to && (rowX[at] ?? 0) < x1) {
    const x = rowX[at] ?? 0;
    const width = total[rowNode[at] ?? 0] ?? 0;
    if (x + width <= x0) {
      at += 1;
      continue;
    }
    if (width >= pixel) {
      boxes.push(at, 1, (x - x0) * scale, (x + width - x0) * scale);
      at += 1;
      continue;
    }
    const first = at;
    let end = x + width;
    for (;;) {
      // Boxes up to `next` start within one pixel of this one; all but the last of them also end there.
      const next = firstFrom(rowX, at + 1, to, (rowX[at] ?? 0) + pixel);
      const last = next - 1;
      const lastWidth = total[rowNode[last] ?? 0] ?? 0;
      if (last > at && lastWidth >= pixel) {
        end = rowX[last] ?? 0;
        at = last;
        break;
      }
      end = (rowX[last] ?? 0) + lastWidth;
      at = next;
      if (at >= to || (rowX[at] ?? 0) >= x1 || (rowX[at] ?? 0) - end >= pixel || (total[rowNode[at] ?? 0] ?? 0) >= pixel) break;
    }
    boxes.push(first, at - first === 1 ? 0 : at - first, (x - x0) * scale, (end - x0) * scale);
  }
}

/**
 * Deepest row with a box inside the window; rows below have none either.
 * @param {Layout} layout
 * @param {number} x0 samples
 * @param {number} x1
 */
export function deepestRow(layout, x0, x1) {
  let low = 0;
  let high = layout.tree.maxDepth;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (touches(layout, middle, x0, x1)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** @param {Layout} layout @param {number} depth @param {number} x0 @param {number} x1 */
function touches(layout, depth, x0, x1) {
  const from = layout.rowStart[depth] ?? 0;
  const to = layout.rowStart[depth + 1] ?? 0;
  const at = firstFrom(layout.rowX, from, to, x0);
  if (at < to && (layout.rowX[at] ?? 0) < x1) return true;
  return at > from && (layout.rowX[at - 1] ?? 0) + (layout.tree.total[layout.rowNode[at - 1] ?? 0] ?? 0) > x0;
}
