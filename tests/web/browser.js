//! Starts Chromium for the scenes. A scene that cannot run says why.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Reason for not running, or `false`. */
export const missing = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed; set CHROMIUM to a browser`;
// In CI everything has to run.
if (missing && process.env.CI) throw new Error(missing);

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-swiftshader",
];

/**
 * @param {{width?: number, height?: number, scale?: number, scheme?: "light" | "dark"}} [screen]
 */
export async function open(screen = {}) {
  const folder = mkdtempSync(join(tmpdir(), "everflame-page-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: CHROMIUM,
    headless: true,
    args: FLAGS,
    viewport: { width: screen.width ?? 1440, height: screen.height ?? 900 },
    deviceScaleFactor: screen.scale ?? 1,
    colorScheme: screen.scheme ?? "light",
  });
  context.setDefaultTimeout(20_000);
  const page = context.pages()[0] ?? (await context.newPage());
  /** Errors of the page, and requests that left its origin. @type {string[]} */
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of (400|404|500|503)/.test(message.text())) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (hostname !== "127.0.0.1" && protocol !== "blob:") faults.push(`left the origin: ${request.url()}`);
  });
  return {
    page,
    faults,
    close: async () => {
      await context.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
