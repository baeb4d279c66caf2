//! The embedded store against its budgets, on synthetic hosts: bytes per sample, write rate, question times.
//!
//! A host has 32 CPUs at 30 % busy, sampled at 20 Hz: 16.6 M samples a day of 50 resources and 200 threads. Set `A` has
//! 50 000 stacks (Zipf 1.1), set `B` many leaf addresses per call path, 2.5 M stacks on the first day.
//!
//! Small by default. `EVERFLAME_STORE_HOURS=144` makes 100 M samples, `EVERFLAME_STORE_SET=A` or `B` picks one set,
//! `EVERFLAME_STORE_DIR` keeps the data there and uses what it finds. `EVERFLAME_STORE_OPEN` measures the size of a store
//! of your own instead (a closed one; its head is flushed and merged).
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everflame::model::{
    Dimension, FileId, Filter, FrameId, FrameKind, Pattern, Selection, SourceLine, StackId, TimeRange,
    UnixNanos,
};
use everflame::store::document::{Documents, Event, EventResource, Executable, StackFrame, StackTrace};
use everflame::store::embedded::{EmbeddedStore, Settings};
use everflame::store::{Reader, TimeGrid, Writer};

/// 2026-01-05T00:00:00Z.
const START_MS: u64 = 1_767_571_200_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const CPUS: u64 = 32;
const PATHS: usize = 50_000;
const LEAVES: usize = 1024;
const RESOURCES: u64 = 50;
const THREADS: u64 = 200;

fn main() {
    let hours: u64 = number("EVERFLAME_STORE_HOURS", 3);
    if let Some(path) = std::env::var_os("EVERFLAME_STORE_OPEN") {
        let bench = Bench::new(Path::new(&path), false, 0);
        bench.sizes("before the flush", 3.0);
        bench.store.upkeep(true).unwrap();
        bench.sizes("flushed", 3.0);
        bench.now_ms.store(START_MS + 3650 * DAY_MS, Ordering::Relaxed);
        bench.store.upkeep(true).unwrap();
        return bench.sizes("merged and coarse", 3.0);
    }
    let sets = std::env::var("EVERFLAME_STORE_SET").unwrap_or_else(|_| "AB".into());
    for set in sets.chars() {
        let kept = std::env::var_os("EVERFLAME_STORE_DIR").map(|dir| Path::new(&dir).join(set.to_string()));
        let temporary = tempfile::tempdir().unwrap();
        let path = kept.unwrap_or_else(|| temporary.path().to_owned());
        Bench::new(&path, set == 'B', hours).run(set);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Zipf distribution by table.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(values: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=values)
            .map(|k| {
                sum += (k as f64).powf(-exponent);
                sum
            })
            .collect();
        for value in &mut cumulated {
            *value /= sum;
        }
        Self(cumulated)
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        self.0.partition_point(|c| *c < u) as u64
    }
}

struct Generator {
    random: Random,
    paths: Zipf,
    leaves: Option<Zipf>,
    seen: HashSet<StackId>,
    named: HashSet<FrameId>,
    resources: Vec<EventResource>,
    threads: Vec<Arc<str>>,
}

impl Generator {
    fn new(heavy_tail: bool) -> Self {
        let resources = (0..RESOURCES)
            .map(|r| EventResource {
                host_id: "1".into(),
                host_name: "bench".into(),
                executable_name: format!("program-{r}").into(),
                container_name: format!("container-{}", r % 10).into(),
                frequency_hz: 20,
                ..EventResource::default()
            })
            .collect();
        Self {
            random: Random(42),
            paths: Zipf::new(PATHS, 1.1),
            leaves: heavy_tail.then(|| Zipf::new(LEAVES, 1.1)),
            seen: HashSet::new(),
            named: HashSet::new(),
            resources,
            threads: (0..THREADS).map(|t| format!("worker-{t}").into()).collect(),
        }
    }

