//! One tree on the screen: camera, selection, hover, animation. Knows neither URL nor server.

import { h, oncePerFrame, reducedMotion, sizeCanvas } from "../dom.js";
import { Painter, ROW, contentHeight, rowAt, rowOffset, thinHeight } from "./draw.js";
import { left } from "./layout.js";
import { Minimap } from "./minimap.js";
import { drawOverlay } from "./overlay.js";
import { pick } from "./pick.js";
import { listenPointer } from "./pointer.js";

/** @typedef {import("./draw.js").Camera} Camera */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./pick.js").Pick} Pick */

const ZOOM_MS = 120;
/** Narrowest window in samples: beyond it a single sample fills the screen many times over. */
const NARROWEST = 0.2;

/**
 * What the owner wants to hear.
 * @typedef {object} Listener
 * @property {(graph: Graph, pick: Pick | null) => void} hover
 * @property {(graph: Graph, node: number) => void} zoom a box was clicked: the owner decides and calls `zoomTo`
 * @property {(graph: Graph, node: number, pin: boolean) => void} select
 * @property {(graph: Graph, node: number, x: number, y: number) => void} menu
 * @property {(graph: Graph) => void} window the window was moved by hand
 */

export class Graph {
  /**
   * @param {Listener} listener
   * @param {string} label for screen readers
   */
  constructor(listener, label) {
    this.listener = listener;
    this.canvas = h("canvas", { class: "graph-boxes" });
    this.overlay = h("canvas", { class: "graph-overlay", "aria-hidden": "true" });
    this.stage = h("div", { class: "graph-stage", tabindex: "0", role: "application", "aria-label": label }, this.canvas, this.overlay);
    this.minimap = new Minimap((x0, x1, scroll) => this.#moveTo(x0, x1, scroll));
    this.element = h("div", { class: "graph" }, this.stage, this.minimap.canvas);
    this.painter = new Painter(this.canvas);
    /** @type {Layout | null} */
    this.layout = null;
    /** @type {import("./colors.js").Paint | null} */
    this.paint = null;
    /** @type {import("./tree.js").Functions | null} */
    this.functions = null;
    /** @type {Camera} */
    this.camera = { x0: 0, x1: 1, scroll: 0, thinRows: 0, thinHeight: 0, flipped: false };
    /** @type {Camera | null} */
    this.target = null;
    this.zoomed = 0;
    this.selected = -1;
    /** @type {Pick | null} */
    this.hovered = null;
    /** Function outlined because another pane or table points at it. */
    this.hinted = -1;
    this.width = 0;
    this.height = 0;
    this.redraw = oncePerFrame(() => this.#frame());
    this.redrawOverlay = oncePerFrame(() => this.#paintOverlay());
    new ResizeObserver(() => this.#resized()).observe(this.stage);
    listenPointer(this);
  }

  /**
   * Shows a tree. The window stays when it is the same picture with other colours or order.
   * @param {Layout} layout
   * @param {import("./tree.js").Functions} functions
   * @param {import("./colors.js").Paint} paint
   * @param {boolean} keepWindow
   */
  show(layout, functions, paint, keepWindow) {
    this.layout = layout;
    this.functions = functions;
    this.paint = paint;
    this.hovered = null;
    if (!keepWindow) {
      this.zoomed = 0;
      this.selected = -1;
      this.target = null;
      this.camera = { ...this.camera, x0: 0, x1: this.#whole(), scroll: 0, thinRows: 0, thinHeight: 0 };
    }
    this.#clamp(this.camera);
    this.minimap.forget();
    this.redraw();
  }

  /** @param {import("./colors.js").Paint} paint */
  recolor(paint) {
    this.paint = paint;
    this.minimap.forget();
    this.redraw();
  }

  /** @param {boolean} flipped */
  flip(flipped) {
    this.camera.flipped = flipped;
    this.minimap.forget();
    this.redraw();
  }

  #whole() {
    return Math.max(1, this.layout?.tree.total[0] ?? 1);
  }

  /** Device pixels per sample. */
  get scale() {
    return this.width / (this.camera.x1 - this.camera.x0);
  }

  /** Whether the window shows all of the zoomed box and nothing else. */
  get atZoom() {
    const wanted = this.#windowOf(this.zoomed);
    const now = this.target ?? this.camera;
    return Math.abs(now.x0 - wanted.x0) < 1e-9 * this.#whole() && Math.abs(now.x1 - wanted.x1) < 1e-9 * this.#whole();
  }

  /** @param {number} node */
  #windowOf(node) {
    if (!this.layout || node <= 0) return { x0: 0, x1: this.#whole() };
    const x0 = left(this.layout, node);
    return { x0, x1: x0 + Math.max(NARROWEST, this.layout.tree.total[node] ?? 0) };
  }

  /**
   * Makes a box the width of the view; its ancestors become thin rows.
   * @param {number} node 0 for everything
   * @param {boolean} animate
   */
  zoomTo(node, animate) {
    if (!this.layout) return;
    this.zoomed = node;
    const thinRows = node > 0 ? this.layout.tree.depth[node] ?? 0 : 0;
    this.#travel({ ...this.camera, ...this.#windowOf(node), thinRows, thinHeight: thinHeight(thinRows), scroll: 0 }, animate);
  }

  /**
   * Moves the window.
   * @param {number} x0 samples
   * @param {number} x1 samples
   * @param {boolean} animate
   */
  setWindow(x0, x1, animate) {
    this.#travel({ ...this.camera, x0, x1 }, animate);
  }

  /** @param {Camera} to @param {boolean} animate */
  #travel(to, animate) {
    this.#clamp(to);
    if (!animate || reducedMotion() || this.width === 0) {
      this.target = null;
      this.camera = to;
      this.redraw();
      return;
    }
    const from = { ...this.camera };
    const start = performance.now();
    this.target = to;
    /** @param {number} now */
    const step = (now) => {
      if (this.target !== to) return;
      const t = Math.min(1, Math.max(0, (now - start) / ZOOM_MS));
      const ease = 1 - (1 - t) ** 3;
      if (t >= 1) {
        this.target = null;
        this.camera = to;
      } else {
        /** @param {number} a @param {number} b */
        const between = (a, b) => a + (b - a) * ease;
        // Rows turn thin one after the other: their count moves, the height of each is the greater of the two ends.
        const thinRows = between(from.thinRows, to.thinRows);
        const thin = Math.max(from.thinHeight, to.thinHeight);
        this.camera = { ...to, x0: between(from.x0, to.x0), x1: between(from.x1, to.x1), scroll: between(from.scroll, to.scroll), thinRows, thinHeight: thin };
      }
      this.#frame();
      if (this.target) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  /** @param {Camera} camera */
  #clamp(camera) {
    const whole = this.#whole();
    const size = Math.min(whole, Math.max(NARROWEST, camera.x1 - camera.x0));
    camera.x0 = Math.min(Math.max(0, camera.x0), whole - size);
    camera.x1 = camera.x0 + size;
    if (this.layout) camera.scroll = Math.max(0, Math.min(camera.scroll, contentHeight(this.layout, camera) - this.cssHeight));
  }

  get cssHeight() {
    return this.stage.clientHeight;
  }

  /**
   * Moves by hand: pan and wheel.
   * @param {number} dx CSS pixels to the right
   * @param {number} dy CSS pixels down
   */
  pan(dx, dy) {
    const perPixel = (this.camera.x1 - this.camera.x0) / Math.max(1, this.stage.clientWidth);
    const camera = { ...this.camera, x0: this.camera.x0 + dx * perPixel, x1: this.camera.x1 + dx * perPixel };
    camera.scroll += this.camera.flipped ? -dy : dy;
    this.#byHand(camera);
  }

  /**
   * Zooms continuously around a place.
   * @param {number} factor more than 1 = closer
   * @param {number} x CSS pixels from the left edge
   */
  zoomAround(factor, x) {
    const share = x / Math.max(1, this.stage.clientWidth);
    const size = this.camera.x1 - this.camera.x0;
    const pivot = this.camera.x0 + size * share;
    const next = Math.min(this.#whole(), Math.max(NARROWEST, size / factor));
    const camera = { ...this.camera, x0: pivot - next * share, x1: pivot + next * (1 - share) };
    const own = this.#windowOf(this.zoomed);
    if (this.zoomed > 0 && next > (own.x1 - own.x0) * 1.05) {
      // Further out than the zoomed box: its ancestors are part of the picture again.
      this.zoomed = 0;
      camera.thinRows = 0;
      camera.thinHeight = 0;
    }
    this.#byHand(camera);
  }

  /** @param {number} x0 @param {number} x1 @param {number} scroll */
  #moveTo(x0, x1, scroll) {
    this.#byHand({ ...this.camera, x0, x1, scroll });
  }

  /** @param {number} scroll CSS pixels from the root's edge */
  scrollTo(scroll) {
    this.#byHand({ ...this.camera, scroll });
  }

  /** @param {Camera} camera */
  #byHand(camera) {
    this.target = null;
    this.#clamp(camera);
    const moved = camera.x0 !== this.camera.x0 || camera.x1 !== this.camera.x1;
    this.camera = camera;
    this.redraw();
    if (moved) this.listener.window(this);
  }

  /**
   * Marks a box and brings it into view.
   * @param {number} node -1 for none
   * @param {boolean} reveal
   */
  select(node, reveal) {
    this.selected = node;
    if (node >= 0 && reveal) this.#reveal(node);
    this.redrawOverlay();
  }

  /** @param {number} node */
  #reveal(node) {
    const { layout } = this;
    if (!layout) return;
    const { tree } = layout;
    const camera = { ...(this.target ?? this.camera) };
    const wanted = this.#windowOf(node);
    const size = camera.x1 - camera.x0;
    const shown = ((wanted.x1 - wanted.x0) / size) * this.stage.clientWidth;
    let moved = false;
    if (shown < 3) {
      // Too narrow to see: the nearest ancestor that leaves it a tenth of the view.
      let around = node;
      while (around > 0 && (tree.total[around] ?? 0) < (tree.total[node] ?? 0) * 10) around = tree.parent[around] ?? 0;
      Object.assign(camera, this.#windowOf(around));
      moved = true;
    } else if (wanted.x1 <= camera.x0 || wanted.x0 >= camera.x1 || (wanted.x0 < camera.x0 && wanted.x1 - wanted.x0 < size) || (wanted.x1 > camera.x1 && wanted.x1 - wanted.x0 < size)) {
      const middle = (wanted.x0 + wanted.x1) / 2;
      camera.x0 = middle - size / 2;
      camera.x1 = middle + size / 2;
      moved = true;
    }
    const depth = tree.depth[node] ?? 0;
    if (depth < camera.thinRows) {
      camera.thinRows = 0;
      camera.thinHeight = 0;
      this.zoomed = 0;
    }
    const top = rowOffset(camera, depth);
    if (top < camera.scroll) camera.scroll = Math.max(0, top - 2 * ROW);
    else if (top + ROW > camera.scroll + this.cssHeight) camera.scroll = top + 3 * ROW - this.cssHeight;
    else if (!moved) return;
    this.#travel(camera, true);
    if (moved) this.listener.window(this);
  }

  /**
   * What lies under a place of the stage.
   * @param {number} x CSS pixels
   * @param {number} y CSS pixels
   * @returns {Pick | null}
   */
  pickAt(x, y) {
    if (!this.layout || this.width === 0) return null;
    const { camera } = this;
    const depth = rowAt(camera, (camera.flipped ? this.cssHeight - y : y) + camera.scroll);
    const samples = camera.x0 + (x / this.stage.clientWidth) * (camera.x1 - camera.x0);
    return pick(this.layout, depth, samples, this.scale);
  }

  /** @param {Pick | null} pick */
  setHover(pick) {
    if (pick?.node === this.hovered?.node && pick?.count === this.hovered?.count) return;
    this.hovered = pick;
    this.redrawOverlay();
    this.listener.hover(this, pick);
  }

  /** Outlines a function that is pointed at elsewhere. @param {number} f -1 for none */
  hint(f) {
    if (this.hinted === f) return;
    this.hinted = f;
    this.redrawOverlay();
  }

  #resized() {
    this.#clamp(this.camera);
    this.#frame();
  }

  #frame() {
    const cssWidth = this.stage.clientWidth;
    const cssHeight = this.stage.clientHeight;
    if (!this.layout || !this.paint || !this.functions || cssWidth === 0 || cssHeight === 0) return;
    const { width, height, ratio } = sizeCanvas(this.canvas, cssWidth, cssHeight);
    this.width = width;
    this.height = height;
    this.painter.draw(this.layout, this.camera, this.paint, this.functions, ratio);
    this.#paintOverlay();
    this.minimap.draw(this.layout, this.camera, this.paint, cssHeight);
  }

  #paintOverlay() {
    if (this.layout && this.width > 0) drawOverlay(this);
  }
}
