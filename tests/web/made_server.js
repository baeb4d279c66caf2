//! Serves the page and answers `docs/api.md` from made samples: for the scenes and for working on the page without an agent.
//! `node tests/web/made_server.js [--port 8251] [--nodes 1000000]`. Nothing here is shipped.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { tokens } from "../../src/web/assets/filter_text.js";
import { instant } from "../../src/web/assets/time_range.js";
import { FIELDS, bigTree, readPrograms, samples } from "./made_data.js";

const ASSETS = fileURLToPath(new URL("../../src/web/assets/", import.meta.url));
/** @type {{[extension: string]: string}} */
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
/** What the real server sends; the page must live with it. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HISTORY_MS = 26 * 3_600_000;
const NS_PER_SAMPLE = 50_000_000;

/** @typedef {import("./made_data.js").Source} Source */
/** @typedef {(source: Source) => boolean} Test */

class BadInput extends Error {
  /** @param {string} message @param {string} [hint] @param {number} [position] */
  constructor(message, hint, position) {
    super(message);
    this.hint = hint;
    this.position = position;
  }
}

/** @param {string} name */
function fieldOf(name) {
  return FIELDS.find((f) => f.field === name || f.aliases.includes(name))?.field;
}

/** The part of KQL that the scenes use. @param {string} text @returns {Test} */
export function parseFilter(text) {
  const list = tokens(text).filter((t) => t.kind !== "space");
  let at = 0;
  const either = () => {
    const parts = [both()];
    while (/^or$/i.test(list[at]?.text ?? "")) {
      at += 1;
      parts.push(both());
    }
    return /** @type {Test} */ ((s) => parts.some((p) => p(s)));
  };
  const both = () => {
    const parts = [one()];
    while (/^and$/i.test(list[at]?.text ?? "")) {
      at += 1;
      parts.push(one());
    }
    return /** @type {Test} */ ((s) => parts.every((p) => p(s)));
  };
  /** @returns {Test} */
  const one = () => {
    const token = list[at];
    if (!token) throw new BadInput("filter: expected a field, found end of text", "write process: nginx", text.length);
    if (/^not$/i.test(token.text)) {
      at += 1;
      const inner = one();
      return (s) => !inner(s);
    }
    if (token.kind === "(") {
      at += 1;
      const inner = either();
      if (list[at]?.kind !== ")") throw new BadInput(`filter: expected ")", found ${list[at] ? `"${list[at]?.text}"` : "end of text"}`, "close the bracket", list[at]?.from ?? text.length);
      at += 1;
      return inner;
    }
    const field = fieldOf(token.text);
    if (!field) throw new BadInput(`filter: unknown field "${token.text}"`, `fields: ${FIELDS.map((f) => f.aliases[0]).join(", ")}`, token.from);
    if (list[at + 1]?.kind !== ":") throw new BadInput(`filter: expected ":" after "${token.text}"`, `write ${token.text}: value`, list[at + 1]?.from ?? text.length);
    const value = list[at + 2];
    if (!value || (value.kind !== "word" && value.kind !== "text")) throw new BadInput(`filter: expected a value after "${token.text}:", found ${value ? `"${value.text}"` : "end of text"}`, "write process: nginx", value?.from ?? text.length);
    at += 3;
    const wanted = value.kind === "text" ? value.text.slice(1, -1).replace(/\\(.)/g, "$1") : value.text;
    const pattern = new RegExp(`^${wanted.split("*").map((p) => p.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`, "s");
    return (s) => pattern.test(s.values[field] ?? "");
  };
  if (list.length === 0) return () => true;
  const test = either();
  if (at < list.length) throw new BadInput(`filter: expected "and" or "or", found "${list[at]?.text}"`, "join conditions with and", list[at]?.from);
  return test;
}

/** Names each text once. */
class Strings {
  constructor() {
    this.list = [""];
    /** @type {Map<string, number>} */
    this.known = new Map([["", 0]]);
  }