    /// All samples of `[from, from + length)`.
    fn window(&mut self, from_ms: u64, length_ms: u64) -> Documents {
        let executables = (0..61)
            .map(|n| Executable {
                id: FileId::from_words(n, 1),
                name: format!("lib{n}.so").into(),
                gnu_build_id: "".into(),
            })
            .collect();
        let mut out = Documents { resources: self.resources.clone(), executables, ..Documents::default() };
        let mut events: HashMap<(u64, u64, u64), usize> = HashMap::new();
        for tick in 0..length_ms / 50 {
            for cpu in 0..CPUS {
                if self.random.unit() >= 0.3 {
                    continue;
                }
                let path = self.paths.draw(&mut self.random);
                let leaf = self.leaves.as_ref().map_or(0, |l| l.draw(&mut self.random));
                let resource = mix(path) % RESOURCES;
                // Most stacks belong to one thread of their program; some wander.
                let wander = if self.random.unit() < 0.1 { self.random.next() % 4 } else { 0 };
                let thread = resource * 4 + (mix(path + 7) + wander) % 4;
                let phase_ns = mix(cpu) % 50_000_000;
                let jitter_ns = (-self.random.unit().max(1e-12).ln() * 15_000.0) as u64;
                let time = UnixNanos((from_ms + tick * 50) * 1_000_000 + phase_ns + jitter_ns);
                let next = out.events.len();
                let index = *events.entry((path, leaf, thread)).or_insert(next);
                if index == next {
                    let stack = StackId(
                        ((u128::from(mix(path + 1)) << 64) | u128::from(mix(leaf + (path << 20))))
                            .to_be_bytes(),
                    );
                    if self.seen.insert(stack) {
                        for (frame, _) in frames(path, leaf) {
                            if self.named.insert(frame) {
                                out.stackframes.push(name(frame));
                            }
                        }
                        out.stacktraces.push(StackTrace { id: stack, frames: frames(path, leaf) });
                    }
                    out.events.push(Event {
                        resource: resource as u32,
                        stack,
                        thread_name: Arc::clone(&self.threads[thread as usize]),
                        pid: 100 + resource as u32,
                        tid: 1000 + thread as u32,
                        times: Vec::new(),
                    });
                }
                out.events[index].times.push(time);
            }
        }
        out
    }
}

/// Root first: a shared trunk, then frames of the path alone, then the leaf. Programs have some 50 000 places from which
/// they call, and each path ends in a function of its own with many addresses.
fn frames(path: u64, leaf: u64) -> Vec<(FrameId, FrameKind)> {
    let trunk = (0..6).map(|level| mix((path >> (3 * (6 - level))) + level) % 50_000);
    let own = (0..6 + path % 16).map(|level| mix((path << 8) + level + 1_000_000) % 50_000);
    let last = std::iter::once(50_000 + (path % 5000) * LEAVES as u64 + leaf);
    trunk
        .chain(own)
        .chain(last)
        .map(|place| {
            (
                FrameId { file: FileId::from_words(place % 61, 1), address_or_line: place * 16 },
                FrameKind::NATIVE,
            )
        })
        .collect()
}

fn name(id: FrameId) -> StackFrame {
    let function = format!("function_{}::of_file_{}", id.address_or_line / 64, id.file.words().0);
    let line = SourceLine {
        function: function.into(),
        file: format!("src/module_{}/file_{}.c", id.file.words().0, id.address_or_line / 4096).into(),
        line: (id.address_or_line % 1000) as u32,
        column: 0,
    };
    StackFrame { id, lines: vec![line] }
}

