//! The thread that appends: writes what waits together, syncs once, acknowledges.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Packed, QueueError, Segment, Shared, segment};

/// Bytes that share one sync, about; a sync costs milliseconds whatever its size.
const GROUP_BYTES: usize = 16 << 20;

/// Bodies of one writer.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) bodies: Vec<Packed>,
    pub(super) reply: oneshot::Sender<Result<(), QueueError>>,
}

impl Append {
    fn bytes(&self) -> usize {
        self.bodies.iter().map(|body| body.0.len()).sum()
    }
}

/// The segment that grows.
struct Active {
    number: u64,
    file: File,
    /// Where the next record begins.
    end: u64,
}

/// Runs until the queue is closed. `next_number` is that of the first segment to make.
pub(super) fn run(shared: &Shared, mut waiting: mpsc::Receiver<Append>, mut next_number: u64) {
    let mut active: Option<Active> = None;
    while let Some(first) = waiting.blocking_recv() {
        let mut room = shared.max_bytes.saturating_sub(shared.state.lock().bytes());
        let mut group: Vec<Append> = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(append) = next {
            let size = append.bytes();
            if size as u64 > room {
                let (path, max_bytes) = (shared.folder.clone(), shared.max_bytes);
                let full = QueueError::Full { path, bytes: max_bytes - room, max_bytes };
                // A writer that has gone away does not want to know.
                let _ = append.reply.send(Err(full));
            } else {
                room -= size as u64;
                bytes += size;
                group.push(append);
            }
            next = if bytes < GROUP_BYTES { waiting.try_recv().ok() } else { None };
        }
        if group.is_empty() {
            continue;
        }
        if active.as_ref().is_some_and(|active| active.end >= shared.segment_bytes) {
            active = None;
        }
        match write(shared, &mut active, &mut next_number, &group) {
            Ok(()) => {
                for append in group {
                    let _ = append.reply.send(Ok(()));
                }
                shared.grown.notify_one();
            }
            Err((action, source)) => {
                // What is behind the last sync may or may not be on the disk: nothing more goes into that file.
                if let Some(active) = active.take() {
                    let end = shared
                        .state
                        .lock()
                        .segments
                        .iter()
                        .find(|s| s.number == active.number)
                        .map(|s| s.end);
                    if let Err(error) = active.file.set_len(end.unwrap_or(segment::MAGIC.len() as u64)) {
                        tracing::error!(%error, "disk queue: a failed write cannot be taken back");
                    }
                }
                let source = Arc::new(source);
                for append in group {
                    let error = match source.kind() {
                        io::ErrorKind::StorageFull => QueueError::DiskFull { path: shared.folder.clone() },
                        _ => QueueError::Io { action, path: shared.folder.clone(), source: source.clone() },
                    };
                    let _ = append.reply.send(Err(error));
                }
            }
        }
    }
}

/// Writes and syncs a group; on success its bytes belong to the queue.
fn write(
    shared: &Shared,
    active: &mut Option<Active>,
    next_number: &mut u64,
    group: &[Append],
) -> Result<(), (&'static str, io::Error)> {
    if active.is_none() {
        let number = *next_number;
        *next_number += 1;
        let (file, end) = segment::create(&shared.folder, number).map_err(|error| ("create", error))?;
        shared.state.lock().segments.push_back(Segment { number, end });
        *active = Some(Active { number, file, end });
    }
    let active = active.as_mut().expect("made above when missing");
    let mut end = active.end;
    for body in group.iter().flat_map(|append| &append.bodies) {
        active.file.write_all_at(&body.0, end).map_err(|error| ("write", error))?;
        end += body.0.len() as u64;
    }
    active.file.sync_data().map_err(|error| ("sync", error))?;
    active.end = end;
    if let Some(segment) = shared.state.lock().segments.iter_mut().find(|s| s.number == active.number) {
        segment.end = end;
    }
    Ok(())
}