  /** @param {string} text */
  id(text) {
    let id = this.known.get(text);
    if (id === undefined) {
      id = this.list.length;
      this.known.set(text, id);
      this.list.push(text);
    }
    return id;
  }
}

/** Function columns of an answer. */
class Columns {
  constructor() {
    this.strings = new Strings();
    /** @type {Map<string, number>} */
    this.known = new Map();
    this.columns = { name: [0], library: [0], file: [0], kind: [256], inlined: [0], reason: [0], key: [""] };
  }

  /** @param {Omit<import("./made_data.js").Frame, "line">} frame */
  id(frame) {
    const id = frame.key || `group ${frame.name}`;
    let at = this.known.get(id);
    if (at === undefined) {
      at = this.columns.name.length;
      this.known.set(id, at);
      this.columns.name.push(this.strings.id(frame.name));
      this.columns.library.push(this.strings.id(frame.library));
      this.columns.file.push(this.strings.id(frame.file));
      this.columns.kind.push(frame.kind);
      this.columns.inlined.push(frame.inlined);
      this.columns.reason.push(this.strings.id(frame.reason));
      this.columns.key.push(frame.key);
    }
    return at;
  }

  /** @param {number} f */
  name(f) {
    return this.strings.list[this.columns.name[f] ?? 0] ?? "";
  }
}

/** @typedef {{fn: number, line: number, self: number, total: number, below: Map<number, Node>}} Node */

/** @param {number} fn @param {number} line @returns {Node} */
const node = (fn, line) => ({ fn, line, self: 0, total: 0, below: new Map() });

/** @param {Node} root @param {[number, number][]} path functions with lines @param {number} count */
function add(root, path, count) {
  let at = root;
  root.total += count;
  for (const [fn, line] of path) {
    let next = at.below.get(fn);
    if (!next) {
      next = node(fn, line);
      at.below.set(fn, next);
    }
    next.total += count;
    at = next;
  }
  at.self += count;
}

/** @param {Node} root @param {Columns} columns */
function flatten(root, columns) {
  const nodes = { parent: [0], function: [root.fn], self: [root.self], total: [root.total], line: [0] };
  /** @param {Node} above @param {number} parent */
  const walk = (above, parent) => {
    const children = [...above.below.values()].sort((a, b) => (columns.name(a.fn) < columns.name(b.fn) ? -1 : 1));
    for (const child of children) {
      const at = nodes.parent.length;
      nodes.parent.push(parent);
      nodes.function.push(child.fn);
      nodes.self.push(child.self);
      nodes.total.push(child.total);
      nodes.line.push(child.line);
      walk(child, at);
    }
  };
  walk(root, 0);
  return nodes;
}

export class Made {
  /** @param {{nodes?: number, empty?: boolean, agent?: "running" | "stopped", now?: number}} [options] */
  constructor(options = {}) {
    this.options = options;
    this.sources = readPrograms();
    this.started = this.now();
    /** Requests seen, newest last. @type {string[]} */
    this.seen = [];
    /** Set by a scene: answer every query with this. @type {{status: number, body: object} | null} */
    this.refuse = null;
    /** Set by a scene: wait this long before answering. */
    this.delayMs = 0;
    this.big = options.nodes ? bigTree(options.nodes) : null;
    this.bigText = "";
  }

  now() {
    return this.options.now ?? Date.now();
  }

  /** @param {URLSearchParams} params */
  selection(params) {
    const now = this.now();
    const from = instant(params.get("from") ?? "now-15m", now);
    const to = instant(params.get("to") ?? "now", now);
    if (from === null || to === null) throw new BadInput(`from: expected milliseconds or now-15m, found "${params.get("from")}"`, "write now-15m");
    if (from >= to) throw new BadInput("from must lie before to", "choose a longer range");
    const test = parseFilter(params.get("filter") ?? "");
    const sources = this.options.empty ? [] : this.sources.filter(test);
    const a = Math.max(from, now - HISTORY_MS);
    const b = Math.min(to, now);
    return { from, to, sources, count: (/** @type {Source} */ s) => samples(s, a, b), a, b };
  }

