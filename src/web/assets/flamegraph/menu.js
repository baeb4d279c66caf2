//! The menu of a box, and other small lists of actions.

import { fill, h, openPopover } from "../dom.js";

/** @typedef {{text: string, key?: string, run: () => void, off?: boolean, checked?: boolean} | null} Item `null` is a line between */

/**
 * Opens a menu at a place of the screen; arrows, Enter and Esc work, the focus returns to where it was.
 * @param {Item[]} items
 * @param {number} x
 * @param {number} y
 * @param {number} [above] bottom edge when there is no room below
 */
export function openMenu(items, x, y, above) {
  const menu = h("div", { class: "menu", popover: "auto", role: "menu" });
  const before = document.activeElement;
  /** @type {HTMLButtonElement[]} */
  const buttons = [];
  fill(
    menu,
    ...items.map((item) => {
      if (!item) return h("hr", {});
      const button = h(
        "button",
        {
          class: "menu-item",
          role: item.checked === undefined ? "menuitem" : "menuitemradio",
          "aria-checked": item.checked === undefined ? undefined : String(item.checked),
          disabled: item.off,
          on: {
            click: () => {
              menu.hidePopover();
              item.run();
            },
          },
        },
        h("span", { text: item.text }),
        item.key && h("kbd", { text: item.key }),
      );
      if (!item.off) buttons.push(button);
      return button;
    }),
  );
  menu.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[(at + step + buttons.length) % buttons.length]?.focus();
  });
  menu.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState !== "closed") return;
    menu.remove();
    if (before instanceof HTMLElement && (document.activeElement === document.body || document.activeElement === null)) before.focus();
  });
  document.body.append(menu);
  openPopover(menu, x, y, above);
  buttons[0]?.focus({ preventScroll: true });
}
