//! Where boxes stand, which of them are drawn, and what lies under a place.

import assert from "node:assert/strict";
import test from "node:test";
import { Boxes, collectRow, deepestRow, firstFrom, layOut, left } from "../../src/web/assets/flamegraph/layout.js";
import { pick } from "../../src/web/assets/flamegraph/pick.js";
import { FOLDED, Functions, findPath, pathHashes, pathText, readTree, sumByFunction, without } from "../../src/web/assets/flamegraph/tree.js";
import { matchFunctions, measure, pattern } from "../../src/web/assets/flamegraph/search.js";
import { collapsed, speedscope } from "../../src/web/assets/flamegraph/export.js";
import { neighbour } from "../../src/web/assets/flamegraph/keyboard.js";
import { bigTree } from "./made_data.js";

/** Functions by name; kinds are native. @param {string[]} names */
function functionsOf(names) {
  const none = names.map(() => 0);
  return new Functions({ name: names.map((_, i) => i), library: none, file: none, kind: names.map((_, i) => (i === 0 ? 256 : 3)), inlined: none, reason: none, key: names.map((n) => `key ${n}`) }, names);
}

/**
 * root 10 = a 7 (b 3 (a 1), c 2) + d 3.
 */
function small() {
  const functions = functionsOf(["", "a", "b", "c", "d"]);
  const tree = readTree({ parent: [0, 0, 1, 2, 1, 0], function: [0, 1, 2, 1, 3, 4], self: [0, 2, 2, 1, 2, 3], total: [10, 7, 3, 1, 2, 3], line: [0, 5, 6, 7, 8, 9] }, functions);
  return { functions, tree };
}

test("children stand side by side below their parent, self time at the right", () => {
  const { tree } = small();
  const layout = layOut(tree, "name");
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((node) => left(layout, node)), [0, 0, 0, 0, 3, 7]);
  assert.deepEqual([...layout.rowStart], [0, 1, 3, 5, 6]);
  assert.deepEqual([...tree.depth], [0, 1, 2, 3, 2, 1]);
  assert.deepEqual([...tree.end], [6, 5, 4, 4, 5, 6]);
});

test("by share the largest sibling stands first", () => {
  const functions = functionsOf(["", "a", "b"]);
  const tree = readTree({ parent: [0, 0, 0], function: [0, 1, 2], self: [0, 2, 5], total: [7, 2, 5], line: [0, 0, 0] }, functions);
  const layout = layOut(tree, "share");
  assert.deepEqual([left(layout, 1), left(layout, 2)], [5, 0]);
  assert.deepEqual([...layout.rowNode], [0, 2, 1]);
});

test("columns that contradict each other are refused with a sentence", () => {
  const functions = functionsOf(["", "a"]);
  const good = { parent: [0, 0], function: [0, 1], self: [0, 1], total: [1, 1], line: [0, 0] };
  assert.throws(() => readTree({ ...good, self: [1] }, functions), /column self has 1 entries, expected 2/);
  assert.throws(() => readTree({ ...good, function: [0, 9] }, functions), /names function 9/);
  assert.throws(() => readTree({ ...good, parent: [0, 1] }, functions), /has parent 1/);
  assert.throws(() => readTree({ parent: [], function: [], self: [], total: [], line: [] }, functions), /found no node/);
  const three = { function: [0, 1, 1, 1], self: [0, 0, 0, 1], total: [1, 1, 0, 1], line: [0, 0, 0, 0] };
  assert.throws(() => readTree({ ...three, parent: [0, 0, 0, 1] }, functions), /depth-first/);
});

test("what the server folded away becomes a box, so that no gap looks like self time", () => {
  const functions = functionsOf(["", "a", "b"]);
  const tree = readTree(
    { parent: [0, 0, 1, 0], function: [0, 1, 2, 2], self: [0, 1, 2, 3], total: [12, 5, 2, 3], line: [0, 0, 0, 0], folded: { node: [0, 1], nodes: [7, 4], samples: [4, 2] } },
    functions,
  );
  assert.deepEqual([...tree.parent], [0, 0, 1, 1, 0, 0]);
  assert.deepEqual([...tree.total], [12, 5, 2, 2, 3, 4]);
  assert.equal(functions.kind[tree.fn[3] ?? 0], FOLDED);
  assert.equal(tree.line[3], 4);
  for (let i = 0; i < tree.count; i += 1) {
    let below = tree.self[i] ?? 0;
    for (let k = i + 1; k < (tree.end[i] ?? 0); k = tree.end[k] ?? 0) below += tree.total[k] ?? 0;
    assert.equal(below, tree.total[i], `node ${i}`);
  }
});

