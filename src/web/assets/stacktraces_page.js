//! The Stacktraces page: who used the CPU when. A stacked area over time and the list of what it is made of.

import { Channel, address } from "./api.js";
import { listenBrush } from "./brush.js";
import { context2d, fill, h, oncePerFrame, sizeCanvas } from "./dom.js";
import { explain } from "./empty.js";
import { narrowed } from "./filter_text.js";
import { SERIES, css } from "./flamegraph/colors.js";
import { choice, groupings } from "./flamegraph/toolbar.js";
import { hashText } from "./flamegraph/tree.js";
import { clock, coreTime, percent, short, shortTime, whole } from "./format.js";
import { Panel } from "./panel.js";
import * as state from "./state.js";
import { onTheme, theme, tokens } from "./theme.js";
import { drawTicks } from "./timeline.js";

const TOP = 10;

/**
 * Series colours by name: a name keeps its colour from answer to answer unless a larger one holds it.
 * @param {string[]} names largest first
 * @returns {number[]} indices into the palette
 */
export function assignColors(names) {
  const taken = new Set();
  return names.map((name) => {
    let slot = hashText(name) % SERIES.length;
    while (taken.has(slot) && taken.size < SERIES.length) slot = (slot + 1) % SERIES.length;
    taken.add(slot);
    return slot;
  });
}

