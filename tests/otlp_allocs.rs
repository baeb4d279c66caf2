//! Memory that an export can make the collector take: few allocations for honest ones, a bounded peak for hostile
//! ones. One test, because the counts are of the whole process.

#![allow(unsafe_code, clippy::print_stderr)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use everflame::collector::mapping::documents;
use everflame::collector::weight;
use everflame::wire::otlp::decode;

/// Bytes of a hostile message: well beyond every limit on entries, which are at least 2 bytes each.
const LARGE: usize = 4 << 20;
/// One that no limit ends.
const SMALL: usize = 128 << 10;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the caller's own arguments, so its promises are ours; the counters are
// plain atomics and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of `dealloc`; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `work`, and the most bytes it held beyond what was there before.
fn cost<T>(work: impl FnOnce() -> T) -> (usize, usize) {
    let (allocations, live) = (ALLOCATIONS.load(Relaxed), LIVE.load(Relaxed));
    PEAK.store(live, Relaxed);
    drop(work());
    (ALLOCATIONS.load(Relaxed) - allocations, PEAK.load(Relaxed) - live)
}

/// A length-delimited field.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// A request of `total` bytes that is filled with one field of a table, or of the profile, over and over.
fn filled(total: usize, table: Option<u8>, entry: &[u8]) -> Vec<u8> {
    let strings =
        ["", "samples", "count", "cpu", "nanoseconds"].map(|text| field(5, text.as_bytes())).concat();
    let types = [field(1, &[8, 1, 16, 2]), field(5, &[8, 3, 16, 4])].concat();
    let one = table.map_or_else(|| entry.to_vec(), |table| field(table, entry));
    let many = one.repeat(total / one.len());
    let (profile, dictionary) =
        if table.is_some() { (types, [strings, many].concat()) } else { ([types, many].concat(), strings) };
    [field(1, &field(2, &field(2, &profile))), field(2, &dictionary)].concat()
}

#[test]
fn exports_take_few_allocations_and_hostile_ones_a_bounded_peak() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp/node/request-001.otlp.pb");
    let bytes = std::fs::read(capture).expect("capture");
    let samples = decode(&bytes).expect("valid").batch.sample_count() as usize;
    let (allocations, peak) = cost(|| decode(&bytes).map(|decoded| documents(&decoded.batch)));
    println!(
        "capture: {} bytes, {samples} samples, {allocations} allocations, {peak} bytes at most",
        bytes.len()
    );
    assert!(allocations < 8 * samples, "{allocations} allocations for {samples} samples");
    assert!(peak < 20 * bytes.len(), "{peak} bytes for a message of {}", bytes.len());

    let mapped = decode(&bytes).map(|decoded| documents(&decoded.batch)).expect("valid");
    let held = LIVE.load(Relaxed);
    let estimate = weight::of(&mapped.documents);
    drop(mapped);
    let held = (held - LIVE.load(Relaxed)) as u64;
    println!("its documents hold {held} bytes, estimated {estimate}");
    assert!(held <= estimate && estimate < 4 * held, "{held} bytes estimated as {estimate}");

    for total in [LARGE, SMALL] {
        hostile(total);
    }
}

/// Messages that try to become much more than they are.
fn hostile(total: usize) {
    for (name, message) in [
        ("empty locations", filled(total, Some(2), b"")),
        ("one-byte strings", filled(total, Some(5), b"x")),
        ("empty stacks", filled(total, Some(7), b"")),
        ("attributes", filled(total, Some(6), &[8, 1, 18, 3, 10, 1, b'x'])),
        ("mappings", filled(total, Some(1), &[32, 1])),
        ("empty samples", filled(total, None, &field(2, b""))),
        ("samples with a time", filled(total, None, &field(2, &[0x29, 1, 2, 3, 4, 5, 6, 7, 8]))),
    ] {
        let mut outcome = String::new();
        let (allocations, peak) = cost(|| {
            outcome = match decode(&message) {
                Ok(decoded) => format!("{} samples", documents(&decoded.batch).samples),
                Err(error) => error.to_string(),
            };
        });
        eprintln!(
            "{name}: {} bytes, {allocations} allocations, {peak} bytes at most: {outcome}",
            message.len()
        );
        let allowed = weight::most_while_decoding(message.len());
        assert!(peak <= allowed, "{name}: {peak} bytes, claimed are {allowed}");
    }
}
