//! Scenes in a real browser against made data: what a person does, and what the page must then show and say.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { missing, open } from "./browser.js";
import { Made } from "./made_server.js";

/** A fixed clock: 2026-11-21 15:00 UTC, so that every run sees the same samples. */
const NOW = Date.UTC(2026, 10, 21, 15, 0, 0);

/** @type {Awaited<ReturnType<typeof open>>} */
let browser;
/** @type {import("playwright-core").Page} */
let page;
/** @type {Made} */
let made;
/** @type {{url: string, close: () => Promise<void>}} */
let server;

const options = { skip: missing, timeout: 60_000 };

if (!missing) {
  before(async () => {
    browser = await open();
    page = browser.page;
    await page.clock.install({ time: NOW });
  });
  after(() => browser.close());
  beforeEach(async () => {
    await server?.close();
    made = new Made({ now: NOW });
    server = await made.listen(0);
    browser.faults.length = 0;
  });
  after(() => server?.close());
}

/** Opens an address of the page and waits for its first picture. @param {string} [path] */
async function visit(path = "") {
  await page.goto(server.url + path);
  await settled();
}

async function settled() {
  await page.locator("#progress").waitFor({ state: "hidden" });
  await page.locator(".panel:not([aria-busy])").first().waitFor({ state: "attached" });
}

/** Waits until `check` answers true. @param {() => Promise<boolean> | boolean} check @param {string} what */
async function until(check, what) {
  const deadline = Date.now() + 15_000;
  while (!(await check())) {
    assert.ok(Date.now() < deadline, `${what}; the page shows: ${(await page.locator("body").innerText()).slice(0, 1500)}`);
    await new Promise((done) => setTimeout(done, 30));
    await page.clock.runFor(50);
  }
}

const search = () => new URL(page.url()).searchParams;
const line = () => page.locator(".status-line").innerText();

/** Middle of the widest box whose name is `name`, found by hovering row by row. @param {string} name */
async function boxOf(name) {
  const stage = await page.locator(".graph-stage").last().boundingBox();
  assert.ok(stage);
  for (let y = stage.y + 9; y < stage.y + stage.height; y += 18) {
    for (let x = stage.x + 4; x < stage.x + stage.width; x += 24) {
      await page.mouse.move(x, y);
      if ((await page.locator(".status-line .line-name").allInnerTexts())[0] === name) return { x, y };
    }
  }
  assert.fail(`no box called ${name} is on the screen`);
}

test("the first picture: every sample is accounted for, nothing leaves the origin", options, async () => {
  await visit();
  const honest = await page.locator("#honest").innerText();
  assert.match(honest, /^[\d,]+\ssamples\s*·/);
  assert.match(honest, /3\shosts/);
  assert.match(honest, /complete stacks/);
  assert.match(honest, /exact$/);
  assert.match(await line(), /Native\s+\d/);
  assert.deepEqual(browser.faults, []);
});

test("a search shows its share and the number of functions, and n walks through the boxes", options, async () => {
  await visit();
  await page.locator(".graph-stage").focus();
  await page.keyboard.press("/");
  await page.keyboard.type("deflate");
  await until(async () => /of samples in \d+ functions/.test(await page.locator(".search-result").innerText()), "a share is shown");
  const answer = await (await fetch(`${server.url}api/v1/flamegraph?from=now-15m&to=now`)).json();
  const { nodes, functions, strings } = answer;
  /** @type {boolean[]} */
  const covered = [];
  let samples = 0;
  const names = new Set();
  nodes.parent.forEach((/** @type {number} */ parent, /** @type {number} */ i) => {
    const f = nodes.function[i];
    const hit = i > 0 && /deflate/i.test(strings[functions.name[f]] + strings[functions.library[f]]);
    if (hit) names.add(f);
    if (hit && !covered[parent]) samples += nodes.total[i];
    covered[i] = hit || Boolean(i > 0 && covered[parent]);
  });
  const share = ((samples / answer.samples) * 100).toFixed(samples / answer.samples < 0.09995 ? 2 : 1);
  assert.equal((await page.locator(".search-result").innerText()).replaceAll("\u00a0", " "), `${share} % of samples in ${names.size} functions`);
  assert.equal(search().get("q"), "deflate");
  await page.keyboard.press("Enter");
  await until(async () => /^1 of \d+ boxes/.test(await page.locator(".search-result").innerText()), "the first match is counted");
  assert.match(await line(), /deflate/);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  assert.equal(search().get("q"), null);
});

