//! The disk queue: bulk bodies that Elasticsearch has not taken yet, in files that survive a restart.
//!
//! One thread appends: whatever waits is written together, synced once and only then acknowledged. Bodies come out in
//! the order they went in and are forgotten when Elasticsearch has answered for them. Knows nothing of HTTP. Bounded by
//! bytes; what is beyond is refused, never dropped.

mod appender;
mod position;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::BulkBody;
use appender::Append;
use position::Position;
use record::HEADER;
use segment::MAGIC;

/// Groups of bodies that wait for the appending thread; their bytes are bounded by the writer.
const WAITING: usize = 256;
/// A segment is left for the next one at this size, so that space is given back in small steps.
const SEGMENT_BYTES: u64 = 64 << 20;
/// The position is written at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// File of [`DiskQueue::note`].
const NOTE: &str = "note";

/// Why the queue does not take or does not open.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No room within its size.
    #[error("the disk queue {path} is full ({bytes} of {max_bytes} bytes)")]
    Full {
        /// Directory.
        path: PathBuf,
        /// Bytes in it.
        bytes: u64,
        /// Its limit.
        max_bytes: u64,
    },
    /// No room on the disk.
    #[error("no space left for {path}")]
    DiskFull {
        /// Directory.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error("{path} is in use by another everflame process")]
    InUse {
        /// Directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// Verb in the present tense.
        action: &'static str,
        /// Directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It has been closed.
    #[error("the disk queue is closed")]
    Closed,
}

/// A queue of one directory.
#[derive(Debug)]
pub struct DiskQueue {
    shared: Arc<Shared>,
    appends: Mutex<Option<mpsc::Sender<Append>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Held while the queue is open.
    _lock: File,
}

/// What the appending thread and the readers share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    state: Mutex<State>,
    /// Told when there is more to take.
    grown: Notify,
    damaged: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Oldest first; the last may still grow.
    segments: VecDeque<Segment>,
    /// Where the next body is taken.
    read: Position,
    /// Bodies taken and not done, in order: end, and whether it is done.
    taken: VecDeque<Taken>,
    next_id: u64,
    /// Everything before has been answered for.
    done: Position,
    saved: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// Bytes that are durable.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    id: u64,
    end: Position,
    done: bool,
}

/// Bodies to send, as one.
#[derive(Debug)]
pub struct Load {
    /// For [`DiskQueue::done`].
    pub id: u64,
    /// The bodies, joined.
    pub body: BulkBody,
}

/// A body in the form it has on disk.
#[derive(Debug)]
pub struct Packed(Vec<u8>);

impl Packed {
    /// Packs a body; takes some milliseconds for a megabyte. `None` when it is beyond what a record holds.
    #[must_use]
    pub fn new(body: &BulkBody) -> Option<Self> {
        record::pack(body).map(Self)
    }
}

