//! Why an answer is empty, and the step that helps.

import { address, get } from "./api.js";
import { span, stamp } from "./format.js";
import * as state from "./state.js";

/** @typedef {{title: string, lines: string[], actions: {text: string, run: () => void}[]}} Explanation */

/**
 * Asks the server what it has and tells the first reason that holds: filter, agent, range.
 * @param {Readonly<import("./state.js").State>} asked
 * @returns {Promise<Explanation>}
 */
export async function explain(asked) {
  const removeFilter = { text: "Remove filter", run: () => state.change({ filter: "" }) };
  if (asked.filter !== "") {
    /** @type {import("./types.js").TimelineAnswer} */
    const all = await get(address("timeline", { from: asked.from, to: asked.to, buckets: 1 }));
    if (all.samples > 0) {
      return { title: "No sample matches the filter", lines: [`The range holds ${all.samples.toLocaleString("en-US")} samples without it.`], actions: [removeFilter] };
    }
  }
  /** @type {import("./types.js").StatusAnswer} */
  const status = await get(address("status"));
  const { store, agent } = status;
  const actions = asked.filter === "" ? [] : [removeFilter];
  if (store.samples === 0 || store.last === null || store.first === null) {
    if (agent && !agent.running) {
      return { title: "No samples yet: the agent is not running", lines: [agent.problem, agent.hint].filter(isText), actions };
    }
    if (agent) {
      const age = status.now - status.started;
      return { title: "No samples yet", lines: [`The agent has been running for ${span(age)} at ${agent.frequency_hz} Hz; the first samples arrive within seconds.`], actions };
    }
    return { title: "No samples yet", lines: [status.collector ? `Waiting for an agent to report to ${status.collector.address}.` : "No agent runs in this process and no collector listens."], actions };
  }
  const first = store.first;
  const last = store.last;
  const lines = [`The store holds samples from ${stamp(first)} to ${stamp(last)}.`];
  if (agent && !agent.running) lines.push(...[`The agent is not running${agent.problem ? `: ${agent.problem}` : ""}.`, agent.hint].filter(isText));
  actions.push({ text: "Show the newest 15 minutes", run: () => state.change({ from: String(Math.max(first, last - 900_000)), to: String(last + 1), live: "" }) });
  return { title: "No samples in this range", lines, actions };
}

/** @param {string | null | undefined} text @returns {text is string} */
function isText(text) {
  return typeof text === "string" && text !== "";
}
