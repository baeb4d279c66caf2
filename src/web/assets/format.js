//! Numbers, times and units as people read them. Pure.

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const NBSP = "\u00a0";

/** `1,284,311`. @param {number} n */
export function whole(n) {
  return WHOLE.format(n);
}

/** Three digits where that is enough: 0.123, 1.23, 12.3, 123. @param {number} n */
function three(n) {
  const size = Math.abs(n);
  return n.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

/** `1.28 M`; whole below 10,000. @param {number} n */
export function short(n) {
  const size = Math.abs(n);
  if (size < 10_000) return whole(n);
  for (const [limit, unit] of /** @type {[number, string][]} */ ([[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (size >= limit * 0.9995) return `${three(n / limit)}${NBSP}${unit}`;
  }
  return whole(n);
}

/** `17.3 %` of a share 0..1; never shows a small share as none or an incomplete one as all. @param {number} share */
export function percent(share) {
  const p = share * 100;
  if (!Number.isFinite(p) || p === 0) return `0${NBSP}%`;
  if (p < 0.01) return `<${NBSP}0.01${NBSP}%`;
  if (p < 100 && p >= 99.95) return `${(Math.floor(p * 100) / 100).toFixed(2)}${NBSP}%`;
  if (p >= 99.95) return `100${NBSP}%`;
  return `${p < 9.995 ? p.toFixed(2) : p.toFixed(1)}${NBSP}%`;
}

/**
 * Half the width of the interval in which the true number lies in 95 of 100 cases: `docs/api.md`, `precision`. 0 where all were counted.
 * @param {number} samples @param {import("./types.js").Precision} precision
 */
export function errorBound(samples, precision) {
  return precision.exact ? 0 : 1.96 * Math.sqrt(Math.max(0, samples) * Math.max(0, precision.factor - 1));
}

/** `17.3 %`, with its bound where it is an estimate: `17.3 ± 0.4 %`. @param {number} samples @param {number} all @param {import("./types.js").Precision} precision */
export function share(samples, all, precision) {
  const of = Math.max(1, all);
  if (precision.exact) return percent(samples / of);
  // The deviation of a share is smaller than that of a count, for the whole varies with the part.
  const bound = (errorBound(samples, precision) / of) * Math.sqrt(Math.max(0, 1 - samples / of)) * 100;
  const digits = bound >= 9.95 ? 0 : bound >= 0.95 ? 1 : 2;
  return `${((samples / of) * 100).toFixed(digits)} ± ${bound.toFixed(digits)}${NBSP}%`;
}

/** `12.3 kg`. @param {number} kilograms */
export function mass(kilograms) {
  if (kilograms >= 1000) return `${three(kilograms / 1000)}${NBSP}t`;
  return kilograms >= 0.01 || kilograms === 0 ? `${kilograms === 0 ? "0" : three(kilograms)}${NBSP}kg` : `<${NBSP}0.01${NBSP}kg`;
}

/** CPU time: `17.8 core-hours`, `43.0 core-seconds`. @param {number} ns */
export function coreTime(ns) {
  const s = ns / 1e9;
  if (s === 0) return `0${NBSP}core-seconds`;
  if (s >= 3600) return `${s >= 3.6e6 ? short(s / 3600) : three(s / 3600)}${NBSP}core-hours`;
  if (s >= 60) return `${three(s / 60)}${NBSP}core-minutes`;
  if (s >= 1) return `${three(s)}${NBSP}core-seconds`;
  return `${three(s * 1e3)}${NBSP}core-ms`;
}

/** CPU time without the word core, for columns whose header says it: `17.8 h`. @param {number} ns */
export function shortTime(ns) {
  const s = ns / 1e9;
  if (s >= 3600) return `${s >= 3.6e6 ? short(s / 3600) : three(s / 3600)}${NBSP}h`;
  if (s >= 60) return `${three(s / 60)}${NBSP}min`;
  if (s === 0) return `0${NBSP}s`;
  if (s >= 1) return `${three(s)}${NBSP}s`;
  return `${three(s * 1e3)}${NBSP}ms`;
}

/** `41.0 MB` (decimal, as disks are sold and `df -H` shows). @param {number} n */
export function bytes(n) {
  if (n < 1000) return `${whole(n)}${NBSP}B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let size = n / 1000;
  let at = 0;
  while (size >= 999.5 && at < units.length - 1) {
    size /= 1000;
    at += 1;
  }
  return `${three(size)}${NBSP}${units[at]}`;
}

/** `$1.23`. @param {number} dollars */
export function money(dollars) {
  if (dollars === 0) return "$0";
  if (dollars < 0.01) return `<${NBSP}$0.01`;
  return dollars < 100 ? `$${dollars.toFixed(2)}` : `$${dollars < 10_000 ? whole(dollars) : short(dollars)}`;
}

/** Length of time: `15 min`, `2 h 30 min`, `7 d`. @param {number} ms */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)}${NBSP}ms`;
  const s = Math.round(ms / 1000);
  if (s < 120) return `${s}${NBSP}s`;
  const parts = [];
  let rest = s;
  for (const [size, unit] of /** @type {[number, string][]} */ ([[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]])) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n) parts.push(`${n}${NBSP}${unit}`);
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** @param {number} n */
const two = (n) => String(n).padStart(2, "0");

/** `14:32:05` in the viewer's zone. @param {number} ms */
export function clock(ms) {
  const t = new Date(ms);
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

/** `2026-11-21 14:32:05` in the viewer's zone. @param {number} ms */
export function stamp(ms) {
  const t = new Date(ms);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${clock(ms)}`;
}

/** The same instant in UTC, for tooltips. @param {number} ms */
export function utc(ms) {
  return `${new Date(ms).toISOString().replace("T", " ").slice(0, 19)} UTC`;
}
