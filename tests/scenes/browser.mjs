// Drives the page as a person would: open, search a function, read its share, zoom to it, go back.
// Arguments: page address, filter, function, file for a screenshot. Prints what it saw as one line of JSON.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

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

  await page.keyboard.press("/");
  await page.keyboard.type(wanted);
  const result = page.locator(".search-result");
  await page.waitForFunction(() => /%/.test(document.querySelector(".search-result")?.textContent ?? ""), null, { timeout: 10_000 });
  const share = await result.textContent();
  if (screenshot) await page.screenshot({ path: screenshot });

  // Enter goes to the first match; on the graph, Enter zooms to the selected box.
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => new URLSearchParams(location.search).get("sel"), null, { timeout: 10_000 });
  await page.locator(".graph-stage, .stage, canvas").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => new URLSearchParams(location.search).get("zoom"), null, { timeout: 10_000 });
  const zoomed = page.url();
  await page.goBack();
  await page.waitForFunction(() => !new URLSearchParams(location.search).get("zoom"), null, { timeout: 10_000 });

  console.log(JSON.stringify({ share, zoomed, honest: await page.locator("#honest").textContent(), firstPicture, mistakes }));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
