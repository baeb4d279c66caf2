//! Functions with self and total as a sorted, filtered table: the Functions page and the graph's table twin share it.

import { ASSUMPTION, perYear } from "./cost.js";
import { dot, place } from "./details.js";
import { h } from "./dom.js";
import { pattern } from "./flamegraph/search.js";
import { titleOf } from "./flamegraph/tree.js";
import { money, percent, short, shortTime, whole } from "./format.js";
import { VirtualTable } from "./virtual_table.js";

/**
 * @typedef {object} Rows
 * @property {import("./flamegraph/tree.js").Functions} functions
 * @property {ArrayLike<number>} self
 * @property {ArrayLike<number>} total
 * @property {import("./types.js").Totals} totals
 */

/** Columns that sort upwards first. */
const UPWARDS = new Set(["name", "library"]);

export class FunctionList {
  /**
   * @param {string} label
   * @param {(f: number, event: MouseEvent | KeyboardEvent) => void} onOpen
   * @param {(column: string) => void} onSort
   * @param {(f: number) => void} [onPoint]
   */
  constructor(label, onOpen, onSort, onPoint) {
    /** @type {Rows | null} */
    this.rows = null;
    /** Functions in the shown order. */
    this.order = new Int32Array(0);
    /** Rank by self of each function, from 1. */
    this.rank = new Int32Array(0);
    /** Largest of each column: the length of its full bar. */
    this.mostSelf = 0;
    this.mostTotal = 0;
    /** @param {string} id @param {string} title @param {(rows: Rows, f: number) => number} count @param {string} hint @returns {import("./virtual_table.js").Column} */
    const share = (id, title, count, hint) => ({
      id,
      title,
      hint,
      number: true,
      build: () => [h("div", { class: "bar" }), h("span", { class: "over-bar" })],
      show: (cell, row) => {
        const { rows } = this;
        if (!rows) return;
        const samples = count(rows, this.order[row] ?? 0);
        const part = samples / Math.max(1, rows.totals.samples);
        const most = id === "self" ? this.mostSelf : this.mostTotal;
        /** @type {HTMLElement} */ (cell.firstChild).style.width = `${(samples / Math.max(1, most)) * 100}%`;
        /** @type {HTMLElement} */ (cell.lastChild).textContent = percent(part);
      },
    });
    /** @param {string} id @param {string} title @param {string} hint @param {(rows: Rows, f: number) => [string, string]} text @returns {import("./virtual_table.js").Column} */
    const figure = (id, title, hint, text) => ({
      id,
      title,
      hint,
      number: true,
      build: () => [],
      show: (cell, row) => {
        if (!this.rows) return;
        const [shown, full] = text(this.rows, this.order[row] ?? 0);
        cell.textContent = shown;
        cell.title = full;
      },
    });
    /** @param {Rows} rows @param {number} samples */
    const cpu = (rows, samples) => (rows.totals.cpu_ns / Math.max(1, rows.totals.samples)) * samples;
    this.table = new VirtualTable({
      label,
      kind: "vt-functions",
      rowHeight: 36,
      onSort,
      onOpen: (row, event) => onOpen(this.order[row] ?? 0, event),
      onPoint: onPoint && ((row) => onPoint(row < 0 ? -1 : this.order[row] ?? -1)),
      columns: [
        figure("rank", "#", "Rank by self", (_, f) => [whole(this.rank[f] ?? 0), ""]),
        {
          id: "name",
          title: "Function",
          build: () => [h("span", { class: "function-dot" }), h("span", { class: "function-name code" }), h("span", { class: "function-place code faint" })],
          show: (cell, row) => {
            if (!this.rows) return;
            const { functions } = this.rows;
            const f = this.order[row] ?? 0;
            const [mark, name, where] = /** @type {HTMLElement[]} */ ([...cell.children]);
            mark?.replaceChildren(dot(functions, f));
            const full = titleOf(functions, f);
            if (name) name.textContent = full;
            const library = functions.library(f);
            const source = place(functions.file(f), 0);
            const reason = (functions.kind[f] ?? 0) < 128 ? functions.reason(f) : "";
            if (where) where.textContent = [functions.inlined[f] ? "inlined" : "", library, source, reason ? `no name: ${reason}` : ""].filter(Boolean).join("  ·  ") || "\u00a0";
            cell.title = reason ? `${full}\n${library}: ${reason}` : full;
          },
        },
        share("self", "Self %", (rows, f) => rows.self[f] ?? 0, "Share of samples that end in the function"),
        share("total", "Total %", (rows, f) => rows.total[f] ?? 0, "Share of samples with the function on the stack; a stack counts once"),
        figure("samples", "Samples", "Samples that end in the function", (rows, f) => [short(rows.self[f] ?? 0), `${whole(rows.self[f] ?? 0)} samples self, ${whole(rows.total[f] ?? 0)} total`]),
        figure("time", "Core-time", "CPU time of the function itself", (rows, f) => [shortTime(cpu(rows, rows.self[f] ?? 0)), `${shortTime(cpu(rows, rows.total[f] ?? 0))} with everything it calls`]),
        figure("cost", "Cost / year", ASSUMPTION, (rows, f) => [money(perYear(cpu(rows, rows.self[f] ?? 0), rows.totals.to - rows.totals.from).dollars), ASSUMPTION]),
      ],
    });
    this.element = this.table.element;
  }

  /**
   * @param {Rows} rows
   * @param {string} sort column, with a leading `-` for the unusual direction
   * @param {string} filter text or `/regex/` on name, library, file
   * @returns {{shown: number, of: number, problem: string}}
   */
  show(rows, sort, filter) {
    const { functions, self, total } = rows;
    const sameRows = this.rows === rows;
    this.rows = rows;
    const wanted = pattern(filter);
    const list = [];
    for (let f = 0; f < functions.count; f += 1) if ((functions.kind[f] ?? 0) < 256 && ((self[f] ?? 0) > 0 || (total[f] ?? 0) > 0)) list.push(f);
    const bySelf = list.slice().sort((a, b) => (self[b] ?? 0) - (self[a] ?? 0) || (total[b] ?? 0) - (total[a] ?? 0) || a - b);
    this.rank = new Int32Array(functions.count);
    this.mostTotal = 0;
    bySelf.forEach((f, at) => {
      this.rank[f] = at + 1;
      this.mostTotal = Math.max(this.mostTotal, total[f] ?? 0);
    });
    this.mostSelf = self[bySelf[0] ?? 0] ?? 0;
    const shown = wanted ? bySelf.filter((f) => wanted.test(functions.name(f)) || wanted.test(functions.library(f)) || wanted.test(functions.file(f))) : bySelf;
    const column = sort.replace(/^-/, "");
    const reverse = sort.startsWith("-");
    if (column === "total") shown.sort((a, b) => (total[b] ?? 0) - (total[a] ?? 0) || (self[b] ?? 0) - (self[a] ?? 0));
    else if (column === "name") {
      const ranks = functions.ranks();
      shown.sort((a, b) => (ranks[a] ?? 0) - (ranks[b] ?? 0));
    }
    if (reverse) shown.reverse();
    const before = this.order.length;
    this.order = Int32Array.from(shown);
    this.table.markSort(column, UPWARDS.has(column) || column === "rank" ? reverse : !reverse);
    this.table.show(shown.length, { keepPlace: !sameRows && before === shown.length });
    return { shown: shown.length, of: list.length, problem: wanted?.problem ?? "" };
  }
}

/** What a click on a header makes of the present sort. @param {string} now @param {string} column */
export function nextSort(now, column) {
  return now === column ? `-${column}` : column;
}
