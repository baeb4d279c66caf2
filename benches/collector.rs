//! The collector on one core, without network: bytes of OTLP exports in, bytes of bulk requests out.
//!
//! `make bench` runs it; the figures stand in `docs/figures.md`. CPU time is that of the measuring thread, so other load
//! on the machine disturbs by cache misses only.

#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everflame::collector::mapping::documents;
use everflame::collector::seen::Seen;
use everflame::model::UnixNanos;
use everflame::store::Documents;
use everflame::store::elastic::{BulkBody, Encoder, Generation, Kind, Shape};
use everflame::wire::otlp::decode;

/// A piece of a bulk request, as large as the writer makes them.
const PART_BYTES: usize = 4 << 20;
const NOW: UnixNanos = UnixNanos(1_795_264_382_000_000_000);

/// Counts allocations while it is told to.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` with the caller's own arguments; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    // Run as a test, it only shows that it works.
    let as_bench = std::env::args().any(|argument| argument == "--bench");
    let length = if as_bench { Duration::from_secs(3) } else { Duration::from_millis(50) };
    println!("load at the start: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let captures = captures();
    let samples: u64 = captures.iter().map(|bytes| decode(bytes).unwrap().batch.sample_count()).sum();
    println!(
        "{} exports of {} samples, {:.1} bytes a sample in",
        captures.len(),
        samples,
        captures.iter().map(Vec::len).sum::<usize>() as f64 / samples as f64
    );
    println!("{:<64} {:>12}   budget", "figure", "measured");
    for generation in [Generation::Classic, Generation::Otel] {
        whole(&captures, samples, generation, length);
    }
    steps(&captures, samples, length);
    packed(&captures, samples, length);
    sizes(&captures);
    allocations(&captures, samples);
    together(&captures, samples, length);
}

fn row(figure: &str, measured: &str, budget: &str) {
    println!("{figure:<64} {measured:>12}   {budget}");
}

/// All captured requests: C, Go, Node.js, Python and whatever else ran on the machine.
fn captures() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp");
    let folders = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// CPU time of this thread, nanoseconds.
fn cpu_ns() -> u64 {
    let runs = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    runs.split(' ').next().unwrap().parse().unwrap()
}

/// CPU time of one round of `work` in nanoseconds, the mean over `length`.
fn cpu_of(length: Duration, mut work: impl FnMut()) -> f64 {
    work();
    let (start, cpu, mut rounds) = (Instant::now(), cpu_ns(), 0u64);
    while start.elapsed() < length {
        work();
        rounds += 1;
    }
    (cpu_ns() - cpu) as f64 / rounds as f64
}

fn per_second(samples: u64, ns: f64) -> String {
    format!("{:.2} M/s", samples as f64 / ns * 1e3)
}

/// What the collector does with an export.
fn handle(bytes: &[u8], seen: &Seen, encoder: &Encoder) {
    let mut documents = documents(&decode(bytes).unwrap().batch).documents;
    let fresh = seen.retain_new(&mut documents, NOW);
    encoder.parts(&documents, NOW, PART_BYTES).for_each(|part| drop(black_box(part)));
    seen.mark(fresh, NOW);
}

fn handle_all(captures: &[Vec<u8>], seen: &Seen, encoder: &Encoder) {
    for bytes in captures {
        handle(bytes, seen, encoder);
    }
}

fn whole(captures: &[Vec<u8>], samples: u64, generation: Generation, length: Duration) {
    let encoder = Encoder::new(Shape::of(generation), 0);
    let seen = Seen::default();
    let warm = cpu_of(length, || {
        handle_all(captures, &seen, &encoder);
    });
    let cold = cpu_of(length, || {
        for bytes in captures {
            handle(bytes, &Seen::default(), &encoder);
        }
    });
    let name = format!("{generation:?}, bytes in to bytes out");
    row(&format!("{name}, warm"), &per_second(samples, warm), "≥ 0.5 M events/s per core");
    row(&format!("{name}, every export cold"), &per_second(samples, cold), "");
}

/// Where the time goes, warm.
fn steps(captures: &[Vec<u8>], samples: u64, length: Duration) {
    let per_sample = |ns: f64| format!("{:.0} ns", ns / samples as f64);
    let decoded: Vec<_> = captures.iter().map(|bytes| decode(bytes).unwrap().batch).collect();
    let mapped: Vec<Documents> = decoded.iter().map(|batch| documents(batch).documents).collect();
    let ns = cpu_of(length, || captures.iter().for_each(|bytes| drop(black_box(decode(bytes)))));
    row("decode, per event", &per_sample(ns), "");
    let ns = cpu_of(length, || decoded.iter().for_each(|batch| drop(black_box(documents(batch)))));
    row("map, per event", &per_sample(ns), "");
    let seen = Seen::default();
    let with_copies = cpu_of(length, || {
        for documents in &mapped {
            let mut documents = documents.clone();
            let fresh = seen.retain_new(&mut documents, NOW);
            seen.mark(fresh, NOW);
            black_box(documents);
        }
    });
    let copies = cpu_of(length, || mapped.iter().for_each(|documents| drop(black_box(documents.clone()))));
    // All of it with one of six locks held: what bounds the events a second of all cores together.
    let locked = &per_sample((with_copies - copies).max(0.0));
    row("leave out what is known (six locks in turn), per event", locked, "");
    for (name, shape) in [
        ("encode, per event", Shape::of(Generation::Classic)),
        (
            "encode without down-sampled streams, per event",
            Shape { sampled_streams: false, ..Shape::of(Generation::Classic) },
        ),
    ] {
        let encoder = Encoder::new(shape, 0);
        let events: Vec<Documents> = mapped
            .iter()
            .map(|all| Documents {
                events: all.events.clone(),
                resources: all.resources.clone(),
                ..Documents::default()
            })
            .collect();
        let ns = cpu_of(length, || {
            for documents in &events {
                encoder.parts(documents, NOW, PART_BYTES).for_each(|part| drop(black_box(part)));
            }
        });
        row(name, &per_sample(ns), "");
    }
}

