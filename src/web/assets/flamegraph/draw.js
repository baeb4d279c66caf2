//! Paints boxes and labels. One line of pixels per row is computed and stretched to the row's height, so a frame costs
//! the width of the window, not the number of boxes.

import { context2d } from "../dom.js";
import { Boxes, collectRow, deepestRow } from "./layout.js";
import { fit, shortenings } from "./labels.js";
import { titleOf } from "./tree.js";

/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./colors.js").Paint} Paint */

export const ROW = 18;
const FONT_PX = 12;
const LABEL_PAD = 4;

/**
 * Which part of the tree is shown and where. Fractions occur while a zoom is under way.
 * @typedef {object} Camera
 * @property {number} x0 left edge in samples
 * @property {number} x1 right edge in samples, greater than `x0`
 * @property {number} scroll CSS pixels from the root's edge
 * @property {number} thinRows rows drawn thin (ancestors of the zoomed box)
 * @property {number} thinHeight height of those, CSS pixels
 * @property {boolean} flipped root at the bottom
 */

/** Height of thin rows so that the ancestors of a zoomed box never take more than 72 px. @param {number} rows */
export function thinHeight(rows) {
  return rows === 0 ? 0 : Math.max(1, Math.min(7, 72 / rows));
}

/** Distance of a row from the root's edge in CSS pixels, before scrolling. @param {Camera} camera @param {number} depth */
export function rowOffset(camera, depth) {
  const thin = Math.min(depth, camera.thinRows);
  return thin * camera.thinHeight + (depth - thin) * ROW;
}

/** Row at a distance from the root's edge. @param {Camera} camera @param {number} offset */
export function rowAt(camera, offset) {
  if (offset < 0) return -1;
  const thinEnd = camera.thinRows * camera.thinHeight;
  return offset < thinEnd ? Math.floor(offset / camera.thinHeight) : Math.floor(camera.thinRows + (offset - thinEnd) / ROW);
}

/** Height of all rows of the window. @param {Layout} layout @param {Camera} camera */
export function contentHeight(layout, camera) {
  return rowOffset(camera, deepestRow(layout, camera.x0, camera.x1) + 1);
}

