//! The strip of samples over time on every page, and the honest line below it.

import { Channel, address } from "./api.js";
import { listenBrush } from "./brush.js";
import { context2d, fill, h, oncePerFrame, sizeCanvas } from "./dom.js";
import { clock, coreTime, errorBound, percent, short, span, stamp, utc, whole } from "./format.js";
import { onTheme, tokens } from "./theme.js";
import { ticks } from "./time_range.js";

const AXIS_PX = 14;

export class Timeline {
  /**
   * @param {HTMLElement} host
   * @param {HTMLElement} honest
   */
  constructor(host, honest) {
    this.host = host;
    this.honest = honest;
    this.channel = new Channel();
    this.asked = "";
    /** @type {import("./types.js").TimelineAnswer | null} */
    this.answer = null;
    this.canvas = h("canvas", {});
    this.cross = h("div", { class: "cross", hidden: true });
    this.readout = h("div", { class: "readout", hidden: true });
    fill(host, this.canvas, this.cross, this.readout);
    this.redraw = oncePerFrame(() => this.#draw());
    new ResizeObserver(this.redraw).observe(host);
    onTheme(this.redraw);
    listenBrush(host, this.canvas, {
      range: () => this.answer && { from: this.answer.from, to: this.answer.to, step: this.answer.width },
      point: (at) => this.#point(at),
    });
  }

  /**
   * @param {Readonly<import("./state.js").State>} now
   * @param {{force: boolean}} how
   * @returns {Promise<unknown>} the error, or `null`
   */
  async update(now, how) {
    const buckets = Math.max(60, Math.min(480, Math.round(this.host.clientWidth / 4)));
    const question = address("timeline", { from: now.from, to: now.to, filter: now.filter });
    if (question === this.asked && !how.force) return undefined;
    this.asked = question;
    const dim = window.setTimeout(() => this.host.classList.add("dimmed"), 300);
    try {
      /** @type {import("./types.js").TimelineAnswer | null} */
      const answer = await this.channel.load(address("timeline", { from: now.from, to: now.to, filter: now.filter, buckets }));
      if (!answer) return undefined;
      this.answer = answer;
      this.#draw();
      this.#tell(answer);
      return null;
    } catch (error) {
      this.asked = "";
      this.answer = null;
      this.#draw();
      fill(this.honest);
      return error;
    } finally {
      clearTimeout(dim);
      this.host.classList.remove("dimmed");
    }
  }

  /** Samples per bucket, whatever groups the answer holds. @param {import("./types.js").TimelineAnswer} answer */
  static sums(answer) {
    const sums = new Float64Array(answer.buckets);
    for (const series of [...answer.series, answer.other]) for (let b = 0; b < answer.buckets; b += 1) sums[b] = (sums[b] ?? 0) + (series.samples[b] ?? 0);
    return sums;
  }

  /** @param {import("./types.js").TimelineAnswer} answer */
  #tell(answer) {
    const { samples } = answer;
    /** @param {string} number @param {string} rest @param {string} [full] */
    const part = (number, rest, full) => h("span", { title: full }, h("b", { text: number }), `\u00a0${rest}`);
    const complete = samples > 0 ? answer.complete / samples : 1;
    const time = coreTime(answer.cpu_ns).split("\u00a0");
    fill(
      this.honest,
      part(whole(samples), samples === 1 ? "sample" : "samples"),
      "·",
      part(time[0] ?? "", time.slice(1).join("\u00a0"), "CPU time: samples times the time that each stands for"),
      "·",
      part(whole(answer.hosts), answer.hosts === 1 ? "host" : "hosts"),
      samples > 0 && "·",
      samples > 0 && part(percent(complete), "complete stacks", `${whole(samples - answer.complete)} stacks end in a marker that says why they could not be followed to the thread's entry`),
      h("span", { class: "grow" }),
      h("span", { title: `${stamp(answer.from)} – ${stamp(answer.to)}\n${utc(answer.from)} – ${utc(answer.to)}`, text: `${span(answer.to - answer.from)}, ${span(answer.width)} a bar ·` }),
      answer.precision.exact
        ? h("span", { title: "Every stored sample in the range was counted.", text: "exact" })
        : h("span", {
            class: "bound",
            title: "Counted in a part of the samples and scaled: in 95 of 100 cases the true number lies within the bound. Small shares are uncertain, and rare stacks may be missing.",
            text: `± ${whole(errorBound(samples, answer.precision))} samples · 1 of ${short(answer.precision.factor)} counted`,
          }),
    );
  }