impl DiskQueue {
    /// Opens the queue of `folder`, which is made when missing. What a crash cut off in the middle is left out.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, QueueError> {
        let io = |action| move |source: io::Error| failed(action, folder, source);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("create"))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(io("open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(QueueError::InUse { path: folder.into() }),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", folder, source)),
        }
        let mut done = Position::load(folder);
        let mut segments = VecDeque::new();
        let numbers = segment::list(folder).map_err(io("read"))?;
        for number in numbers.iter().copied() {
            if number < done.segment {
                // Answered for, but not yet removed when the process ended.
                fs::remove_file(segment::path(folder, number)).map_err(io("remove"))?;
                continue;
            }
            let path = segment::path(folder, number);
            let mut end = fs::metadata(&path).map_err(io("read"))?.len();
            // Only the last one can have been written to when the process ended.
            if Some(&number) == numbers.last() {
                let start = if number == done.segment { done.offset } else { 0 };
                let contents = segment::scan(folder, number, start).map_err(io("read"))?;
                if contents.rest > 0 {
                    tracing::warn!(
                        bytes = contents.rest,
                        "disk queue: the end of the last file was cut in the middle of a write and is left out; nobody was told that it is stored"
                    );
                    let file = OpenOptions::new().write(true).open(&path).map_err(io("open"))?;
                    file.set_len(contents.end).and_then(|()| file.sync_all()).map_err(io("cut"))?;
                }
                end = contents.end;
            }
            segments.push_back(Segment { number, end });
        }
        // A number is never used again: the position on the disk may be older than the files.
        let next_number = numbers.last().map_or(0, |last| last + 1).max(done.segment + 1);
        let first = segments.front().map_or(next_number, |segment: &Segment| segment.number);
        if done.segment != first {
            done = Position { segment: first, offset: 0 };
        }
        done.offset = done.offset.max(MAGIC.len() as u64);
        let state =
            State { segments, read: done, taken: VecDeque::new(), next_id: 0, done, saved: Instant::now() };
        let shared = Arc::new(Shared {
            folder: folder.into(),
            max_bytes,
            segment_bytes: SEGMENT_BYTES.min(max_bytes / 8),
            state: Mutex::new(state),
            grown: Notify::new(),
            damaged: AtomicU64::new(0),
        });
        let (appends, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("everflame-queue".into());
        let theirs = shared.clone();
        let thread =
            thread.spawn(move || appender::run(&theirs, waiting, next_number)).map_err(io("start"))?;
        Ok(Self { shared, appends: Mutex::new(Some(appends)), thread: Mutex::new(Some(thread)), _lock: lock })
    }

    /// Appends bodies. `Ok` means that all of them are on the disk.
    ///
    /// # Errors
    /// When there is no room, or the system refuses; none of the bodies is in the queue then.
    pub async fn append(&self, bodies: Vec<Packed>) -> Result<(), QueueError> {
        let appends = self.appends.lock().clone().ok_or(QueueError::Closed)?;
        let (reply, answer) = oneshot::channel();
        appends.send(Append { bodies, reply }).await.map_err(|_| QueueError::Closed)?;
        answer.await.map_err(|_| QueueError::Closed)?
    }

    /// The next bodies, together about `bytes`; `None` when all have been taken. They are taken again after a restart
    /// unless [`DiskQueue::done`] was called for them.
    pub async fn take(&self, bytes: usize) -> Option<Load> {
        let shared = self.shared.clone();
        // The runtime is going away: nothing more is taken, and all of it stays on the disk.
        tokio::task::spawn_blocking(move || shared.take(bytes)).await.ok().flatten()
    }

    /// Waits until there may be more to take.
    pub async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// Elasticsearch has answered for what was taken under this number.
    pub fn done(&self, id: u64) {
        self.shared.done(id);
    }

    /// Bytes in the queue.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.state.lock().bytes()
    }

    /// A line that the caller has left here, for example before a restart.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        fs::read_to_string(self.shared.folder.join(NOTE)).ok()
    }

    /// Leaves a line.
    pub fn set_note(&self, line: &str) {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.shared.folder.join(NOTE));
        if let Err(error) = file.and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes())) {
            tracing::warn!(%error, "disk queue: what documents look like was not kept; after a restart it waits for Elasticsearch");
        }
    }

    /// Records that could not be read any more.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// Ends the appending thread after what waits is written, and keeps the position.
    pub fn close(&self) {
        drop(self.appends.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A thread that panicked has been told of already.
            let _ = thread.join();
        }
        let done = self.shared.state.lock().done;
        self.shared.save(done);
    }
}

impl Drop for DiskQueue {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Moves a position at the end of a segment to the beginning of the next one.
    fn forward(&self, mut position: Position) -> Position {
        while let Some(at) = self.segments.iter().position(|segment| segment.number == position.segment)
            && position.offset >= self.segments[at].end
            && let Some(next) = self.segments.get(at + 1)
        {
            position = Position { segment: next.number, offset: MAGIC.len() as u64 };
        }
        position
    }
}

