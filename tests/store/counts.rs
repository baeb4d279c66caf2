//! Counts by any selection equal a naive recount, in every state that data can be in.

use everflame::model::{Dimension, Filter, Pattern, Selection, TimeRange, UnixNanos};
use everflame::store::document::Documents;
use everflame::store::embedded::EmbeddedStore;
use everflame::store::{Reader, TimeGrid, Writer};
use proptest::prelude::*;

use crate::model::{Naive, flatten, flatten_timeline};
use crate::scene::{DAY_MS, HOUR_MS, MONDAY_MS, Scene, event, range, resource, trace};

/// A case makes several dozen durable files, so few by default; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(4)
}

fn all(range: TimeRange) -> Selection {
    Selection { range, filter: Filter::All }
}

/// Asks everything about a selection and compares.
fn check(scene: &Scene, store: &EmbeddedStore, naive: &Naive, selection: &Selection, by: Option<Dimension>) {
    let set = scene.block(store.stacks(selection, by));
    assert_eq!(flatten(&set), naive.stacks(selection, by), "stacks {selection:?} by {by:?}");
    assert_eq!(set.cpu_ns, naive.cpu_ns(selection), "cpu time");
    let span = selection.range.nanos().max(1);
    for grid in [
        TimeGrid { start: selection.range.from, width_ns: span.div_ceil(7), buckets: 7 },
        TimeGrid { start: UnixNanos::from_millis(MONDAY_MS), width_ns: 600_000_000_000, buckets: 300 },
    ] {
        let timeline = scene.block(store.timeline(selection, grid, by, 10_000));
        let expected = naive.timeline(selection, grid, by);
        assert_eq!(flatten_timeline(&timeline), expected, "timeline {selection:?} by {by:?} on {grid:?}");
        assert_eq!(timeline.groups, expected.groups.len() as u64);
    }
}

#[derive(Clone, Debug)]
struct Drawn {
    host: u32,
    executable: u8,
    stack: u8,
    tid: u32,
    offset_ms: u64,
    times: u8,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (0u32..3, 0u8..3, 0u8..12, 0u32..30, 0u64..2 * DAY_MS, 1u8..6).prop_map(
        |(host, executable, stack, tid, offset_ms, times)| Drawn {
            host,
            executable,
            stack,
            tid,
            offset_ms,
            times,
        },
    )
}

fn documents(drawn: &[Drawn]) -> Documents {
    let mut out = Documents::default();
    for (i, d) in drawn.iter().enumerate() {
        let path: Vec<u64> =
            (0..=u64::from(d.stack) % 5).map(|depth| u64::from(d.stack) * depth % 9).collect();
        let trace = trace(&path);
        let times: Vec<u64> =
            (0..u64::from(d.times)).map(|t| MONDAY_MS + d.offset_ms + t * u64::from(d.tid) * 977).collect();
        out.resources.push(resource(d.host, ["nginx", "node", "postgres"][d.executable as usize]));
        out.events.push(event(i as u32, &trace, &format!("w{}", d.tid % 4), d.tid, &times));
        out.stacktraces.push(trace);
    }
    out
}