test("a search that is no regular expression says so", options, async () => {
  await visit("?q=%2Fa(%2F");
  assert.match(await page.locator(".search-result.problem").innerText(), /group/);
});

test("a click zooms and changes the URL; back, reload and the link itself show the same picture", options, async () => {
  await visit();
  const place = await boxOf("ngx_http_process_request");
  await page.mouse.click(place.x, place.y);
  await until(() => search().has("zoom"), "the URL names the zoom");
  await page.clock.runFor(400);
  const zoomed = page.url();
  const before = await page.locator(".graph-boxes").screenshot();
  await page.reload();
  await settled();
  await page.clock.runFor(400);
  assert.equal(page.url(), zoomed);
  await until(async () => (await page.locator(".graph-boxes").screenshot()).equals(before), "the link shows the same pixels");
  await page.goBack();
  await until(() => !search().has("zoom"), "back leaves the zoom");
  await page.goForward();
  await until(() => search().has("zoom"), "forward returns to it");
});

test("keys walk, zoom, flip, order and close", options, async () => {
  await visit();
  await page.locator(".graph-stage").focus();
  await page.keyboard.press("ArrowDown");
  await until(async () => (await page.locator("[aria-live=polite].off-screen").innerText()).includes("of samples"), "the selected box is announced");
  const first = await line();
  await page.keyboard.press("ArrowRight");
  await until(async () => (await line()) !== first, "the sibling is selected");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await until(() => search().has("zoom"), "Enter zooms");
  await page.keyboard.press("Escape");
  await until(() => !search().has("zoom"), "Esc goes up");
  await page.keyboard.press("f");
  assert.equal(search().get("dir"), "flame");
  await page.keyboard.press("s");
  assert.equal(search().get("order"), "share");
  await page.keyboard.press("i");
  assert.ok(await page.locator(".details").isVisible());
  assert.match(await page.locator(".details").innerText(), /Self[\s\S]*Total[\s\S]*CO2/);
  await page.keyboard.press("t");
  assert.ok(await page.locator(".vt-functions").isVisible());
  await page.keyboard.press("t");
  await page.keyboard.press("?");
  assert.ok(await page.locator(".keys").isVisible());
  await page.keyboard.press("Escape");
  assert.deepEqual(browser.faults, []);
});

test("the wheel with ctrl zooms at the pointer, the picture's window goes into the URL", options, async () => {
  await visit();
  const place = await boxOf("ExecHashJoin");
  const under = await line();
  await page.keyboard.down("Control");
  await page.mouse.wheel(0, -400);
  await page.keyboard.up("Control");
  await until(() => /^0\.\d+-0\.\d+$/.test(search().get("x") ?? ""), "the URL holds the window");
  await page.mouse.move(place.x + 1, place.y);
  await until(async () => (await line()) === under, "the box stays under the pointer");
  await page.keyboard.press("0");
  await until(() => !search().has("x"), "0 shows everything");
});

test("a brush narrows the range, a double click goes back", options, async () => {
  await visit();
  const before = Number((await page.locator("#honest b").first().innerText()).replaceAll(",", ""));
  const strip = await page.locator("#strip canvas").boundingBox();
  assert.ok(strip);
  await page.mouse.move(strip.x + strip.width * 0.25, strip.y + 20);
  await page.mouse.down();
  await page.mouse.move(strip.x + strip.width * 0.5, strip.y + 20, { steps: 5 });
  assert.ok(await page.locator("#strip .brush").isVisible());
  await page.mouse.up();
  await until(() => /^\d+$/.test(search().get("from") ?? ""), "the range is absolute");
  const length = Number(search().get("to")) - Number(search().get("from"));
  assert.ok(Math.abs(length - 225_000) < 3_000, `a quarter of 15 minutes, found ${length} ms`);
  await settled();
  const after = Number((await page.locator("#honest b").first().innerText()).replaceAll(",", ""));
  assert.ok(after > 0 && after < before / 3, `${after} of ${before} samples`);
  await page.mouse.dblclick(strip.x + 300, strip.y + 20);
  await until(() => !search().has("from"), "the former range is back");
});

