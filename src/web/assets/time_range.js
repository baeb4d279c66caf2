//! Time ranges: what a person may type and what stands in the URL. Pure; the clock is an argument.

import { clock, span, stamp } from "./format.js";

/** @type {{[unit: string]: number}} */
const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** Ranges offered in the picker. @type {[string, string][]} */
export const QUICK = [
  ["now-5m", "Last 5 minutes"],
  ["now-15m", "Last 15 minutes"],
  ["now-1h", "Last hour"],
  ["now-3h", "Last 3 hours"],
  ["now-12h", "Last 12 hours"],
  ["now-24h", "Last 24 hours"],
  ["now-7d", "Last 7 days"],
  ["now-30d", "Last 30 days"],
];

/**
 * One end of a range in ms since 1970, or `null` when the text is none.
 * @param {string} text ms since 1970, `now`, or `now-15m`
 * @param {number} now
 */
export function instant(text, now) {
  if (/^\d{1,16}$/.test(text)) return Number(text);
  const match = /^now(?:-(\d{1,9})([smhdw]))?$/.exec(text);
  if (!match) return null;
  return match[1] ? now - Number(match[1]) * (UNIT_MS[match[2] ?? ""] ?? 0) : now;
}

/**
 * What a person typed, as it goes into the URL: relative stays relative, a date becomes ms. `null` when it is neither.
 * @param {string} typed `now-2h`, `-2h`, `2026-11-21 14:30`, `14:30` (today), or ms
 * @param {number} now
 */
export function read(typed, now) {
  const text = typed.trim().toLowerCase().replace(/\s*-\s*(?=\d+[smhdw]$)/, "-");
  if (instant(text, now) !== null) return text;
  if (/^-\d+[smhdw]$/.test(text)) return `now${text}`;
  const today = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text);
  if (today) {
    const t = new Date(now);
    t.setHours(Number(today[1]), Number(today[2]), Number(today[3] ?? 0), 0);
    return String(t.getTime());
  }
  const parsed = /^\d{4}-\d{2}-\d{2}/.test(text) ? new Date(text.includes("t") || text.length > 10 ? text.replace(" ", "T").toUpperCase() : `${text}T00:00`).getTime() : NaN;
  return Number.isNaN(parsed) ? null : String(parsed);
}

/**
 * The range in words for the picker's button.
 * @param {string} from
 * @param {string} to
 * @param {number} now
 */
export function words(from, to, now) {
  const quick = to === "now" && QUICK.find(([text]) => text === from);
  if (quick) return quick[1];
  const a = instant(from, now);
  const b = instant(to, now);
  if (a === null || b === null) return `${from} to ${to}`;
  if (to === "now" && from.startsWith("now-")) return `Last ${span(b - a)}`;
  const sameDay = new Date(a).toDateString() === new Date(b).toDateString();
  return `${stamp(a)} – ${sameDay ? clock(b) : stamp(b)}`;
}

/** @param {string} from @param {string} to */
export function isRelative(from, to) {
  return to === "now" && from.startsWith("now-");
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1.5e4, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 1.8e6, 3.6e6, 7.2e6, 1.08e7, 2.16e7, 4.32e7, 8.64e7,
  1.728e8, 6.048e8, 2.592e9,
];

/**
 * Round places for labels of a time axis, in the viewer's zone.
 * @param {number} from ms
 * @param {number} to ms
 * @param {number} most how many labels fit
 * @returns {{at: number, label: string}[]}
 */
export function ticks(from, to, most) {
  const wanted = (to - from) / Math.max(1, most);
  const step = STEPS_MS.find((s) => s >= wanted) ?? 2.592e9;
  const zone = new Date(from).getTimezoneOffset() * 60_000;
  const list = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at < to; at += step) {
    const t = new Date(at);
    const day = `${t.toLocaleString("en-US", { month: "short" })} ${t.getDate()}`;
    const time = clock(at);
    const midnight = t.getHours() === 0 && t.getMinutes() === 0 && t.getSeconds() === 0;
    const label = midnight || step >= 8.64e7 ? day : step < 1000 ? `${time}.${String(at % 1000).padStart(3, "0")}` : step < 60_000 ? time : time.slice(0, 5);
    list.push({ at, label });
  }
  return list;
}
