//! Measures the graph on a made tree of a million nodes: time to the first picture, and frames while panning and zooming.
//! `node tests/web/frames.js [--nodes 1000000] [--scale 2]`. Prints figures; it is no test, since machines differ.

import { open } from "./browser.js";
import { Made } from "./made_server.js";

/** @param {string} name @param {number} otherwise */
const option = (name, otherwise) => (process.argv.includes(name) ? Number(process.argv[process.argv.indexOf(name) + 1]) : otherwise);

const nodes = option("--nodes", 1_000_000);
const made = new Made({ nodes });
const server = await made.listen(0);
const browser = await open({ scale: option("--scale", 1) });
const { page } = browser;

// The first visit makes and keeps the answer's text, so that only the page is measured.
await fetch(`${server.url}api/v1/flamegraph`).then((response) => response.text());
await page.goto(server.url);
await page.locator(".graph-boxes").waitFor();
await page.locator("#progress").waitFor({ state: "hidden" });
const start = Date.now();
await page.goto(server.url);
await page.locator(".legend-item").first().waitFor({ timeout: 60_000 });
const firstPicture = Date.now() - start;

/**
 * Runs an action once per frame for two seconds, in the page, and answers the frames' intervals and the script's share.
 * @param {"pan" | "zoom" | "scroll" | "hover"} action
 */
async function frames(action) {
  return page.evaluate(async (what) => {
    const stage = /** @type {HTMLElement} */ (document.querySelector(".graph-stage"));
    const box = stage.getBoundingClientRect();
    const x = box.left + box.width * 0.4;
    const y = box.top + 120;
    const intervals = [];
    /** @type {number[]} */
    const scripts = [];
    // Modules are shared: the page's own painter is timed.
    const address = new URL("flamegraph/draw.js", document.baseURI).href;
    const { Painter } = await import(address);
    const draw = (Painter.untimed ??= Painter.prototype.draw);
    Painter.prototype.draw = function timed(/** @type {unknown[]} */ ...args) {
      const before = performance.now();
      draw.apply(this, args);
      scripts.push(performance.now() - before);
    };
    let last = performance.now();
    const end = last + 2000;
    for (let n = 0; performance.now() < end; n += 1) {
      if (what === "pan") stage.dispatchEvent(new WheelEvent("wheel", { deltaX: n % 80 < 40 ? 37 : -37, clientX: x, clientY: y, cancelable: true }));
      if (what === "scroll") stage.dispatchEvent(new WheelEvent("wheel", { deltaY: n % 80 < 40 ? 23 : -23, clientX: x, clientY: y, cancelable: true }));
      if (what === "zoom") stage.dispatchEvent(new WheelEvent("wheel", { deltaY: n % 120 < 60 ? -40 : 40, ctrlKey: true, clientX: x, clientY: y, cancelable: true }));
      if (what === "hover") stage.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + ((n * 13) % box.width), clientY: box.top + ((n * 7) % box.height), pointerType: "mouse" }));
      const frame = await new Promise((done) => requestAnimationFrame(() => done(performance.now())));
      intervals.push(frame - last);
      last = frame;
    }
    return { intervals: intervals.slice(2), scripts };
  }, action);
}

/** @param {number[]} list @param {number} part */
const quantile = (list, part) => list.slice().sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * part))] ?? 0;

process.stdout.write(`${nodes} nodes, scale ${option("--scale", 1)}: first picture after ${firstPicture} ms\n`);
// A window a tenth of the whole, so that panning has room.
for (const action of /** @type {const} */ (["zoom", "pan", "scroll", "hover"])) {
  if (action === "pan") await page.goto(`${server.url}?x=0.4-0.5`).then(() => page.locator(".legend-item").first().waitFor({ timeout: 60_000 }));
  // Interval: between frames, with everything the browser does. Painting: what the page's own code takes of it.
  const { intervals, scripts } = await frames(action);
  process.stdout.write(
    `${action.padEnd(7)} ${String(intervals.length).padStart(4)} frames in 2 s: interval median ${quantile(intervals, 0.5).toFixed(1)} ms, 95 % ${quantile(intervals, 0.95).toFixed(1)} ms, worst ${Math.max(...intervals).toFixed(1)} ms; painting median ${quantile(scripts, 0.5).toFixed(2)} ms, 95 % ${quantile(scripts, 0.95).toFixed(2)} ms\n`,
  );
}
await browser.close();
await server.close();
