//! Colours can be told apart by everybody, and text on them can be read.

import assert from "node:assert/strict";
import test from "node:test";
import { INK, INLINED_LIGHTER, KINDS, SERIES, STEPS, hex, linear, packageOf, rgb, unknownColor } from "../../src/web/assets/flamegraph/colors.js";

/** @typedef {[number, number, number]} Triple */
/** @typedef {import("../../src/web/assets/flamegraph/colors.js").Lch} Lch */

/** Simulation of dichromacy in linear RGB: Machado, Oliveira and Fernandes 2009, severity 1. @type {{[name: string]: Triple[]}} */
const EYES = {
  normal: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deutan: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritan: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};

/** @param {Triple[]} matrix @param {Triple} v @returns {Triple} */
const apply = (matrix, v) => /** @type {Triple} */ (matrix.map((row) => Math.max(0, row[0] * v[0] + row[1] * v[1] + row[2] * v[2])));

/** OKLab of linear RGB. @param {Triple} c @returns {Triple} */
function lab([r, g, b]) {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s, 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s, 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s];
}

/** @param {Lch} a @param {Lch} b @param {Triple[]} eye */
function distance(a, b, eye) {
  const [p, q] = [lab(apply(eye, linear(a))), lab(apply(eye, linear(b)))];
  return Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
}

/** Relative luminance of WCAG. @param {Triple} bytes */
function luminance(bytes) {
  const [r, g, b] = bytes.map((c) => (c <= 10.31475 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * (r ?? 0) + 0.7152 * (g ?? 0) + 0.0722 * (b ?? 0);
}

/** @param {Triple} a @param {Triple} b */
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return ((high ?? 0) + 0.05) / ((low ?? 0) + 0.05);
}

for (const theme of /** @type {const} */ (["light", "dark"])) {
  test(`${theme}: labels reach 4.5 : 1 on every tone of every kind`, () => {
    for (const kind of [...KINDS, { name: "unknown", light: unknownColor("light"), dark: unknownColor("dark") }]) {
      const [l, c, h] = kind[theme];
      for (const step of STEPS) {
        for (const lighter of [0, INLINED_LIGHTER[theme]]) {
          const ratio = contrast(rgb([l + step + lighter, c, h]), hex(INK[theme]));
          assert.ok(ratio >= 4.5, `${kind.name} at ${step} + ${lighter}: ${ratio.toFixed(2)}`);
        }
      }
    }
  });

  test(`${theme}: kinds differ for every kind of eye, the common ones clearly`, () => {
    const common = new Set(["Kernel", "Native", "Go", "JVM", "Python", "JavaScript"]);
    for (const [name, eye] of Object.entries(EYES)) {
      for (const [i, a] of KINDS.entries()) {
        for (const b of KINDS.slice(0, i)) {
          const limit = common.has(a.name) && common.has(b.name) ? 0.06 : 0.04;
          const apart = distance(a[theme], b[theme], eye);
          assert.ok(apart >= limit, `${a.name} and ${b.name} for ${name} eyes: ${apart.toFixed(3)}`);
        }
      }
    }
  });

  test(`${theme}: series differ for every kind of eye`, () => {
    for (const [name, eye] of Object.entries(EYES)) {
      for (let i = 0; i < SERIES.length; i += 1) {
        for (let k = 0; k < i; k += 1) {
          const apart = distance(/** @type {Lch} */ (SERIES[i]?.[theme]), /** @type {Lch} */ (SERIES[k]?.[theme]), eye);
          assert.ok(apart >= 0.08, `series ${i} and ${k} for ${name} eyes: ${apart.toFixed(3)}`);
        }
      }
    }
  });
}

test("a package is the path before the own name, else the library", () => {
  assert.equal(packageOf("core::iter::map::Map::next", "x"), "core::iter");
  assert.equal(packageOf("net/http.(*conn).serve", "x"), "net/http");
  assert.equal(packageOf("github.com/a/b.(*T).Do", "x"), "github.com/a/b");
  assert.equal(packageOf("deflate_fast", "libz.so.1"), "libz.so.1");
  assert.equal(packageOf("libz.so.1+0x12", "libz.so.1"), "libz.so.1");
});
