//! A table that draws only the rows on the screen. Knows positions and keys, not what the rows mean.

import { fill, h, oncePerFrame } from "./dom.js";

/** Browsers stop laying out elements above roughly 16 million px; beyond this the scroll bar is scaled. */
const TALLEST_PX = 8_000_000;

/**
 * @typedef {object} Column
 * @property {string} id
 * @property {string} title
 * @property {string} [hint] tooltip of the header
 * @property {boolean} [number] right-aligned figures
 * @property {boolean} [sortable] default true
 * @property {() => Node[]} build content of an empty cell, made once per recycled row
 * @property {(cell: HTMLElement, row: number) => void} show fills the cell for row `row` (0-based, in the shown order)
 */
/**
 * @typedef {object} Options
 * @property {string} label for screen readers
 * @property {string} kind class that sets the grid's columns
 * @property {number} rowHeight CSS pixels
 * @property {Column[]} columns
 * @property {(column: string) => void} onSort
 * @property {(row: number, event: MouseEvent | KeyboardEvent) => void} onOpen
 * @property {(row: number) => void} [onPoint] hovered row, -1 for none
 */

export class VirtualTable {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.rows = 0;
    this.active = -1;
    /** First row at the top edge, with fraction. */
    this.top = 0;
    this.headers = options.columns.map((column) => {
      const label = column.sortable === false ? h("span", { text: column.title }) : h("button", { class: "sort", text: column.title, on: { click: () => options.onSort(column.id) } });
      return h("div", { role: "columnheader", class: column.number ? "cell number" : "cell", title: column.hint }, label);
    });
    this.spacer = h("div", { class: "vt-spacer" });
    this.body = h("div", { class: "vt-body", role: "rowgroup" });
    this.viewport = h("div", { class: "vt-viewport", tabindex: "0", role: "rowgroup", "aria-label": `${options.label}: rows` }, this.spacer, this.body);
    this.element = h(
      "div",
      { class: `vt ${options.kind}`, role: "table", "aria-label": options.label },
      h("div", { role: "rowgroup" }, h("div", { role: "row", class: "vt-head" }, ...this.headers)),
      this.viewport,
    );
    /** @type {{element: HTMLElement, cells: HTMLElement[], row: number}[]} */
    this.pool = [];
    this.expectedScroll = -1;
    const draw = oncePerFrame(() => this.draw());
    this.viewport.addEventListener("scroll", () => {
      if (Math.abs(this.viewport.scrollTop - this.expectedScroll) < 1) return;
      this.expectedScroll = -1;
      this.top = this.viewport.scrollTop / this.#pxPerRow();
      draw();
    });
    this.viewport.addEventListener(
      "wheel",
      (event) => {
        if (this.#pxPerRow() === options.rowHeight || event.ctrlKey) return;
        // The scroll bar is scaled: a wheel step would leap over rows, so it is applied to rows here.
        event.preventDefault();
        this.#scrollTo(this.top + (event.deltaMode === 1 ? event.deltaY * 2 : event.deltaY / options.rowHeight));
      },
      { passive: false },
    );
    this.viewport.addEventListener("keydown", (event) => this.#key(event));
    this.viewport.addEventListener("mouseleave", () => options.onPoint?.(-1));
    new ResizeObserver(draw).observe(this.viewport);
  }

  /** Height of a row on the scroll bar's scale. */
  #pxPerRow() {
    return Math.min(this.options.rowHeight, TALLEST_PX / Math.max(1, this.rows));
  }

  /**
   * Shows `rows` rows; the columns ask for their content.
   * @param {number} rows
   * @param {{keepPlace?: boolean}} [how]
   */
  show(rows, how = {}) {
    this.rows = rows;
    this.active = -1;
    this.element.setAttribute("aria-rowcount", String(rows + 1));
    this.spacer.style.height = `${Math.round(rows * this.#pxPerRow())}px`;
    this.#scrollTo(how.keepPlace ? this.top : 0);
    for (const slot of this.pool) slot.row = -1;
    this.draw();
  }

  /** @param {string} column @param {boolean} descending */
  markSort(column, descending) {
    this.options.columns.forEach((c, at) => {
      const header = this.headers[at];
      if (c.id === column) header?.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else header?.removeAttribute("aria-sort");
    });
  }

  /** @param {number} top */
  #scrollTo(top) {
    const visible = this.viewport.clientHeight / this.options.rowHeight;
    this.top = Math.max(0, Math.min(top, this.rows - visible));
    this.viewport.scrollTop = Math.round(this.top * this.#pxPerRow());
    this.expectedScroll = this.viewport.scrollTop;
    this.draw();
  }

  draw() {
    const { rowHeight } = this.options;
    const height = this.viewport.clientHeight;
    const first = Math.floor(this.top);
    const wanted = Math.min(this.rows - first, Math.ceil(height / rowHeight) + 1);
    this.body.style.transform = `translateY(${this.viewport.scrollTop - (this.top - first) * rowHeight}px)`;
    while (this.pool.length < wanted) this.pool.push(this.#make());
    this.pool.forEach((slot, at) => {
      const row = first + at;
      const shown = at < wanted;
      slot.element.hidden = !shown;
      if (!shown) return;
      slot.element.classList.toggle("active", row === this.active);
      if (slot.row === row) return;
      slot.row = row;
      slot.element.setAttribute("aria-rowindex", String(row + 2));
      this.options.columns.forEach((column, c) => {
        const cell = slot.cells[c];
        if (cell) column.show(cell, row);
      });
    });
  }

  #make() {
    const cells = this.options.columns.map((column) => {
      const cell = h("div", { role: "cell", class: column.number ? "cell number" : "cell" });
      fill(cell, ...column.build());
      return cell;
    });
    const element = h("div", { role: "row", class: "vt-row" }, ...cells);
    element.style.height = `${this.options.rowHeight}px`;
    const slot = { element, cells, row: -1 };
    element.addEventListener("click", (event) => {
      if (slot.row >= 0) this.options.onOpen(slot.row, event);
    });
    element.addEventListener("mouseenter", () => this.options.onPoint?.(slot.row));
    this.body.append(element);
    return slot;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const page = Math.max(1, Math.floor(this.viewport.clientHeight / this.options.rowHeight) - 1);
    /** @type {{[key: string]: number}} */
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.rows, End: this.rows };
    const step = steps[event.key];
    if (step !== undefined && this.rows > 0) {
      event.preventDefault();
      this.active = Math.max(0, Math.min(this.rows - 1, this.active < 0 ? (step < 0 && event.key !== "Home" ? this.rows - 1 : event.key === "End" ? this.rows - 1 : Math.floor(this.top)) : this.active + step));
      if (this.active < this.top) this.#scrollTo(this.active);
      else if (this.active + 1 > this.top + this.viewport.clientHeight / this.options.rowHeight) this.#scrollTo(this.active + 1 - this.viewport.clientHeight / this.options.rowHeight);
      else this.draw();
      this.options.onPoint?.(this.active);
    } else if (event.key === "Enter" && this.active >= 0) {
      event.preventDefault();
      this.options.onOpen(this.active, event);
    }
  }
}
