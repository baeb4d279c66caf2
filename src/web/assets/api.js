//! Calls of the query API. Knows addresses and errors, not pages.

/** What the server (or the way to it) said instead of an answer. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{hint?: string, position?: number | null, status?: number}} [more] `position`: 0-based character in the filter
   */
  constructor(message, more = {}) {
    super(message);
    this.hint = more.hint ?? "";
    this.position = more.position ?? null;
    this.status = more.status ?? 0;
  }
}

let running = 0;
/** @type {(running: number) => void} */
let onBusy = () => {};

/** Calls `listener` with the number of running requests whenever it changes. @param {(running: number) => void} listener */
export function watchBusy(listener) {
  onBusy = listener;
}

/**
 * @param {string} path below `/api/v1/`
 * @param {{[name: string]: string | number | undefined}} [params] empty and absent ones are left out
 */
export function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== "") query.set(name, String(value));
  const text = query.toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

/**
 * @param {string} url from {@link address}
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(url, signal) {
  running += 1;
  onBusy(running);
  try {
    let response;
    try {
      response = await fetch(url, { signal, headers: { accept: "application/json" }, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("the server does not answer", { hint: "is everflame still running on this address?" });
    }
    if (response.ok) {
      try {
        return await response.json();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ApiError("the answer broke off or is not JSON", { hint: "a proxy between may have cut it; try again", status: response.status });
      }
    }
    const body = await response.json().catch(() => null);
    throw new ApiError(typeof body?.error === "string" ? body.error : `the server answered ${response.status} ${response.statusText}`.trim(), {
      hint: typeof body?.hint === "string" ? body.hint : undefined,
      position: typeof body?.position === "number" ? body.position : null,
      status: response.status,
    });
  } finally {
    running -= 1;
    onBusy(running);
  }
}

/** One place on the page that shows one answer: a newer question cancels the older one. */
export class Channel {
  /** @type {AbortController | null} */
  #running = null;

  /**
   * The answer, or `null` when a newer call has overtaken this one.
   * @param {string} url
   * @returns {Promise<any>}
   */
  async load(url) {
    this.#running?.abort();
    const mine = new AbortController();
    this.#running = mine;
    try {
      const answer = await get(url, mine.signal);
      return this.#running === mine ? answer : null;
    } catch (error) {
      if (this.#running !== mine) return null;
      throw error;
    } finally {
      if (this.#running === mine) this.#running = null;
    }
  }

  get busy() {
    return this.#running !== null;
  }

  cancel() {
    this.#running?.abort();
    this.#running = null;
  }
}

/** @type {Promise<import("./types.js").FieldsAnswer> | null} */
let fieldsOnce = null;

/** Fields of filters; asked once. @returns {Promise<import("./types.js").FieldsAnswer>} */
export function fields() {
  fieldsOnce ??= get(address("fields")).catch((error) => {
    fieldsOnce = null;
    throw error;
  });
  return fieldsOnce;
}
