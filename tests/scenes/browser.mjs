// Drives the page as a person would: open, search a function, read its share, zoom to it, go back.
// Arguments: page address, filter, function, file for a screenshot. Prints what it saw as one line of JSON.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

/** Waits for a condition; fails with its name. */
async function until(condition, what) {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`took too long: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const [address, filter, wanted, screenshot] = process.argv.slice(2);
const browser = process.env.CHROMIUM ?? "/usr/bin/chromium";
const profile = mkdtempSync(join(tmpdir(), "everflame-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: browser,
  headless: true,
  viewport: { width: 1440, height: 900 },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = context.pages()[0] ?? (await context.newPage());
  const mistakes = [];
  page.on("pageerror", (error) => mistakes.push(String(error)));
  page.on("console", (message) => message.type() === "error" && mistakes.push(message.text()));
  const started = Date.now();
  await page.goto(`http://${address}/?${new URLSearchParams({ from: "now-1h", filter })}`);
  await page.waitForFunction(() => /sample/.test(document.querySelector("#honest")?.textContent ?? ""), null, { timeout: 30_000 });
  const firstPicture = Date.now() - started;

  const result = page.locator(".search-result");
  const shows = (pattern) => until(async () => pattern.test((await result.textContent()) ?? ""), `the search shows ${pattern}`);
  const parameter = (name) => new URL(page.url()).searchParams.get(name);

  await page.locator(".graph-stage").focus();
  await page.keyboard.press("/");
  await page.keyboard.type(wanted);
  await shows(/%/);
  const share = await result.textContent();
  if (screenshot) await page.screenshot({ path: screenshot });

  // Enter goes to the first match; on the graph, Enter zooms to the selected box.
  await page.keyboard.press("Enter");
  await shows(/^1 of /);
  await page.locator(".graph-stage").focus();
  await page.keyboard.press("Enter");
  await until(() => parameter("zoom") !== null, "the URL names the zoom");
  const zoomed = page.url();
  await page.goBack();
  await until(() => parameter("zoom") === null, "back leaves the zoom");

  console.log(JSON.stringify({ share, zoomed, honest: await page.locator("#honest").textContent(), firstPicture, mistakes }));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
