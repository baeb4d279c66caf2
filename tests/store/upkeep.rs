//! What upkeep makes of the head: hours, days, coarse times, and what it drops.

use std::time::Duration;

use everflame::model::{Filter, Selection};
use everflame::store::embedded::{EmbeddedStore, Settings};
use everflame::store::{Reader, Writer};

use crate::scene::{DAY_MS, HOUR_MS, MONDAY_MS, Scene, range, simple};

fn events(scene: &Scene) -> usize {
    std::fs::read_dir(scene.path().join("events")).unwrap().count()
}

fn count(scene: &Scene, store: &EmbeddedStore, from: u64, to: u64) -> u64 {
    let selection = Selection { range: range(from, to), filter: Filter::All };
    scene.block(store.stacks(&selection, None)).counts.iter().map(|c| c.samples).sum()
}

#[test]
fn segments_grow_from_minutes_to_hours_to_days() {
    let scene = Scene::new();
    let store = scene.open();
    for minute in (0..24 * 60).step_by(20) {
        let now = MONDAY_MS + minute * 60_000;
        scene.set_now(now);
        scene.block(store.write(simple(&[1, 2], &[now])));
        store.upkeep(false).unwrap();
    }
    // 24 hours, of which the last is still young pieces.
    let before = events(&scene);
    assert!((24..=27).contains(&before), "{before} files");
    scene.set_now(MONDAY_MS + 2 * DAY_MS + 1);
    store.upkeep(true).unwrap();
    assert_eq!(events(&scene), 24);
    scene.set_now(MONDAY_MS + 3 * DAY_MS);
    store.upkeep(false).unwrap();
    assert_eq!(events(&scene), 1);
    assert_eq!(count(&scene, &store, MONDAY_MS, MONDAY_MS + DAY_MS), 72);
    let status = scene.block(store.status());
    assert_eq!((status.samples, status.stacks), (72, 1));
    assert!(status.event_bytes > 0 && status.dictionary_bytes > 0);
    assert_eq!(status.extent, Some(range(MONDAY_MS, MONDAY_MS + 23 * HOUR_MS + 40 * 60_000 + 1)));
}

#[test]
fn times_become_coarse_with_age() {
    let scene = Scene::new();
    let store = scene.open();
    scene.block(store.write(simple(&[1], &[MONDAY_MS + 1500, MONDAY_MS + 1999, MONDAY_MS + 2000])));
    store.upkeep(true).unwrap();
    scene.set_now(MONDAY_MS + 4 * DAY_MS);
    store.upkeep(false).unwrap();
    assert_eq!(count(&scene, &store, MONDAY_MS, MONDAY_MS + 1600), 1);
    scene.set_now(MONDAY_MS + 9 * DAY_MS);
    store.upkeep(false).unwrap();
    assert_eq!(count(&scene, &store, MONDAY_MS, MONDAY_MS + 1600), 2);
    assert_eq!(count(&scene, &store, MONDAY_MS, MONDAY_MS + DAY_MS), 3);
    let file = std::fs::read_dir(scene.path().join("events")).unwrap().next().unwrap().unwrap().path();
    store.upkeep(false).unwrap();
    assert!(file.exists(), "a coarse file is not written again");
}

#[test]
fn drops_by_age_and_by_size() {
    let scene = Scene::new();
    let settings = Settings { retain_for: Some(Duration::from_hours(24)), ..scene.settings() };
    let store = EmbeddedStore::open(settings).unwrap();
    for hour in 0..30 {
        let now = MONDAY_MS + hour * HOUR_MS;
        scene.set_now(now);
        scene.block(store.write(simple(&[1, hour], &[now, now + 1])));
        store.upkeep(true).unwrap();
    }
    assert_eq!(count(&scene, &store, 0, MONDAY_MS + 10 * DAY_MS), 2 * 25);
    drop(store);
    let bytes = scene.block(scene.open().status()).event_bytes;
    let settings = Settings { retain_bytes: Some(bytes / 2), ..scene.settings() };
    let store = EmbeddedStore::open(settings).unwrap();
    store.upkeep(false).unwrap();
    let left = scene.block(store.status());
    assert!(left.event_bytes <= bytes / 2 && left.samples > 10, "{left:?}");
    assert!(left.extent.unwrap().to.millis() > MONDAY_MS + 29 * HOUR_MS, "the newest stay");
}

/// Times from all over the calendar must neither be lost nor make a file each.
#[test]
fn wild_times_are_kept_in_few_files() {
    let scene = Scene::new();
    let store = scene.open();
    let times: Vec<u64> = (0..500).map(|i| i * 40 * DAY_MS).collect();
    scene.block(store.write(simple(&[1], &times)));
    store.upkeep(true).unwrap();
    assert!(events(&scene) <= 48);
    assert_eq!(count(&scene, &store, 0, u64::MAX / 2_000_000), 500);
    drop(store);
    assert_eq!(count(&scene, &scene.open(), 0, u64::MAX / 2_000_000), 500);
}