test("galloping search finds what a plain search finds", () => {
  const row = Float64Array.from([0, 0, 1, 3, 3, 3, 8, 13, 21]);
  for (let x = -1; x < 23; x += 0.5) {
    for (let low = 0; low < row.length; low += 1) {
      let plain = low;
      while (plain < row.length && (row[plain] ?? 0) < x) plain += 1;
      assert.equal(firstFrom(row, low, row.length, x), plain, `${x} from ${low}`);
    }
  }
});

test("each box of a row is drawn once: alone when it has a pixel, merged when not", () => {
  const { names, parent, fn, self, total } = bigTree(20_000);
  const functions = functionsOf(names);
  const tree = readTree({ parent, function: fn, self, total, line: parent.map(() => 0) }, functions);
  for (const order of /** @type {const} */ (["name", "share"])) {
    const layout = layOut(tree, order);
    const whole = tree.total[0] ?? 0;
    for (const [x0, x1] of [[0, whole], [whole * 0.3, whole * 0.31], [whole * 0.9, whole]]) {
      const scale = 1200 / ((x1 ?? 0) - (x0 ?? 0));
      const boxes = new Boxes();
      for (let depth = 0; depth <= tree.maxDepth; depth += 1) {
        boxes.count = 0;
        collectRow(layout, depth, x0 ?? 0, x1 ?? 0, scale, boxes);
        const drawn = new Map();
        let at = -Infinity;
        for (let b = 0; b < boxes.count; b += 1) {
          const first = boxes.place[b] ?? 0;
          const count = Math.max(1, boxes.merged[b] ?? 0);
          assert.ok((boxes.x0[b] ?? 0) >= at - 1e-6, "boxes stand from left to right");
          at = boxes.x1[b] ?? 0;
          for (let k = 0; k < count; k += 1) drawn.set(first + k, boxes.merged[b]);
        }
        for (let place = layout.rowStart[depth] ?? 0; place < (layout.rowStart[depth + 1] ?? 0); place += 1) {
          const x = layout.rowX[place] ?? 0;
          const width = tree.total[layout.rowNode[place] ?? 0] ?? 0;
          const inside = x < (x1 ?? 0) && x + width > (x0 ?? 0);
          if (!inside) continue;
          assert.ok(drawn.has(place), `${order}: place ${place} of row ${depth} is drawn`);
          if (width * scale >= 1) assert.equal(drawn.get(place), 1, "a box with a pixel stands alone");
          else assert.notEqual(drawn.get(place), 1, "a box under a pixel is merged or narrow");
        }
      }
    }
  }
});

test("the cost of a row depends on pixels, not on boxes", () => {
  const count = 200_001;
  const functions = functionsOf(["", "a"]);
  const zero = new Array(count).fill(0);
  const tree = readTree({ parent: zero, function: zero.map((_, i) => Math.min(1, i)), self: zero.map((_, i) => Math.min(1, i)), total: zero.map((_, i) => (i === 0 ? count - 1 : 1)), line: zero }, functions);
  const layout = layOut(tree, "name");
  const boxes = new Boxes();
  collectRow(layout, 1, 0, count - 1, 1000 / (count - 1), boxes);
  assert.equal(boxes.count, 1);
  assert.equal(boxes.merged[0], count - 1);
  assert.deepEqual(pick(layout, 1, 100_000.5, 1000 / (count - 1))?.count, 201);
});

test("the deepest row of a window ends the picture", () => {
  const { tree } = small();
  const layout = layOut(tree, "name");
  assert.equal(deepestRow(layout, 0, 10), 3);
  assert.equal(deepestRow(layout, 3, 5), 2);
  assert.equal(deepestRow(layout, 7.5, 8), 1);
  assert.equal(deepestRow(layout, 5.5, 6), 1);
});