fn pattern(text: &str) -> Pattern {
    Pattern { pieces: text.split('*').map(Into::into).collect() }
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::All),
        (0usize..11, proptest::sample::select(vec!["n*", "w1", "*e*", "host-1", "2", "web", "", "1*", "*"]))
            .prop_map(|(d, text)| Filter::Match(Dimension::ALL[d], pattern(text))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::Or),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn counts_equal_a_naive_recount(
        first in proptest::collection::vec(drawn(), 1..60),
        second in proptest::collection::vec(drawn(), 0..40),
        third in proptest::collection::vec(drawn(), 0..20),
        filters in proptest::collection::vec(filter(), 4),
        from in 0u64..2 * DAY_MS,
        length in 1u64..DAY_MS,
        by in 0usize..12,
    ) {
        let scene = Scene::new();
        let mut naive = Naive::default();
        let by = Dimension::ALL.get(by).copied();
        let whole = range(0, MONDAY_MS + 10 * DAY_MS);
        let cut = range(MONDAY_MS + from, MONDAY_MS + from + length);
        let check_all = |store: &EmbeddedStore, naive: &Naive| {
            check(&scene, store, naive, &all(whole), None);
            check(&scene, store, naive, &all(cut), by);
            for filter in &filters {
                check(&scene, store, naive, &Selection { range: whole, filter: filter.clone() }, by);
                check(&scene, store, naive, &Selection { range: cut, filter: filter.clone() }, None);
            }
        };
        let store = scene.open();
        naive.write(&documents(&first));
        scene.block(store.write(documents(&first)));
        check_all(&store, &naive);
        store.upkeep(true).unwrap();
        naive.write(&documents(&second));
        scene.block(store.write(documents(&second)));
        check_all(&store, &naive);
        drop(store);

        // Reopened with a head and young segments, then hours, then days with a late batch beside them.
        let store = scene.open();
        check_all(&store, &naive);
        scene.set_now(MONDAY_MS + 2 * DAY_MS + HOUR_MS);
        store.upkeep(true).unwrap();
        check_all(&store, &naive);
        scene.set_now(MONDAY_MS + 5 * DAY_MS);
        store.upkeep(true).unwrap();
        naive.write(&documents(&third));
        scene.block(store.write(documents(&third)));
        store.upkeep(true).unwrap();
        check_all(&store, &naive);
        drop(store);
        let store = scene.open();
        scene.set_now(MONDAY_MS + 6 * DAY_MS);
        store.upkeep(true).unwrap();
        check_all(&store, &naive);
    }
}

/// Enough samples for sums, several row groups and several threads, in two days and a head.
#[test]
fn sums_and_events_say_the_same() {
    let scene = Scene::new();
    let mut naive = Naive::default();
    let store = scene.open();
    for batch in 0..6u64 {
        let mut out = Documents {
            resources: (0..4).map(|i| resource(i % 2, ["nginx", "node"][i as usize / 2])).collect(),
            ..Documents::default()
        };
        for i in 0..400u64 {
            let trace = trace(&[1, i % 13, i % 3, i % 29]);
            let start = MONDAY_MS + batch * 8 * HOUR_MS;
            let times: Vec<u64> = (0..40).map(|t| start + (i * 131 + t * 719_993) % (8 * HOUR_MS)).collect();
            out.events.push(event((i % 4) as u32, &trace, &format!("t{}", i % 5), (i % 5) as u32, &times));
            out.stacktraces.push(trace);
        }
        naive.write(&out);
        scene.block(store.write(out));
        store.upkeep(true).unwrap();
    }
    scene.set_now(MONDAY_MS + 4 * DAY_MS - HOUR_MS);
    store.upkeep(true).unwrap();
    let names: Vec<_> = std::fs::read_dir(scene.path().join("totals")).unwrap().collect();
    assert!(!names.is_empty(), "totals pay here");
    assert!(std::fs::read_dir(scene.path().join("minutes")).unwrap().count() > 0 || names.len() == 1);
    for (from, to) in [
        (MONDAY_MS, MONDAY_MS + 3 * DAY_MS),
        (MONDAY_MS, MONDAY_MS + DAY_MS),
        (MONDAY_MS + 7, MONDAY_MS + DAY_MS + 61_001),
        (MONDAY_MS + 6 * HOUR_MS, MONDAY_MS + 18 * HOUR_MS),
        (MONDAY_MS + 90_000, MONDAY_MS + 90_001),
    ] {
        for by in [None, Some(Dimension::Executable), Some(Dimension::ThreadName), Some(Dimension::Tid)] {
            check(&scene, &store, &naive, &all(range(from, to)), by);
            let node = Filter::Match(Dimension::Executable, Pattern::exact("node"));
            check(&scene, &store, &naive, &Selection { range: range(from, to), filter: node }, by);
        }
    }
    let values = scene.block(store.values(Dimension::Executable, "n", range(0, MONDAY_MS * 2), 1));
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].samples, naive.samples.len() as u64 / 2);
}