test("a wrong filter is shown at its place with the hint, and can be removed", options, async () => {
  await visit("?filter=host:+web-1+and+process:");
  await until(() => page.locator(".filter-error").isVisible(), "the sentence stands below the filter");
  assert.match(await page.locator(".filter-error").innerText(), /expected a value after "process:"[\s\S]*write process: nginx/);
  assert.ok(await page.locator(".error-mark").isVisible());
  await page.locator(".notice .button", { hasText: "Remove filter" }).click();
  await until(() => !search().has("filter"), "the filter is gone");
  await settled();
  assert.ok(await page.locator(".filter-error").isHidden());
  assert.ok(await page.locator(".graph-boxes").isVisible());
});

test("a server that fails is quoted, the old picture stays, and trying again helps", options, async () => {
  await visit();
  made.refuse = { status: 503, body: { error: "the store is compacting", hint: "try again in a moment" } };
  await page.keyboard.press("r");
  await until(() => page.locator(".notice-error").isVisible(), "the error is shown");
  assert.match(await page.locator(".notice-error").innerText(), /The store is compacting\s+try again in a moment\s+Try again/);
  assert.ok(await page.locator(".graph-boxes").isVisible(), "the old picture stays");
  made.refuse = null;
  await page.locator(".notice .button").click();
  await until(() => page.locator(".notice").isHidden(), "the notice goes");
  await server.close();
  await page.keyboard.press("r");
  await until(async () => /does not answer/.test(await page.locator(".notice-error").innerText()), "a dead server is named");
});

test("emptiness has a reason and a step that helps", options, async () => {
  await visit("?filter=process:+nothing*");
  await until(async () => /No sample matches the filter/.test(await page.locator(".notice").innerText()), "the filter is to blame");
  await page.locator(".notice .button", { hasText: "Remove filter" }).click();
  await settled();
  await visit("?from=1000000&to=2000000");
  await until(async () => /No samples in this range[\s\S]*The store holds samples from/.test(await page.locator(".notice").innerText()), "the range is to blame");
  await page.locator(".notice .button", { hasText: "newest" }).click();
  await until(() => page.locator(".graph-boxes").isVisible(), "the newest samples are shown");
  await server.close();
  made = new Made({ now: NOW, empty: true, agent: "stopped" });
  server = await made.listen(0);
  await visit();
  await until(async () => /the agent is not running[\s\S]*CAP_BPF/.test(await page.locator(".notice").innerText()), "the agent is to blame");
});

test("the filter completes fields and values and is asked on Enter", options, async () => {
  await visit();
  await page.locator("#filter").click();
  await page.keyboard.type("proc");
  await until(async () => (await page.locator(".option").allInnerTexts()).some((t) => t.startsWith("process\n")), "fields are offered");
  await page.keyboard.press("Tab");
  await until(async () => (await page.locator(".option").allInnerTexts()).some((t) => t.startsWith("nginx")), "values are offered");
  await page.keyboard.type("ng");
  await until(async () => (await page.locator(".option").count()) === 1, "the prefix narrows");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#filter").inputValue(), "process: nginx ");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await until(() => search().get("filter") === "process: nginx", "the filter is in the URL");
  await settled();
  assert.match(await page.locator("#honest").innerText(), /1\shost\s/);
});

