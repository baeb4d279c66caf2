//! Unwind tables of executables: asked for, built in the background hottest first, published to the kernel side.
//!
//! The agent's thread owns all state; workers only turn files into rows. One table per content, however many copies of
//! a file lie in however many containers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::executable::Executable;
use super::executables::Executables;
use super::kernel_side::{KernelSide, KernelSideError, TableId};
use super::table_cache::TableCache;
use super::table_maker::TableMaker;
use super::table_use::Uses;
use super::unwind_image::NoTable;
use crate::agent::host::release_freed_memory;
use crate::agent::tables::TableImage;
use crate::model::FileId;

/// Most files that wait for a worker. What is beyond is asked for again when it is sampled.
const MAX_WAITING: usize = 4096;
/// Finished tables that wait for the agent's thread: workers stop beyond, so that rows never pile up in memory.
const MAX_FINISHED: usize = 8;

/// What is known of the table of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Published(TableId),
    /// There was no room, or it was needed for others. Asked for again when sampled, but not before then.
    Refused(Instant),
    /// Without rows, or not readable. Frame pointers are all there is.
    None,
}

/// What others may know of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableState {
    /// There.
    Published(TableId),
    /// Coming.
    Pending,
    /// Neither: no rows, not readable, or no room.
    None,
}

impl TableState {
    /// The table, if it is there.
    pub(crate) fn id(self) -> Option<TableId> {
        match self {
            Self::Published(table) => Some(table),
            Self::Pending | Self::None => None,
        }
    }
}

/// How long a refused or evicted table is not built again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The same when others were evicted for it: their pages are free after the kernel side's grace of a second.
const ROOM_COMES_WITHIN: Duration = Duration::from_secs(2);

/// Counts of what came of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableCounts {
    /// Published now.
    pub(crate) published: u64,
    /// Files that cannot be read or hold no unwind information.
    pub(crate) without: u64,
    /// Refused because the kernel side is full.
    pub(crate) refused: u64,
    /// Given back to make room: no process maps them.
    pub(crate) retired: u64,
    /// Given up, though mapped, for tables that are used more.
    pub(crate) evicted: u64,
    /// Taken from the disk cache.
    pub(crate) cached: u64,
}

/// Queue, workers and states.
#[derive(Debug)]
pub(crate) struct TableBuilder {
    shared: Arc<Shared>,
    states: HashMap<FileId, State>,
    counts: TableCounts,
    uses: Uses,
    wake: io::PipeReader,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    maker: TableMaker,
    queue: Mutex<Queue>,
    /// Work has come, room has come, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// By heat (negated, hottest first), then order of arrival.
    waiting: BTreeMap<(i64, u64), Arc<Executable>>,
    place: HashMap<FileId, (i64, u64)>,
    arrivals: u64,
    finished: Vec<(FileId, Result<TableImage, NoTable>)>,
    in_work: usize,
    stop: bool,
}

impl Queue {
    fn take(&mut self) -> Option<Arc<Executable>> {
        let (_, executable) = self.waiting.pop_first()?;
        self.place.remove(&executable.file_id);
        self.in_work += 1;
        Some(executable)
    }
}

