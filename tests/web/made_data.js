//! Made samples for the page's scenes: real-looking programs whose counts are additive over time, so that every range agrees
//! with every other one. Nothing here is shipped.

import { readFileSync } from "node:fs";

/** @typedef {{name: string, library: string, file: string, line: number, kind: number, inlined: number, reason: string, key: string}} Frame */
/** @typedef {{values: {[field: string]: string}, frames: Frame[], lines: number[], rate: number, swing: number, period: number, phase: number}} Source */

const KINDS = /** @type {{[letter: string]: number}} */ ({ n: 3, k: 4, g: 11, j: 5, p: 1, s: 8, r: 6, h: 2, u: 3, i: -1, m: 128 });

/** Fields with aliases, as the server knows them. */
export const FIELDS = [
  { field: "process.executable.name", aliases: ["process", "executable", "exe"] },
  { field: "process.thread.name", aliases: ["thread", "thread.name"] },
  { field: "process.pid", aliases: ["pid"] },
  { field: "host.name", aliases: ["host"] },
  { field: "container.name", aliases: ["container"] },
  { field: "service.name", aliases: ["service"] },
];

/** Small repeatable generator. @param {number} seed */
export function random(seed) {
  let x = seed >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    return x / 4294967296;
  };
}

/** @returns {Source[]} */
export function readPrograms() {
  const text = readFileSync(new URL("./made_programs.txt", import.meta.url), "utf8");
  const dice = random(7);
  /** @type {Map<string, Frame>} */
  const known = new Map();
  /** @param {Omit<Frame, "key">} frame */
  const frame = (frame) => {
    const id = `${frame.name}|${frame.library}|${frame.inlined}`;
    let same = known.get(id);
    if (!same) {
      same = { ...frame, key: (known.size * 2654435761 + 99991).toString(16) };
      known.set(id, same);
    }
    return same;
  };
  /** @type {Source[]} */
  const sources = [];
  /** @type {{[field: string]: string}} */
  let values = {};
  let rate = 1;
  /** @type {{frame: Frame, kind: number}[]} */
  let path = [];
  /** @type {{process: string, total: number, list: Source[]}[]} */
  const programs = [];
  /** @param {Frame[]} frames @param {number} self */
  const source = (frames, self) => {
    const made = { values, frames, lines: frames.map((f) => f.line), rate: self, swing: 0.15 + dice() * 0.6, period: 60_000 * (2 + Math.floor(dice() * 30)), phase: dice() * 6.28 };
    Object.assign(made, mood, dice() < 0.5 ? { swing: mood.swing * dice() } : {});
    programs.at(-1)?.list.push(made);
  };
  let pid = 900;
  /** How a program's load moves. */
  let mood = { swing: 0, period: 60_000, phase: 0 };
  for (const line of text.split("\n")) {
    if (line.startsWith("#") || line.trim() === "") continue;
    if (line.startsWith("@ ")) {
      const words = line.slice(2).split(" ");
      const name = words[0] ?? "";
      const half = name.length % 2 === 1 && name.slice(0, (name.length - 1) / 2) === name.slice((name.length + 1) / 2) ? (name.length - 1) / 2 : name.indexOf("/");
      rate = Number(words.at(-1));
      pid += 137;
      mood = { swing: 0.2 + dice() * 0.75, period: 60_000 * (1 + dice() * 12), phase: dice() * 6.28 };
      values = {
        "process.executable.name": name.slice(0, half),
        "process.thread.name": name.slice(half + 1),
        "process.pid": String(pid),
        "host.name": words[1] ?? "",
        "container.name": words[2] ?? "",
        "service.name": words[2] ?? "",
      };
      programs.push({ process: name, total: rate, list: [] });
      path = [];
      continue;
    }
    const depth = (line.length - line.trimStart().length) / 2;
    const above = path[depth - 1];
    path.length = depth;
    const made = /^\*(\d+)$/.exec(line.trim());
    if (made) {
      makeBelow(path.map((p) => p.frame), Number(made[1]), 0);
      continue;
    }
    const [name = "", library = "", file = "", kind = "", self = ""] = line.trim().split("|").map((cell) => cell.trim());
    const code = kind === "" || kind === "i" ? above?.kind ?? 3 : KINDS[kind] ?? 3;
    const [source_file = "", source_line = "0"] = file.split(/:(?=\d+$)/);
    const one = frame({
      name,
      library: kind === "m" ? "" : library || (above && above.kind !== 128 ? above.frame.library : ""),
      file: source_file,
      line: Number(source_line),
      kind: code,
      inlined: kind === "i" ? 1 : 0,
      reason: kind === "u" ? (name.includes("crypto") ? "executable has no symbols" : "executable not available: permission denied") : "",
    });
    path.push({ frame: one, kind: code });
    if (self !== "") source(path.map((p) => p.frame), Number(self));
  }
  /** @param {Frame[]} above @param {number} count @param {number} level */
  function makeBelow(above, count, level) {
    const parent = above.at(-1);
    if (!parent) return;
    const stem = parent.name.replace(/\(.*\)$/, "").replace(/.*[.:/](?=\w)/, "").replace(/\+0x.*/, "");
    const words = ["prepare", "check", "copy", "find", "walk", "flush", "merge", "scan", "hash", "lock", "grow", "split", "emit", "visit"];
    for (let i = 0; i < count; i += 1) {
      const word = words[Math.floor(dice() * words.length)] ?? "do";
      const name = parent.kind === 3 || parent.kind === 4 ? `${stem.slice(0, 14)}_${word}${i}` : `${parent.name.slice(0, parent.name.length - stem.length)}${stem.slice(0, 14)}${word.charAt(0).toUpperCase()}${word.slice(1)}${i}`;
      const one = frame({ name, library: parent.library, file: parent.file, line: parent.line + 10 * i, kind: parent.kind === 128 ? 3 : parent.kind, inlined: dice() < 0.15 ? 1 : 0, reason: "" });
      source([...above, one], 0.1 + dice() ** 3 * 4);
      if (level < 4 && dice() < 0.75) makeBelow([...above, one], Math.ceil(dice() * 4), level + 1);
    }
  }
  for (const program of programs) {
    const sum = program.list.reduce((total, s) => total + s.rate, 0);
    // Samples per second at 20 Hz: `rate` is busy cores.
    for (const s of program.list) sources.push({ ...s, rate: (s.rate / sum) * program.total * 20 });
  }
  return sources;
}