test("picking finds the box under a place, and nothing in a gap", () => {
  const { tree } = small();
  const layout = layOut(tree, "name");
  assert.equal(pick(layout, 0, 9.9, 100)?.node, 0);
  assert.equal(pick(layout, 1, 6.9, 100)?.node, 1);
  assert.equal(pick(layout, 1, 7, 100)?.node, 5);
  assert.equal(pick(layout, 2, 4.9, 100)?.node, 4);
  assert.equal(pick(layout, 2, 5.1, 100), null);
  assert.equal(pick(layout, 9, 1, 100), null);
});

test("a match inside a match is counted once", () => {
  const { tree, functions } = small();
  const wanted = pattern("A");
  assert.ok(wanted);
  const found = measure(tree, matchFunctions(functions, wanted.test), functions.count);
  assert.deepEqual(found, { samples: 7, functions: 1, nodes: [1, 3] });
});

test("searches are text, or regular expressions between slashes", () => {
  assert.equal(pattern("  "), null);
  assert.ok(pattern("foo.bar")?.test("xFOO.barx"));
  assert.ok(!pattern("foo.bar")?.test("fooxbar"));
  assert.ok(pattern("/^a.*z$/")?.test("abcz"));
  assert.ok(pattern("/path/to")?.test("x/path/to"), "a path is text");
  assert.match(pattern("/a(/")?.problem ?? "", /group/);
  assert.ok(pattern("/Foo/")?.test("Foo") && !pattern("/Foo/")?.test("foo"), "capitals make case count");
});

test("leaving out a function gives its samples to its caller and merges what becomes alike", () => {
  const { tree, functions } = small();
  const rest = without(tree, functions, (i) => tree.fn[i] === 2);
  assert.deepEqual([...rest.fn].map((f) => functions.name(f)), ["", "a", "a", "c", "d"]);
  assert.deepEqual([...rest.total], [10, 7, 1, 2, 3]);
  assert.deepEqual([...rest.self], [0, 4, 1, 2, 3]);
  assert.deepEqual([...rest.parent], [0, 0, 1, 1, 0]);
});

test("a box is found again by its path, in another answer too", () => {
  const { tree, functions } = small();
  const hashes = pathHashes(tree, functions);
  const texts = [0, 1, 2, 3, 4, 5].map((node) => pathText(hashes, node));
  assert.equal(new Set(texts).size, 6);
  texts.forEach((text, node) => assert.equal(findPath(hashes, text), node));
  assert.equal(findPath(hashes, "zzz"), -1);
  const other = functionsOf(["", "x", "b", "a"]);
  const fewer = readTree({ parent: [0, 0, 1], function: [0, 3, 2], self: [0, 0, 1], total: [1, 1, 1], line: [0, 0, 0] }, other);
  assert.equal(findPath(pathHashes(fewer, other), texts[2] ?? ""), 2);
});

test("totals by function count recursion once", () => {
  const { tree, functions } = small();
  const sums = sumByFunction(tree, functions, 0);
  assert.deepEqual([...sums.self].slice(0, 5), [0, 3, 2, 2, 3]);
  assert.deepEqual([...sums.total].slice(0, 5), [10, 7, 3, 2, 3]);
  assert.deepEqual([...sumByFunction(tree, functions, 2).total].slice(0, 4), [0, 1, 3, 0]);
});

test("exports keep every sample", () => {
  const { tree, functions } = small();
  const lines = collapsed(tree, functions).trim().split("\n");
  assert.deepEqual(lines, ["a 2", "a;b 2", "a;b;a 1", "a;c 2", "d 3"]);
  const file = JSON.parse(speedscope(tree, functions, "t"));
  assert.equal(file.profiles[0].weights.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0), 10);
  assert.deepEqual(file.profiles[0].samples[2].map((/** @type {number} */ f) => file.shared.frames[f].name), ["a", "b", "a"]);
});

test("arrows walk to the largest child, the parent and the siblings", () => {
  const { tree } = small();
  const layout = layOut(tree, "name");
  assert.equal(neighbour(layout, 0, "child"), 1);
  assert.equal(neighbour(layout, 1, "child"), 2);
  assert.equal(neighbour(layout, 3, "child"), 3);
  assert.equal(neighbour(layout, 2, "parent"), 1);
  assert.equal(neighbour(layout, 2, "right"), 4);
  assert.equal(neighbour(layout, 4, "left"), 2);
  assert.equal(neighbour(layout, 5, "right"), 5);
});
