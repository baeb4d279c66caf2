//! Text of boxes: names shortened in the middle of the module path, never inside the function's own name unless nothing else fits. Pure.

/** Fewer characters than this are no label. */
const FEWEST = 3;

/** Endings that compilers give to copies of a function. */
const COMPILER_COPY = /(\.(isra|constprop|part|cold|llvm|lto_priv|specialized)(\.\d+)*)+$/;
/** Last segments that say nothing alone: closures and numbered functions inside another one. */
const NAMELESS = /^(func\d+|\d+|\{.*\}|<[a-z]+>)$/;

/**
 * Splits `a::b<c::d>::e(int)` or `github.com/x/y.(*T).Run` into module path, own name and parameters.
 * Separators inside brackets do not count.
 * @param {string} name
 * @returns {{segments: string[], separators: string[], parameters: string}}
 */
export function split(name) {
  /** @type {string[]} */
  const segments = [];
  /** @type {string[]} */
  const separators = [];
  let depth = 0;
  let start = 0;
  let parameters = "";
  if (name.startsWith("[") || /\+0x[0-9a-f]+$/.test(name) || / /.test(name.split(/[<(]/, 1)[0] ?? "")) return { segments: [name], separators: [], parameters };
  const clone = COMPILER_COPY.exec(name);
  if (clone) {
    parameters = clone[0];
    name = name.slice(0, clone.index);
  }
  // In an import path (`github.com/a/b.Do`) dots separate only after the last slash.
  const lastSlash = (/^[^<([{]*\//.exec(name)?.[0].length ?? 0) - 1;
  for (let i = 0; i < name.length; i += 1) {
    const c = name[i];
    if (c === "<" || c === "(" || c === "[" || c === "{") {
      if (c === "(" && depth === 0 && i > start && !/[.:/]/.test(name[i - 1] ?? "")) {
        const close = matching(name, i);
        if (close === name.length - 1 || /^( const| &|\s*\[clone[^\]]*\])*$/.test(name.slice(close + 1))) {
          parameters = name.slice(i) + parameters;
          name = name.slice(0, i);
          break;
        }
      }
      depth += 1;
    } else if (c === ">" || c === ")" || c === "]" || c === "}") {
      if (!(c === ">" && (name[i - 1] === "-" || name[i - 1] === "="))) depth = Math.max(0, depth - 1);
    } else if (depth === 0 && c === ":" && name[i + 1] === ":") {
      segments.push(name.slice(start, i));
      separators.push("::");
      i += 1;
      start = i + 1;
    } else if (depth === 0 && ((c === "." && i > lastSlash) || c === "/" || c === "#") && i > start && i + 1 < name.length) {
      segments.push(name.slice(start, i));
      separators.push(c);
      start = i + 1;
    }
  }
  segments.push(name.slice(start));
  while (segments.length > 1 && NAMELESS.test(segments.at(-1) ?? "")) {
    const nameless = segments.splice(-2).join(separators.pop() ?? "");
    segments.push(nameless);
  }
  return { segments, separators, parameters };
}

/** Place of the bracket that closes the one at `open`. @param {string} text @param {number} open */
function matching(text, open) {
  let depth = 0;
  for (let i = open; i < text.length; i += 1) {
    if (text[i] === "(") depth += 1;
    if (text[i] === ")") {
      depth -= 1;
      if (depth === 0) return i;
    }
  }
  return -1;
}

/** `Vec<T, A>` to `Vec<…>`. @param {string} segment */
function plain(segment) {
  let result = "";
  let depth = 0;
  for (const c of segment) {
    if (c === "<") {
      if (depth === 0) result += "<…";
      depth += 1;
    }
    if (depth === 0) result += c;
    if (c === ">" && depth > 0) {
      depth -= 1;
      if (depth === 0) result += ">";
    }
  }
  return result.startsWith("<…>") && result.length === 3 ? segment : result;
}

/**
 * Ways to write a name, longest first; each keeps the function's own name whole.
 * @param {string} name
 * @param {boolean} [code] false for names that are no code (processes, markers): those have no module path
 * @returns {string[]}
 */
export function shortenings(name, code = true) {
  if (!code) return [name];
  const { segments, separators, parameters } = split(name);
  const ways = [name];
  if (parameters) ways.push(name.slice(0, name.length - parameters.length));
  const bare = segments.map(plain);
  /** A dot beside the ellipsis would be a fourth one. @param {string | undefined} separator */
  const around = (separator) => (separator === "." ? "" : separator ?? "");
  /** @param {number} from */
  const tail = (from) => bare.slice(from).reduce((text, part, k) => (k === 0 ? part : text + (separators[from + k - 1] ?? "") + part), "");
  ways.push(tail(0));
  for (let from = 2; from < bare.length; from += 1) ways.push(`${bare[0] ?? ""}${around(separators[0])}…${around(separators[from - 1])}${tail(from)}`);
  // At least one module stays beside the dots: dots before the own name alone would look like a cut in it.
  for (let from = 1; from + 1 < bare.length; from += 1) ways.push(`…${tail(from)}`);
  ways.push(bare.at(-1) ?? name);
  const fitting = ways.filter((way, at) => at === 0 || way.length < (ways[0] ?? "").length);
  fitting.sort((a, b) => b.length - a.length);
  return fitting.filter((way, at) => at === 0 || way !== fitting[at - 1]);
}

/**
 * The longest way that fits into `room` characters, "" when there is room for fewer than three.
 * @param {string[]} ways from {@link shortenings}
 * @param {number} room
 */
export function fit(ways, room) {
  if (room < FEWEST) return "";
  for (const way of ways) if (way.length <= room) return way;
  const own = ways.at(-1) ?? "";
  return `${own.slice(0, Math.max(1, Math.floor(room) - 1))}…`;
}
