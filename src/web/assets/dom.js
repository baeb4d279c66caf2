//! Makes elements. No state, no knowledge of the application.

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Makes an element: `class`, `text` and `on` are understood, everything else is an attribute
 * (`true` = present, `false`, `null` and `undefined` = absent).
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {{[name: string]: unknown, on?: {[event: string]: (event: any) => void}}} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(/** @type {any} */ (value))) element.addEventListener(event, /** @type {any} */ (listener));
    } else if (name === "class") element.className = String(value);
    else if (name === "text") element.textContent = String(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * Replaces everything inside `parent`.
 * @param {Element} parent
 * @param {...Child} children
 */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => Boolean(child)).map((child) => /** @type {Node | string} */ (child)));
}

/**
 * Sets a canvas to the size of its box in device pixels. Answers that size and the ratio.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width CSS pixels
 * @param {number} height CSS pixels
 */
export function sizeCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio));
  const hgt = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== hgt) canvas.height = hgt;
  return { width: w, height: hgt, ratio };
}

/**
 * The canvas's 2D context; every browser that runs modules has one.
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export function context2d(canvas, settings) {
  const context = /** @type {CanvasRenderingContext2D | null} */ (canvas.getContext("2d", settings));
  if (!context) throw new Error("this browser has no 2D canvas");
  return context;
}

/** @returns {boolean} */
export function reducedMotion() {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/**
 * Runs `work` at most once per animation frame.
 * @param {() => void} work
 */
export function oncePerFrame(work) {
  let asked = 0;
  return () => {
    if (asked) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      work();
    });
  };
}

/**
 * Opens a popover below (or above, where there is no room) a place on the screen.
 * @param {HTMLElement} popover element with the `popover` attribute, in the document
 * @param {number} x CSS pixels
 * @param {number} y CSS pixels
 * @param {number} [above] bottom edge when it opens upwards
 */
export function openPopover(popover, x, y, above = y) {
  popover.showPopover();
  const box = popover.getBoundingClientRect();
  const left = Math.max(4, Math.min(x, window.innerWidth - box.width - 4));
  const top = y + box.height + 4 <= window.innerHeight || above - box.height < 4 ? y : above - box.height;
  popover.style.left = `${left}px`;
  popover.style.top = `${Math.max(4, Math.min(top, window.innerHeight - box.height - 4))}px`;
}

/**
 * Puts text on the clipboard. Pages that are not served from a secure origin have no clipboard object: then by selection.
 * @param {string} text
 */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // Refused (no permission, no focus): the older way below still works.
    }
  }
  const area = h("textarea", { class: "off-screen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
