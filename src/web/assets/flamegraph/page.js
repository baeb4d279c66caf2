//! The Flame graph page: turns the state of the URL into a picture, and what a person does in it into a new state.

import { Channel, address } from "../api.js";
import { showDetails } from "../details.js";
import { copyText, fill, h, openPopover } from "../dom.js";
import { explain } from "../empty.js";
import { narrowed } from "../filter_text.js";
import { percent, short, stamp, whole } from "../format.js";
import { FunctionList, nextSort } from "../function_list.js";
import { Panel } from "../panel.js";
import * as state from "../state.js";
import { onTheme, theme, tokens } from "../theme.js";
import { mixPaint } from "./colors.js";
import { collapsed, save, speedscope, stackText } from "./export.js";
import { Graph } from "./graph.js";
import { KEYS, answerKey, neighbour } from "./keyboard.js";
import { layOut } from "./layout.js";
import { openMenu } from "./menu.js";
import { matchFunctions, measure, pattern } from "./search.js";
import { kindShares, showBox, showLegend, spoken } from "./status_line.js";
import { Toolbar } from "./toolbar.js";
import { Functions, findPath, pathHashes, pathText, readTree, sumByFunction, without } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {Readonly<import("../state.js").State>} State */

/**
 * One tree of the answer and the graph that shows it.
 * @typedef {object} Pane
 * @property {Graph} graph
 * @property {Tree} raw as answered
 * @property {Tree} tree after leaving out functions
 * @property {import("./layout.js").Layout} layout
 * @property {ReturnType<typeof pathHashes>} hashes
 * @property {number[]} matches nodes found by the search
 */

/** Stand in until the state has said in which order and without what: `#show` computes them once. */
const NO_HASHES = { high: new Uint32Array(0), low: new Uint32Array(0) };
const NO_LAYOUT = /** @type {import("./layout.js").Layout} */ (/** @type {unknown} */ (null));

/** Mark of the second pane (callers) before a path in the URL. */
const SECOND = "~";