struct Bench {
    store: EmbeddedStore,
    now_ms: Arc<AtomicU64>,
    hours: u64,
    heavy_tail: bool,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(path: &Path, heavy_tail: bool, hours: u64) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let clock = Arc::clone(&now_ms);
        let start = Instant::now();
        let store = EmbeddedStore::open(Settings {
            upkeep_every: None,
            retain_for: None,
            coarse_after: Some(Duration::from_hours(24 * 100)),
            clock: Arc::new(move || UnixNanos::from_millis(clock.load(Ordering::Relaxed))),
            ..Settings::new(path)
        })
        .unwrap();
        println!("opened in {:?}", start.elapsed());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        Self { store, now_ms, hours, heavy_tail, runtime }
    }

    fn run(&self, set: char) {
        println!("## Set {set}, {} hours", self.hours);
        if self.runtime.block_on(self.store.status()).unwrap().samples == 0 {
            self.fill();
        }
        self.sizes("at milliseconds", if self.heavy_tail { 4.3 } else { 3.0 });
        self.questions();
    }

    /// Writes in windows of a minute; upkeep after each ten, as in life.
    fn fill(&self) {
        let mut generator = Generator::new(self.heavy_tail);
        let (mut writing, mut upkeep, mut generating) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let (mut samples, mut slowest) = (0, Duration::ZERO);
        for minute in 0..self.hours * 60 {
            let from = START_MS + minute * 60_000;
            let start = Instant::now();
            let documents = generator.window(from, 60_000);
            generating += start.elapsed();
            samples += documents.events.iter().map(|e| e.times.len() as u64).sum::<u64>();
            self.now_ms.store(from + 60_000, Ordering::Relaxed);
            let start = Instant::now();
            self.runtime.block_on(self.store.write(documents)).unwrap();
            writing += start.elapsed();
            slowest = slowest.max(start.elapsed());
            let start = Instant::now();
            self.store.upkeep(false).unwrap();
            upkeep += start.elapsed();
        }
        self.now_ms.store(START_MS + self.hours * HOUR_MS + 4 * DAY_MS, Ordering::Relaxed);
        let start = Instant::now();
        self.store.upkeep(true).unwrap();
        upkeep += start.elapsed();
        println!("{samples} samples; generating {generating:.1?}");
        println!(
            "write, acknowledged: {writing:.1?} = {:.2} M samples/s, slowest batch {slowest:.1?}",
            samples as f64 / writing.as_secs_f64() / 1e6
        );
        println!("upkeep (flush, hours, days): {upkeep:.1?}");
        let start = Instant::now();
        let count = 100;
        for i in 0..count {
            let from = START_MS + self.hours * HOUR_MS + i * 5000;
            self.runtime.block_on(self.store.write(generator.window(from, 5000))).unwrap();
        }
        println!("batch of 5 s: {:.2?} each", start.elapsed() / count as u32);
        self.store.upkeep(true).unwrap();
    }

    fn sizes(&self, what: &str, budget: f64) {
        let status = self.runtime.block_on(self.store.status()).unwrap();
        let per = |bytes: u64| bytes as f64 / status.samples as f64;
        println!(
            "{what}: {:.2} B/sample (budget {budget}), dictionaries {:.1} MB = {:.2} B/sample, {} stacks, {} frames",
            per(status.event_bytes),
            status.dictionary_bytes as f64 / 1e6,
            per(status.dictionary_bytes),
            status.stacks,
            status.frames
        );
    }

    fn questions(&self) {
        let end = START_MS + self.hours * HOUR_MS;
        let day = |d: u64| (START_MS + d * DAY_MS, (START_MS + (d + 1) * DAY_MS).min(end));
        let all = (START_MS, end);
        let cut = (START_MS + 12_345_678, end.saturating_sub(9_876_543).max(START_MS + 12_400_000));
        println!("| Question | Samples | Best of 5 | Budget |\n|---|---|---|---|");
        let by = Some(Dimension::Executable);
        self.stacks("whole set, by executable", all, Filter::All, by, "1 s for 500 M");
        self.stacks("whole set, bare", all, Filter::All, None, "1 s for 500 M");
        self.stacks("whole set, by thread", all, Filter::All, Some(Dimension::ThreadName), "");
        self.stacks("whole set, both ends cut, by executable", cut, Filter::All, by, "1 s for 500 M");
        self.stacks("first day, by executable", day(0), Filter::All, by, "50 ms");
        let half = (START_MS + 6 * HOUR_MS + 1_234_567, START_MS + 18 * HOUR_MS + 1_234_567);
        self.stacks("12 hours cut at odd seconds", half, Filter::All, by, "50 ms");
        let brief = (START_MS + HOUR_MS + 1_234_567, START_MS + HOUR_MS + 2_434_567);
        self.stacks("20 minutes", brief, Filter::All, by, "");
        let one = Filter::Match(Dimension::Executable, Pattern::exact("program-3"));
        self.stacks("whole set, one executable", all, one.clone(), by, "");
        let thread = Filter::Match(Dimension::ThreadName, Pattern::exact("worker-9"));
        self.stacks("whole set, one thread name", all, thread, by, "");
        self.timeline("timeline, first day, by executable", day(0), Filter::All, by);
        self.timeline("timeline, whole set, by executable", all, Filter::All, by);
        self.timeline("timeline, whole set, one executable by thread", all, one, Some(Dimension::ThreadName));
        self.timeline("timeline, 20 minutes", brief, Filter::All, by);
        self.names(brief);
        self.names(day(0));
        let start = Instant::now();
        let range = TimeRange { from: UnixNanos::from_millis(all.0), to: UnixNanos::from_millis(all.1) };
        self.runtime.block_on(self.store.values(Dimension::Executable, "program-1", range, 20)).unwrap();
        println!("| values of executables | | {:.1?} | |", start.elapsed());
    }

    fn stacks(
        &self,
        name: &str,
        (from, to): (u64, u64),
        filter: Filter,
        by: Option<Dimension>,
        budget: &str,
    ) {
        let range = TimeRange { from: UnixNanos::from_millis(from), to: UnixNanos::from_millis(to) };
        let selection = Selection { range, filter };
        let (best, set) = best_of_5(|| self.runtime.block_on(self.store.stacks(&selection, by)).unwrap());
        let samples: u64 = set.counts.iter().map(|c| c.samples).sum();
        println!(
            "| {name} ({} counts, {} nodes) | {samples} | {best:.1?} | {budget} |",
            set.counts.len(),
            set.trie.parent.len()
        );
    }

    /// Names of those frames that a picture would draw: at least 0.01 % of the samples.
    fn names(&self, (from, to): (u64, u64)) {
        let range = TimeRange { from: UnixNanos::from_millis(from), to: UnixNanos::from_millis(to) };
        let set = self
            .runtime
            .block_on(self.store.stacks(&Selection { range, filter: Filter::All }, None))
            .unwrap();
        let mut totals = vec![0u64; set.trie.parent.len()];
        set.counts.iter().for_each(|c| totals[c.node as usize] += c.samples);
        for node in (1..totals.len()).rev() {
            totals[set.trie.parent[node] as usize] += totals[node];
        }
        let drawn: HashSet<FrameId> = (1..totals.len())
            .filter(|node| totals[*node] * 10_000 >= totals[0])
            .map(|node| set.trie.frames[set.trie.frame[node] as usize].0)
            .collect();
        let ids: Vec<FrameId> = drawn.into_iter().collect();
        let (best, _) = best_of_5(|| self.runtime.block_on(self.store.frames(&ids)).unwrap());
        println!("| names of {} drawn frames | | {best:.1?} | |", ids.len());
    }

    fn timeline(&self, name: &str, (from, to): (u64, u64), filter: Filter, by: Option<Dimension>) {
        let range = TimeRange { from: UnixNanos::from_millis(from), to: UnixNanos::from_millis(to) };
        let selection = Selection { range, filter };
        let width_ns =
            ((to - from) / 240).next_multiple_of(if to - from > HOUR_MS { 60_000 } else { 1000 }) * 1_000_000;
        let start = UnixNanos(range.from.0 / width_ns * width_ns);
        let grid = TimeGrid { start, width_ns, buckets: 241 };
        let (best, timeline) =
            best_of_5(|| self.runtime.block_on(self.store.timeline(&selection, grid, by, 10)).unwrap());
        let samples: u64 = timeline.series.iter().map(|s| s.total).sum::<u64>() + timeline.other.total;
        println!("| {name} | {samples} | {best:.1?} | |");
    }
}

fn best_of_5<T>(mut ask: impl FnMut() -> T) -> (Duration, T) {
    let mut best = Duration::MAX;
    let mut answer = None;
    for _ in 0..5 {
        let start = Instant::now();
        answer = Some(ask());
        best = best.min(start.elapsed());
    }
    (best, answer.expect("five answers"))
}