test("functions sort, filter and lead to their callers and callees", options, async () => {
  await visit("functions");
  const names = () => page.locator(".vt-row:not([hidden]) .function-name").allInnerTexts();
  const first = (await names())[0];
  assert.ok(first);
  await page.locator(".sort", { hasText: "Total %" }).click();
  await until(() => search().get("sort") === "total", "the sort is in the URL");
  await until(async () => (await names())[0] !== first, "the order changed");
  await page.locator("input[aria-label='Filter functions']").fill("/^deflate(_fast)?$/");
  await until(async () => (await names()).every((name) => name.startsWith("deflate")), "only matches stay");
  assert.match(await page.locator(".toolbar [role=status]").innerText(), /^2 of [\d,]+ functions$/);
  await page.locator(".vt-row:not([hidden])").first().click();
  await until(() => new URL(page.url()).pathname === "/" && search().has("focus"), "the sandwich opens");
  await settled();
  assert.match(await page.locator(".chip").innerText(), /Callers above and callees below of\s+deflate/);
  assert.equal(await page.locator(".graph-boxes").count(), 2);
  await page.locator(".chip-close").click();
  await until(async () => (await page.locator(".graph-boxes").count()) === 1, "back to one graph");
});

test("stacktraces: a click filters, shift-click excludes", options, async () => {
  await visit("stacktraces");
  const rows = page.locator(".trace:not(.trace-head)");
  assert.match(await rows.first().innerText(), /java/);
  await rows.nth(1).click({ modifiers: ["Shift"] });
  await until(() => /^not process: /.test(search().get("filter") ?? ""), "the group is excluded");
  await settled();
  await rows.first().click();
  await until(() => /^not process: .* and process: java$/.test(search().get("filter") ?? ""), "the group is the filter");
  await settled();
  await until(async () => (await rows.count()) === 1, "one group is left");
  assert.deepEqual(browser.faults, []);
});

test("answers of an overtaken question are dropped", options, async () => {
  await visit("stacktraces");
  made.delayMs = 400;
  await page.locator("select").selectOption("host");
  await page.locator("select").selectOption("container");
  made.delayMs = 0;
  await until(async () => /edge|checkout/.test(await page.locator(".traces-list").innerText()), "the last question is answered");
  await new Promise((done) => setTimeout(done, 600));
  assert.doesNotMatch(await page.locator(".traces-list").innerText(), /web-1/);
});

test("hosts tell where every tick went, symbols why names are missing, storage what it costs", options, async () => {
  await visit("hosts");
  assert.match(await page.locator(".sheet").innerText(), /The sum holds\.[\s\S]*1,284,931 ticks = 1,284,311 stored \+ 600 dropped/);
  await visit("symbols");
  assert.match(await page.locator(".sheet").innerText(), /libcrypto\.so\.3\s+executable has no symbols/);
  await visit("storage");
  assert.match(await page.locator(".sheet").innerText(), /3\.00\sB\s+events per sample/);
  assert.deepEqual(browser.faults, []);
});

test("a box can be left out, shown again, focused and copied from its menu", options, async () => {
  await visit();
  const place = await boxOf("ngx_process_events_and_timers");
  await page.mouse.click(place.x, place.y, { button: "right" });
  await page.locator(".menu-item", { hasText: "Leave out this function" }).click();
  await until(() => search().has("ignore"), "the URL names what is left out");
  assert.match(await page.locator(".chip").innerText(), /Left out:\s+ngx_process_events_and_timers/);
  await page.locator(".chip-close").click();
  await until(() => !search().has("ignore"), "it is shown again");
});

test("exports are made in the page", options, async () => {
  await visit("?filter=process:+nginx");
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page
      .locator(".button", { hasText: "Export" })
      .click()
      .then(() => page.locator(".menu-item", { hasText: "Collapsed" }).click()),
  ]);
  const text = readFileSync(await download.path(), "utf8");
  const sum = text.trim().split("\n").reduce((total, row) => total + Number(row.slice(row.lastIndexOf(" ") + 1)), 0);
  assert.equal(sum, Number((await page.locator("#honest b").first().innerText()).replaceAll(",", "")));
  assert.match(text, /^nginx;_start;main;/m);
  assert.deepEqual(browser.faults, []);
});

test("the theme is remembered, and the canvas follows it", options, async () => {
  await visit();
  await page.locator("button[aria-label^='Switch between']").click();
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await page.reload();
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  await page.locator("button[aria-label^='Switch between']").click();
  assert.equal(await page.locator("html").getAttribute("data-theme"), null);
});
