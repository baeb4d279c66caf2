//! The whole tree beside a view that is too small for it, with a frame around what the view shows.

import { context2d, h } from "../dom.js";
import { tokens } from "../theme.js";
import { contentHeight, rowAt, rowOffset } from "./draw.js";
import { Boxes, collectRow } from "./layout.js";

/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./draw.js").Camera} Camera */

export const WIDTH = 72;

export class Minimap {
  /** @param {(x0: number, x1: number, scroll: number) => void} onMove */
  constructor(onMove) {
    this.canvas = h("canvas", { class: "minimap", hidden: true, title: "The whole graph; drag to move the view" });
    this.onMove = onMove;
    this.boxes = new Boxes();
    /** @type {HTMLCanvasElement | null} */
    this.picture = null;
    /** @type {Layout | null} */
    this.layout = null;
    /** @type {Camera | null} */
    this.camera = null;
    this.viewHeight = 0;
    this.height = 0;
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.#move(event);
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.canvas.hasPointerCapture(event.pointerId)) this.#move(event);
    });
  }

  /** The picture is painted anew at the next draw. */
  forget() {
    this.picture = null;
  }

  /**
   * @param {Layout} layout @param {Camera} camera @param {import("./colors.js").Paint} paint
   * @param {number} viewHeight CSS pixels
   */
  draw(layout, camera, paint, viewHeight) {
    const needed = contentHeight(layout, camera) > viewHeight + 1;
    if (this.canvas.hidden === needed) this.canvas.hidden = !needed;
    if (!needed) return;
    this.layout = layout;
    this.camera = camera;
    this.viewHeight = viewHeight;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(WIDTH * ratio);
    const tall = Math.max(1, Math.round(viewHeight * ratio));
    if (this.canvas.width !== width || this.canvas.height !== tall) {
      this.canvas.width = width;
      this.canvas.height = tall;
      this.picture = null;
    }
    const rows = layout.tree.maxDepth + 1;
    this.height = Math.min(tall, rows * Math.max(1, Math.round(3 * ratio)));
    if (!this.picture) this.picture = this.#paint(layout, paint, width, rows);
    const context = context2d(this.canvas);
    context.fillStyle = paint.background;
    context.fillRect(0, 0, width, tall);
    context.imageSmoothingEnabled = rows > this.height;
    const top = camera.flipped ? tall - this.height : 0;
    if (camera.flipped) context.setTransform(1, 0, 0, -1, 0, tall);
    context.drawImage(this.picture, 0, 0, width, rows, 0, 0, width, this.height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    // The frame: rows and samples that the view shows.
    const whole = layout.tree.total[0] || 1;
    const first = Math.max(0, rowAt(camera, camera.scroll));
    const last = Math.min(rows, rowAt(camera, camera.scroll + viewHeight) + 1);
    const y0 = (first / rows) * this.height;
    const y1 = (last / rows) * this.height;
    const x0 = (camera.x0 / whole) * width;
    const x1 = Math.max(x0 + 3, (camera.x1 / whole) * width);
    const colors = tokens();
    context.strokeStyle = colors.accent;
    context.lineWidth = Math.max(1, Math.round(1.5 * ratio));
    const half = context.lineWidth / 2;
    context.strokeRect(x0 + half, (camera.flipped ? top + this.height - y1 : y0) + half, x1 - x0 - 2 * half, Math.max(2, y1 - y0 - 2 * half));
  }

  /** @param {Layout} layout @param {import("./colors.js").Paint} paint @param {number} width @param {number} rows */
  #paint(layout, paint, width, rows) {
    const picture = document.createElement("canvas");
    picture.width = width;
    picture.height = rows;
    const context = context2d(picture);
    const image = context.createImageData(width, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const whole = layout.tree.total[0] || 1;
    for (let depth = 0; depth < rows; depth += 1) {
      this.boxes.count = 0;
      collectRow(layout, depth, 0, whole, width / whole, this.boxes);
      for (let b = 0; b < this.boxes.count; b += 1) {
        const x0 = Math.round(this.boxes.x0[b] ?? 0);
        const x1 = Math.max(x0 + 1, Math.round(this.boxes.x1[b] ?? 0));
        const node = layout.rowNode[this.boxes.place[b] ?? 0] ?? 0;
        pixels.fill((this.boxes.merged[b] ?? 0) > 1 ? paint.mergedPixel : paint.node[node] ?? 0, depth * width + x0, depth * width + Math.min(width, x1));
      }
    }
    context.putImageData(image, 0, 0);
    return picture;
  }

  /** Centres the view on the pointer. @param {PointerEvent} event */
  #move(event) {
    const { layout, camera } = this;
    if (!layout || !camera) return;
    const ratio = window.devicePixelRatio || 1;
    const rows = layout.tree.maxDepth + 1;
    const whole = layout.tree.total[0] || 1;
    const y = camera.flipped ? this.viewHeight - event.offsetY : event.offsetY;
    const depth = Math.floor(((y * ratio) / Math.max(1, this.height)) * rows);
    const middle = (event.offsetX / WIDTH) * whole;
    const size = camera.x1 - camera.x0;
    this.onMove(middle - size / 2, middle + size / 2, rowOffset(camera, Math.max(0, depth)) - this.viewHeight / 2);
  }
}
