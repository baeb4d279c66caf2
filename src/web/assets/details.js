//! The panel beside the graph: one box in full, and why a name is missing.

import { ASSUMPTION, perYear } from "./cost.js";
import { copyText, fill, h } from "./dom.js";
import { css, isUnknown, kindColor, kindName, unknownColor } from "./flamegraph/colors.js";
import { stackText } from "./flamegraph/export.js";
import { pathTo, titleOf } from "./flamegraph/tree.js";
import { coreTime, errorBound, mass, money, share, short, whole } from "./format.js";
import { theme } from "./theme.js";

/**
 * @typedef {object} Subject
 * @property {import("./flamegraph/tree.js").Tree} tree
 * @property {import("./flamegraph/tree.js").Functions} functions
 * @property {number} node
 * @property {import("./types.js").Totals} totals
 */
/**
 * @typedef {object} Actions
 * @property {(node: number) => void} zoom
 * @property {(f: number) => void} focus
 * @property {(node: number) => void} select
 * @property {() => void} close
 */

/** Colour dot of a function's kind. @param {import("./flamegraph/tree.js").Functions} functions @param {number} f */
export function dot(functions, f) {
  const mark = h("span", { class: isUnknown(functions, f) ? "dot dot-unknown" : "dot", title: kindName(functions.kind[f] ?? 0) });
  const color = isUnknown(functions, f) ? unknownColor(theme()) : kindColor(functions.kind[f] ?? 0, theme());
  if (color) mark.style.backgroundColor = css(color);
  return mark;
}

/**
 * Place in the source, as `file:line` as far as known.
 * @param {string} file @param {number} line
 */
export function place(file, line) {
  return file === "" ? "" : line > 0 ? `${file}:${line}` : file;
}

/**
 * What to say about a box that is no plain named function, "" for those.
 * @param {import("./flamegraph/tree.js").Functions} functions @param {number} f
 */
export function whyUnknown(functions, f) {
  const kind = functions.kind[f] ?? 0;
  const reason = functions.reason(f);
  if (kind >= 128 && kind < 256) {
    return `The stack could not be followed further out; the frames between here and the thread's entry are missing.${reason && !/not looked up/.test(reason) ? ` ${reason}` : ""}`;
  }
  if (reason === "") return "";
  const library = functions.library(f);
  return `No name${library ? ` for this address in ${library}` : ""}: ${reason}.${cure(reason)}`;
}

/** The step that helps, by the server's reason. @param {string} reason */
function cure(reason) {
  if (/not looked up yet/.test(reason)) return " Names appear by themselves once the symbolizer has read the file.";
  if (/has no symbols/.test(reason)) return " Install its debug package, or push the symbols with symbtool.";
  if (/not available/.test(reason)) return " Push the symbols of this executable with symbtool.";
  return "";
}

/**
 * @param {HTMLElement} panel
 * @param {Subject | null} subject `null` shows how to fill the panel
 * @param {Actions} act
 */
export function showDetails(panel, subject, act) {
  const close = h("button", { class: "icon-button", title: "Close details (i)", "aria-label": "Close details", on: { click: act.close }, text: "×" });
  if (!subject) {
    fill(panel, h("div", { class: "details-head" }, h("h2", { text: "Details" }), close), h("p", { class: "faint", text: "Select a box: Shift + click, or the arrow keys." }));
    return;
  }
  const { tree, functions, node, totals } = subject;
  const f = tree.fn[node] ?? 0;
  const kind = functions.kind[f] ?? 0;
  const samples = Math.max(1, totals.samples);
  const self = tree.self[node] ?? 0;
  const total = tree.total[node] ?? 0;
  const year = perYear((totals.cpu_ns / samples) * total, totals.to - totals.from);
  const why = whyUnknown(functions, f);
  const path = pathTo(tree, node);

  /** @param {string} name @param {number} count */
  const measure = (name, count) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", text: name }),
      h("td", { text: share(count, samples, totals.precision) }),
      h("td", { text: short(count), title: `${whole(count)}${totals.precision.exact ? "" : ` ± ${whole(errorBound(count, totals.precision))}`} samples` }),
      h("td", { text: coreTime((totals.cpu_ns / samples) * count) }),
    );
  /** @param {string} name @param {string} value */
  const fact = (name, value) => value !== "" && h("div", { class: "fact" }, h("dt", { text: name }), h("dd", { class: "code", text: value }));
  const copied = h("span", { class: "faint", role: "status" });
  /** @param {string} text @param {string} what */
  const copy = (text, what) => {
    void copyText(text).then(() => {
      copied.textContent = `${what} copied`;
      setTimeout(() => copied.replaceChildren(), 2000);
    });
  };

  fill(
    panel,
    h("div", { class: "details-head" }, h("h2", { class: "code" }, dot(functions, f), titleOf(functions, f)), close),
    why !== "" && h("p", { class: "reason", text: why }),
    h("table", { class: "measures" }, h("tbody", {}, measure("Self", self), measure("Total", total))),
    h(
      "dl",
      { class: "facts" },
      fact("Kind", kindName(kind) + (functions.inlined[f] ? ", inlined here" : "")),
      fact("Library", functions.library(f)),
      fact("Source", place(functions.file(f), tree.line[node] ?? 0)),
      h("div", { class: "fact", title: ASSUMPTION }, h("dt", { text: "Cost" }), h("dd", { text: `${money(year.dollars)} a year` })),
      h("div", { class: "fact", title: ASSUMPTION }, h("dt", { text: "CO2" }), h("dd", { text: `${mass(year.kilograms)} a year` })),
    ),
    h(
      "p",
      { class: "details-actions" },
      node > 0 && h("button", { class: "button", text: "Zoom", on: { click: () => act.zoom(node) } }),
      functions.key(f) !== "" && kind < 256 && h("button", { class: "button", text: "Focus function", on: { click: () => act.focus(f) } }),
      h("button", { class: "button", text: "Copy name", on: { click: () => copy(functions.name(f), "Name") } }),
      node > 0 && h("button", { class: "button", text: "Copy stack", on: { click: () => copy(stackText(tree, functions, node, "\n"), "Stack") } }),
      copied,
    ),
    path.length > 1 && h("h3", { text: `Stack, ${path.length - 1} frames above` }),
    path.length > 1 &&
      h(
        "ol",
        { class: "stack" },
        ...path
          .slice(0, -1)
          .reverse()
          .map((above) => {
            const g = tree.fn[above] ?? 0;
            return h("li", {}, h("button", { class: "link code", on: { click: () => act.select(above) } }, dot(functions, g), titleOf(functions, g)));
          }),
      ),
  );
}
