//! Starts the page: top bar, query bar, timeline, and the view that the URL names.

import { ApiError, watchBusy } from "./api.js";
import { fill, h } from "./dom.js";
import { FlamegraphPage } from "./flamegraph/page.js";
import { isTyping } from "./flamegraph/keyboard.js";
import { FunctionsPage } from "./functions_page.js";
import { QueryBar } from "./query_bar.js";
import { hostsPage, storagePage, symbolsPage } from "./sheets.js";
import { StacktracesPage } from "./stacktraces_page.js";
import * as state from "./state.js";
import { apply } from "./theme.js";
import { Timeline } from "./timeline.js";

/**
 * @typedef {object} Page
 * @property {HTMLElement} element
 * @property {(now: Readonly<import("./state.js").State>, how: {force: boolean}) => void} update
 * @property {(event: KeyboardEvent) => boolean} key
 */

const LIVE_MS = 5000;

/** Views in the order of the top bar; `null` is the line between looking and looking after. @type {([string, string, () => Page] | null)[]} */
const VIEWS = [
  ["flamegraph", "Flame graph", () => new FlamegraphPage()],
  ["functions", "Functions", () => new FunctionsPage()],
  ["stacktraces", "Stacktraces", () => new StacktracesPage()],
  null,
  ["hosts", "Hosts", hostsPage],
  ["symbols", "Symbols", symbolsPage],
  ["storage", "Storage", storagePage],
];

/** @param {string} id @returns {HTMLElement} */
function part(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element ${id}`);
  return element;
}

/** @type {Map<string, Page>} */
const pages = new Map();
const main = part("view");
const progress = part("progress");
const bar = new QueryBar(() => refresh());
const timeline = new Timeline(part("strip"), part("honest"));
const links = VIEWS.map((view) => (view ? h("a", { "data-link": true, "data-view": view[0], text: view[1] }) : h("span", { class: "nav-rule" })));

/** @param {string} id */
function pageOf(id) {
  const known = VIEWS.find((view) => view && view[0] === id) ?? VIEWS[0];
  const [name, , make] = /** @type {[string, string, () => Page]} */ (known);
  let page = pages.get(name);
  if (!page) {
    page = make();
    pages.set(name, page);
  }
  return { name, page };
}

/** @param {{force: boolean}} how */
function show(how) {
  const now = state.current();
  const { name, page } = pageOf(now.view);
  for (const link of links) {
    const view = link.getAttribute("data-view");
    if (!view) continue;
    link.setAttribute("href", state.link({ view }));
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (view === name) document.title = `${link.textContent} · everflame`;
  }
  bar.show(now);
  if (page.element.parentElement !== main) fill(main, page.element);
  void timeline.update(now, how).then((error) => {
    if (error === undefined) return;
    bar.showError(error instanceof ApiError && (error.position !== null || /^filter\b/.test(error.message)) ? error : null);
  });
  page.update(now, how);
}

function refresh() {
  show({ force: true });
}

let busy = 0;
watchBusy((running) => {
  busy = running;
  progress.hidden = running === 0;
});

fill(part("top"), h("a", { class: "brand", href: "./", "data-link": true, title: "everflame: the last 15 minutes" }, h("img", { src: "icon.svg", alt: "" }), "everflame"), h("nav", { "aria-label": "Pages" }, ...links));
fill(part("query"), bar.element);

// Links inside the page change the state; with a modifier key they open as ordinary links.
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-link]") : null;
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  state.change({ ...state.DEFAULTS, ...state.parse(new URL(/** @type {HTMLAnchorElement} */ (link).href)) });
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented) return;
  const { page } = pageOf(state.current().view);
  if (document.querySelector(":popover-open") && event.key !== "?") return;
  if (page.key(event)) event.preventDefault();
  else if (event.key === "r" && !isTyping(event.target) && !event.ctrlKey && !event.metaKey && !event.altKey) refresh();
});

setInterval(() => {
  if (state.current().live && busy === 0 && document.visibilityState === "visible") refresh();
}, LIVE_MS);

apply();
state.listen(() => show({ force: false }));
show({ force: false });