  /** @param {ReturnType<Made["selection"]>} selection */
  totals({ from, to, sources, count }) {
    const all = sources.reduce((sum, s) => sum + count(s), 0);
    const broken = sources.filter((s) => s.frames.some((f) => f.kind === 128)).reduce((sum, s) => sum + count(s), 0);
    return { from, to, samples: all, cpu_ns: all * NS_PER_SAMPLE, complete: all - broken, precision: { exact: true } };
  }

  /** @param {string} path @param {URLSearchParams} params */
  answer(path, params) {
    switch (path) {
      case "status":
        return this.status();
      case "fields":
        return { fields: FIELDS };
      case "values":
        return this.values(params);
      case "timeline":
        return this.timeline(params);
      case "flamegraph":
        return this.flamegraph(params);
      case "functions":
        return this.functions(params);
      default:
        return null;
    }
  }

  status() {
    const now = this.now();
    const stopped = this.options.agent === "stopped";
    const stored = this.options.empty ? 0 : 1_284_311;
    return {
      version: "0.1.0",
      now,
      started: this.started,
      store: { description: "embedded /var/lib/everflame", event_bytes: stored * 3 - (stored % 7), dictionary_bytes: stored && 4_812_331, samples: stored, stacks: stored && 48_211, frames: stored && 9_120, executables: stored && 131, first: stored ? now - HISTORY_MS : null, last: stored ? now : null, refusing: null },
      agent: {
        running: !stopped,
        problem: stopped ? "loading the BPF object: operation not permitted" : null,
        hint: stopped ? "run as root, or give the program CAP_BPF and CAP_PERFMON" : null,
        frequency_hz: 20,
        cpus: 8,
        kernel: "6.18.44",
        object: "modern",
        processes: 51,
        tables: 130,
        pool_bytes: 4_194_304,
        resident_bytes: 41_000_000,
        notes: [],
        counters: [
          { name: "ticks", value: 1_284_931 },
          { name: "stored", value: 1_284_311 },
          { name: "dropped.ring_full", value: 212 },
          { name: "dropped.idle_task", value: 0 },
          { name: "dropped.process_gone", value: 388 },
          { name: "frames_unwound", value: 31_200_411 },
          { name: "table_misses", value: 4021 },
        ],
      },
      collector: { address: "127.0.0.1:8260", counters: [{ name: "batches_received", value: 3112 }, { name: "samples_received", value: 1_284_311 }, { name: "refused_token", value: 0 }] },
    };
  }

  /** @param {URLSearchParams} params */
  values(params) {
    const field = fieldOf(params.get("field") ?? "");
    if (!field) throw new BadInput(`field: unknown field "${params.get("field")}"`);
    const selection = this.selection(params);
    /** @type {Map<string, number>} */
    const sums = new Map();
    for (const s of selection.sources) sums.set(s.values[field] ?? "", (sums.get(s.values[field] ?? "") ?? 0) + selection.count(s));
    const prefix = params.get("prefix") ?? "";
    const values = [...sums].filter(([value, count]) => count > 0 && value.startsWith(prefix)).map(([value, count]) => ({ value, samples: count })).sort((a, b) => b.samples - a.samples);
    return { values: values.slice(0, Number(params.get("limit") ?? 20)) };
  }

