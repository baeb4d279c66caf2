//! Keys of the flame graph. `docs/ui.md` and the key list on the page show the same table: {@link KEYS}.

/** What the key list shows. @type {[string, string][]} */
export const KEYS = [
  ["/", "search; text or /regex/"],
  ["n  N", "next, previous match"],
  ["↓ ↑ ← →", "child, parent, siblings of the selected box (as drawn)"],
  ["Enter", "zoom to the selected box"],
  ["Esc", "up: out of the zoom, then out of the selection"],
  ["0", "everything"],
  ["+  −", "closer, further"],
  ["i", "details of the selected box"],
  ["t", "the same data as a table"],
  ["m, menu key", "actions on the selected box"],
  ["f", "icicle or flame"],
  ["s", "siblings by name or by share"],
  ["Scroll", "move up and down, Shift: sideways"],
  ["Ctrl + scroll", "zoom at the pointer"],
  ["Shift + click", "select and open details"],
  ["?", "this list"],
];

/**
 * @typedef {object} Actions
 * @property {() => void} search
 * @property {(step: 1 | -1) => void} nextMatch
 * @property {(direction: "child" | "parent" | "left" | "right") => void} walk
 * @property {() => void} zoom
 * @property {() => void} up
 * @property {() => void} reset
 * @property {(factor: number) => void} scale
 * @property {() => void} details
 * @property {() => void} table
 * @property {() => void} menu
 * @property {() => void} flip
 * @property {() => void} order
 * @property {() => void} keys
 * @property {() => boolean} flipped
 */

/** Whether typing at the focus means text, not commands. @param {EventTarget | null} target */
export function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName));
}

/**
 * Answers a key; `true` when it was one of ours.
 * @param {KeyboardEvent} event
 * @param {Actions} act
 * @param {boolean} onStage the graph itself has the focus (arrows and Enter belong to it)
 */
export function answerKey(event, act, onStage) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return false;
  switch (event.key) {
    case "/":
      act.search();
      return true;
    case "n":
      act.nextMatch(1);
      return true;
    case "N":
      act.nextMatch(-1);
      return true;
    case "0":
      act.reset();
      return true;
    case "+":
    case "=":
      act.scale(1.5);
      return true;
    case "-":
      act.scale(1 / 1.5);
      return true;
    case "i":
      act.details();
      return true;
    case "t":
      act.table();
      return true;
    case "m":
    case "ContextMenu":
      act.menu();
      return true;
    case "f":
      act.flip();
      return true;
    case "s":
      act.order();
      return true;
    case "?":
      act.keys();
      return true;
    case "Escape":
      act.up();
      return true;
    default:
  }
  if (!onStage) return false;
  switch (event.key) {
    case "ArrowDown":
      act.walk(act.flipped() ? "parent" : "child");
      return true;
    case "ArrowUp":
      act.walk(act.flipped() ? "child" : "parent");
      return true;
    case "ArrowLeft":
      act.walk("left");
      return true;
    case "ArrowRight":
      act.walk("right");
      return true;
    case "Enter":
      act.zoom();
      return true;
    default:
      return false;
  }
}

/**
 * Where an arrow leads from a box; the box itself when there is nothing.
 * @param {import("./layout.js").Layout} layout
 * @param {number} node
 * @param {"child" | "parent" | "left" | "right"} direction
 */
export function neighbour(layout, node, direction) {
  const { tree, rowStart, rowNode, place } = layout;
  const depth = tree.depth[node] ?? 0;
  if (direction === "parent") return node === 0 ? 0 : tree.parent[node] ?? 0;
  if (direction === "child") {
    // The largest child: following it shows where the time goes.
    let best = node;
    let at = node + 1;
    while (at < (tree.end[node] ?? 0)) {
      if (best === node || (tree.total[at] ?? 0) > (tree.total[best] ?? 0)) best = at;
      at = tree.end[at] ?? tree.count;
    }
    return best;
  }
  const step = direction === "left" ? -1 : 1;
  const here = place[node] ?? 0;
  for (let at = here + step; at >= (rowStart[depth] ?? 0) && at < (rowStart[depth + 1] ?? 0); at += step) {
    const other = rowNode[at] ?? 0;
    if (tree.parent[other] !== tree.parent[node]) return node;
    if ((tree.total[other] ?? 0) > 0) return other;
  }
  return node;
}
