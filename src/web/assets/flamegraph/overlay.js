//! Outlines above the boxes: every box of the hovered function, the hovered box, the selected box.

import { context2d, sizeCanvas } from "../dom.js";
import { tokens } from "../theme.js";
import { Painter } from "./draw.js";
import { left } from "./layout.js";

/** @param {import("./graph.js").Graph} graph */
export function drawOverlay(graph) {
  const { layout, painter, camera, overlay } = graph;
  if (!layout) return;
  const { height, ratio } = sizeCanvas(overlay, graph.stage.clientWidth, graph.stage.clientHeight);
  const context = context2d(overlay);
  context.clearRect(0, 0, overlay.width, overlay.height);
  const colors = tokens();
  const { tree } = layout;
  const hovered = graph.hovered?.node ?? -1;
  const f = graph.hovered && graph.hovered.count === 1 && hovered > 0 ? tree.fn[hovered] ?? -1 : graph.hinted;
  if (f >= 0) {
    context.strokeStyle = colors.outline;
    context.lineWidth = Math.max(1, Math.round(ratio));
    for (let row = 0; row + 1 < painter.rowBoxes.length; row += 1) {
      const box = Painter.rowBox(camera, painter.firstRow + row, height, ratio);
      if (box.size < 3) continue;
      for (let b = painter.rowBoxes[row] ?? 0; b < (painter.rowBoxes[row + 1] ?? 0); b += 1) {
        if ((painter.boxes.merged[b] ?? 0) > 1) continue;
        const node = layout.rowNode[painter.boxes.place[b] ?? 0] ?? 0;
        if (tree.fn[node] === f && node !== hovered) outline(context, painter.boxes.x0[b] ?? 0, painter.boxes.x1[b] ?? 0, box, ratio, overlay.width, camera.flipped);
      }
    }
  }
  if (hovered >= 0) ring(graph, context, hovered, colors.outlineStrong, Math.max(1, Math.round(1.5 * ratio)), ratio, height);
  if (graph.selected >= 0 && graph.selected < tree.count) ring(graph, context, graph.selected, colors.accent, Math.round(2 * ratio), ratio, height);

  /** @param {import("./graph.js").Graph} of @param {CanvasRenderingContext2D} pen @param {number} node @param {string} color @param {number} size @param {number} r @param {number} tall */
  function ring(of, pen, node, color, size, r, tall) {
    if (!layout) return;
    const box = Painter.rowBox(of.camera, tree.depth[node] ?? 0, tall, r);
    if (box.top + box.size < 0 || box.top > tall) return;
    const x = left(layout, node);
    pen.strokeStyle = color;
    pen.lineWidth = size;
    outline(pen, (x - of.camera.x0) * of.scale, (x + (tree.total[node] ?? 0) - of.camera.x0) * of.scale, box, r, overlay.width, of.camera.flipped);
  }
}

/**
 * @param {CanvasRenderingContext2D} context @param {number} x0 @param {number} x1 @param {{top: number, size: number}} box
 * @param {number} ratio @param {number} width @param {boolean} flipped
 */
function outline(context, x0, x1, box, ratio, width, flipped) {
  const half = context.lineWidth / 2;
  const a = Math.max(0, Math.round(x0)) + half;
  const b = Math.min(width, Math.max(Math.round(x1) - 1, Math.round(x0) + 2)) - half;
  if (b < 0 || a > width) return;
  const gap = box.size >= 3 * ratio ? Math.max(1, Math.floor(ratio)) : 0;
  context.strokeRect(a, box.top + half + (flipped ? gap : 0), Math.max(1, b - a), Math.max(1, box.size - gap - 2 * half));
}