export class FlamegraphPage {
  constructor() {
    this.channel = new Channel();
    this.asked = "";
    /** Question of the picture on the screen. */
    this.shownUrl = "";
    /** @type {import("../types.js").FlamegraphAnswer | null} */
    this.answer = null;
    /** @type {Functions | null} */
    this.functions = null;
    /** Callees or the whole tree first, callers second. @type {Pane[]} */
    this.panes = [];
    this.graphs = [this.#makeGraph("Flame graph"), this.#makeGraph("Callers")];
    /** Functions that the search found, `null` without one. @type {Uint8Array | null} */
    this.match = null;
    /** Self time by kind, for the legend. @type {ReturnType<typeof kindShares>} */
    this.shares = [];
    this.windowTimer = 0;
    this.matchAt = -1;
    /** Pane that keys act on. */
    this.front = 0;
    /** @type {State | null} */
    this.shown = null;
    this.toolbar = new Toolbar({
      search: (text) => state.change({ q: text }, { replace: true }),
      nextMatch: (step) => this.#nextMatch(step),
      reset: () => this.#reset(),
      download: (format) => this.#download(format),
      keys: () => this.#showKeys(),
      leave: (patch) => state.change(patch),
    });
    this.line = h("div", { class: "status-line" });
    this.live = h("div", { class: "off-screen", "aria-live": "polite", role: "status" });
    this.details = h("aside", { class: "details", hidden: true, "aria-label": "Details of the selected box" });
    this.twin = new FunctionList(
      "Functions of the graph",
      (f, event) => this.#openFunction(f, event.altKey),
      (column) => state.change({ sort: nextSort(state.current().sort, column) }),
      (f) => this.panes.forEach((pane) => pane.graph.hint(f)),
    );
    this.twin.element.hidden = true;
    this.stack = h("div", { class: "graphs" });
    this.panel = new Panel(h("div", { class: "graph-area" }, h("div", { class: "graph-column" }, this.stack, this.twin.element), this.details));
    this.element = h("section", { class: "page", "aria-label": "Flame graph" }, this.toolbar.element, this.panel.element, this.line, this.live);
    this.keys = h(
      "div",
      { class: "keys", popover: "auto", "aria-label": "Keys" },
      h("h2", { text: "Keys" }),
      h("table", {}, h("tbody", {}, ...KEYS.map(([key, what]) => h("tr", {}, h("td", {}, h("kbd", { text: key })), h("td", { text: what }))))),
    );
    this.element.append(this.keys);
    onTheme(() => this.#recolor());
  }

  /** @param {string} label */
  #makeGraph(label) {
    return new Graph(
      {
        hover: (graph, pick) => this.#hover(graph, pick),
        zoom: (graph, node) => {
          this.front = this.#indexOf(graph);
          const text = this.#pathText(graph, node);
          state.change({ zoom: node === graph.zoomed && graph.atZoom ? this.#pathText(graph, this.#wider(graph)) : text, sel: text, x: "" });
        },
        select: (graph, node, pin) => {
          this.front = this.#indexOf(graph);
          state.change(pin ? { sel: this.#pathText(graph, node), details: "1" } : { sel: node < 0 ? "" : this.#pathText(graph, node) }, { replace: !pin });
        },
        menu: (graph, node, x, y) => {
          this.front = this.#indexOf(graph);
          state.change({ sel: this.#pathText(graph, node) }, { replace: true });
          this.#openMenu(graph, node, x, y);
        },
        window: (graph) => this.#rememberWindow(graph),
      },
      label,
    );
  }

  /** @param {Graph} graph */
  #indexOf(graph) {
    return Math.max(0, this.panes.findIndex((pane) => pane.graph === graph));
  }

  /** @param {Graph} graph @param {number} node */
  #pathText(graph, node) {
    const at = this.#indexOf(graph);
    const pane = this.panes[at];
    if (!pane || node <= 0) return "";
    return (at === 1 ? SECOND : "") + pathText(pane.hashes, node);
  }

  /** Pane and node of a path in the URL; node 0 for "", -1 when it is not in this answer. @param {string} text */
  #find(text) {
    const at = text.startsWith(SECOND) ? 1 : 0;
    const pane = this.panes[at];
    return { at, node: pane ? findPath(pane.hashes, text.replace(SECOND, "")) : -1 };
  }

  /**
   * @param {State} now
   * @param {{force: boolean}} how
   */
  update(now, how) {
    const url = address("flamegraph", { from: now.from, to: now.to, filter: now.filter, by: now.by, focus: now.focus });
    if (url !== this.asked || how.force) void this.#load(url, now);
    else this.#show(now);
    this.toolbar.show(now, now.zoom !== "" || now.x !== "");
  }

  /** @param {string} url @param {State} now */
  async #load(url, now) {
    this.asked = url;
    this.panel.waiting();
    try {
      /** @type {import("../types.js").FlamegraphAnswer | null} */
      const answer = await this.channel.load(url);
      if (!answer) return;
      if (answer.samples === 0) {
        this.panes = [];
        this.shown = null;
        fill(this.line);
        this.panel.empty(await explain(now));
        return;
      }
      const functions = new Functions(answer.functions, answer.strings);
      const trees = "nodes" in answer ? [readTree(answer.nodes, functions)] : [readTree(answer.callees.nodes, functions), readTree(answer.callers.nodes, functions)];
      this.answer = answer;
      this.functions = functions;
      this.panes = trees.map((tree, at) => ({ graph: /** @type {Graph} */ (this.graphs[at]), raw: tree, tree, layout: NO_LAYOUT, hashes: NO_HASHES, matches: [] }));
      // The same question again (live, refresh): the view stays where it was scrolled to.
      const scrolls = url === this.shownUrl ? this.graphs.map((graph) => (graph.target ?? graph.camera).scroll) : [];
      this.shownUrl = url;
      this.front = 0;
      this.shown = null;
      this.panel.done();
      fill(this.stack, ...this.panes.map((pane) => pane.graph.element).reverse());
      this.stack.classList.toggle("sandwich", this.panes.length === 2);
      this.#show(state.current());
      scrolls.forEach((scroll, at) => this.graphs[at]?.scrollTo(scroll));
    } catch (error) {
      this.panel.failed(error, () => void this.#load(url, state.current()));
      if (now.focus !== "") this.#showChips(now);
    }
  }

  /** Brings the picture in line with the state, doing only what changed. @param {State} now */
  #show(now) {
    const { functions } = this;
    if (!functions || this.panes.length === 0) return;
    const before = this.shown;
    this.shown = now;
    /** @param {(keyof State)[]} keys */
    const changed = (...keys) => !before || keys.some((key) => before[key] !== now[key]);
    const newTree = changed("ignore", "collapse");
    const newLayout = newTree || changed("order");
    const newPaint = newTree || changed("q", "color");
    if (newTree) this.#leaveOut(now, functions);
    if (newTree) this.shares = kindShares(/** @type {Pane} */ (this.panes[0]).tree, functions);
    if (newLayout) for (const pane of this.panes) pane.layout = layOut(pane.tree, now.order === "share" ? "share" : "name");
    if (changed("q") || newTree) this.#search(now, functions);
    for (const [at, pane] of this.panes.entries()) {
      if (changed("dir", "focus")) pane.graph.flip(this.panes.length === 2 ? at === 1 : now.dir === "flame");
      if (newLayout) pane.graph.show(pane.layout, functions, this.#paint(pane, now), Boolean(before) && !newTree);
      else if (newPaint) pane.graph.recolor(this.#paint(pane, now));
    }
    if (newLayout || changed("zoom", "x")) this.#aim(now, before, newLayout);
    if (newLayout || changed("sel", "details")) this.#showSelected(now);
    if (newTree || newPaint || changed("by", "focus")) this.#showChips(now);
    this.twin.element.hidden = now.table === "";
    this.stack.hidden = now.table !== "";
    if (now.table !== "" && (newTree || changed("table", "zoom", "sort", "q"))) this.#showTwin(now);
    this.#legend();
  }

  /** @param {State} now @param {Functions} functions */
  #leaveOut(now, functions) {
    const keys = new Set(now.ignore.split(",").filter(Boolean).map(decodeURIComponent));
    const ignored = new Uint8Array(functions.count);
    if (keys.size > 0) for (let f = 0; f < functions.count; f += 1) if ((functions.kind[f] ?? 0) < 256 && keys.has(functions.key(f))) ignored[f] = 1;
    for (const pane of this.panes) {
      const { raw } = pane;
      const repeats = now.collapse !== "";
      pane.tree = keys.size === 0 && !repeats ? raw : without(raw, functions, (i) => ignored[raw.fn[i] ?? 0] === 1 || (repeats && raw.fn[raw.parent[i] ?? 0] === raw.fn[i]));
      pane.hashes = pathHashes(pane.tree, functions);
    }
  }

  /** @param {State} now @param {Functions} functions */
  #search(now, functions) {
    this.matchAt = -1;
    const wanted = pattern(now.q);
    this.match = wanted && wanted.problem === "" ? matchFunctions(functions, wanted.test) : null;
    if (!wanted || !this.match || !this.answer) {
      for (const pane of this.panes) pane.matches = [];
      this.toolbar.showResult(wanted?.problem ?? "", Boolean(wanted));
      return;
    }
    const samples = Math.max(1, this.answer.samples);
    const parts = [];
    for (const [at, pane] of this.panes.entries()) {
      const found = measure(pane.tree, this.match, functions.count);
      pane.matches = found.nodes;
      const where = this.panes.length === 2 ? (at === 0 ? " below" : " above") : "";
      parts.push(found.nodes.length === 0 ? `No match${where}` : `${percent(found.samples / samples)} of samples in ${whole(found.functions)} ${found.functions === 1 ? "function" : "functions"}${where}`);
    }
    this.toolbar.showResult(parts.join(" · "), false);
  }

  /** @param {Pane} pane @param {State} now */
  #paint(pane, now) {
    const page = tokens();
    const mode = /** @type {import("./colors.js").Mode} */ (["library", "package", "group", "plain"].includes(now.color) ? now.color : "kind");
    return mixPaint(pane.tree, /** @type {Functions} */ (this.functions), mode, theme(), this.match, { background: page.background, font: page.mono });
  }

  #recolor() {
    const now = this.shown;
    if (!now) return;
    for (const pane of this.panes) pane.graph.recolor(this.#paint(pane, now));
    this.#showSelected(now);
    this.#legend();
  }

  /** Zoom and window of the state. @param {State} now @param {State | null} before @param {boolean} newLayout */
  #aim(now, before, newLayout) {
    const { at, node } = this.#find(now.zoom);
    const animate = Boolean(before) && !newLayout;
    for (const [index, pane] of this.panes.entries()) pane.graph.zoomTo(index === at && node > 0 ? node : 0, animate);
    const range = /^(~?)([\d.]+)-([\d.]+)$/.exec(now.x);
    const pane = range && this.panes[range[1] ? 1 : 0];
    if (range && pane) {
      const whole = pane.tree.total[0] ?? 1;
      pane.graph.setWindow(Number(range[2]) * whole, Number(range[3]) * whole, animate);
    }
  }

  /** A window moved by hand goes into the URL when it rests. @param {Graph} graph */
  #rememberWindow(graph) {
    clearTimeout(this.windowTimer);
    this.windowTimer = window.setTimeout(() => {
      const whole = Math.max(1, graph.layout?.tree.total[0] ?? 1);
      const { x0, x1 } = graph.target ?? graph.camera;
      const mark = this.#indexOf(graph) === 1 ? SECOND : "";
      /** @param {number} x */
      const text = (x) => String(Number((x / whole).toPrecision(9)));
      const x = graph.atZoom ? "" : `${mark}${text(x0)}-${text(x1)}`;
      const zoom = this.#pathText(graph, graph.zoomed);
      // The picture is already there: only the URL and the toolbar follow.
      if (this.shown) this.shown = { ...this.shown, x, zoom };
      state.change({ x, zoom }, { replace: true });
    }, 150);
  }

