//! The row above the graph: what the first level is, order, direction, colours, search, and what is left out.

import { fields } from "../api.js";
import { fill, h } from "../dom.js";
import * as state from "../state.js";
import { openMenu } from "./menu.js";

/** @type {[string, string][]} */
const COLORS = [
  ["kind", "Kind"],
  ["library", "Library"],
  ["package", "Package"],
  ["group", "First level"],
  ["plain", "Plain"],
];

/** Fields offered first, by their short names. */
const COMMON = ["process", "thread", "host", "container", "service", "pod", "namespace"];

/** @param {string} name */
const title = (name) => name.charAt(0).toUpperCase() + name.slice(1);

/**
 * Options for grouping: short name of each field, common ones first.
 * @returns {Promise<[string, string][]>}
 */
export async function groupings() {
  const answer = await fields();
  const names = answer.fields.map(({ field, aliases }) => [aliases[0] ?? field, field]);
  /** @param {string | undefined} name */
  const rank = (name) => (COMMON.indexOf(name ?? "") + COMMON.length + 1) % (COMMON.length + 1);
  return names.sort((a, b) => rank(a[0]) - rank(b[0])).map(([name, field]) => [name ?? "", name === field ? field ?? "" : title(name ?? "")]);
}

/**
 * A labelled select that writes one key of the state.
 * @param {string} label
 * @param {import("../state.js").Key} key
 * @param {[string, string][]} options
 */
export function choice(label, key, options) {
  const select = h("select", { class: "select", on: { change: () => state.change({ [key]: select.value }) } });
  const element = h("label", { class: "choice" }, h("span", { class: "faint", text: label }), select);
  /** @param {[string, string][]} list */
  const offer = (list) => {
    fill(select, ...list.map(([value, text]) => h("option", { value, text })));
    show(state.current()[key]);
  };
  /** @param {string} value */
  const show = (value) => {
    if (![...select.options].some((option) => option.value === value)) select.append(h("option", { value, text: value }));
    select.value = value;
  };
  offer(options);
  return { element, offer, show };
}

/** @param {boolean} on */
const pressed = (on) => (on ? "true" : "false");

export class Toolbar {
  /**
   * @param {{search: (text: string) => void, nextMatch: (step: 1 | -1) => void, reset: () => void, download: (format: "collapsed" | "speedscope") => void,
   *   keys: () => void, leave: (patch: Partial<import("../state.js").State>) => void}} act
   */
  constructor(act) {
    this.act = act;
    this.by = choice("First level", "by", [["process", "Process"]]);
    groupings().then(
      (list) => this.by.offer([...list, ["none", "None"]]),
      () => this.by.offer([["process", "Process"], ["none", "None"]]),
    );
    this.color = choice("Colour", "color", COLORS);
    this.order = h("button", { class: "button toggle", on: { click: () => state.change({ order: state.current().order === "name" ? "share" : "name" }) } });
    this.dir = h("button", { class: "button toggle", on: { click: () => state.change({ dir: state.current().dir === "icicle" ? "flame" : "icicle" }) } });
    this.search = h("input", {
      class: "input search",
      type: "search",
      placeholder: "Search: text or /regex/",
      title: "Press / from anywhere on the page",
      "aria-label": "Search functions in the graph",
      spellcheck: "false",
      autocomplete: "off",
      on: {
        input: () => act.search(this.search.value),
        keydown: (/** @type {KeyboardEvent} */ event) => {
          if (event.key === "Enter") act.nextMatch(event.shiftKey ? -1 : 1);
          else if (event.key === "Escape") {
            if (this.search.value !== "") act.search("");
            this.search.blur();
          } else return;
          event.preventDefault();
          event.stopPropagation();
        },
      },
    });
    this.result = h("output", { class: "search-result", "aria-live": "polite" });
    this.reset = h("button", { class: "button", text: "Reset zoom", title: "Show everything (0)", on: { click: act.reset } });
    this.table = h("button", { class: "button toggle", text: "Table", title: "The same data as a table (t)", on: { click: () => state.change({ table: state.current().table ? "" : "1" }) } });
    this.details = h("button", { class: "button toggle", text: "Details", title: "Everything about the selected box (i)", on: { click: () => state.change({ details: state.current().details ? "" : "1" }) } });
    this.export = h("button", { class: "button", text: "Export", "aria-haspopup": "menu", on: { click: () => this.#openExport() } });
    this.help = h("button", { class: "icon-button", text: "?", title: "Keys (?)", "aria-label": "Keys", on: { click: act.keys } });
    this.chips = h("div", { class: "chips", hidden: true });
    this.element = h(
      "div",
      { class: "toolbar-group" },
      h(
        "div",
        { class: "toolbar" },
        this.by.element,
        this.color.element,
        this.order,
        this.dir,
        h("span", { class: "search-box" }, this.search, this.result),
        h("span", { class: "grow" }),
        this.reset,
        this.table,
        this.details,
        this.export,
        this.help,
      ),
      this.chips,
    );
  }

  /** @param {Readonly<import("../state.js").State>} now @param {boolean} zoomed */
  show(now, zoomed) {
    this.by.show(now.by);
    this.color.show(now.color);
    this.order.textContent = now.order === "name" ? "By name" : "By share";
    this.order.title = now.order === "name" ? "Siblings stand in the order of names; click for largest first (s)" : "Siblings stand largest first; click for the order of names (s)";
    this.dir.textContent = now.dir === "icicle" ? "Icicle" : "Flame";
    this.dir.title = now.dir === "icicle" ? "The root is on top; click to turn it round (f)" : "The root is at the bottom; click to turn it round (f)";
    this.by.element.hidden = now.focus !== "";
    this.dir.hidden = now.focus !== "";
    this.table.setAttribute("aria-pressed", pressed(now.table !== ""));
    this.details.setAttribute("aria-pressed", pressed(now.details !== ""));
    if (this.search.value !== now.q) this.search.value = now.q;
    this.reset.disabled = !zoomed;
  }

  /** @param {string} text @param {boolean} problem */
  showResult(text, problem) {
    this.result.textContent = text;
    this.result.classList.toggle("problem", problem);
  }

  /**
   * What differs from the plain picture, each with the way back.
   * @param {{text: string, name: string, undo: string, run: () => void}[]} list
   */
  showChips(list) {
    this.chips.hidden = list.length === 0;
    fill(
      this.chips,
      ...list.map(({ text, name, undo, run }) =>
        h("span", { class: "chip" }, h("span", { class: "faint", text }), name !== "" && h("span", { class: "code", text: name }), h("button", { class: "chip-close", title: undo, "aria-label": undo, text: "×", on: { click: run } })),
      ),
    );
  }

  #openExport() {
    const box = this.export.getBoundingClientRect();
    openMenu(
      [
        { text: "Collapsed stacks (.txt)", run: () => this.act.download("collapsed") },
        { text: "speedscope (.json)", run: () => this.act.download("speedscope") },
      ],
      box.left,
      box.bottom + 4,
    );
  }
}