  #draw() {
    const { width, height, ratio } = sizeCanvas(this.canvas, this.host.clientWidth, this.host.clientHeight);
    const context = context2d(this.canvas);
    const colors = tokens();
    context.clearRect(0, 0, width, height);
    const bottom = height - AXIS_PX * ratio;
    context.fillStyle = colors.line;
    context.fillRect(0, Math.round(bottom), width, Math.max(1, Math.round(ratio)));
    const { answer } = this;
    if (!answer) return;
    const sums = Timeline.sums(answer);
    const most = sums.reduce((a, b) => Math.max(a, b), 0);
    const size = Math.max(1, answer.to - answer.from);
    /** @param {number} at */
    const x = (at) => ((at - answer.from) / size) * width;
    context.fillStyle = colors.bars;
    const room = bottom - 2 * ratio;
    for (let b = 0; b < answer.buckets; b += 1) {
      const count = sums[b] ?? 0;
      if (count === 0) continue;
      const x0 = Math.max(0, Math.round(x(answer.start + b * answer.width)));
      const x1 = Math.min(width, Math.round(x(answer.start + (b + 1) * answer.width)));
      const tall = Math.max(ratio, (count / most) * room);
      context.fillRect(x0, bottom - tall, Math.max(1, x1 - x0 - (x1 - x0 > 3 * ratio ? Math.round(ratio) : 0)), tall);
    }
    drawTicks(context, answer.from, answer.to, width, height, ratio, colors);
  }

  /** @param {number | null} at ms */
  #point(at) {
    const { answer } = this;
    const hidden = at === null || !answer;
    this.cross.hidden = hidden;
    this.readout.hidden = hidden;
    if (at === null || !answer) return;
    const bucket = Math.min(answer.buckets - 1, Math.max(0, Math.floor((at - answer.start) / answer.width)));
    const count = Timeline.sums(answer)[bucket] ?? 0;
    const share = (at - answer.from) / Math.max(1, answer.to - answer.from);
    this.cross.style.left = `${share * 100}%`;
    this.readout.textContent = `${clock(answer.start + bucket * answer.width)}  ${whole(count)} samples`;
    this.readout.style.left = share < 0.8 ? `calc(${share * 100}% + 6px)` : "auto";
    this.readout.style.right = share < 0.8 ? "auto" : `calc(${(1 - share) * 100}% + 6px)`;
  }
}

/**
 * Labels of a time axis along the lower edge.
 * @param {CanvasRenderingContext2D} context @param {number} from @param {number} to @param {number} width @param {number} height
 * @param {number} ratio @param {{faint: string, line: string, sans: string}} colors
 */
export function drawTicks(context, from, to, width, height, ratio, colors) {
  context.font = `${11 * ratio}px ${colors.sans}`;
  context.textBaseline = "alphabetic";
  context.fillStyle = colors.faint;
  for (const { at, label } of ticks(from, to, Math.max(2, Math.floor(width / ratio / 110)))) {
    const x = ((at - from) / (to - from)) * width;
    const wide = context.measureText(label).width;
    context.fillRect(Math.round(x), height - AXIS_PX * ratio, Math.max(1, Math.round(ratio)), 4 * ratio);
    if (x + 4 * ratio + wide < width) context.fillText(label, Math.round(x + 4 * ratio), height - 2.5 * ratio);
  }
}
