//! Mouse, wheel and touch on a graph: hover, click, drag, wheel, pinch, menu.

/** Movement in CSS pixels that makes a press a drag. */
const DRAG_FROM = 4;
/** Change of scale per CSS pixel of ctrl + wheel. */
const WHEEL_RATE = 0.0035;

/** @param {import("./graph.js").Graph} graph */
export function listenPointer(graph) {
  const { stage } = graph;
  /** Pressed pointers by their place. @type {Map<number, {x: number, y: number}>} */
  const pressed = new Map();
  let dragged = false;
  let startX = 0;
  let startY = 0;

  /** @param {PointerEvent | MouseEvent | WheelEvent} event */
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const at = place(event);
    pressed.set(event.pointerId, at);
    if (pressed.size === 1) {
      dragged = false;
      startX = at.x;
      startY = at.y;
    }
  });

  stage.addEventListener("pointermove", (event) => {
    const at = place(event);
    const before = pressed.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") graph.setHover(graph.pickAt(at.x, at.y));
      return;
    }
    if (pressed.size === 2) {
      const [a, b] = [...pressed.values()];
      const apart = a && b ? Math.abs(a.x - b.x) : 0;
      pressed.set(event.pointerId, at);
      const [c, d] = [...pressed.values()];
      if (c && d && apart > 8) graph.zoomAround(Math.abs(c.x - d.x) / apart, (c.x + d.x) / 2);
      dragged = true;
      return;
    }
    if (!dragged && Math.hypot(at.x - startX, at.y - startY) < DRAG_FROM) return;
    if (!dragged) {
      dragged = true;
      stage.setPointerCapture(event.pointerId);
      stage.classList.add("dragging");
      graph.setHover(null);
    }
    graph.pan(before.x - at.x, before.y - at.y);
    pressed.set(event.pointerId, at);
  });

  /** @param {PointerEvent} event */
  const release = (event) => {
    if (!pressed.delete(event.pointerId)) return;
    stage.classList.remove("dragging");
    if (dragged || event.type === "pointercancel") return;
    const at = place(event);
    const hit = graph.pickAt(at.x, at.y);
    if (!hit) {
      graph.listener.select(graph, -1, false);
    } else if (event.shiftKey) {
      graph.listener.select(graph, hit.node, true);
    } else {
      graph.listener.zoom(graph, hit.node);
    }
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerleave", () => graph.setHover(null));

  stage.addEventListener(
    "wheel",
    (event) => {
      const unit = event.deltaMode === 1 ? 18 : event.deltaMode === 2 ? stage.clientHeight : 1;
      const { x } = place(event);
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) graph.zoomAround(Math.exp(-event.deltaY * unit * WHEEL_RATE), x);
      else if (event.shiftKey && event.deltaX === 0) graph.pan(event.deltaY * unit, 0);
      else graph.pan(event.deltaX * unit, event.deltaY * unit);
      const at = place(event);
      graph.setHover(graph.pickAt(at.x, at.y));
    },
    { passive: false },
  );

  stage.addEventListener("contextmenu", (event) => {
    if (event.clientX === 0 && event.clientY === 0) return; // The menu key: answered by the keyboard module.
    const at = place(event);
    const hit = graph.pickAt(at.x, at.y);
    if (!hit || hit.node <= 0) return;
    event.preventDefault();
    graph.listener.menu(graph, hit.node, event.clientX, event.clientY);
  });
}
