//! Pages of facts: Hosts, Symbols, Storage. They show what the server knows about itself, and nothing else.

import { Channel, address } from "./api.js";
import { fill, h } from "./dom.js";
import { explain } from "./empty.js";
import { bytes, percent, short, span, stamp, utc, whole } from "./format.js";
import { Panel } from "./panel.js";
import { balance, nameless } from "./sheets_math.js";
import * as state from "./state.js";

/** @typedef {import("./types.js").StatusAnswer} Status */
/** @typedef {Readonly<import("./state.js").State>} State */

/** @param {string} value @param {string} name @param {string} [full] */
function tile(value, name, full) {
  return h("div", { class: "tile", title: full }, h("b", { text: value }), h("span", { text: name }));
}

/** @param {number | null} at */
function moment(at) {
  return at === null ? h("b", { text: "–" }) : h("b", { title: utc(at), text: stamp(at) });
}

/** Counters since the start, in columns; those at zero are there but quiet. @param {import("./types.js").Counter[]} counters @param {string} label */
function counterTable(counters, label) {
  return h("dl", { class: "counters", "aria-label": label }, ...counters.map(({ name, value }) => h("div", { class: value === 0 ? "faint" : undefined }, h("dt", { class: "code", text: name }), h("dd", { text: whole(value) }))));
}

/** A page that shows one answer; `build` turns it into sections. */
class Sheet {
  /**
   * @param {string} label
   * @param {(now: State) => string} question
   * @param {(answer: any, now: State) => (Node | null)[]} build
   */
  constructor(label, question, build) {
    this.channel = new Channel();
    this.question = question;
    this.build = build;
    this.asked = "";
    this.content = h("div", { class: "sheet" });
    this.panel = new Panel(this.content);
    this.element = h("section", { class: "page", "aria-label": label }, this.panel.element);
  }

  /** @param {State} now @param {{force: boolean}} how */
  update(now, how) {
    const url = this.question(now);
    if (url !== this.asked || how.force) void this.#load(url, now);
  }

  /** @param {string} url @param {State} now */
  async #load(url, now) {
    this.asked = url;
    this.panel.waiting();
    try {
      const answer = await this.channel.load(url);
      if (!answer) return;
      if ("samples" in answer && answer.samples === 0) {
        this.panel.empty(await explain(now));
        return;
      }
      fill(this.content, ...this.build(answer, now));
      this.panel.done();
    } catch (error) {
      this.panel.failed(error, () => void this.#load(url, state.current()));
    }
  }

  key() {
    return false;
  }
}

export function hostsPage() {
  return new Sheet(
    "Hosts",
    () => address("status"),
    (/** @type {Status} */ status) => [agentSection(status), collectorSection(status)],
  );
}

/** @param {Status} status */
function agentSection({ agent, now, started }) {
  if (!agent) return h("section", {}, h("h2", { text: "Agent" }), h("p", { class: "faint", text: "No agent runs in this process. Agents on other hosts report to the collector." }));
  const head = h("h2", {}, h("span", { class: agent.running ? "lamp" : "lamp lamp-off" }), agent.running ? "Agent on this host: running" : "Agent on this host: not running");
  const sums = balance(agent.counters);
  const others = agent.counters.filter((c) => c.name !== "ticks" && c.name !== "stored" && !c.name.startsWith("dropped."));
  return h(
    "section",
    {},
    head,
    agent.problem && h("p", { text: agent.problem }),
    agent.hint && h("p", { class: "faint", text: agent.hint }),
    ...agent.notes.map((note) => h("p", { text: note })),
    agent.running &&
      h(
      "div",
      { class: "tiles" },
      tile(span(now - started), "since start"),
      tile(`${agent.frequency_hz}\u00a0Hz`, "per CPU"),
      tile(whole(agent.cpus), "CPUs"),
      tile(agent.kernel, "kernel"),
      tile(agent.object, "BPF object"),
      tile(whole(agent.processes), "processes"),
      tile(whole(agent.tables), "unwind tables"),
      tile(bytes(agent.pool_bytes), "table pool"),
      tile(bytes(agent.resident_bytes), "resident memory"),
    ),
    sums && lossSection(sums),
    others.length > 0 && h("h2", { class: "later", text: "Other counters" }),
    others.length > 0 && counterTable(others, "Other counters of the agent"),
  );
}

