//! The frame of a page's content: loading, error and empty look the same everywhere.

import { ApiError } from "./api.js";
import { fill, h } from "./dom.js";
import * as state from "./state.js";

/** A wait shorter than this shows nothing, so that quick answers do not flicker. */
const DIM_AFTER_MS = 300;

export class Panel {
  /** @param {HTMLElement} content */
  constructor(content) {
    this.content = content;
    this.notice = h("div", { class: "notice", hidden: true });
    this.element = h("div", { class: "panel" }, this.notice, content);
    this.timer = 0;
    /** Whether there is a picture to keep while something else is loading or failed. */
    this.filled = false;
  }

  /** A question is under way; the old picture stays. */
  waiting() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.element.classList.add("dimmed"), DIM_AFTER_MS);
    this.element.setAttribute("aria-busy", "true");
  }

  #settled() {
    clearTimeout(this.timer);
    this.element.classList.remove("dimmed", "failed");
    this.element.removeAttribute("aria-busy");
  }

  /** The answer is on the screen. */
  done() {
    this.#settled();
    this.filled = true;
    this.notice.hidden = true;
    this.content.hidden = false;
  }

  /**
   * Says what went wrong and offers to try again. An older picture stays below, dimmed.
   * @param {unknown} error
   * @param {() => void} retry
   */
  failed(error, retry) {
    const filterIsWrong = error instanceof ApiError && error.status === 400 && state.current().filter !== "" && (error.position !== null || /^filter\b/.test(error.message));
    this.#settled();
    const { sentence, hint } = inWords(error);
    this.element.classList.add("failed");
    this.content.hidden = !this.filled;
    this.notice.className = "notice notice-error";
    this.notice.hidden = false;
    this.notice.setAttribute("role", "alert");
    fill(
      this.notice,
      h("p", { class: "notice-title", text: sentence }),
      hint !== "" && h("p", { class: "notice-hint", text: hint }),
      h(
        "p",
        { class: "notice-actions" },
        filterIsWrong ? h("button", { class: "button", on: { click: () => state.change({ filter: "" }) }, text: "Remove filter" }) : h("button", { class: "button", on: { click: retry }, text: "Try again" }),
      ),
    );
  }

  /**
   * Says why there is nothing to show.
   * @param {import("./empty.js").Explanation} why
   */
  empty(why) {
    this.#settled();
    this.filled = false;
    this.content.hidden = true;
    this.notice.className = "notice";
    this.notice.hidden = false;
    this.notice.setAttribute("role", "status");
    fill(
      this.notice,
      h("p", { class: "notice-title", text: why.title }),
      ...why.lines.map((line) => h("p", { class: "notice-hint", text: line })),
      why.actions.length > 0 && h("p", { class: "notice-actions" }, ...why.actions.map(({ text, run }) => h("button", { class: "button", on: { click: run }, text }))),
    );
  }
}

/** @param {unknown} error @returns {{sentence: string, hint: string}} */
export function inWords(error) {
  const text = error instanceof Error ? error.message : String(error);
  return { sentence: text.charAt(0).toUpperCase() + text.slice(1), hint: error instanceof ApiError ? error.hint : "" };
}
