//! The tree of an answer in typed arrays, and what can be derived from it in one pass. Pure.

/** @typedef {import("../types.js").FunctionColumns} FunctionColumns */
/** @typedef {import("../types.js").NodeColumns} NodeColumns */

/** Kind of the boxes that stand for what the server folded away; no kind of the documents. */
export const FOLDED = 258;

/**
 * Functions of an answer with their texts looked up on demand.
 */
export class Functions {
  /**
   * @param {FunctionColumns} columns
   * @param {string[]} strings
   */
  constructor(columns, strings) {
    // One function more than the answer has: the one of folded boxes, the last.
    this.strings = [...strings, "Folded away: boxes beyond the node limit"];
    this.columns = {
      name: [...columns.name, strings.length],
      library: [...columns.library, 0],
      file: [...columns.file, 0],
      kind: [...columns.kind, FOLDED],
      inlined: [...columns.inlined, 0],
      reason: [...columns.reason, 0],
      key: [...columns.key, ""],
    };
    this.count = this.columns.name.length;
    this.folded = this.count - 1;
    columns = this.columns;
    strings = this.strings;
    this.kind = Uint16Array.from(columns.kind);
    this.inlined = Uint8Array.from(columns.inlined);
    /** Hash of what identifies a function to a reader: the same in two answers. */
    this.hash = new Uint32Array(this.count);
    const texts = new Uint32Array(strings.length);
    for (let i = 0; i < strings.length; i += 1) texts[i] = hashText(strings[i] ?? "");
    for (let f = 0; f < this.count; f += 1) {
      this.hash[f] = mix(texts[columns.name[f] ?? 0] ?? 0, (texts[columns.library[f] ?? 0] ?? 0) ^ (this.kind[f] ?? 0));
    }
  }

  /** @param {number} f */
  name(f) {
    return this.strings[this.columns.name[f] ?? 0] ?? "";
  }

  /** @param {number} f */
  library(f) {
    return this.strings[this.columns.library[f] ?? 0] ?? "";
  }

  /** @param {number} f */
  file(f) {
    return this.strings[this.columns.file[f] ?? 0] ?? "";
  }

  /** Why there is no name, "" when there is one. @param {number} f */
  reason(f) {
    return this.strings[this.columns.reason[f] ?? 0] ?? "";
  }

  /** @param {number} f */
  key(f) {
    return this.columns.key[f] ?? "";
  }

  /** Position of each function in the order of names. */
  ranks() {
    const order = Array.from({ length: this.count }, (_, f) => f);
    order.sort((a, b) => (this.name(a) < this.name(b) ? -1 : this.name(a) > this.name(b) ? 1 : a - b));
    const ranks = new Int32Array(this.count);
    order.forEach((f, rank) => {
      ranks[f] = rank;
    });
    return ranks;
  }
}

/** What stands for a function on the page; the root and unnamed code have a word too. @param {Functions} functions @param {number} f */
export function titleOf(functions, f) {
  return functions.name(f) || (functions.kind[f] === 256 ? "Everything" : functions.kind[f] === 257 ? "(none)" : functions.library(f) || "(no name)");
}

/**
 * Call paths as parallel arrays in depth-first order: the subtree of `i` is `[i, end[i])`.
 * @typedef {object} Tree
 * @property {number} count nodes, at least 1
 * @property {Int32Array} parent
 * @property {Int32Array} fn index in {@link Functions}
 * @property {Float64Array} self samples that end here
 * @property {Float64Array} total samples that pass here
 * @property {Int32Array} line of the call or sample, 0 unknown
 * @property {Int32Array} depth 0 for the root
 * @property {Int32Array} end one past the last node of the subtree
 * @property {number} maxDepth
 */

/**
 * Typed arrays of an answer's columns. Throws a sentence when the columns contradict each other.
 * @param {NodeColumns} nodes
 * @param {Functions} functions
 * @returns {Tree}
 */
export function readTree(nodes, functions) {
  const count = nodes.parent.length;
  if (count === 0) throw new Error("flame graph: expected at least the root, found no node");
  for (const name of /** @type {const} */ (["function", "self", "total", "line"])) {
    if (nodes[name].length !== count) throw new Error(`flame graph: column ${name} has ${nodes[name].length} entries, expected ${count}`);
  }
  const fn = Int32Array.from(nodes.function);
  for (let i = 0; i < count; i += 1) {
    const f = fn[i] ?? 0;
    if (f < 0 || f >= functions.count) throw new Error(`flame graph: node ${i} names function ${f} of ${functions.count}`);
  }
  const tree = derive({
    parent: Int32Array.from(nodes.parent),
    fn,
    self: Float64Array.from(nodes.self),
    total: Float64Array.from(nodes.total),
    line: Int32Array.from(nodes.line),
  });
  return nodes.folded && nodes.folded.node.length > 0 ? withFolded(tree, functions, nodes.folded) : tree;
}

/**
 * The tree with one more child where something was folded away, so that no gap looks like self time. The new node's
 * `line` is the number of nodes that it stands for.
 * @param {Tree} tree
 * @param {Functions} functions
 * @param {{node: number[], nodes: number[], samples: number[]}} folded
 * @returns {Tree}
 */