  /** @param {Graph} graph @param {import("./pick.js").Pick | null} pick */
  #hover(graph, pick) {
    const pane = this.panes[this.#indexOf(graph)];
    if (!pane || !this.functions || !this.answer) return;
    for (const other of this.panes) if (other !== pane) other.graph.hint(pick && pick.count === 1 && pick.node > 0 ? pane.tree.fn[pick.node] ?? -1 : -1);
    if (pick) showBox(this.line, pane.tree, this.functions, pick, this.answer);
    else this.#legend();
  }

  /** What the line says: the box pointed at, else the selected box, else the legend. */
  #legend() {
    const pane = this.panes[this.front];
    if (!pane || !this.functions || !this.answer) return;
    const pointed = this.panes.find((p) => p.graph.hovered);
    if (pointed?.graph.hovered) {
      showBox(this.line, pointed.tree, this.functions, pointed.graph.hovered, this.answer);
      return;
    }
    const selected = pane.graph.selected;
    if (selected > 0) {
      showBox(this.line, pane.tree, this.functions, { node: selected, count: 1, samples: 0 }, this.answer);
      return;
    }
    const folded = this.answer.folded_nodes;
    showLegend(this.line, this.shares, this.answer, folded > 0 ? `${short(folded)} smallest boxes folded away` : "");
  }

  /** @param {State} now */
  #showSelected(now) {
    const { at, node } = this.#find(now.sel);
    const selected = now.sel === "" ? -1 : node;
    if (now.sel !== "" && node > 0) this.front = at;
    for (const [index, pane] of this.panes.entries()) pane.graph.select(index === at && selected > 0 ? selected : -1, false);
    this.details.hidden = now.details === "";
    const pane = this.panes[this.front];
    if (!pane || !this.functions || !this.answer) return;
    if (selected > 0) this.live.textContent = spoken(pane.tree, this.functions, selected, this.answer);
    if (now.details === "") return;
    const { graph } = pane;
    showDetails(this.details, selected > 0 ? { tree: pane.tree, functions: this.functions, node: selected, totals: this.answer } : null, {
      zoom: (target) => state.change({ zoom: this.#pathText(graph, target), x: "" }),
      focus: (f) => this.#openFunction(f, false),
      select: (target) => {
        state.change({ sel: this.#pathText(graph, target) }, { replace: true });
        graph.select(target, true);
      },
      close: () => state.change({ details: "" }),
    });
  }

  /** @param {State} now */
  #showChips(now) {
    const chips = [];
    const { functions } = this;
    if (now.focus !== "") {
      const pane = this.panes[0];
      chips.push({ text: "Callers above and callees below of", name: pane && functions && this.panes.length === 2 ? functions.name(pane.tree.fn[0] ?? 0) : "a function", undo: "Back to the whole graph", run: () => state.change({ focus: "", zoom: "", x: "", sel: "" }) });
    }
    for (const key of now.ignore.split(",").filter(Boolean)) {
      let name = "";
      if (functions) for (let f = 0; f < functions.count && name === ""; f += 1) if (functions.key(f) === decodeURIComponent(key)) name = functions.name(f);
      const rest = now.ignore.split(",").filter((other) => other !== key).join(",");
      chips.push({ text: "Left out:", name: name || "a function that is not here", undo: "Show it again", run: () => state.change({ ignore: rest, zoom: "", x: "", sel: "" }) });
    }
    if (now.collapse !== "") chips.push({ text: "Recursion collapsed", name: "", undo: "Show every level", run: () => state.change({ collapse: "", zoom: "", x: "", sel: "" }) });
    if (now.zoom !== "" && this.#find(now.zoom).node < 0) chips.push({ text: "The zoomed box is not in this selection", name: "", undo: "Forget the zoom", run: () => state.change({ zoom: "", x: "" }) });
    this.toolbar.showChips(chips);
  }

  /** @param {State} now */
  #showTwin(now) {
    const pane = this.panes[0];
    if (!pane || !this.functions || !this.answer) return;
    const zoom = this.#find(now.zoom);
    const root = zoom.at === 0 && zoom.node > 0 ? zoom.node : 0;
    const sums = sumByFunction(pane.tree, this.functions, root);
    this.twin.show({ functions: this.functions, self: sums.self, total: sums.total, totals: this.answer }, now.sort, now.q);
  }

  /** @param {number} f @param {boolean} find */
  #openFunction(f, find) {
    const functions = this.functions;
    if (!functions) return;
    const key = functions.key(f);
    if (find || key === "") state.change({ q: functions.name(f), table: "" });
    else state.change({ focus: key, table: "", zoom: "", x: "", sel: "", q: "" });
  }

  /** The nearest ancestor that is really wider. @param {Graph} graph */
  #wider(graph) {
    const tree = graph.layout?.tree;
    if (!tree) return 0;
    let node = tree.parent[graph.zoomed] ?? 0;
    while (node > 0 && (tree.total[node] ?? 0) <= (tree.total[graph.zoomed] ?? 0) * 1.02) node = tree.parent[node] ?? 0;
    return node;
  }

  #reset() {
    for (const pane of this.panes) pane.graph.zoomTo(0, true);
    state.change({ zoom: "", x: "" });
  }

  /** @param {1 | -1} step */
  #nextMatch(step) {
    const all = this.panes.flatMap((pane, at) => pane.matches.map((node) => ({ at, node })));
    if (all.length === 0) return;
    this.matchAt = (this.matchAt + step + (this.matchAt < 0 && step < 0 ? 1 : 0) + all.length) % all.length;
    const hit = all[this.matchAt];
    const pane = hit && this.panes[hit.at];
    if (!hit || !pane) return;
    this.front = hit.at;
    this.#select(pane.graph, hit.node);
    this.toolbar.showResult(`${whole(this.matchAt + 1)} of ${whole(all.length)} boxes`, false);
  }

  /** @param {Graph} graph @param {number} node */
  #select(graph, node) {
    state.change({ sel: this.#pathText(graph, node) }, { replace: true });
    graph.select(node, true);
    this.#legend();
  }

  /** @param {Graph} graph @param {number} node @param {number} x @param {number} y */
  #openMenu(graph, node, x, y) {
    const pane = this.panes[this.#indexOf(graph)];
    const { functions } = this;
    const now = state.current();
    if (!pane || !functions) return;
    const f = pane.tree.fn[node] ?? 0;
    const isGroup = functions.kind[f] === 257;
    const key = functions.key(f);
    const name = functions.name(f);
    openMenu(
      [
        { text: "Zoom", key: "Enter", run: () => state.change({ zoom: this.#pathText(graph, node), x: "" }) },
        isGroup
          ? { text: `Filter to this ${now.by}`, run: () => state.change({ filter: narrowed(now.filter, now.by, name), zoom: "", x: "", sel: "" }) }
          : { text: "Focus this function", off: key === "", run: () => this.#openFunction(f, false) },
        isGroup
          ? { text: `Exclude this ${now.by}`, run: () => state.change({ filter: narrowed(now.filter, now.by, name, true), zoom: "", x: "", sel: "" }) }
          : { text: "Leave out this function", off: key === "", run: () => state.change({ ignore: [...now.ignore.split(",").filter(Boolean), encodeURIComponent(key)].join(","), zoom: "", x: "", sel: "" }) },
        { text: now.collapse ? "Show every level of recursion" : "Collapse recursion", run: () => state.change({ collapse: now.collapse ? "" : "1", zoom: "", x: "", sel: "" }) },
        null,
        { text: "Find everywhere", run: () => state.change({ q: name }) },
        { text: "Copy name", run: () => void copyText(name) },
        { text: "Copy stack", run: () => void copyText(stackText(pane.tree, functions, node, "\n")) },
        { text: "Details", key: "i", run: () => state.change({ sel: this.#pathText(graph, node), details: "1" }) },
      ],
      x,
      y,
    );
  }

  /** @param {"collapsed" | "speedscope"} format */
  #download(format) {
    const pane = this.panes[0];
    if (!pane || !this.functions || !this.answer) return;
    const name = `everflame ${stamp(this.answer.from)}`;
    if (format === "collapsed") save(collapsed(pane.tree, this.functions), `${name.replace(/[ :]/g, "-")}.collapsed.txt`, "text/plain");
    else save(speedscope(pane.tree, this.functions, name), `${name.replace(/[ :]/g, "-")}.speedscope.json`, "application/json");
  }

  #showKeys() {
    if (this.keys.matches(":popover-open")) this.keys.hidePopover();
    else openPopover(this.keys, window.innerWidth - 480, 120);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const pane = this.panes[this.front];
    const graph = pane?.graph;
    return answerKey(
      event,
      {
        search: () => {
          this.toolbar.search.focus();
          this.toolbar.search.select();
        },
        nextMatch: (step) => this.#nextMatch(step),
        walk: (direction) => {
          if (!graph?.layout) return;
          this.#select(graph, neighbour(graph.layout, graph.selected > 0 ? graph.selected : graph.zoomed, direction));
        },
        zoom: () => {
          if (graph && graph.selected > 0) state.change({ zoom: this.#pathText(graph, graph.selected), x: "" });
        },
        up: () => {
          const now = state.current();
          if (now.x !== "") state.change({ x: "" });
          else if (graph && now.zoom !== "") state.change({ zoom: this.#pathText(graph, this.#wider(graph)), x: "" });
          else if (now.sel !== "") state.change({ sel: "" }, { replace: true });
          else if (now.q !== "") state.change({ q: "" }, { replace: true });
          else if (now.focus !== "") state.change({ focus: "" });
        },
        reset: () => this.#reset(),
        scale: (factor) => graph?.zoomAround(factor, graph.stage.clientWidth / 2),
        details: () => state.change({ details: state.current().details ? "" : "1" }),
        table: () => state.change({ table: state.current().table ? "" : "1" }),
        menu: () => {
          if (!graph || graph.selected <= 0) return;
          const box = graph.stage.getBoundingClientRect();
          this.#openMenu(graph, graph.selected, box.left + box.width / 3, box.top + 60);
        },
        flip: () => state.change({ dir: state.current().dir === "icicle" ? "flame" : "icicle" }),
        order: () => state.change({ order: state.current().order === "name" ? "share" : "name" }),
        keys: () => this.#showKeys(),
        flipped: () => graph?.camera.flipped ?? false,
      },
      this.graphs.some((g) => g.stage === document.activeElement) || document.activeElement === document.body,
    );
  }
}
