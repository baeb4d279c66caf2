//! Filter, time range, live refresh and theme: the row that every page shares.

import { Channel, address, fields } from "./api.js";
import { fill, h, openPopover } from "./dom.js";
import { expectation, quote } from "./filter_text.js";
import { short, stamp, utc } from "./format.js";
import { inWords } from "./panel.js";
import * as state from "./state.js";
import { toggle } from "./theme.js";
import { QUICK, instant, isRelative, read, words } from "./time_range.js";

/** @typedef {{insert: string, text: string, note: string, more: boolean}} Option `more`: typing goes on after it */

export class QueryBar {
  /** @param {() => void} refresh asks the same question again */
  constructor(refresh) {
    this.values = new Channel();
    /** @type {Option[]} */
    this.options = [];
    this.activeOption = -1;
    this.span = { from: 0, to: 0 };
    this.list = h("div", { class: "completion", id: "completion", popover: "manual", role: "listbox", "aria-label": "What may follow" });
    this.input = h("input", {
      class: "input",
      type: "text",
      id: "filter",
      placeholder: "Filter, for example  process: nginx and not thread: w*",
      "aria-label": "Filter",
      role: "combobox",
      "aria-expanded": "false",
      "aria-controls": "completion",
      "aria-autocomplete": "list",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      on: {
        input: () => {
          this.showError(null);
          void this.#complete();
        },
        focus: () => void this.#complete(),
        click: () => void this.#complete(),
        blur: () => this.#close(),
        keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
        scroll: () => this.#placeMark(),
      },
    });
    this.clear = h("button", { class: "icon-button", title: "Remove filter", "aria-label": "Remove filter", text: "×", on: { click: () => this.#submit("") } });
    this.mark = h("div", { class: "error-mark", hidden: true });
    this.box = h("div", { class: "filter-box" }, this.input, this.mark, this.clear);
    this.error = h("div", { class: "filter-error", role: "alert", hidden: true });
    /** @type {number | null} */
    this.errorAt = null;

    this.rangeButton = h("button", { class: "button", "aria-haspopup": "dialog", on: { click: () => this.#openRange() } });
    this.rangePanel = this.#makeRange();
    this.live = h("button", {
      class: "button live",
      text: "Live",
      title: "Ask again every five seconds",
      on: {
        click: () => {
          const now = state.current();
          if (now.live) state.change({ live: "" });
          else state.change({ live: "1", ...(isRelative(now.from, now.to) ? {} : { from: "now-15m", to: "now" }) });
        },
      },
    });
    const again = h("button", { class: "button", text: "Refresh", title: "Ask the same question again (r)", on: { click: refresh } });
    const dark = h("button", { class: "icon-button", text: "◐", title: "Light or dark", "aria-label": "Switch between light and dark", on: { click: toggle } });
    this.element = h("div", {}, h("div", { class: "query-row" }, this.box, this.rangeButton, again, this.live, dark), this.error, this.list, this.rangePanel);
  }

  /** @param {Readonly<import("./state.js").State>} now */
  show(now) {
    if (this.input.value !== now.filter) {
      this.input.value = now.filter;
      this.showError(null);
    }
    this.clear.hidden = now.filter === "";
    const clock = Date.now();
    const from = instant(now.from, clock);
    const to = instant(now.to, clock);
    this.rangeButton.textContent = `${words(now.from, now.to, clock)} ▾`;
    this.rangeButton.title = from === null || to === null ? "" : `${stamp(from)} – ${stamp(to)}\n${utc(from)} – ${utc(to)}`;
    this.live.setAttribute("aria-pressed", now.live ? "true" : "false");
  }

  /**
   * Shows what the server said about the filter, at the place it names. `null` takes it away.
   * @param {import("./api.js").ApiError | null} error
   */
  showError(error) {
    this.box.classList.toggle("wrong", error !== null);
    this.error.hidden = error === null;
    this.input.toggleAttribute("aria-invalid", error !== null);
    this.errorAt = error?.position ?? null;
    this.mark.hidden = this.errorAt === null;
    if (!error) return;
    const { sentence, hint } = inWords(error);
    fill(this.error, h("span", { text: sentence.replace(/^Filter: ?/, "Filter: ") }), hint !== "" && h("span", { class: "faint", text: hint }));
    this.#placeMark();
  }

  /** The input is monospaced, so a character's place is its number times one width. */
  #placeMark() {
    if (this.errorAt === null) return;
    const width = characterWidth(this.input);
    const rest = [...this.input.value].slice(this.errorAt).join("");
    const word = /^[^\s:()]+/.exec(rest)?.[0].length ?? 1;
    this.mark.style.left = `${Math.max(4, 9 + this.errorAt * width - this.input.scrollLeft)}px`;
    this.mark.style.width = `${word * width}px`;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const open = this.options.length > 0;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (open) this.#activate((this.activeOption + (event.key === "ArrowDown" ? 1 : -1) + this.options.length) % this.options.length);
      else void this.#complete();
    } else if ((event.key === "Enter" || event.key === "Tab") && open && (this.activeOption >= 0 || event.key === "Tab") && !event.shiftKey) {
      this.#take(Math.max(0, this.activeOption));
    } else if (event.key === "Enter") {
      this.#submit(this.input.value);
    } else if (event.key === "Escape") {
      if (open) this.#close();
      else {
        this.input.value = state.current().filter;
        this.showError(null);
        this.input.blur();
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {string} text */
  #submit(text) {
    this.#close();
    this.input.value = text;
    if (text.trim() === state.current().filter) return;
    state.change({ filter: text.trim(), zoom: "", x: "", sel: "" });
  }

  async #complete() {
    const text = this.input.value;
    const cursor = this.input.selectionStart ?? text.length;
    const place = expectation(text, cursor);
    this.span = { from: place.from, to: place.to };
    const prefix = place.prefix.toLowerCase();
    try {
      if (place.expects === "value") {
        const now = state.current();
        /** @type {import("./types.js").ValuesAnswer | null} */
        const answer = await this.values.load(address("values", { field: place.field, prefix: place.prefix.replace(/\*$/, ""), limit: 20, from: now.from, to: now.to }));
        if (!answer || document.activeElement !== this.input) return;
        this.#offer(
          answer.values.map(({ value, samples }) => ({ insert: quote(value), text: value === "" ? "(empty)" : value, note: `${short(samples)} samples`, more: false })),
          answer.values.length === 0 ? "No such value in this range" : "",
        );
        return;
      }
      this.values.cancel();
      const { fields: all } = await fields();
      if (document.activeElement !== this.input) return;
      /** @type {Option[]} */
      const words = (place.expects === "field" ? ["not"] : ["and", "or"]).map((word) => ({ insert: word, text: word, note: "", more: true }));
      const names = place.expects === "field" ? all.flatMap(({ field, aliases }) => [...aliases.slice(0, 1), field].map((name) => ({ insert: `${name}:`, text: name, note: name === field ? "" : field, more: true }))) : [];
      const fitting = [...names, ...words].filter(({ text: name }) => name.toLowerCase().startsWith(prefix) || (prefix.length > 1 && name.toLowerCase().includes(prefix)));
      this.#offer(fitting.filter((option) => option.text !== place.prefix).slice(0, 24), "");
    } catch {
      this.#close(); // Completion is a courtesy: the question itself will tell what is wrong.
    }
  }

  /** @param {Option[]} options @param {string} note */
  #offer(options, note) {
    this.options = options;
    this.activeOption = -1;
    if (options.length === 0 && note === "") {
      this.#close();
      return;
    }
    fill(
      this.list,
      ...options.map((option, at) =>
        h(
          "div",
          {
            class: "option",
            role: "option",
            id: `option-${at}`,
            "aria-selected": "false",
            on: {
              pointerdown: (/** @type {Event} */ event) => {
                event.preventDefault();
                this.#take(at);
              },
            },
          },
          h("span", { class: "code", text: option.text }),
          h("span", { class: "faint", text: option.note }),
        ),
      ),
      note !== "" && h("div", { class: "completion-note", text: note }),
    );
    const box = this.input.getBoundingClientRect();
    openPopover(this.list, box.left + 8 + Math.min(this.span.from * characterWidth(this.input), box.width * 0.6), box.bottom + 2);
    this.input.setAttribute("aria-expanded", "true");
  }

  /** @param {number} at */
  #activate(at) {
    this.activeOption = at;
    [...this.list.children].forEach((child, index) => {
      child.setAttribute("aria-selected", String(index === at));
      if (index === at) child.scrollIntoView({ block: "nearest" });
    });
    this.input.setAttribute("aria-activedescendant", `option-${at}`);
  }

  /** @param {number} at */
  #take(at) {
    const option = this.options[at];
    if (!option) return;
    const text = this.input.value;
    const rest = text.slice(this.span.to);
    const after = option.insert.endsWith(":") ? rest.replace(/^:/, "") : rest;
    const insert = option.insert + (after.startsWith(" ") || after === ")" ? "" : " ");
    this.input.value = text.slice(0, this.span.from) + insert + after;
    const cursor = this.span.from + insert.length;
    this.input.setSelectionRange(cursor, cursor);
    this.input.focus();
    this.showError(null);
    void this.#complete();
  }

  #close() {
    this.values.cancel();
    this.options = [];
    this.activeOption = -1;
    if (this.list.matches(":popover-open")) this.list.hidePopover();
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #makeRange() {
    const from = h("input", { class: "input code", "aria-label": "From", spellcheck: "false", autocomplete: "off" });
    const to = h("input", { class: "input code", "aria-label": "To", spellcheck: "false", autocomplete: "off" });
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const panel = h("div", { class: "range", popover: "auto", role: "dialog", "aria-label": "Time range" });
    /** @param {string} start @param {string} end */
    const choose = (start, end) => {
      panel.hidePopover();
      state.change({ from: start, to: end, ...(isRelative(start, end) ? {} : { live: "" }) });
    };
    const form = h(
      "form",
      {
        on: {
          submit: (/** @type {Event} */ event) => {
            event.preventDefault();
            const now = Date.now();
            const a = read(from.value, now);
            const b = read(to.value, now);
            const start = a === null ? null : instant(a, now);
            const end = b === null ? null : instant(b, now);
            problem.hidden = false;
            if (a === null || start === null) problem.textContent = "From: expected 2026-11-21 14:30, 14:30 or now-2h";
            else if (b === null || end === null) problem.textContent = "To: expected 2026-11-21 14:30, 14:30 or now";
            else if (start >= end) problem.textContent = "From must lie before to";
            else {
              problem.hidden = true;
              choose(a, b);
            }
          },
        },
      },
      h("span", { class: "faint", text: "From" }),
      from,
      h("span", { class: "faint", text: "To" }),
      to,
      h("p", { class: "faint", text: "Your time zone; or relative: now-90m" }),
      problem,
      h("span", {}),
      h("button", { class: "button", type: "submit", text: "Show range" }),
    );
    fill(panel, h("div", { class: "range-quick" }, ...QUICK.map(([start, text]) => h("button", { class: "menu-item", type: "button", text, on: { click: () => choose(start, "now") } }))), form);
    panel.addEventListener("beforetoggle", () => {
      const now = state.current();
      problem.hidden = true;
      for (const [input, text] of /** @type {[HTMLInputElement, string][]} */ ([[from, now.from], [to, now.to]])) input.value = /^\d+$/.test(text) ? stamp(Number(text)) : text;
    });
    return panel;
  }

  #openRange() {
    const box = this.rangeButton.getBoundingClientRect();
    openPopover(this.rangePanel, box.right - 300, box.bottom + 4);
  }
}

/** @param {HTMLInputElement} input */
function characterWidth(input) {
  const context = document.createElement("canvas").getContext("2d");
  if (!context) return 7.2;
  const style = getComputedStyle(input);
  context.font = `${style.fontSize} ${style.fontFamily}`;
  return context.measureText("0").width;
}
