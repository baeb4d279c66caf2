//! Labels, numbers, times, filters and the URL: what the page says and reads.

import assert from "node:assert/strict";
import test from "node:test";
import { expectation, narrowed, quote } from "../../src/web/assets/filter_text.js";
import { fit, shortenings, split } from "../../src/web/assets/flamegraph/labels.js";
import { bytes, coreTime, errorBound, money, percent, share, short, span, whole } from "../../src/web/assets/format.js";
import { balance, nameless } from "../../src/web/assets/sheets_math.js";
import { DEFAULTS, parse, serialize } from "../../src/web/assets/state.js";
import { instant, read, ticks, words } from "../../src/web/assets/time_range.js";
import { parseFilter } from "./made_server.js";

/** @param {string} text */
const plain = (text) => text.replaceAll("\u00a0", " ");

test("a label loses the middle of its path before its own name", () => {
  /** @type {[string, number, string][]} */
  const cases = [
    ["core::iter::adapters::map::Map::next", 40, "core::iter::adapters::map::Map::next"],
    ["core::iter::adapters::map::Map::next", 22, "core::…::map::Map::next"],
    ["core::iter::adapters::map::Map::next", 10, "…Map::next"],
    ["core::iter::adapters::map::Map::next", 6, "next"],
    ["core::iter::adapters::map::Map::next", 3, "ne…"],
    ["core::iter::adapters::map::Map::next", 2, ""],
    ["github.com/jackc/pgx/v5/pgconn.(*PgConn).ExecParams", 40, "github.com/…/pgconn.(*PgConn).ExecParams"],
    ["github.com/jackc/pgx/v5/pgconn.(*PgConn).ExecParams", 30, "…pgconn.(*PgConn).ExecParams"],
    ["org.example.search.index.SegmentReader.search", 30, "org…index.SegmentReader.search"],
    ["example.com/x/pricing.(*Engine).applyRules.func1", 16, "applyRules.func1"],
    ["std::vector<int, std::allocator<int> >::push_back(int const&)", 26, "std::vector<…>::push_back"],
    ["std::vector<int, std::allocator<int> >::push_back(int const&)", 12, "push_back"],
    ["finish_task_switch.isra.0", 20, "finish_task_switch"],
    ["finish_task_switch.isra.0", 10, "finish_ta…"],
    ["libcrypto.so.3+0x1f2a40", 12, "libcrypto.s…"],
    ["[truncated: no unwind table for libfoo.so]", 14, "[truncated: n…"],
    ["alloc::sync::Arc<T>::drop_slow::{{closure}}", 23, "drop_slow::{{closure}}"],
  ];
  for (const [name, room, expected] of cases) {
    const label = fit(shortenings(name), room);
    assert.ok(label.length <= room || label === "", `${label} fits into ${room}`);
    if (expected.length <= room) assert.equal(label, expected);
  }
  assert.deepEqual(shortenings("kworker/u8:3-ext4", false), ["kworker/u8:3-ext4"], "a process has no module path");
});

test("separators inside brackets do not split a name", () => {
  assert.deepEqual(split("a::b<c::d>::e(f::g)"), { segments: ["a", "b<c::d>", "e"], separators: ["::", "::"], parameters: "(f::g)" });
  assert.deepEqual(split("<T as core::fmt::Debug>::fmt").segments, ["<T as core::fmt::Debug>", "fmt"]);
  assert.deepEqual(split("operator delete(void*)").segments, ["operator delete(void*)"]);
});

test("estimates carry their bound, counts do not", () => {
  /** @type {{exact: false, factor: number}} */
  const fifth = { exact: false, factor: 5 };
  assert.equal(errorBound(10_000, { exact: true }), 0);
  // 1.96 * sqrt(10,000 * 4)
  assert.equal(errorBound(10_000, fifth), 392);
  assert.equal(plain(share(2_500, 10_000, { exact: true })), "25.0 %");
  assert.equal(plain(share(2_500, 10_000, fifth)), "25.0 ± 1.7 %");
  assert.equal(plain(share(10_000, 10_000, fifth)), "100.00 ± 0.00 %");
});

test("numbers read as in the examples of the design", () => {
  assert.equal(whole(1_284_311), "1,284,311");
  assert.equal(plain(short(1_284_311)), "1.28 M");
  assert.equal(plain(short(999_950)), "1.00 M");
  assert.equal(plain(short(9_999)), "9,999");
  assert.equal(plain(percent(0.173)), "17.3 %");
  assert.equal(plain(percent(0.0042)), "0.42 %");
  assert.equal(plain(percent(0.00001)), "< 0.01 %");
  assert.equal(plain(percent(0.99999)), "99.99 %");
  assert.equal(plain(percent(1)), "100 %");
  assert.equal(plain(percent(0)), "0 %");
  assert.equal(plain(coreTime(17.8 * 3.6e12)), "17.8 core-hours");
  assert.equal(plain(coreTime(5e7)), "50.0 core-ms");
  assert.equal(plain(bytes(41_000_000)), "41.0 MB");
  assert.equal(plain(span(9_000_000)), "2 h 30 min");
  assert.equal(money(0.001), "<\u00a0$0.01");
});