function withFolded(tree, functions, folded) {
  const count = tree.count + folded.node.length;
  const parent = new Int32Array(count);
  const fn = new Int32Array(count);
  const self = new Float64Array(count);
  const total = new Float64Array(count);
  const line = new Int32Array(count);
  const moved = new Int32Array(tree.count);
  // A folded child stands last below its node, that is before the first node past the subtree; inner nodes close first.
  const order = folded.node.map((node, at) => ({ node, at, end: tree.end[node] ?? 0 })).sort((a, b) => a.end - b.end || b.node - a.node);
  let next = 0;
  let to = 0;
  for (let i = 0; i <= tree.count; i += 1) {
    for (; next < order.length && order[next]?.end === i; next += 1) {
      const { node, at } = /** @type {{node: number, at: number}} */ (order[next]);
      parent[to] = moved[node] ?? 0;
      fn[to] = functions.folded;
      self[to] = folded.samples[at] ?? 0;
      total[to] = folded.samples[at] ?? 0;
      line[to] = folded.nodes[at] ?? 0;
      to += 1;
    }
    if (i === tree.count) break;
    moved[i] = to;
    parent[to] = moved[tree.parent[i] ?? 0] ?? 0;
    fn[to] = tree.fn[i] ?? 0;
    self[to] = tree.self[i] ?? 0;
    total[to] = tree.total[i] ?? 0;
    line[to] = tree.line[i] ?? 0;
    to += 1;
  }
  return derive({ parent, fn, self, total, line });
}

/**
 * Adds depth and end of subtree to columns in depth-first order.
 * @param {{parent: Int32Array, fn: Int32Array, self: Float64Array, total: Float64Array, line: Int32Array}} columns
 * @returns {Tree}
 */
function derive(columns) {
  const count = columns.parent.length;
  const { parent } = columns;
  const depth = new Int32Array(count);
  const end = new Int32Array(count);
  let maxDepth = 0;
  for (let i = 1; i < count; i += 1) {
    const p = parent[i] ?? 0;
    if (p < 0 || p >= i) throw new Error(`flame graph: node ${i} has parent ${p}, expected a node before it`);
    const d = (depth[p] ?? 0) + 1;
    // The parent must still be open, that is on the path to the node before: else its subtree would not be one run.
    let open = i - 1;
    while ((depth[open] ?? 0) >= d) open = parent[open] ?? 0;
    if (open !== p) throw new Error(`flame graph: node ${i} does not stand in depth-first order`);
    depth[i] = d;
    if (d > maxDepth) maxDepth = d;
  }
  for (let i = count - 1; i >= 0; i -= 1) {
    if ((end[i] ?? 0) === 0) end[i] = i + 1;
    const p = parent[i] ?? 0;
    if (i > 0 && (end[p] ?? 0) < (end[i] ?? 0)) end[p] = end[i] ?? 0;
  }
  return { count, ...columns, depth, end, maxDepth };
}

/**
 * Children of every node: those of `i` are `list[start[i]] .. list[start[i + 1] - 1]`.
 * @param {{count: number, parent: Int32Array}} tree
 */
export function children(tree) {
  const start = new Int32Array(tree.count + 2);
  for (let i = 1; i < tree.count; i += 1) start[(tree.parent[i] ?? 0) + 2] = (start[(tree.parent[i] ?? 0) + 2] ?? 0) + 1;
  for (let i = 2; i < start.length; i += 1) start[i] = (start[i] ?? 0) + (start[i - 1] ?? 0);
  const list = new Int32Array(Math.max(0, tree.count - 1));
  for (let i = 1; i < tree.count; i += 1) {
    const slot = (tree.parent[i] ?? 0) + 1;
    list[start[slot] ?? 0] = i;
    start[slot] = (start[slot] ?? 0) + 1;
  }
  return { start, list };
}

/**
 * Nodes in depth-first order with siblings ordered by `compare`.
 * @param {{count: number, parent: Int32Array}} tree
 * @param {(a: number, b: number) => number} compare
 */
export function sequence(tree, compare) {
  const { start, list } = children(tree);
  const result = new Int32Array(tree.count);
  const pending = new Int32Array(tree.count);
  let height = 1;
  let at = 0;
  while (height > 0) {
    height -= 1;
    const node = pending[height] ?? 0;
    result[at] = node;
    at += 1;
    const from = start[node] ?? 0;
    const to = start[node + 1] ?? 0;
    const siblings = list.subarray(from, to);
    if (to - from > 1) siblings.sort(compare);
    for (let k = to - 1; k >= from; k -= 1) {
      pending[height] = list[k] ?? 0;
      height += 1;
    }
  }
  return result;
}

/**
 * A tree without some frames: their samples go to the frame above, children that become alike are merged.
 * @param {Tree} tree
 * @param {Functions} functions
 * @param {(node: number) => boolean} leaveOut never asked for the root
 * @returns {Tree}
 */