export class StacktracesPage {
  constructor() {
    this.channel = new Channel();
    this.asked = "";
    /** @type {import("./types.js").TimelineAnswer | null} */
    this.answer = null;
    /** @type {string[]} */
    this.colors = [];
    this.lit = -1;
    /** Upper edge of each series per bucket, as share of the height. @type {Float64Array[]} */
    this.tops = [];
    /** @type {HTMLElement[]} */
    this.rows = [];
    this.split = choice("By", "split", [["process", "Process"]]);
    groupings().then(
      (list) => this.split.offer(list),
      () => undefined,
    );
    this.shareButton = h("button", { class: "button toggle", on: { click: () => state.change({ share: state.current().share ? "" : "1" }) } });
    this.note = h("span", { class: "faint", role: "status" });
    this.canvas = h("canvas", {});
    this.cross = h("div", { class: "cross", hidden: true });
    this.readout = h("div", { class: "readout", hidden: true });
    this.chart = h("div", { class: "traces-chart" }, this.canvas, this.cross, this.readout);
    this.list = h("div", { class: "traces-list" });
    this.panel = new Panel(h("div", { class: "traces" }, this.chart, this.list));
    this.element = h(
      "section",
      { class: "page", "aria-label": "Stacktraces" },
      h("div", { class: "toolbar" }, this.split.element, this.shareButton, this.note, h("span", { class: "grow" }), h("span", { class: "faint", text: "Click: filter to it · Shift + click: exclude it · Drag: narrow the range" })),
      this.panel.element,
    );
    this.redraw = oncePerFrame(() => this.#draw());
    new ResizeObserver(this.redraw).observe(this.chart);
    onTheme(() => this.#show(state.current()));
    listenBrush(this.chart, this.canvas, {
      range: () => this.answer && { from: this.answer.from, to: this.answer.to, step: this.answer.width },
      point: (at) => this.#point(at),
    });
    this.canvas.addEventListener("pointermove", (event) => this.#light(this.#seriesAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.#light(-1));
  }

  /** @param {Readonly<import("./state.js").State>} now @param {{force: boolean}} how */
  update(now, how) {
    this.split.show(now.split);
    this.shareButton.textContent = now.share ? "Share" : "Absolute";
    this.shareButton.title = now.share ? "Each moment fills the height; click for samples" : "Height is samples; click for shares";
    this.shareButton.setAttribute("aria-pressed", now.share ? "true" : "false");
    const url = address("timeline", { from: now.from, to: now.to, filter: now.filter, by: now.split, top: TOP, buckets: 240 });
    if (url !== this.asked || how.force) void this.#load(url, now);
    else this.#show(now);
  }

  /** @param {string} url @param {Readonly<import("./state.js").State>} now */
  async #load(url, now) {
    this.asked = url;
    this.panel.waiting();
    try {
      /** @type {import("./types.js").TimelineAnswer | null} */
      const answer = await this.channel.load(url);
      if (!answer) return;
      if (answer.samples === 0) {
        this.answer = null;
        fill(this.note);
        this.panel.empty(await explain(now));
        return;
      }
      this.answer = answer;
      this.panel.done();
      this.#show(state.current());
    } catch (error) {
      this.panel.failed(error, () => void this.#load(url, state.current()));
    }
  }

  /** Series in drawing order, "other" last. */
  get series() {
    const { answer } = this;
    return answer ? [...answer.series, ...(answer.other.total > 0 ? [answer.other] : [])] : [];
  }

  /** @param {Readonly<import("./state.js").State>} now */
  #show(now) {
    const { answer } = this;
    if (!answer) return;
    this.lit = -1;
    const slots = assignColors(answer.series.map((s) => s.group));
    this.colors = slots.map((slot) => css(/** @type {import("./flamegraph/colors.js").Lch} */ (SERIES[slot]?.[theme()] ?? [0.6, 0, 0])));
    if (answer.other.total > 0) this.colors.push(theme() === "light" ? "#b4b9c0" : "#565d66");
    fill(this.note, `${whole(answer.groups)} ${answer.groups === 1 ? "group" : "groups"}`);
    this.rows = this.series.map((series, at) => this.#row(series, at, answer, now));
    fill(
      this.list,
      h("div", { class: "trace trace-head" }, h("span", { text: "#" }), h("span", {}), h("span", { text: "Group" }), h("span", { text: "Over time" }), h("span", { class: "number", text: "Share" }), h("span", { class: "number", text: "Samples" }), h("span", { class: "number", text: "Core-time" })),
      ...this.rows,
    );
    this.#draw();
    this.#sparklines();
  }

  /** @param {import("./types.js").Series} series @param {number} at @param {import("./types.js").TimelineAnswer} answer @param {Readonly<import("./state.js").State>} now */
  #row(series, at, answer, now) {
    const other = at >= answer.series.length;
    const share = series.total / Math.max(1, answer.samples);
    const mark = h("span", { class: "dot" });
    mark.style.backgroundColor = this.colors[at] ?? "";
    const bar = h("div", { class: "bar" });
    bar.style.width = `${Math.min(100, share * 100)}%`;
    const time = (answer.cpu_ns / Math.max(1, answer.samples)) * series.total;
    const rest = Math.max(0, answer.groups - answer.series.length);
    const name = other ? `${whole(rest)} more ${rest === 1 ? "group" : "groups"}` : series.group === "" ? "(none)" : series.group;
    return h(
      "button",
      {
        class: "trace",
        disabled: other,
        title: other ? undefined : `${name}: ${whole(series.total)} samples, ${coreTime(time)}`,
        on: {
          click: (/** @type {MouseEvent} */ event) => state.change({ filter: narrowed(now.filter, now.split, series.group, event.shiftKey) }),
          mouseenter: () => this.#light(at),
          mouseleave: () => this.#light(-1),
          focus: () => this.#light(at),
          blur: () => this.#light(-1),
        },
      },
      h("span", { class: "faint", text: other ? "" : String(at + 1) }),
      mark,
      h("span", { class: other ? "name faint" : "name", text: name }),
      h("canvas", { "aria-hidden": "true" }),
      h("span", { class: "cell number" }, bar, h("span", { class: "over-bar", text: percent(share) })),
      h("span", { class: "number", text: short(series.total) }),
      h("span", { class: "number", text: shortTime(time) }),
    );
  }

  #sparklines() {
    const { answer } = this;
    if (!answer) return;
    this.rows.forEach((row, at) => {
      const canvas = row.querySelector("canvas");
      const series = this.series[at];
      if (!canvas || !series) return;
      const { width, height, ratio } = sizeCanvas(canvas, canvas.clientWidth, 24);
      const context = context2d(canvas);
      context.clearRect(0, 0, width, height);
      const most = series.samples.reduce((a, b) => Math.max(a, b), 0);
      if (most === 0) return;
      context.fillStyle = this.colors[at] ?? "";
      context.beginPath();
      context.moveTo(0, height);
      for (let b = 0; b < answer.buckets; b += 1) {
        const y = height - ((series.samples[b] ?? 0) / most) * (height - 4 * ratio);
        context.lineTo((b / answer.buckets) * width, y);
        context.lineTo(((b + 1) / answer.buckets) * width, y);
      }
      context.lineTo(width, height);
      context.fill();
    });
  }

  #draw() {
    const { answer } = this;
    const { width, height, ratio } = sizeCanvas(this.canvas, this.chart.clientWidth, this.chart.clientHeight);
    if (!answer || width < 2) return;
    const context = context2d(this.canvas);
    const colors = tokens();
    context.clearRect(0, 0, width, height);
    const bottom = height - 14 * ratio;
    const top = 4 * ratio;
    const share = state.current().share !== "";
    const sums = new Float64Array(answer.buckets);
    for (const series of this.series) for (let b = 0; b < answer.buckets; b += 1) sums[b] = (sums[b] ?? 0) + (series.samples[b] ?? 0);
    const most = sums.reduce((a, b) => Math.max(a, b), 1);
    const size = Math.max(1, answer.to - answer.from);
    /** @param {number} b */
    const x = (b) => Math.max(0, Math.min(width, ((answer.start + b * answer.width - answer.from) / size) * width));
    const base = new Float64Array(answer.buckets);
    this.tops = [];
    this.series.forEach((series, at) => {
      const upper = new Float64Array(answer.buckets);
      for (let b = 0; b < answer.buckets; b += 1) {
        const whole = share ? sums[b] ?? 0 : most;
        upper[b] = (base[b] ?? 0) + (whole > 0 ? (series.samples[b] ?? 0) / whole : 0);
      }
      context.globalAlpha = this.lit < 0 || this.lit === at ? 1 : 0.3;
      context.fillStyle = this.colors[at] ?? "";
      context.beginPath();
      context.moveTo(x(0), bottom);
      for (let b = 0; b < answer.buckets; b += 1) {
        const y = bottom - (upper[b] ?? 0) * (bottom - top);
        context.lineTo(x(b), y);
        context.lineTo(x(b + 1), y);
      }
      for (let b = answer.buckets - 1; b >= 0; b -= 1) {
        const y = bottom - (base[b] ?? 0) * (bottom - top);
        context.lineTo(x(b + 1), y);
        context.lineTo(x(b), y);
      }
      context.fill();
      base.set(upper);
      this.tops.push(upper);
    });
    context.globalAlpha = 1;
    // The scale: a line at the top and half way, with the cores that it stands for.
    context.font = `${11 * ratio}px ${colors.sans}`;
    context.textBaseline = "top";
    const coresAtMost = ((answer.cpu_ns / Math.max(1, answer.samples)) * most) / (answer.width * 1e6);
    for (const part of [1, 0.5]) {
      const y = Math.round(bottom - part * (bottom - top));
      const label = share ? percent(part) : `${Number((coresAtMost * part).toPrecision(3))} cores`;
      context.fillStyle = colors.line;
      context.globalAlpha = 0.8;
      context.fillRect(0, y, width, Math.max(1, Math.round(ratio)));
      context.globalAlpha = 0.85;
      context.fillStyle = colors.background;
      context.fillRect(0, y + ratio, context.measureText(label).width + 8 * ratio, 14 * ratio);
      context.globalAlpha = 1;
      context.fillStyle = colors.faint;
      context.fillText(label, 4 * ratio, y + 3 * ratio);
    }
    context.fillStyle = colors.line;
    context.fillRect(0, Math.round(bottom), width, Math.max(1, Math.round(ratio)));
    drawTicks(context, answer.from, answer.to, width, height, ratio, colors);
  }