test("time ranges are read as people type them", () => {
  const now = Date.UTC(2026, 10, 21, 15, 0, 0);
  assert.equal(instant("now-15m", now), now - 900_000);
  assert.equal(instant("1763734000000", now), 1_763_734_000_000);
  assert.equal(instant("yesterday", now), null);
  assert.equal(read("-2h", now), "now-2h");
  assert.equal(read("now - 2h", now), "now-2h");
  assert.equal(read("2026-11-21 14:30", now), String(new Date(2026, 10, 21, 14, 30).getTime()));
  assert.equal(read("2026-11-21", now), String(new Date(2026, 10, 21).getTime()));
  assert.equal(read("soon", now), null);
  assert.equal(words("now-15m", "now", now), "Last 15 minutes");
  assert.equal(plain(words("now-45m", "now", now)), "Last 45 min");
});

test("time labels stand at round places and fit", () => {
  const from = new Date(2026, 10, 21, 14, 52, 7).getTime();
  const labels = ticks(from, from + 900_000, 8);
  assert.deepEqual(labels.map((t) => t.label), ["14:54", "14:56", "14:58", "15:00", "15:02", "15:04", "15:06"]);
  assert.equal(ticks(from, from + 7 * 86_400_000, 8).length, 7);
});

test("the filter's next word is known at every place", () => {
  /** @type {[string, string, string, string][]} */
  const cases = [
    ["", "field", "", ""],
    ["pro", "field", "pro", ""],
    ["process:", "value", "", "process"],
    ["process: ng", "value", "ng", "process"],
    ['process: "my pro', "value", "my pro", "process"],
    ["process: nginx ", "word", "", ""],
    ["process: nginx an", "word", "an", ""],
    ["process: nginx and ", "field", "", ""],
    ["not (", "field", "", ""],
    ["process: (a or ", "value", "", "process"],
    ["process: (a or b) and (th", "field", "th", ""],
  ];
  for (const [text, expects, prefix, field] of cases) {
    const found = expectation(text, text.length);
    assert.deepEqual([found.expects, found.prefix, found.field], [expects, prefix, field], JSON.stringify(text));
  }
});

test("conditions are added without changing what is there", () => {
  assert.equal(narrowed("", "process", "nginx"), "process: nginx");
  assert.equal(narrowed("host: a", "process", "my app", true), 'host: a and not process: "my app"');
  assert.equal(narrowed("host: a or host: b", "pid", "7"), "(host: a or host: b) and pid: 7");
  assert.equal(narrowed("process: nginx", "process", "nginx"), "process: nginx");
  assert.equal(quote(""), '""');
  assert.equal(quote("kworker/u8:3"), '"kworker/u8:3"');
  assert.equal(quote("w*"), '"w*"', "a star of a value is no pattern");
  assert.equal(quote('a"b\\c'), '"a\\"b\\\\c"');
});

test("the made server reads the filters that the page writes", () => {
  const source = /** @type {any} */ ({ values: { "process.executable.name": 'odd "one"', "host.name": "web-1" } });
  assert.ok(parseFilter(narrowed("host: web* or host: db*", "process", 'odd "one"'))(source));
  assert.throws(() => parseFilter("process:"), { message: 'filter: expected a value after "process:", found end of text' });
});

test("a state survives its URL", () => {
  const state = { ...DEFAULTS, view: "functions", filter: 'host: "a b" and not thread: w*&=#%', q: "/x+y/", ignore: "k1,k%2C2", from: "1763734000000", to: "1763735000000" };
  const text = serialize(state);
  const url = new URL(text, "http://localhost/");
  assert.deepEqual(parse(url), state);
  assert.equal(serialize({ ...DEFAULTS }), "");
  assert.deepEqual(parse({ pathname: "/below/", search: "?color=library&nonsense=1" }), { ...DEFAULTS, color: "library" });
});

test("ticks are stored, dropped under a reason, or on the way", () => {
  const counters = [{ name: "ticks", value: 100 }, { name: "stored", value: 90 }, { name: "dropped.ring_full", value: 3 }, { name: "dropped.gone", value: 4 }, { name: "frames", value: 1 }];
  const sums = balance(counters);
  assert.deepEqual([sums?.dropped, sums?.open, sums?.drops.map((d) => d.name)], [7, 3, ["dropped.gone", "dropped.ring_full"]]);
  assert.equal(balance([]), null);
});

test("unnamed functions are summed by library and reason", () => {
  const answer = /** @type {any} */ ({ functions: { name: [1, 2, 3], library: [4, 4, 0], file: [0, 0, 0], kind: [3, 3, 128], inlined: [0, 0, 0], reason: [5, 5, 5], key: ["a", "b", "c"], self: [2, 3, 9], total: [2, 3, 9] }, strings: ["", "x+0x1", "x+0x2", "named", "x.so", "executable has no symbols"] });
  assert.deepEqual(nameless(answer), [{ library: "x.so", reason: "executable has no symbols", addresses: 2, self: 5, example: "x+0x1" }]);
});