  /** @param {URLSearchParams} params */
  timeline(params) {
    const selection = this.selection(params);
    const { from, to, sources } = selection;
    const by = params.get("by");
    const field = by ? fieldOf(by) : "";
    if (field === undefined) throw new BadInput(`by: unknown field "${by}"`);
    const wanted = Number(params.get("buckets") ?? 240);
    const steps = [100, 250, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 14_400_000, 86_400_000];
    const width = steps.find((s) => s >= (to - from) / wanted) ?? 86_400_000;
    const start = Math.floor(from / width) * width;
    const buckets = Math.ceil((to - start) / width);
    /** @type {Map<string, number[]>} */
    const groups = new Map();
    for (const s of sources) {
      const group = field ? s.values[field] ?? "" : "";
      let list = groups.get(group);
      if (!list) {
        list = new Array(buckets).fill(0);
        groups.set(group, list);
      }
      for (let b = 0; b < buckets; b += 1) list[b] = (list[b] ?? 0) + samples(s, Math.max(selection.a, start + b * width), Math.min(selection.b, start + (b + 1) * width));
    }
    const series = [...groups].map(([group, list]) => ({ group, total: list.reduce((a, b) => a + b, 0), samples: list })).sort((a, b) => b.total - a.total);
    const top = series.slice(0, Number(params.get("top") ?? 10));
    const rest = series.slice(top.length);
    const other = new Array(buckets).fill(0).map((_, b) => rest.reduce((sum, s) => sum + (s.samples[b] ?? 0), 0));
    return { ...this.totals(selection), start, width, buckets, hosts: new Set(sources.map((s) => s.values["host.name"])).size, groups: series.length, series: top, other: { group: "", total: other.reduce((a, b) => a + b, 0), samples: other } };
  }

  /** @param {URLSearchParams} params */
  flamegraph(params) {
    const selection = this.selection(params);
    const focus = params.get("focus");
    if (this.big && !focus) return this.bigAnswer(selection);
    const columns = new Columns();
    const by = params.get("by") ?? "process";
    const field = by === "none" ? "" : fieldOf(by);
    if (field === undefined) throw new BadInput(`by: unknown field "${by}"`);
    const callees = node(0, 0);
    const callers = node(0, 0);
    for (const s of selection.sources) {
      const count = selection.count(s);
      if (count === 0) continue;
      const path = s.frames.map((f, i) => /** @type {[number, number]} */ ([columns.id(f), s.lines[i] ?? 0]));
      if (focus) {
        const first = s.frames.findIndex((f) => f.key === focus);
        if (first < 0) continue;
        callees.fn = callers.fn = path[first]?.[0] ?? 0;
        add(callees, path.slice(first + 1), count);
        add(callers, path.slice(0, first).reverse(), count);
      } else {
        const group = { name: (field && s.values[field]) || "(none)", library: "", file: "", kind: 257, inlined: 0, reason: "", key: "" };
        add(callees, field ? [[columns.id(group), 0], ...path] : path, count);
      }
    }
    const shared = { ...this.totals(selection), folded_nodes: 0, functions: columns.columns, strings: columns.strings.list };
    return focus ? { ...shared, callees: { nodes: flatten(callees, columns) }, callers: { nodes: flatten(callers, columns) } } : { ...shared, nodes: flatten(callees, columns) };
  }

  /** @param {ReturnType<Made["selection"]>} selection */
  bigAnswer(selection) {
    const { names, parent, fn, self, total } = /** @type {NonNullable<Made["big"]>} */ (this.big);
    const kinds = [3, 4, 11, 5, 1, 8, 3, 3];
    const all = total[0];
    return {
      ...this.totals(selection),
      samples: all,
      cpu_ns: all * NS_PER_SAMPLE,
      folded_nodes: 0,
      nodes: { parent, function: fn, self, total, line: new Array(parent.length).fill(0) },
      functions: { name: names.map((_, i) => i), library: names.map(() => 0), file: names.map(() => 0), kind: names.map((_, i) => (i === 0 ? 256 : kinds[i % 8])), inlined: names.map((_, i) => (i % 9 === 0 ? 1 : 0)), reason: names.map(() => 0), key: names.map((_, i) => `k${i}`) },
      strings: ["", ...names.slice(1)],
    };
  }

