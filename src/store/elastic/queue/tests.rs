//! The queue on a real disk: order, restarts, cut files, bounds.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::store::elastic::{Item, Kind};

const LARGE: u64 = 1 << 30;

fn body(text: &str) -> BulkBody {
    let bytes = format!("{{\"create\":{{}}}}\n{{\"text\":\"{text}\"}}\n").into_bytes();
    BulkBody { items: vec![Item { kind: Kind::Event, end: bytes.len() }], bytes }
}

/// A body that does not shrink, of about `bytes`.
fn noise(bytes: usize) -> BulkBody {
    let mut state = 1u64;
    let text: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (state >> 60) as u8)
    })
    .take(bytes)
    .collect();
    body(&text)
}

async fn put(queue: &DiskQueue, text: &str) -> Result<(), QueueError> {
    queue.append(vec![Packed::new(&body(text)).unwrap()]).await
}

/// Texts of everything that can be taken now, each load done or not.
async fn texts(queue: &DiskQueue, done: bool) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(load) = queue.take(1).await {
        let text = String::from_utf8(load.body.bytes).unwrap();
        texts.extend(
            text.lines()
                .filter_map(|line| Some(line.strip_prefix("{\"text\":\"")?.strip_suffix("\"}")?.to_owned())),
        );
        if done {
            queue.done(load.id);
        }
    }
    texts
}

#[tokio::test]
async fn bodies_come_out_in_order_and_only_once() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    for text in ["a", "b", "c"] {
        put(&queue, text).await.unwrap();
    }
    assert_eq!(texts(&queue, true).await, ["a", "b", "c"]);
    assert_eq!(texts(&queue, true).await, [""; 0]);
    put(&queue, "d").await.unwrap();
    drop(queue);
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    assert_eq!(texts(&queue, true).await, ["d"]);
}

#[tokio::test]
async fn what_was_taken_and_not_done_comes_again_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    for text in ["a", "b", "c"] {
        put(&queue, text).await.unwrap();
    }
    let (first, second) = (queue.take(1).await.unwrap(), queue.take(1).await.unwrap());
    // The second before the first: neither is forgotten yet.
    queue.done(second.id);
    drop(queue);
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    assert_eq!(texts(&queue, false).await, ["a", "b", "c"]);
    drop((queue, first));
}

#[tokio::test]
async fn a_write_that_was_cut_is_left_out_wherever_it_was_cut() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    put(&queue, "whole").await.unwrap();
    let whole = queue.bytes();
    put(&queue, "cut").await.unwrap();
    let both = queue.bytes();
    drop(queue);
    let path = segment::path(folder.path(), 1);
    let bytes = fs::read(&path).unwrap();
    for length in whole..both {
        let scene = TempDir::new().unwrap();
        fs::write(segment::path(scene.path(), 1), &bytes[..length as usize]).unwrap();
        let queue = DiskQueue::open(scene.path(), LARGE).unwrap();
        put(&queue, "new").await.unwrap();
        assert_eq!(texts(&queue, true).await, ["whole", "new"], "cut to {length} of {both}");
        assert_eq!(queue.damaged(), 0);
    }
}

#[tokio::test]
async fn damage_in_the_middle_costs_one_record_and_is_counted() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    put(&queue, "a").await.unwrap();
    let start = queue.bytes();
    put(&queue, "b").await.unwrap();
    put(&queue, "c").await.unwrap();
    let path = segment::path(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[start as usize + HEADER + 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(texts(&queue, true).await, ["a", "c"]);
    assert_eq!(queue.damaged(), 1);
}

#[tokio::test]
async fn files_are_left_and_removed_in_steps() {
    let folder = TempDir::new().unwrap();
    // Segments of 4 KiB.
    let queue = DiskQueue::open(folder.path(), 32 << 10).unwrap();
    let mut put = 0;
    let refused = loop {
        match queue.append(vec![Packed::new(&noise(3000)).unwrap()]).await {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 100, "it never fills up");
    };
    assert!(matches!(refused, QueueError::Full { .. }), "{refused}");
    assert!(segment::list(folder.path()).unwrap().len() > 3);
    assert!(queue.bytes() <= 32 << 10);
    let mut taken = 0;
    while let Some(load) = queue.take(1).await {
        taken += 1;
        queue.done(load.id);
    }
    assert_eq!(taken, put);
    assert_eq!(segment::list(folder.path()).unwrap().len(), 1, "only the one that grows is left");
    queue.append(vec![Packed::new(&noise(3000)).unwrap()]).await.unwrap();
}

#[tokio::test]
async fn files_are_for_their_owner_and_one_process_only() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue");
    let queue = DiskQueue::open(&path, LARGE).unwrap();
    put(&queue, "a").await.unwrap();
    queue.close();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(matches!(DiskQueue::open(&path, LARGE), Err(QueueError::InUse { .. })));
    assert!(matches!(put(&queue, "b").await, Err(QueueError::Closed)));
}

#[tokio::test]
async fn many_writers_share_syncs_and_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let queue = Arc::new(DiskQueue::open(folder.path(), LARGE).unwrap());
    let writers: Vec<_> = (0..200)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move { put(&queue, &number.to_string()).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let mut found: Vec<u32> = texts(&queue, true).await.iter().map(|text| text.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_that_cannot_be_read_repeats_rather_than_loses() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    put(&queue, "a").await.unwrap();
    texts(&queue, true).await;
    drop(queue);
    fs::write(folder.path().join("position"), "nonsense").unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    assert_eq!(texts(&queue, true).await, ["a"]);
}

#[tokio::test]
async fn an_emptied_queue_does_not_use_its_numbers_again() {
    let folder = TempDir::new().unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    put(&queue, "a").await.unwrap();
    texts(&queue, true).await;
    drop(queue);
    for number in segment::list(folder.path()).unwrap() {
        fs::remove_file(segment::path(folder.path(), number)).unwrap();
    }
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    put(&queue, "b").await.unwrap();
    // The process dies before it keeps a new position.
    let kept = fs::read(folder.path().join("position")).unwrap();
    drop(queue);
    fs::write(folder.path().join("position"), kept).unwrap();
    let queue = DiskQueue::open(folder.path(), LARGE).unwrap();
    assert_eq!(texts(&queue, true).await, ["b"]);
}