/**
 * Samples of a source in `[from, to)`; the same sum however the range is cut.
 * @param {Source} source @param {number} from ms @param {number} to ms
 */
export function samples(source, from, to) {
  return to <= from ? 0 : Math.floor(upTo(source, to)) - Math.floor(upTo(source, from));
}

/** @param {Source} source @param {number} at */
function upTo({ rate, swing, period, phase }, at) {
  const w = (2 * Math.PI) / period;
  return (rate / 1000) * (at + (swing * Math.sin(at * w + phase)) / w);
}

/**
 * A tree of any size with a believable shape: few wide boxes, very many narrow ones, depth up to about 90.
 * @param {number} count nodes
 */
export function bigTree(count) {
  const dice = random(42);
  const names = ["everything"];
  const functionCount = Math.min(60_000, Math.max(50, Math.round(count / 12)));
  const parts = ["alloc", "parse", "index", "merge", "graph", "store", "codec", "query", "frame", "token", "route", "cache"];
  for (let f = 1; f < functionCount; f += 1) names.push(`${parts[f % 12]}::${parts[(f >> 3) % 12]}${f % 97}::${parts[(f * 7) % 12]}_${f}`);
  const parent = [0];
  const fn = [0];
  const depth = [0];
  const open = [0];
  while (parent.length < count) {
    // Mostly deeper, sometimes back up a few levels, rarely far back.
    const roll = dice();
    const drop = roll < 0.45 ? 0 : roll < 0.9 ? 1 + Math.floor(dice() * 3) : Math.floor(dice() * open.length);
    open.length = Math.max(1, open.length - drop);
    if (open.length > 90) open.length = 12;
    const above = open.at(-1) ?? 0;
    fn.push(1 + Math.floor(dice() ** 2 * (functionCount - 1)));
    depth.push(open.length);
    parent.push(above);
    open.push(parent.length - 1);
  }
  const self = new Array(count).fill(0);
  const total = new Array(count).fill(0);
  for (let i = count - 1; i >= 0; i -= 1) {
    if (i > 0 && (total[i] === 0 || dice() < 0.3)) self[i] = Math.ceil(1 / (0.004 + dice()) ** 1.2);
    total[i] += self[i];
    if (i > 0) total[parent[i] ?? 0] += total[i];
  }
  return { names, parent, fn, self, total };
}