export class Painter {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = context2d(canvas, { alpha: false });
    this.boxes = new Boxes();
    /** First row drawn last time, and per drawn row the first of its boxes (one more at the end). */
    this.firstRow = 0;
    /** @type {number[]} */
    this.rowBoxes = [0];
    this.strip = document.createElement("canvas");
    this.stripContext = context2d(this.strip, { willReadFrequently: true });
    /** @type {ImageData | null} */
    this.image = null;
    /** @type {Uint32Array} */
    this.pixels = new Uint32Array(0);
    /** Shortened names by function. @type {(string[] | undefined)[]} */
    this.ways = [];
    /** @type {unknown} */
    this.waysOf = null;
    /** Advance of ASCII at the present font, device pixels; other characters are measured once each. */
    this.advance = 0;
    this.font = "";
    /** @type {Map<number, number>} */
    this.wide = new Map();
  }

  /**
   * Row's top and height in device pixels.
   * @param {Camera} camera
   * @param {number} depth
   * @param {number} height of the canvas, device pixels
   * @param {number} ratio
   */
  static rowBox(camera, depth, height, ratio) {
    const near = Math.round((rowOffset(camera, depth) - camera.scroll) * ratio);
    const far = Math.round((rowOffset(camera, depth + 1) - camera.scroll) * ratio);
    return camera.flipped ? { top: height - far, size: far - near } : { top: near, size: far - near };
  }

  /**
   * @param {Layout} layout
   * @param {Camera} camera
   * @param {Paint} paint
   * @param {import("./tree.js").Functions} functions
   * @param {number} ratio device pixels per CSS pixel
   */
  draw(layout, camera, paint, functions, ratio) {
    const { context, boxes } = this;
    const { width, height } = this.canvas;
    context.fillStyle = paint.background;
    context.fillRect(0, 0, width, height);
    boxes.count = 0;
    this.rowBoxes = [0];
    const first = Math.max(0, rowAt(camera, camera.scroll));
    const last = Math.min(deepestRow(layout, camera.x0, camera.x1), rowAt(camera, camera.scroll + height / ratio));
    this.firstRow = first;
    const rows = last - first + 1;
    if (rows <= 0) return;
    const scale = width / (camera.x1 - camera.x0);
    for (let depth = first; depth <= last; depth += 1) {
      collectRow(layout, depth, camera.x0, camera.x1, scale, boxes);
      this.rowBoxes.push(boxes.count);
    }
    this.#paintStrip(layout, paint, width, rows);
    context.imageSmoothingEnabled = false;
    for (let row = 0; row < rows; row += 1) {
      const box = Painter.rowBox(camera, first + row, height, ratio);
      const gap = box.size >= 3 * ratio ? Math.max(1, Math.floor(ratio)) : 0;
      if (box.size > gap) context.drawImage(this.strip, 0, row, width, 1, 0, box.top + (camera.flipped ? gap : 0), width, box.size - gap);
    }
    this.#paintText(layout, camera, paint, functions, ratio, rows);
  }

  /**
   * One line of pixels per row.
   * @param {Layout} layout @param {Paint} paint @param {number} width @param {number} rows
   */
  #paintStrip(layout, paint, width, rows) {
    const { boxes, strip } = this;
    if (strip.width !== width || strip.height < rows || !this.image) {
      strip.width = width;
      strip.height = rows + 8;
      this.image = this.stripContext.createImageData(width, strip.height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    pixels.fill(paint.backgroundPixel, 0, width * rows);
    for (let row = 0; row < rows; row += 1) {
      const from = this.rowBoxes[row] ?? 0;
      const to = this.rowBoxes[row + 1] ?? 0;
      const line = row * width;
      for (let b = from; b < to; b += 1) {
        const x0 = Math.max(0, Math.round(boxes.x0[b] ?? 0));
        let x1 = Math.min(width, Math.round(boxes.x1[b] ?? 0));
        if (x1 <= x0) x1 = Math.min(width, x0 + 1);
        else if (x1 - x0 >= 3 && x1 < width) x1 -= 1;
        const node = layout.rowNode[boxes.place[b] ?? 0] ?? 0;
        const color = (boxes.merged[b] ?? 0) > 1 ? this.#mergedPixel(layout, paint, b) : paint.node[node] ?? 0;
        pixels.fill(color, line + x0, line + x1);
      }
    }
    if (this.image) this.stripContext.putImageData(this.image, 0, 0, 0, 0, width, rows);
  }

  /** Grey, or the colour of matches when a search is on and one of the merged boxes matches. @param {Layout} layout @param {Paint} paint @param {number} b */
  #mergedPixel(layout, paint, b) {
    if (!paint.match) return paint.mergedPixel;
    const first = this.boxes.place[b] ?? 0;
    const count = Math.min(this.boxes.merged[b] ?? 0, 512);
    for (let k = 0; k < count; k += 1) {
      if (paint.match[layout.tree.fn[layout.rowNode[first + k] ?? 0] ?? 0]) return paint.node[layout.rowNode[first + k] ?? 0] ?? 0;
    }
    return paint.mergedFadedPixel;
  }

  /**
   * Labels, and hatching of boxes without a name.
   * @param {Layout} layout @param {Camera} camera @param {Paint} paint @param {import("./tree.js").Functions} functions
   * @param {number} ratio @param {number} rows
   */
  #paintText(layout, camera, paint, functions, ratio, rows) {
    const { context, boxes } = this;
    const { width, height } = this.canvas;
    if (this.waysOf !== functions) {
      this.waysOf = functions;
      this.ways = new Array(functions.count);
    }
    const font = `${FONT_PX * ratio}px ${paint.font}`;
    context.font = font;
    if (font !== this.font) {
      this.font = font;
      this.advance = context.measureText("0".repeat(32)).width / 32;
      this.wide.clear();
    }
    context.textBaseline = "alphabetic";
    const pad = LABEL_PAD * ratio;
    const narrowest = 3 * this.advance + 2 * pad;
    const hatch = paint.hatch(context, ratio);
    let style = "";
    for (let row = 0; row < rows; row += 1) {
      const box = Painter.rowBox(camera, this.firstRow + row, height, ratio);
      const gap = box.size >= 3 * ratio ? Math.max(1, Math.floor(ratio)) : 0;
      const labelled = box.size >= (FONT_PX + 2) * ratio;
      const top = box.top + (camera.flipped ? gap : 0);
      const baseline = top + Math.round((box.size - gap) / 2 + FONT_PX * ratio * 0.32);
      const to = this.rowBoxes[row + 1] ?? 0;
      for (let b = this.rowBoxes[row] ?? 0; b < to; b += 1) {
        if ((boxes.merged[b] ?? 0) !== 1) continue;
        const x0 = Math.max(0, boxes.x0[b] ?? 0);
        const x1 = Math.min(width, boxes.x1[b] ?? 0);
        if (x1 - x0 < 4) continue;
        const node = layout.rowNode[boxes.place[b] ?? 0] ?? 0;
        const f = layout.tree.fn[node] ?? 0;
        if (paint.hatched[f]) {
          context.fillStyle = hatch;
          style = "";
          context.fillRect(Math.round(x0), top, Math.round(x1) - Math.round(x0) - 1, box.size - gap);
        }
        if (!labelled || x1 - x0 < narrowest) continue;
        const label = this.#label(functions, f, x1 - x0 - 2 * pad);
        if (label === "") continue;
        const ink = paint.match && !paint.match[f] ? paint.inkFaded : paint.ink;
        if (ink !== style) {
          context.fillStyle = ink;
          style = ink;
        }
        context.fillText(label, Math.round(x0 + pad), baseline);
      }
    }
  }

  /** @param {import("./tree.js").Functions} functions @param {number} f @param {number} room device pixels */
  #label(functions, f, room) {
    let ways = this.ways[f];
    if (!ways) {
      const kind = functions.kind[f] ?? 0;
      ways = shortenings(titleOf(functions, f), kind < 128 && functions.reason(f) === "");
      this.ways[f] = ways;
    }
    const label = fit(ways, Math.floor(room / this.advance));
    // ASCII has one advance in a monospace face; only other scripts need measuring, once per character.
    if (/^[ -~…]*$/.test(label)) return label;
    let used = 0;
    for (let i = 0; i < label.length; i += 1) {
      used += this.#width(label.codePointAt(i) ?? 0);
      if (used > room) return i > 1 ? `${label.slice(0, i - 1)}…` : "";
    }
    return label;
  }

  /** @param {number} code */
  #width(code) {
    if (code < 127) return this.advance;
    let width = this.wide.get(code);
    if (width === undefined) {
      width = this.context.measureText(String.fromCodePoint(code)).width;
      this.wide.set(code, width);
    }
    return width;
  }
}