export function without(tree, functions, leaveOut) {
  const place = new Int32Array(tree.count);
  const parent = [0];
  const fn = [tree.fn[0] ?? 0];
  const self = [tree.self[0] ?? 0];
  const total = [tree.total[0] ?? 0];
  const line = [0];
  /** @type {Map<number, number>} */
  const known = new Map();
  for (let i = 1; i < tree.count; i += 1) {
    const above = place[tree.parent[i] ?? 0] ?? 0;
    if (leaveOut(i)) {
      place[i] = above;
      self[above] = (self[above] ?? 0) + (tree.self[i] ?? 0);
      continue;
    }
    const f = tree.fn[i] ?? 0;
    const id = above * functions.count + f;
    let node = known.get(id);
    if (node === undefined) {
      node = parent.length;
      known.set(id, node);
      parent.push(above);
      fn.push(f);
      self.push(0);
      total.push(0);
      line.push(tree.line[i] ?? 0);
    }
    place[i] = node;
    self[node] = (self[node] ?? 0) + (tree.self[i] ?? 0);
    total[node] = (total[node] ?? 0) + (tree.total[i] ?? 0);
  }
  const ranks = functions.ranks();
  const loose = { count: parent.length, parent: Int32Array.from(parent) };
  const order = sequence(loose, (a, b) => (ranks[fn[a] ?? 0] ?? 0) - (ranks[fn[b] ?? 0] ?? 0));
  const moved = new Int32Array(order.length);
  order.forEach((node, at) => {
    moved[node] = at;
  });
  /** @param {number[]} column */
  const sorted = (column) => Array.from(order, (node) => column[node] ?? 0);
  return derive({
    parent: Int32Array.from(order, (node) => moved[parent[node] ?? 0] ?? 0),
    fn: Int32Array.from(sorted(fn)),
    self: Float64Array.from(sorted(self)),
    total: Float64Array.from(sorted(total)),
    line: Int32Array.from(sorted(line)),
  });
}

/**
 * Hash of the path from the root to each node, in two halves: finds "the same box" in another answer.
 * @param {Tree} tree
 * @param {Functions} functions
 */
export function pathHashes(tree, functions) {
  const high = new Uint32Array(tree.count);
  const low = new Uint32Array(tree.count);
  for (let i = 1; i < tree.count; i += 1) {
    const own = functions.hash[tree.fn[i] ?? 0] ?? 0;
    const p = tree.parent[i] ?? 0;
    high[i] = mix(high[p] ?? 0, own);
    low[i] = mix((low[p] ?? 0) ^ 0x5bd1e995, Math.imul(own, 0x27d4eb2f));
  }
  return { high, low };
}

/** Text of a node's path hash for the URL; "" for the root. @param {{high: Uint32Array, low: Uint32Array}} hashes @param {number} node */
export function pathText(hashes, node) {
  return node === 0 ? "" : ((hashes.high[node] ?? 0) * 0x200000 + ((hashes.low[node] ?? 0) >>> 11)).toString(36);
}

/** Node of a path hash: 0 for "", -1 when the tree has no such path. @param {{high: Uint32Array, low: Uint32Array}} hashes @param {string} text */
export function findPath(hashes, text) {
  if (text === "") return 0;
  const wanted = Number.parseInt(text, 36);
  if (!Number.isSafeInteger(wanted)) return -1;
  const high = Math.floor(wanted / 0x200000);
  const low = wanted % 0x200000;
  for (let i = 1; i < hashes.high.length; i += 1) {
    if (hashes.high[i] === high && (hashes.low[i] ?? 0) >>> 11 === low) return i;
  }
  return -1;
}

/** Nodes from the root to `node`, the root left out. @param {Tree} tree @param {number} node */
export function pathTo(tree, node) {
  const path = [];
  for (let i = node; i > 0; i = tree.parent[i] ?? 0) path.push(i);
  return path.reverse();
}

/**
 * Self and total of each function in a subtree; a stack counts once however often the function is on it.
 * @param {Tree} tree
 * @param {Functions} functions
 * @param {number} root
 */
export function sumByFunction(tree, functions, root) {
  const self = new Float64Array(functions.count);
  const total = new Float64Array(functions.count);
  /** One past the subtree of the occurrence counted last: inside it, the function was counted already. */
  const counted = new Int32Array(functions.count);
  const end = tree.end[root] ?? 0;
  for (let i = root; i < end; i += 1) {
    const f = tree.fn[i] ?? 0;
    self[f] = (self[f] ?? 0) + (tree.self[i] ?? 0);
    if (i >= (counted[f] ?? 0)) {
      total[f] = (total[f] ?? 0) + (tree.total[i] ?? 0);
      counted[f] = tree.end[i] ?? 0;
    }
  }
  return { self, total };
}

/** FNV-1a over UTF-16 units. @param {string} text */
export function hashText(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** @param {number} a @param {number} b */
function mix(a, b) {
  let hash = Math.imul(a ^ b ^ 0x9e3779b9, 0x85ebca6b);
  hash = Math.imul(((hash << 13) | (hash >>> 19)) ^ b, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
