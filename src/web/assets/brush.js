//! Choosing a piece of a time axis: drag or keys narrow, double click goes back. Shared by all charts over time.

import { h } from "./dom.js";
import { stamp } from "./format.js";
import * as state from "./state.js";

/** Mark of history steps that a brush made. */
const MARK = "brush";
/** Shortest drag in CSS pixels. */
const SHORTEST_PX = 4;

/**
 * @typedef {object} Axis
 * @property {() => {from: number, to: number, step: number} | null} range shown range and the width of one bucket in ms
 * @property {(at: number | null) => void} point the pointer's time, `null` when it left
 */

/**
 * @param {HTMLElement} host positioned element
 * @param {HTMLCanvasElement} canvas fills the host
 * @param {Axis} axis
 */
export function listenBrush(host, canvas, axis) {
  const brush = h("div", { class: "brush", hidden: true });
  host.append(brush);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  canvas.setAttribute("aria-label", "Samples over time: arrow keys move, Shift + arrows select, Enter narrows the range, Backspace goes back");
  let start = -1;
  let keyStart = -1;
  let keyAt = -1;

  /** @param {MouseEvent} event */
  const share = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / Math.max(1, box.width)));
  };
  /** @param {number} a @param {number} b shares of the width */
  const show = (a, b) => {
    brush.hidden = false;
    brush.style.left = `${Math.min(a, b) * 100}%`;
    brush.style.width = `${Math.abs(b - a) * 100}%`;
  };
  const hide = () => {
    brush.hidden = true;
    start = -1;
    keyStart = -1;
  };
  /** @param {number} a @param {number} b shares */
  const narrow = (a, b) => {
    const range = axis.range();
    hide();
    if (!range) return;
    const size = range.to - range.from;
    const from = Math.floor(range.from + Math.min(a, b) * size);
    const to = Math.ceil(range.from + Math.max(a, b) * size);
    if (to - from >= 1) state.change({ from: String(from), to: String(to), live: "" }, { mark: MARK });
  };
  const goBack = () => {
    if (state.mark() === MARK) {
      state.back();
      return;
    }
    // Nothing to go back to (a link from somebody else): show twice as much.
    const range = axis.range();
    if (!range) return;
    const half = Math.round((range.to - range.from) / 2);
    const to = Math.min(Date.now(), range.to + half);
    state.change({ from: String(Math.max(0, range.from - half)), to: String(to), live: "" });
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !axis.range()) return;
    start = share(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const range = axis.range();
    if (!range) return;
    axis.point(range.from + share(event) * (range.to - range.from));
    if (start >= 0 && Math.abs(share(event) - start) * canvas.clientWidth >= SHORTEST_PX) show(start, share(event));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (start < 0) return;
    const end = share(event);
    if (Math.abs(end - start) * canvas.clientWidth >= SHORTEST_PX) narrow(start, end);
    else hide();
  });
  canvas.addEventListener("pointercancel", hide);
  canvas.addEventListener("pointerleave", () => axis.point(null));
  canvas.addEventListener("dblclick", goBack);

  canvas.addEventListener("keydown", (event) => {
    const range = axis.range();
    if (!range) return;
    const step = range.step / (range.to - range.from);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      if (keyAt < 0) keyAt = 0.5;
      if (event.shiftKey && keyStart < 0) keyStart = keyAt;
      if (!event.shiftKey) hide();
      keyAt = Math.min(1, Math.max(0, keyAt + (event.key === "ArrowLeft" ? -step : step)));
      const at = range.from + keyAt * (range.to - range.from);
      canvas.setAttribute("aria-valuetext", stamp(at));
      axis.point(at);
      if (keyStart >= 0) show(keyStart, keyAt);
    } else if (event.key === "Enter" && keyStart >= 0 && keyStart !== keyAt) narrow(keyStart, keyAt);
    else if (event.key === "Backspace") goBack();
    else if (event.key === "Escape" && keyStart >= 0) hide();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => {
    hide();
    keyAt = -1;
    axis.point(null);
  });
}