/// With the packing of both sides: gzip as agents send it, gzip at level 1 towards Elasticsearch.
fn packed(captures: &[Vec<u8>], samples: u64, length: Duration) {
    let packed: Vec<Vec<u8>> = captures.iter().map(|bytes| gzip(bytes, 6)).collect();
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    let seen = Seen::default();
    for (name, level) in [("unpacking gzip", None), ("gzip in and out (level 1)", Some(1))] {
        let ns = cpu_of(length, || {
            for bytes in &packed {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
                let mut documents = documents(&decode(&unpacked).unwrap().batch).documents;
                let fresh = seen.retain_new(&mut documents, NOW);
                for part in encoder.parts(&documents, NOW, PART_BYTES) {
                    black_box(level.map(|level| gzip(&part.bytes, level)));
                }
                seen.mark(fresh, NOW);
            }
        });
        row(&format!("the same, {name}"), &per_second(samples, ns), "");
    }
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes of the bulk requests that carry events only, and of all others.
fn sizes(captures: &[Vec<u8>]) {
    for shape in [
        Shape::of(Generation::Classic),
        Shape { sampled_streams: false, ..Shape::of(Generation::Classic) },
        Shape::of(Generation::Otel),
    ] {
        let encoder = Encoder::new(shape, 0);
        let (mut events, mut plain, mut others) = (0u64, 0, 0);
        let mut gzipped = [0; 3];
        for bytes in captures {
            let all = documents(&decode(bytes).unwrap().batch).documents;
            let only = Documents { resources: all.resources, events: all.events, ..Documents::default() };
            let body = encoder.encode(&only, NOW);
            events += body.items.iter().filter(|item| item.kind == Kind::Event).count() as u64;
            plain += body.bytes.len();
            for (sum, level) in gzipped.iter_mut().zip([1, 5, 9]) {
                *sum += gzip(&body.bytes, level).len();
            }
            let look_ups = Documents {
                resources: Vec::new(),
                events: Vec::new(),
                ..documents(&decode(bytes).unwrap().batch).documents
            };
            others += encoder.encode(&look_ups, NOW).bytes.len();
        }
        let per_event = |bytes: usize| format!("{:.0} B", bytes as f64 / events as f64);
        let name = format!(
            "{:?}{}",
            shape.generation,
            if shape.sampled_streams { " with down-sampled streams" } else { "" }
        );
        row(&format!("{name}, bulk bytes per event"), &per_event(plain), "");
        for (bytes, level) in gzipped.into_iter().zip([1, 5, 9]) {
            row(&format!("{name}, gzip {level}"), &per_event(bytes), "");
        }
        row(&format!("{name}, look-ups per event when all are new"), &per_event(others), "");
    }
}

fn allocations(captures: &[Vec<u8>], samples: u64) {
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    let seen = Seen::default();
    handle_all(captures, &seen, &encoder);
    let count = |work: &dyn Fn()| {
        ALLOCATIONS.store(0, Ordering::Relaxed);
        COUNTS.store(true, Ordering::Relaxed);
        work();
        COUNTS.store(false, Ordering::Relaxed);
        format!("{:.2}", ALLOCATIONS.load(Ordering::Relaxed) as f64 / samples as f64)
    };
    let all = count(&|| handle_all(captures, &seen, &encoder));
    row("allocations per event, warm", &all, "");
    let decoding = count(&|| captures.iter().for_each(|bytes| drop(black_box(decode(bytes)))));
    row("  of these while decoding", &decoding, "");
    let mapped: Vec<Documents> =
        captures.iter().map(|bytes| documents(&decode(bytes).unwrap().batch).documents).collect();
    let encoding = count(&|| {
        for documents in &mapped {
            encoder.parts(documents, NOW, PART_BYTES).for_each(|part: BulkBody| drop(black_box(part)));
        }
    });
    row("  of these while encoding, everything new", &encoding, "");
}

/// Several threads that share what is known: what the locks cost.
fn together(captures: &[Vec<u8>], samples: u64, length: Duration) {
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    let seen = Seen::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let total: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let ns = cpu_of(length, || {
                        handle_all(captures, &seen, &encoder);
                    });
                    samples as f64 / ns * 1e3
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    row(
        &format!("{threads} threads at once, warm, per core"),
        &format!("{:.2} M/s", total / threads as f64),
        "≥ 0.5 M events/s per core",
    );
}
