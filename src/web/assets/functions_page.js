//! The Functions page: what costs most, whoever calls it.

import { Channel, address } from "./api.js";
import { fill, h } from "./dom.js";
import { explain } from "./empty.js";
import { Functions } from "./flamegraph/tree.js";
import { whole } from "./format.js";
import { FunctionList, nextSort } from "./function_list.js";
import { Panel } from "./panel.js";
import * as state from "./state.js";

/** Functions asked for at once; the answer says when there are more. */
const LIMIT = 100_000;

export class FunctionsPage {
  constructor() {
    this.channel = new Channel();
    this.asked = "";
    /** @type {import("./function_list.js").Rows | null} */
    this.rows = null;
    this.inRange = 0;
    this.list = new FunctionList(
      "Functions by CPU time",
      (f, event) => this.#open(f, event),
      (column) => state.change({ sort: nextSort(state.current().sort, column) }),
    );
    this.filter = h("input", {
      class: "input search",
      type: "search",
      placeholder: "Filter functions: text or /regex/",
      "aria-label": "Filter functions",
      spellcheck: "false",
      autocomplete: "off",
      on: { input: () => state.change({ rows: this.filter.value }, { replace: true }) },
    });
    this.count = h("span", { class: "faint", role: "status" });
    this.panel = new Panel(this.list.element);
    this.element = h("section", { class: "page", "aria-label": "Functions" }, h("div", { class: "toolbar" }, this.filter, this.count, h("span", { class: "grow" }), h("span", { class: "faint", text: "Click: callers and callees · Alt + click: find in the flame graph" })), this.panel.element);
  }

  /**
   * @param {Readonly<import("./state.js").State>} now
   * @param {{force: boolean}} how
   */
  update(now, how) {
    if (this.filter.value !== now.rows) this.filter.value = now.rows;
    const url = address("functions", { from: now.from, to: now.to, filter: now.filter, limit: LIMIT, sort: now.sort.replace("-", "") === "total" ? "total" : "self" });
    if (url !== this.asked || how.force) void this.#load(url, now);
    else this.#show(now);
  }

  /** @param {string} url @param {Readonly<import("./state.js").State>} now */
  async #load(url, now) {
    this.asked = url;
    this.panel.waiting();
    try {
      /** @type {import("./types.js").FunctionsAnswer | null} */
      const answer = await this.channel.load(url);
      if (!answer) return;
      if (answer.samples === 0) {
        this.rows = null;
        this.panel.empty(await explain(now));
        return;
      }
      this.inRange = answer.functions_in_range;
      this.rows = { functions: new Functions(answer.functions, answer.strings), self: answer.functions.self, total: answer.functions.total, totals: answer };
      this.panel.done();
      this.#show(state.current());
    } catch (error) {
      this.panel.failed(error, () => void this.#load(url, state.current()));
    }
  }

  /** @param {Readonly<import("./state.js").State>} now */
  #show(now) {
    if (!this.rows) return;
    const { shown, of, problem } = this.list.show(this.rows, now.sort, now.rows);
    const more = this.inRange > of ? ` (the largest of ${whole(this.inRange)})` : "";
    fill(this.count, problem !== "" ? problem : shown === of ? `${whole(of)} functions${more}` : `${whole(shown)} of ${whole(of)} functions${more}`);
  }

  /** @param {number} f @param {MouseEvent | KeyboardEvent} event */
  #open(f, event) {
    const functions = this.rows?.functions;
    if (!functions) return;
    const key = functions.key(f);
    if (event.altKey || key === "") state.change({ view: "flamegraph", q: functions.name(f) });
    else state.change({ view: "flamegraph", focus: key });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key !== "/") return false;
    this.filter.focus();
    this.filter.select();
    return true;
  }
}