/** @param {NonNullable<ReturnType<typeof balance>>} sums */
function lossSection({ ticks, stored, drops, dropped, open }) {
  /** @param {number} part @param {string} kind @param {string} title */
  const piece = (part, kind, title) => {
    const bar = h("i", { class: kind, title });
    bar.style.flex = `${part} 0 0`;
    return part > 0 && bar;
  };
  const share = ticks > 0 ? dropped / ticks : 0;
  return h(
    "section",
    {},
    h("h2", { text: "Where every tick went" }),
    h(
      "p",
      { class: open >= 0 ? "verdict good" : "verdict bad" },
      h("b", { text: open >= 0 ? "The sum holds." : "The sum does not hold." }),
      h("span", { text: `${whole(ticks)} ticks = ${whole(stored)} stored + ${whole(dropped)} dropped (${percent(share)}) + ${whole(open)} on the way` }),
    ),
    h("div", { class: "balance", "aria-hidden": "true" }, piece(stored, "", `${whole(stored)} stored`), piece(Math.max(0, open), "open", `${whole(open)} on the way`), piece(dropped, "lost", `${whole(dropped)} dropped`)),
    drops.length > 0 &&
      h(
        "table",
        { class: "plain-table", "aria-label": "Dropped samples by reason" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "Dropped because" }), h("th", { scope: "col", class: "number", text: "Samples" }), h("th", { scope: "col", class: "number", text: "Of all ticks" }))),
        h("tbody", {}, ...drops.map(({ name, value }) => h("tr", {}, h("td", { text: name.replace("dropped.", "").replaceAll("_", " ") }), h("td", { class: "number", text: whole(value) }), h("td", { class: "number", text: percent(ticks > 0 ? value / ticks : 0) })))),
      ),
  );
}

/** @param {Status} status */
function collectorSection({ collector }) {
  if (!collector) return h("section", {}, h("h2", { text: "Collector" }), h("p", { class: "faint", text: "No collector listens in this process." }));
  return h("section", {}, h("h2", {}, h("span", { class: "lamp" }), "Collector on ", h("span", { class: "code", text: collector.address })), counterTable(collector.counters, "Counters of the collector"));
}

export function storagePage() {
  return new Sheet(
    "Storage",
    () => address("status"),
    (/** @type {Status} */ { store, version }) => {
      const length = store.first !== null && store.last !== null ? store.last - store.first : 0;
      return [
        h(
          "section",
          {},
          h("h2", {}, h("span", { class: store.refusing ? "lamp lamp-off" : "lamp" }), store.refusing ? "The store refuses writes" : "The store accepts writes"),
          h("p", { class: "code", text: store.description }),
          store.refusing && h("p", { class: "reason", text: store.refusing }),
          h(
            "div",
            { class: "tiles" },
            tile(bytes(store.event_bytes), "events", `${whole(store.event_bytes)} bytes`),
            tile(bytes(store.dictionary_bytes), "dictionaries: stacks, frames, names", `${whole(store.dictionary_bytes)} bytes`),
            tile(store.samples > 0 ? `${(store.event_bytes / store.samples).toFixed(2)}\u00a0B` : "–", "events per sample"),
            tile(short(store.samples), "samples", whole(store.samples)),
            tile(short(store.stacks), "stacks", whole(store.stacks)),
            tile(short(store.frames), "frames", whole(store.frames)),
            tile(short(store.executables), "executables", whole(store.executables)),
          ),
        ),
        h(
          "section",
          {},
          h("h2", { text: "Time" }),
          h("div", { class: "tiles" }, h("div", { class: "tile" }, moment(store.first), h("span", { text: "oldest sample" })), h("div", { class: "tile" }, moment(store.last), h("span", { text: "newest sample" })), tile(length > 0 ? span(length) : "–", "between them")),
          h("p", { class: "faint", text: `everflame ${version}` }),
        ),
      ];
    },
  );
}

export function symbolsPage() {
  return new Sheet(
    "Symbols",
    (now) => address("functions", { from: now.from, to: now.to, filter: now.filter, limit: 100_000, sort: "self" }),
    (/** @type {import("./types.js").FunctionsAnswer} */ answer) => {
      const groups = nameless(answer);
      const self = groups.reduce((sum, g) => sum + g.self, 0);
      const samples = Math.max(1, answer.samples);
      return [
        h(
          "section",
          {},
          h("h2", {}, h("span", { class: groups.length === 0 ? "lamp" : "lamp lamp-off" }), groups.length === 0 ? "Every function in this range has a name" : `${percent(self / samples)} of samples end in code without a name`),
          groups.length > 0 && h("p", { class: "faint", text: "By library and reason, largest first. Names that appear later are shown for old samples too." }),
          groups.length > 0 &&
            h(
              "table",
              { class: "plain-table" },
              h("thead", {}, h("tr", {}, ...["Library", "Why there are no names"].map((text) => h("th", { scope: "col", text })), ...["Addresses", "Samples", "Share"].map((text) => h("th", { scope: "col", class: "number", text })))),
              h(
                "tbody",
                {},
                ...groups.map((g) =>
                  h(
                    "tr",
                    {},
                    h("td", { class: "code" }, h("a", { href: state.link({ view: "flamegraph", q: g.library || g.example }), "data-link": true, text: g.library || g.example })),
                    h("td", { text: g.reason }),
                    h("td", { class: "number", text: whole(g.addresses) }),
                    h("td", { class: "number", text: whole(g.self) }),
                    h("td", { class: "number", text: percent(g.self / samples) }),
                  ),
                ),
              ),
            ),
        ),
      ];
    },
  );
}