impl TableBuilder {
    /// Starts `workers` threads. With a cache they look there first, and keep there what they build.
    ///
    /// # Errors
    /// When the system gives no threads or no pipe.
    pub(crate) fn start(
        executables: &Arc<Executables>,
        workers: usize,
        cache: Option<TableCache>,
    ) -> io::Result<Self> {
        let (wake, ring) = io::pipe()?;
        let shared = Arc::new(Shared {
            maker: TableMaker::with_cache(cache),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut builder = Self {
            shared,
            states: HashMap::new(),
            counts: TableCounts::default(),
            uses: Uses::default(),
            wake,
            workers: Vec::new(),
        };
        for number in 0..workers.max(1) {
            let (shared, executables) = (Arc::clone(&builder.shared), Arc::clone(executables));
            let ring = ring.try_clone()?;
            let thread = std::thread::Builder::new().name(format!("agent-tables-{number}"));
            builder.workers.push(thread.spawn(move || work(&shared, &executables, ring))?);
        }
        Ok(builder)
    }

    /// What is to be expected of the table of an executable.
    pub(crate) fn table(&self, executable: &Executable) -> TableState {
        match self.states.get(&executable.file_id) {
            Some(State::Published(table)) => TableState::Published(*table),
            Some(State::Waiting) => TableState::Pending,
            Some(State::Refused(_) | State::None) | None => TableState::None,
        }
    }

    /// Asks for the table of an executable. Larger `heat` comes first; asking again only makes it hotter.
    pub(crate) fn ask(&mut self, executable: &Arc<Executable>, heat: i64) {
        let file_id = executable.file_id;
        match self.states.get(&file_id) {
            None => {}
            Some(State::Waiting) if heat > 0 => {}
            Some(State::Refused(until)) if heat > 0 && Instant::now() >= *until => {
                self.states.remove(&file_id);
            }
            Some(_) => return,
        }
        let mut queue = self.shared.queue.lock();
        match queue.place.get(&file_id).copied() {
            Some(place) if -place.0 >= heat => return,
            Some(place) => {
                queue.waiting.remove(&place);
            }
            // In a worker's hands.
            None if self.states.contains_key(&file_id) => return,
            None if queue.waiting.len() >= MAX_WAITING => return,
            None => {
                self.states.insert(file_id, State::Waiting);
                self.uses.asked(file_id, &executable.heat);
            }
        }
        queue.arrivals += 1;
        let place = (-heat, queue.arrivals);
        queue.place.insert(file_id, place);
        queue.waiting.insert(place, Arc::clone(executable));
        self.shared.changed.notify_one();
    }

    /// Publishes what workers have finished. Returns the contents that this was about, with or without a table now, and those
    /// whose table was evicted.
    pub(crate) fn publish(
        &mut self,
        kernel: &mut dyn KernelSide,
        is_mapped: impl Fn(FileId) -> bool,
    ) -> Vec<FileId> {
        self.uses.fade(Instant::now());
        let finished = std::mem::take(&mut self.shared.queue.lock().finished);
        if finished.is_empty() {
            return Vec::new();
        }
        self.shared.changed.notify_all();
        drain(&mut self.wake, finished.len());
        let mut settled = Vec::with_capacity(finished.len());
        for (file_id, table) in finished {
            let state = match table {
                Ok(table) if !table.is_empty() => {
                    self.publish_one(file_id, &table, kernel, &is_mapped, &mut settled)
                }
                Ok(_) => State::None,
                Err(error) => {
                    tracing::debug!(file = %file_id, "no unwind table: {error}");
                    State::None
                }
            };
            self.counts.without += u64::from(state == State::None);
            self.states.insert(file_id, state);
            settled.push(file_id);
        }
        settled
    }

    fn publish_one(
        &mut self,
        file_id: FileId,
        table: &TableImage,
        kernel: &mut dyn KernelSide,
        is_mapped: &impl Fn(FileId) -> bool,
        evicted: &mut Vec<FileId>,
    ) -> State {
        let mut answer = kernel.publish_image(table);
        if matches!(answer, Err(KernelSideError::PoolFull { .. }))
            && self.retire_unmapped(kernel, is_mapped) > 0
        {
            answer = kernel.publish_image(table);
        }
        match answer {
            Ok(id) => {
                self.counts.published += 1;
                self.uses.published(file_id, table.bytes().max(1));
                State::Published(id)
            }
            Err(KernelSideError::PoolFull { .. })
                if self.evict_for(file_id, table.bytes(), kernel, evicted) =>
            {
                State::Refused(Instant::now() + ROOM_COMES_WITHIN)
            }
            Err(error) => {
                self.counts.refused += 1;
                tracing::warn!(file = %file_id, rows = table.source_rows(), "unwind table not published: {error}");
                State::Refused(Instant::now() + REFUSED_FOR)
            }
        }
    }

    /// Gives up tables that are used much less than that of `file_id` would be. The processes that map them lose them at
    /// once; the room comes when no program can be reading them any more.
    fn evict_for(
        &mut self,
        file_id: FileId,
        bytes: u64,
        kernel: &mut dyn KernelSide,
        evicted: &mut Vec<FileId>,
    ) -> bool {
        let victims = self.uses.colder_than(file_id, bytes);
        for victim in &victims {
            let refused = State::Refused(Instant::now() + REFUSED_FOR);
            if let Some(State::Published(table)) = self.states.insert(*victim, refused) {
                kernel.retire(table);
                self.counts.published -= 1;
                self.counts.evicted += 1;
            }
            self.uses.forget(*victim);
            evicted.push(*victim);
        }
        !victims.is_empty()
    }

    /// Gives back tables of files that no process maps. Returns how many.
    fn retire_unmapped(&mut self, kernel: &mut dyn KernelSide, is_mapped: impl Fn(FileId) -> bool) -> u64 {
        let before = self.counts.retired;
        let (counts, uses) = (&mut self.counts, &mut self.uses);
        self.states.retain(|file_id, state| match state {
            State::Published(table) if !is_mapped(*file_id) => {
                kernel.retire(*table);
                uses.forget(*file_id);
                counts.retired += 1;
                counts.published -= 1;
                false
            }
            _ => true,
        });
        self.counts.retired - before
    }

    /// Forgets contents that the registry has forgotten.
    pub(crate) fn forget(&mut self, files: &[FileId], kernel: &mut dyn KernelSide) {
        for file_id in files {
            self.uses.forget(*file_id);
            match self.states.get(file_id) {
                Some(State::Published(table)) => {
                    kernel.retire(*table);
                    self.counts.retired += 1;
                    self.counts.published -= 1;
                    self.states.remove(file_id);
                }
                Some(State::Refused(_) | State::None) => {
                    self.states.remove(file_id);
                }
                Some(State::Waiting) | None => {}
            }
        }
    }

    /// Files that wait or are in work.
    pub(crate) fn pending(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.waiting.len() + queue.in_work + queue.finished.len()
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> TableCounts {
        TableCounts { cached: self.shared.maker.cached(), ..self.counts }
    }

    /// Becomes readable when a table is finished.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for TableBuilder {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.stop = true;
            queue.waiting.clear();
        }
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so already; there is nobody to tell here.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, executables: &Executables, mut ring: io::PipeWriter) {
    use std::io::Write;
    loop {
        let executable = {
            let mut queue = shared.queue.lock();
            loop {
                if queue.stop {
                    return;
                }
                if queue.finished.len() < MAX_FINISHED
                    && let Some(executable) = queue.take()
                {
                    break executable;
                }
                shared.changed.wait(&mut queue);
            }
        };
        let table =
            shared.maker.image_of(executable.file_id, Some(&executable), || executables.handle(&executable));
        let mut queue = shared.queue.lock();
        queue.in_work -= 1;
        queue.finished.push((executable.file_id, table));
        let calm = queue.waiting.is_empty() && queue.in_work == 0;
        drop(queue);
        if calm {
            release_freed_memory();
        }
        // One byte per finished table; the pipe holds 64 KiB, far more than MAX_FINISHED.
        let _ = ring.write_all(&[0]);
    }
}

/// Takes as many bytes out of the pipe as tables were taken, so that it falls silent.
fn drain(wake: &mut io::PipeReader, count: usize) {
    use std::io::Read;
    let mut bytes = [0; 64];
    // The worker writes its byte after the table is there, so reading may wait for a moment at most.
    let _ = wake.read_exact(&mut bytes[..count.min(64)]);
}

#[cfg(test)]
pub(crate) mod tests;
