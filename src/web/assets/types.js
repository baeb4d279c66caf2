//! Shapes of the answers of `docs/api.md`, for the type check. Holds no code.

/** @typedef {{exact: true} | {exact: false, factor: number}} Precision */

/**
 * What every answer about a selection carries. Times in ms since 1970, counts in samples.
 * @typedef {{from: number, to: number, samples: number, cpu_ns: number, complete: number, precision: Precision}} Totals
 */

/**
 * Parallel columns, one entry per function at one place. Texts are indices into `strings`, 0 is empty.
 * @typedef {object} FunctionColumns
 * @property {number[]} name
 * @property {number[]} library
 * @property {number[]} file
 * @property {number[]} kind runtime code, 128 marker, 256 root, 257 first level
 * @property {number[]} inlined 0 or 1
 * @property {number[]} reason why there is no name
 * @property {string[]} key
 */

/**
 * Parallel columns of a tree in depth-first order, `parent[i] < i`, node 0 is the root.
 * `folded`: nodes below which something was folded away, with how much.
 * @typedef {{parent: number[], function: number[], self: number[], total: number[], line: number[],
 *   folded?: {node: number[], nodes: number[], samples: number[]}}} NodeColumns
 */

/** @typedef {Totals & {folded_nodes: number, functions: FunctionColumns, strings: string[], nodes: NodeColumns}} WholeAnswer */
/**
 * @typedef {Totals & {folded_nodes: number, functions: FunctionColumns, strings: string[],
 *   callers: {nodes: NodeColumns}, callees: {nodes: NodeColumns}}} FocusAnswer
 */
/** @typedef {WholeAnswer | FocusAnswer} FlamegraphAnswer */

/**
 * @typedef {Totals & {functions_in_range: number, strings: string[],
 *   functions: FunctionColumns & {self: number[], total: number[]}}} FunctionsAnswer
 */

/** @typedef {{group: string, total: number, samples: number[]}} Series */
/**
 * @typedef {Totals & {start: number, width: number, buckets: number, hosts: number, groups: number,
 *   series: Series[], other: Series}} TimelineAnswer
 */

/** @typedef {{name: string, value: number}} Counter */
/**
 * @typedef {object} StatusAnswer
 * @property {string} version
 * @property {number} now
 * @property {number} started
 * @property {{description: string, event_bytes: number, dictionary_bytes: number, samples: number, stacks: number, frames: number,
 *   executables: number, first: number | null, last: number | null, refusing: string | null}} store
 * @property {null | {running: boolean, problem: string | null, hint: string | null, frequency_hz: number, cpus: number, kernel: string,
 *   object: string, processes: number, tables: number, pool_bytes: number, resident_bytes: number, notes: string[],
 *   counters: Counter[]}} agent
 * @property {null | {address: string, counters: Counter[]}} collector
 */

/** @typedef {{fields: {field: string, aliases: string[]}[]}} FieldsAnswer */
/** @typedef {{values: {value: string, samples: number}[]}} ValuesAnswer */

export {};
