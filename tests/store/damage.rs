//! Damaged files: named when met, moved away by repair, everything else kept.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use everflame::model::{Filter, Selection, SourceLine, UnknownReason};
use everflame::store::document::{Documents, Executable, StackFrame};
use everflame::store::embedded::EmbeddedStore;
use everflame::store::{Error, Queue, Reader, Writer};

use crate::model::{Naive, flatten};
use crate::scene::{DAY_MS, HOUR_MS, MONDAY_MS, Scene, event, range, resource, simple, trace};

fn everything() -> Selection {
    Selection { range: range(0, MONDAY_MS + 100 * DAY_MS), filter: Filter::All }
}

fn files(scene: &Scene, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(scene.path().join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// Turns bytes all over a file.
fn damage(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    for at in (20..len * 3 / 4).step_by(100) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

/// Two segments of many samples, in two hours.
fn fill(scene: &Scene) -> (Naive, Naive) {
    let store = scene.open();
    let mut hours = (Naive::default(), Naive::default());
    for (hour, naive) in [(0, &mut hours.0), (1, &mut hours.1)] {
        let mut out = Documents { resources: vec![resource(1, "app")], ..Documents::default() };
        for i in 0..200u64 {
            let trace = trace(&[1, i % 7, i % 11]);
            let times: Vec<_> =
                (0..30).map(|t| MONDAY_MS + hour * HOUR_MS + (i * 97 + t * 10_007) % HOUR_MS).collect();
            out.events.push(event(0, &trace, "main", 5, &times));
            out.stacktraces.push(trace);
        }
        out.executables.push(Executable {
            id: out.stacktraces[1].frames[0].0.file,
            name: "app".into(),
            gnu_build_id: "00ff".into(),
        });
        out.stackframes.push(StackFrame {
            id: out.stacktraces[1].frames[0].0,
            lines: vec![SourceLine { function: "main".into(), ..SourceLine::default() }],
        });
        naive.write(&out);
        scene.block(store.write(out));
        store.upkeep(true).unwrap();
    }
    hours
}

#[test]
fn a_damaged_events_file_is_named_and_repair_keeps_the_rest() {
    let scene = Scene::new();
    let (_, second) = fill(&scene);
    let bad = files(&scene, "events")[0].clone();
    damage(&bad);
    let store = scene.open();
    match scene
        .runtime
        .block_on(store.stacks(&Selection { range: range(0, MONDAY_MS + 60_000), ..everything() }, None))
    {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, bad),
        other => panic!("expected a damaged file, found {other:?}"),
    }
    drop(store);
    let report = EmbeddedStore::repair(&scene.settings()).unwrap();
    assert_eq!(
        (report.segments_kept, report.quarantined.len(), report.samples_lost),
        (1, 1, 6000),
        "{report:?}"
    );
    let store = scene.open();
    let set = scene.block(store.stacks(&everything(), None));
    assert_eq!(flatten(&set), second.stacks(&everything(), None));
}

#[test]
fn damaged_sums_cost_nothing_but_time() {
    let scene = Scene::new();
    let (mut all, second) = fill(&scene);
    all.samples.extend(second.samples);
    all.paths.extend(second.paths);
    let totals = files(&scene, "totals");
    assert_eq!(totals.len(), 2);
    damage(&totals[1]);
    let report = EmbeddedStore::repair(&scene.settings()).unwrap();
    assert_eq!((report.segments_kept, report.samples_lost), (2, 0), "{report:?}");
    let store = scene.open();
    assert_eq!(flatten(&scene.block(store.stacks(&everything(), None))), all.stacks(&everything(), None));
}

#[test]
fn a_missing_file_is_named_at_the_start() {
    let scene = Scene::new();
    fill(&scene);
    let gone = files(&scene, "events")[1].clone();
    fs::remove_file(&gone).unwrap();
    match EmbeddedStore::open(scene.settings()) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, gone),
        other => panic!("expected a missing file, found {other:?}"),
    }
    EmbeddedStore::repair(&scene.settings()).unwrap();
    scene.open();
}

#[test]
fn a_lost_database_is_rebuilt_from_the_parquet_files() {
    let scene = Scene::new();
    let (mut all, second) = fill(&scene);
    all.samples.extend(second.samples);
    all.paths.extend(second.paths);
    // Merge, so that names are exported; then lose the manifest with everything else.
    scene.set_now(MONDAY_MS + 5 * DAY_MS);
    let store = scene.open();
    store.upkeep(true).unwrap();
    drop(store);
    fs::write(scene.path().join("store.redb"), vec![0xa5; 100_000]).unwrap();
    assert!(matches!(EmbeddedStore::open(scene.settings()), Err(Error::Corrupt { .. } | Error::Engine(_))));
    let report = EmbeddedStore::repair(&scene.settings()).unwrap();
    assert!(report.database_rebuilt, "{report:?}");
    assert_eq!(report.samples_lost, 0, "{report:?}");
    let store = scene.open();
    assert_eq!(flatten(&scene.block(store.stacks(&everything(), None))), all.stacks(&everything(), None));
    let frame = trace(&[1]).frames[0].0;
    let details = scene.block(store.frames(&[frame, trace(&[3]).frames[0].0]));
    assert_eq!((&*details[0].lines[0].function, &*details[0].library), ("main", "app"));
    assert_eq!(details[1].reason, Some(UnknownReason::Pending));
    let due = scene.block(store.due(everflame::model::UnixNanos(1), 100, 100));
    assert!(!due.is_empty(), "unnamed frames are queued again");
    // And it goes on from there.
    scene.block(store.write(simple(&[1, 5, 9], &[MONDAY_MS + DAY_MS])));
    store.upkeep(true).unwrap();
    drop(store);
    let store = scene.open();
    let set = scene.block(store.stacks(&everything(), None));
    assert_eq!(set.counts.iter().map(|c| c.samples).sum::<u64>(), all.samples.len() as u64 + 1);
}

#[test]
fn only_one_process_has_a_store() {
    let scene = Scene::new();
    let store = scene.open();
    let pid = std::process::id();
    assert!(
        matches!(EmbeddedStore::open(scene.settings()), Err(Error::InUse { pid: Some(p), .. }) if p == pid)
    );
    assert!(matches!(EmbeddedStore::repair(&scene.settings()), Err(Error::InUse { .. })));
    drop(store);
    scene.open();
}
