//! kill -9 at random moments: nothing acknowledged is lost or doubled, and every restart finds a sound store.
//!
//! The test runs its own binary again as the writer. `EVERFLAME_CRASH_ROUNDS=100` makes it long.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everflame::model::{Dimension, Filter, Selection, UnixNanos};
use everflame::store::document::Documents;
use everflame::store::embedded::{EmbeddedStore, Settings};
use everflame::store::{Reader, Writer};

use crate::scene::{DAY_MS, HOUR_MS, MONDAY_MS, event, range, resource, trace};

const DIR: &str = "EVERFLAME_CRASH_DIR";
const FIRST: &str = "EVERFLAME_CRASH_FIRST";
/// Samples of each batch.
const SAMPLES: u64 = 5;

fn settings(path: &std::path::Path, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Settings {
    Settings {
        upkeep_every: None,
        retain_for: None,
        day_after: Duration::from_hours(2),
        coarse_after: Some(Duration::from_hours(30)),
        clock: std::sync::Arc::new(move || UnixNanos::from_millis(now_ms())),
        ..Settings::new(path)
    }
}

/// Batch `i`: its own thread, its own stack, a time of its own.
fn batch(i: u64) -> Documents {
    let trace = trace(&[1, 2 + i % 50, 100 + i]);
    let time = MONDAY_MS + i * 90_000;
    let times: Vec<u64> = (0..SAMPLES).map(|s| time + s * 1000).collect();
    Documents {
        resources: vec![resource((i % 3) as u32, "app")],
        events: vec![event(0, &trace, &format!("t{}", i % 7), i as u32, &times)],
        stacktraces: vec![trace],
        ..Documents::default()
    }
}

/// Not a test of its own: the writer that [`survives_kill_9_at_any_moment`] starts and kills.
#[test]
fn writer_child() {
    let (Ok(dir), Ok(first)) = (std::env::var(DIR), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().unwrap();
    let current = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(first));
    let clock = std::sync::Arc::clone(&current);
    let now = move || MONDAY_MS + clock.load(std::sync::atomic::Ordering::Relaxed) * 90_000 + 10_000;
    let store = EmbeddedStore::open(settings(dir.as_ref(), now)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::scope(|scope| {
        // Upkeep runs all the time, so that kills hit flushes, merges and retirements.
        scope.spawn(|| {
            loop {
                store.upkeep(true).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for i in first.. {
            current.store(i, std::sync::atomic::Ordering::Relaxed);
            runtime.block_on(store.write(batch(i))).unwrap();
            let mut out = std::io::stdout().lock();
            // A line that begins fresh: the test harness writes to the same stream.
            writeln!(out, "\nacknowledged {i}").and_then(|()| out.flush()).unwrap();
        }
    });
}

#[test]
fn survives_kill_9_at_any_moment() {
    let rounds: u32 = std::env::var("EVERFLAME_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut first = 0;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let (mut slowest, mut merged) = (Duration::ZERO, 0);
    for round in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_millis(150 + (seed >> 33) % 900);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::writer_child", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
                .collect::<Vec<u64>>()
        });
        std::thread::sleep(life);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "round {round}: the writer failed by itself:\n{errors}");
        acknowledged.extend(reader.join().unwrap());

        let start = Instant::now();
        let last = acknowledged.last().copied().unwrap_or(0);
        let now = move || MONDAY_MS + last * 90_000;
        let store = EmbeddedStore::open(settings(dir.path(), now)).unwrap();
        slowest = slowest.max(start.elapsed());
        let found = read(&runtime, &store);
        for i in &acknowledged {
            let samples = found.get(i);
            assert_eq!(samples, Some(&SAMPLES), "round {round}: acknowledged batch {i}");
        }
        for (i, samples) in &found {
            assert_eq!(*samples, SAMPLES, "round {round}: batch {i} is there in parts or twice");
        }
        first = found.keys().last().map_or(0, |i| i + 1);
        drop(store);
        merged = std::fs::read_dir(dir.path().join("events")).unwrap().count();
    }
    let report = EmbeddedStore::repair(&settings(dir.path(), || MONDAY_MS)).unwrap();
    assert_eq!(report.quarantined.len(), 0, "{report:?}");
    println!(
        "{rounds} kills, {} batches acknowledged, slowest open {slowest:?}, {merged} events files at the end",
        acknowledged.len()
    );
}

/// Samples per batch, after checking that each has its own stack.
fn read(runtime: &tokio::runtime::Runtime, store: &EmbeddedStore) -> BTreeMap<u64, u64> {
    let selection = Selection { range: range(0, MONDAY_MS + 3650 * DAY_MS + HOUR_MS), filter: Filter::All };
    let set = runtime.block_on(store.stacks(&selection, Some(Dimension::Tid))).unwrap();
    let mut found = BTreeMap::new();
    for count in &set.counts {
        let i: u64 = set.groups[count.group as usize].parse().unwrap();
        let frame = set.trie.frames[set.trie.frame[count.node as usize] as usize].0;
        assert_eq!(frame.address_or_line, 100 + i, "batch {i} has another batch's stack");
        *found.entry(i).or_insert(0) += count.samples;
    }
    found
}
