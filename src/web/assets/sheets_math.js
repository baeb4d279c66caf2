//! Sums behind the pages of facts. Pure.

import { Functions } from "./flamegraph/tree.js";

/**
 * Where the kernel's ticks went: stored, dropped under a reason, or not yet reported.
 * @param {import("./types.js").Counter[]} counters
 * @returns {{ticks: number, stored: number, drops: import("./types.js").Counter[], dropped: number, open: number} | null}
 */
export function balance(counters) {
  /** @param {string} name */
  const value = (name) => counters.find((c) => c.name === name)?.value;
  const ticks = value("ticks");
  const stored = value("stored");
  if (ticks === undefined || stored === undefined) return null;
  const drops = counters.filter((c) => c.name.startsWith("dropped.")).sort((a, b) => b.value - a.value);
  const dropped = drops.reduce((sum, c) => sum + c.value, 0);
  return { ticks, stored, drops, dropped, open: ticks - stored - dropped };
}

/**
 * Functions without a name, summed by library and reason.
 * @param {import("./types.js").FunctionsAnswer} answer
 * @returns {{library: string, reason: string, addresses: number, self: number, example: string}[]} largest first
 */
export function nameless(answer) {
  const functions = new Functions(answer.functions, answer.strings);
  /** @type {Map<string, {library: string, reason: string, addresses: number, self: number, example: string}>} */
  const groups = new Map();
  for (let f = 0; f < functions.count; f += 1) {
    const reason = functions.reason(f);
    // Markers are no code: what they stand for is told by their own name.
    if (reason === "" || (functions.kind[f] ?? 0) >= 128) continue;
    const library = functions.library(f);
    const id = `${library}\u0000${reason}`;
    const group = groups.get(id) ?? { library, reason, addresses: 0, self: 0, example: functions.name(f) };
    group.addresses += 1;
    group.self += answer.functions.self[f] ?? 0;
    groups.set(id, group);
  }
  return [...groups.values()].sort((a, b) => b.self - a.self || b.addresses - a.addresses);
}
