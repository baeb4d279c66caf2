//! Text of filters: what may follow at the cursor, and how a page adds a condition. Pure; the server is the judge of syntax.

/** @typedef {{kind: "space" | "word" | "text" | ":" | "(" | ")", from: number, to: number, text: string}} Token */

/**
 * Splits filter text. Never fails: an open quotation runs to the end.
 * @param {string} text
 * @returns {Token[]}
 */
export function tokens(text) {
  const list = [];
  const pattern = /\s+|"(?:[^"\\]|\\.)*"?|[:()]|[^\s:()"]+/g;
  for (const match of text.matchAll(pattern)) {
    const piece = match[0];
    const first = piece[0] ?? "";
    const kind = /** @type {Token["kind"]} */ (/\s/.test(first) ? "space" : first === '"' ? "text" : ":()".includes(first) ? first : "word");
    list.push({ kind, from: match.index, to: match.index + piece.length, text: piece });
  }
  return list;
}

/**
 * What may stand at the cursor: the piece `[from, to)` would be replaced.
 * @param {string} text
 * @param {number} cursor
 * @returns {{expects: "field" | "value" | "word", from: number, to: number, prefix: string, field: string}}
 */
export function expectation(text, cursor) {
  const all = tokens(text);
  let from = cursor;
  let to = cursor;
  let prefix = "";
  const before = [];
  for (const token of all) {
    if (token.to < cursor || (token.to === cursor && (token.kind === ":" || token.kind === "(" || token.kind === ")" || token.kind === "space"))) {
      if (token.kind !== "space") before.push(token);
    } else if (token.from < cursor && (token.kind === "word" || token.kind === "text")) {
      from = token.from;
      to = token.to;
      prefix = text.slice(from, cursor);
    }
  }
  if (prefix.startsWith('"')) prefix = prefix.slice(1).replace(/\\(.)/g, "$1").replace(/"$/, "");
  const result = { from, to, prefix, field: "" };
  // Inside `field: (a or b`, values follow an opening bracket that follows a colon.
  let open = -1;
  let depth = 0;
  for (let i = before.length - 1; i >= 0; i -= 1) {
    if (before[i]?.kind === ")") depth += 1;
    if (before[i]?.kind === "(" && depth-- === 0) {
      open = i;
      break;
    }
  }
  const listed = open > 1 && before[open - 1]?.kind === ":" ? before[open - 2]?.text ?? "" : "";
  const last = before.at(-1);
  if (last?.kind === ":") return { ...result, expects: "value", field: before.at(-2)?.text ?? "" };
  if (!last || last.kind === "(" || (last.kind === "word" && /^(and|or|not)$/i.test(last.text))) {
    return listed ? { ...result, expects: "value", field: listed } : { ...result, expects: "field" };
  }
  return { ...result, expects: "word" };
}

/** A value as it must stand in a filter. @param {string} value */
export function quote(value) {
  return /^[\w.\-/]+$/.test(value) && !/^(and|or|not)$/i.test(value) ? value : `"${value.replace(/[\\"]/g, "\\$&")}"`;
}

/**
 * The filter narrowed by one more condition; asking for one that is already there changes nothing.
 * @param {string} filter
 * @param {string} field
 * @param {string} value
 * @param {boolean} [exclude]
 */
export function narrowed(filter, field, value, exclude = false) {
  const condition = `${exclude ? "not " : ""}${field}: ${quote(value)}`;
  const old = filter.trim();
  if (old === "") return condition;
  if (old === condition || old.endsWith(` and ${condition}`) || old.startsWith(`${condition} and `)) return old;
  const mixed = tokens(old).some((token) => token.kind === "word" && /^or$/i.test(token.text));
  return `${mixed ? `(${old})` : old} and ${condition}`;
}