  /** @param {URLSearchParams} params */
  functions(params) {
    const selection = this.selection(params);
    const columns = new Columns();
    /** @type {number[]} */
    const self = [];
    /** @type {number[]} */
    const total = [];
    for (const s of selection.sources) {
      const count = selection.count(s);
      if (count === 0) continue;
      const ids = s.frames.map((f) => columns.id(f));
      for (const id of new Set(ids)) total[id] = (total[id] ?? 0) + count;
      const leaf = ids.at(-1) ?? 0;
      self[leaf] = (self[leaf] ?? 0) + count;
    }
    const sorting = params.get("sort") === "total" ? total : self;
    const order = columns.columns.name.map((_, f) => f).slice(1).sort((a, b) => (sorting[b] ?? 0) - (sorting[a] ?? 0)).slice(0, Number(params.get("limit") ?? 1000));
    /** @template T @param {T[]} column */
    const pick = (column) => order.map((f) => column[f]);
    const c = columns.columns;
    return {
      ...this.totals(selection),
      functions_in_range: c.name.length - 1,
      functions: { name: pick(c.name), library: pick(c.library), file: pick(c.file), kind: pick(c.kind), inlined: pick(c.inlined), reason: pick(c.reason), key: pick(c.key), self: order.map((f) => self[f] ?? 0), total: order.map((f) => total[f] ?? 0) },
      strings: columns.strings.list,
    };
  }

  /**
   * Listens on loopback; port 0 takes a free one.
   * @param {number} port
   * @returns {Promise<{url: string, close: () => Promise<void>}>}
   */
  listen(port) {
    const server = createServer((request, response) => void this.serve(request.url ?? "/", response));
    return new Promise((resolve) => {
      server.listen(port, "127.0.0.1", () => {
        const address = /** @type {import("node:net").AddressInfo} */ (server.address());
        resolve({
          url: `http://127.0.0.1:${address.port}/`,
          close: () =>
            new Promise((done) => {
              server.close(() => done());
              server.closeAllConnections();
            }),
        });
      });
    });
  }

  /** @param {string} target @param {import("node:http").ServerResponse} response */
  async serve(target, response) {
    const url = new URL(target, "http://localhost");
    /** @param {number} status @param {object | string} body */
    const json = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    };
    if (url.pathname.startsWith("/api/v1/")) {
      const path = url.pathname.slice(8);
      this.seen.push(path + url.search);
      if (this.delayMs > 0) await new Promise((done) => setTimeout(done, this.delayMs));
      if (this.refuse && path !== "fields" && path !== "status") return json(this.refuse.status, this.refuse.body);
      try {
        if (this.big && path === "flamegraph" && !url.searchParams.has("focus")) {
          this.bigText ||= JSON.stringify(this.answer(path, url.searchParams));
          return json(200, this.bigText);
        }
        const body = this.answer(path, url.searchParams);
        return body ? json(200, body) : json(404, { error: `no such address: ${url.pathname}` });
      } catch (error) {
        if (!(error instanceof BadInput)) throw error;
        return json(400, { error: error.message, hint: error.hint, position: error.position });
      }
    }
    const file = /^\/[\w-]*$/.test(url.pathname) ? "index.html" : normalize(decodeURIComponent(url.pathname)).replace(/^(\.\.[/\\])+/, "");
    try {
      const body = readFileSync(join(ASSETS, file));
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": POLICY, "cache-control": "no-store" });
      response.end(body);
    } catch {
      response.writeHead(404);
      response.end();
    }
    return undefined;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  /** @param {string} name @param {number} otherwise */
  const option = (name, otherwise) => (process.argv.includes(name) ? Number(process.argv[process.argv.indexOf(name) + 1]) : otherwise);
  const { url } = await new Made({ nodes: option("--nodes", 0) }).listen(option("--port", 8251));
  process.stdout.write(`${url}\n`);
}
