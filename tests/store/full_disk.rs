//! A full disk: writing is refused with a retryable error, reading goes on, and writing resumes by itself.

use std::process::Command;

use everflame::model::{Filter, Selection};
use everflame::store::document::Documents;
use everflame::store::embedded::{EmbeddedStore, Settings};
use everflame::store::{Error, Reader, Writer};

use crate::scene::{DAY_MS, MONDAY_MS, Scene, event, range, resource, simple, trace};

fn everything() -> Selection {
    Selection { range: range(0, MONDAY_MS + DAY_MS), filter: Filter::All }
}

fn count(scene: &Scene, store: &EmbeddedStore) -> u64 {
    scene.block(store.stacks(&everything(), None)).counts.iter().map(|c| c.samples).sum()
}

#[test]
fn refuses_below_the_reserve_and_resumes() {
    let scene = Scene::new();
    let store = EmbeddedStore::open(Settings { reserve_bytes: u64::MAX, ..scene.settings() }).unwrap();
    let refused = scene.runtime.block_on(store.write(simple(&[1], &[MONDAY_MS]))).unwrap_err();
    assert!(matches!(refused, Error::DiskFull { .. }) && refused.is_retryable());
    assert!(scene.block(store.status()).refusing.is_some());
    drop(store);
    let store = scene.open();
    scene.block(store.write(simple(&[1], &[MONDAY_MS])));
    assert_eq!(scene.block(store.status()).refusing, None);
}

/// A small file system that goes away with the value.
struct SmallDisk<'s>(&'s std::path::Path);

impl<'s> SmallDisk<'s> {
    fn mount(path: &'s std::path::Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(path)
            .output()
            .is_ok_and(|o| o.status.success());
        mounted.then_some(Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// A batch with many new stacks, so that the dictionaries grow.
fn large(i: u64) -> Documents {
    let mut out = Documents { resources: vec![resource(1, "app")], ..Documents::default() };
    for k in 0..300 {
        let trace = trace(&[1, i, k, i * 1000 + k]);
        out.events.push(event(0, &trace, "main", 1, &[MONDAY_MS + i * 1000 + k]));
        out.stacktraces.push(trace);
    }
    out
}

#[test]
fn a_disk_that_fills_up_loses_nothing_acknowledged() {
    let scene = Scene::new();
    let Some(_disk) = SmallDisk::mount(scene.path()) else {
        crate::cannot_run::cannot_run("a full disk", "mounting a tmpfs needs root");
        return;
    };
    // No reserve: the point is to run into the wall, first with the database, then with segments.
    let settings = || Settings { reserve_bytes: 0, ..scene.settings() };
    let store = EmbeddedStore::open(settings()).unwrap();
    let ballast = scene.path().join("ballast");
    std::fs::write(&ballast, vec![1u8; 1 << 20]).unwrap();
    let mut written = 0;
    let mut i = 0;
    let refused = loop {
        i += 1;
        assert!(i < 5000, "the disk never fills up");
        match scene.runtime.block_on(store.write(large(i))) {
            Ok(_) => written += 300,
            Err(error) => break error,
        }
        if i % 20 == 0
            && let Err(error) = store.upkeep(true)
        {
            assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        }
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
    assert!(written > 0);
    for _ in 0..5 {
        assert!(scene.runtime.block_on(store.write(large(i))).is_err_and(|e| e.is_retryable()));
        if let Err(error) = store.upkeep(true) {
            assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        }
        assert_eq!(count(&scene, &store), written, "reading goes on");
        scene.block(store.frames(&[trace(&[1]).frames[0].0]));
    }
    assert!(scene.block(store.status()).refusing.is_some());
    std::fs::remove_file(&ballast).unwrap();
    scene.block(store.write(large(i)));
    written += 300;
    assert_eq!(count(&scene, &store), written);
    assert_eq!(scene.block(store.status()).refusing, None);
    drop(store);
    let store = EmbeddedStore::open(settings()).unwrap();
    assert_eq!(count(&scene, &store), written);
}