  /** Series under the pointer, -1 for none. @param {MouseEvent} event */
  #seriesAt(event) {
    const { answer } = this;
    if (!answer) return -1;
    const box = this.canvas.getBoundingClientRect();
    const at = answer.from + ((event.clientX - box.left) / Math.max(1, box.width)) * (answer.to - answer.from);
    const bucket = Math.floor((at - answer.start) / answer.width);
    const height = 1 - (event.clientY - box.top - 4) / Math.max(1, box.height - 18);
    return this.tops.findIndex((upper) => height >= 0 && height < (upper[bucket] ?? 0));
  }

  /** @param {number} at */
  #light(at) {
    if (this.lit === at) return;
    this.lit = at;
    this.rows.forEach((row, index) => row.classList.toggle("lit", index === at));
    this.redraw();
  }

  /** @param {number | null} at */
  #point(at) {
    const { answer } = this;
    const hidden = at === null || !answer;
    this.cross.hidden = hidden;
    this.readout.hidden = hidden;
    if (at === null || !answer) return;
    const bucket = Math.min(answer.buckets - 1, Math.max(0, Math.floor((at - answer.start) / answer.width)));
    const part = (at - answer.from) / Math.max(1, answer.to - answer.from);
    const series = this.series[this.lit];
    const sum = this.series.reduce((total, s) => total + (s.samples[bucket] ?? 0), 0);
    const own = series ? `${series === answer.other ? "other" : series.group || "(none)"}  ${whole(series.samples[bucket] ?? 0)} of ` : "";
    this.cross.style.left = `${part * 100}%`;
    this.readout.textContent = `${clock(answer.start + bucket * answer.width)}  ${own}${whole(sum)} samples`;
    this.readout.style.left = part < 0.7 ? `calc(${part * 100}% + 6px)` : "auto";
    this.readout.style.right = part < 0.7 ? "auto" : `calc(${(1 - part) * 100}% + 6px)`;
  }

  key() {
    return false;
  }
}