impl Shared {
    fn take(&self, bytes: usize) -> Option<Load> {
        let mut body = BulkBody::default();
        let mut file: Option<(u64, File)> = None;
        // One reader at a time: the next one begins where this one ends.
        let mut state = self.state.lock();
        while body.bytes.len() < bytes {
            state.read = match state.segments.front() {
                None => break,
                Some(first) if state.read.segment < first.number => {
                    Position { segment: first.number, offset: MAGIC.len() as u64 }
                }
                Some(_) => state.forward(state.read),
            };
            let at = state.read;
            let Some(end) = state.segments.iter().find(|s| s.number == at.segment).map(|s| s.end) else {
                break;
            };
            if at.offset >= end {
                break;
            }
            if file.as_ref().is_none_or(|(number, _)| *number != at.segment) {
                file =
                    File::open(segment::path(&self.folder, at.segment)).ok().map(|file| (at.segment, file));
            }
            let next = match file.as_ref().map(|(_, file)| read(file, at.offset, end, &mut body)) {
                Some(Ok(next)) => next,
                Some(Err(Skip { to, problem })) => {
                    self.lost(at, &problem);
                    to
                }
                None => {
                    self.lost(at, "the file cannot be opened");
                    end
                }
            };
            state.read.offset = next;
        }
        if body.items.is_empty() {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        let end = state.read;
        state.taken.push_back(Taken { id, end, done: false });
        Some(Load { id, body })
    }

    fn lost(&self, at: Position, problem: &str) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let path = segment::path(&self.folder, at.segment);
        tracing::error!(path = %path.display(), offset = at.offset, "disk queue: documents are lost: {problem}");
    }

    fn done(&self, id: u64) {
        let mut state = self.state.lock();
        let Some(taken) = state.taken.iter_mut().find(|taken| taken.id == id) else { return };
        taken.done = true;
        while let Some(first) = state.taken.front().copied().filter(|first| first.done) {
            state.taken.pop_front();
            state.done = first.end;
        }
        state.done = state.forward(state.done);
        let mut finished = Vec::new();
        while state.segments.front().is_some_and(|segment| segment.number < state.done.segment) {
            finished.extend(state.segments.pop_front().map(|segment| segment.number));
        }
        let save = (!finished.is_empty() || state.saved.elapsed() >= SAVE_EVERY).then_some(state.done);
        if save.is_some() {
            state.saved = Instant::now();
        }
        drop(state);
        if let Some(position) = save {
            self.save(position);
        }
        for number in finished {
            if let Err(error) = fs::remove_file(segment::path(&self.folder, number)) {
                tracing::warn!(%error, number, "disk queue: an empty file stays until the next start");
            }
        }
    }

    fn save(&self, position: Position) {
        if let Err(error) = position.store(&self.folder) {
            tracing::warn!(%error, "disk queue: its position was not kept; after a restart some documents are sent again");
        }
    }
}

/// Why a record was passed over, and where reading goes on.
struct Skip {
    to: u64,
    problem: String,
}

/// Adds the record at `offset` to `body` and gives the offset behind it.
fn read(file: &File, offset: u64, end: u64, body: &mut BulkBody) -> Result<u64, Skip> {
    let rest_is_lost = |error: io::Error| Skip { to: end, problem: format!("the rest of a file: {error}") };
    let header = segment::header_at(file, offset, end).map_err(rest_is_lost)?;
    let mut payload = vec![0; header.payload_bytes()];
    file.read_exact_at(&mut payload, offset + HEADER as u64).map_err(rest_is_lost)?;
    let next = offset + (HEADER + payload.len()) as u64;
    let one = header
        .unpack(&payload)
        .map_err(|damage| Skip { to: next, problem: format!("one record: {damage}") })?;
    let before = body.bytes.len();
    body.bytes.extend_from_slice(&one.bytes);
    body.items.extend(one.items.into_iter().map(|item| super::Item { end: before + item.end, ..item }));
    Ok(next)
}

fn failed(action: &'static str, folder: &Path, source: io::Error) -> QueueError {
    if source.kind() == io::ErrorKind::StorageFull {
        return QueueError::DiskFull { path: folder.into() };
    }
    QueueError::Io { action, path: folder.into(), source: Arc::new(source) }
}
