//! Names and the queue of frames without one.

use everflame::model::{FrameId, SourceLine, UnixNanos, UnknownReason};
use everflame::store::document::{Documents, Executable, StackFrame};
use everflame::store::{Queue, Reader, Writer};

use crate::scene::{MONDAY_MS, Scene, simple, trace};

fn frame(address: u64) -> FrameId {
    trace(&[address]).frames[0].0
}

fn named(address: u64, function: &str) -> StackFrame {
    let line = SourceLine { function: function.into(), file: "a.c".into(), line: 7, column: 0 };
    StackFrame { id: frame(address), lines: vec![line] }
}

fn documents() -> Documents {
    Documents {
        unnamed: vec![frame(7), frame(14), frame(1)],
        executables: vec![Executable {
            id: frame(7).file,
            name: "libfoo.so".into(),
            gnu_build_id: "".into(),
        }],
        ..simple(&[7, 14, 1], &[MONDAY_MS])
    }
}

#[test]
fn frames_wait_until_they_are_named() {
    let scene = Scene::new();
    let store = scene.open();
    scene.block(store.write(documents()));
    scene.block(store.write(documents()));
    let due = scene.block(store.due(UnixNanos(5), 10, 10));
    assert_eq!(due.len(), 2, "{due:?}");
    let foo = due.iter().find(|p| p.file == frame(7).file).unwrap();
    assert_eq!((&*foo.name, &*foo.addresses, foo.retries), ("libfoo.so", &[7, 14][..], 0));
    assert_eq!(scene.block(store.due(UnixNanos(5), 1, 1)).len(), 1);

    scene.block(store.name(vec![named(7, "deflate")]));
    let details = scene.block(store.frames(&[frame(14), frame(7)]));
    assert_eq!((&*details[1].library, &*details[1].lines[0].function), ("libfoo.so", "deflate"));
    assert_eq!((details[1].reason.clone(), details[0].reason.clone()), (None, Some(UnknownReason::Pending)));
    // Seen again without a name: it has one.
    scene.block(store.write(documents()));
    let due = scene.block(store.due(UnixNanos(5), 10, 10));
    assert_eq!(due.iter().map(|p| p.addresses.len()).sum::<usize>(), 2);
}

#[test]
fn failed_attempts_come_back_when_due_or_never() {
    let scene = Scene::new();
    let store = scene.open();
    scene.block(store.write(documents()));
    let (foo, other) = (frame(7).file, frame(1).file);
    scene.block(store.give_up(
        foo,
        &[7, 14],
        &UnknownReason::FileUnavailable("gone".into()),
        Some(UnixNanos(100)),
    ));
    scene.block(store.give_up(other, &[1], &UnknownReason::NoSymbols, None));
    assert_eq!(scene.block(store.due(UnixNanos(99), 10, 10)), []);
    drop(store);
    let store = scene.open();
    assert_eq!(scene.block(store.due(UnixNanos(99), 10, 10)), []);
    let due = scene.block(store.due(UnixNanos(100), 10, 10));
    assert_eq!((due.len(), due[0].file, due[0].retries), (1, foo, 1));
    let details = scene.block(store.frames(&[frame(7), frame(1)]));
    assert_eq!(details[0].reason, Some(UnknownReason::FileUnavailable("gone".into())));
    assert_eq!(details[1].reason, Some(UnknownReason::NoSymbols));
    // Batches that mention them again change nothing.
    scene.block(store.write(documents()));
    assert_eq!(scene.block(store.due(UnixNanos(99), 10, 10)), []);
    // A later name wins over a reason.
    scene.block(store.name(vec![named(1, "main")]));
    assert_eq!(scene.block(store.frames(&[frame(1)]))[0].reason, None);
}

#[test]
fn many_writers_share_commits() {
    let scene = Scene::new();
    let store = std::sync::Arc::new(scene.open());
    let tasks: Vec<_> = (0..100u64)
        .map(|i| {
            let store = std::sync::Arc::clone(&store);
            scene.runtime.spawn(async move { store.write(simple(&[1, i], &[MONDAY_MS + i])).await })
        })
        .collect();
    for task in tasks {
        scene.runtime.block_on(task).unwrap().unwrap();
    }
    assert_eq!(scene.block(store.status()).samples, 100);
}

#[test]
fn a_batch_with_a_wrong_index_is_refused_alone() {
    let scene = Scene::new();
    let store = scene.open();
    let mut bad = simple(&[1], &[MONDAY_MS]);
    bad.events[0].resource = 9;
    assert!(scene.runtime.block_on(store.write(bad)).is_err_and(|e| !e.is_retryable()));
    scene.block(store.write(simple(&[1], &[MONDAY_MS])));
    assert_eq!(scene.block(store.status()).samples, 1);
}
