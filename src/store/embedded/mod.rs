//! The store that needs nothing else: one directory, one process.
//!
//! redb holds what changes (dictionaries, names, queue, manifest, recent head), Parquet files hold the samples. The
//! layout is described in `docs/store.md`. Knows nothing of wires and pages; blocking work never runs on the async
//! threads. Writing is one thread (`ingest`), upkeep another (`upkeep`), questions run on the blocking pool (`query`).

mod codec;
mod core;
mod database;
mod dictionary;
mod head;
mod ingest;
mod layout;
mod parquet_file;
mod query;
mod queue;
mod segment;
mod settings;
mod tables;
mod upkeep;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use redb::ReadableTable;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::document::{Documents, StackFrame};
use super::{
    Error, EventQuestion, EventSet, FrameDetail, GroupCount, Health, HostFacts, PendingFile, Queue, Reader,
    Result, StackSet, StoreStatus, TimeGrid, Timeline, Writer, Written,
};
use crate::model::{Dimension, FileId, FrameId, Selection, TimeRange, UnixNanos, UnknownReason};
use core::{Core, LogMarks, State};
use database::{Database, Fault};
use dictionary::logs::{self, Marks};
use head::Columns;
use ingest::{Command, Reply};
use layout::{Layout, Part};
use queue::PendingFiles;
pub use settings::{Clock, Settings};
pub use upkeep::repair::RepairReport;
use upkeep::{Exports, UpkeepState};

/// How many times the head's nominal size may wait for upkeep before writing is refused.
const HEAD_LIMIT: usize = 8;

/// An open embedded store. Closing waits for the commit under way; nothing acknowledged is ever lost by not closing.
#[derive(Debug)]
pub struct EmbeddedStore {
    core: Arc<Core>,
    commands: Mutex<Option<mpsc::Sender<(Command, Reply)>>>,
    stop_upkeep: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    readers: Arc<Semaphore>,
}

impl EmbeddedStore {
    /// Opens the store at the path of the settings; makes it when there is none.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it, [`Error::Version`] when it is newer than this program,
    /// [`Error::Corrupt`] with the damaged file when it cannot be trusted.
    pub fn open(settings: Settings) -> Result<Self> {
        let (core, sequence) = open_core(settings)?;
        let core = Arc::new(core);
        let (commands, receiver) = mpsc::channel(core.settings.waiting.max(1));
        let (stop_upkeep, stopped) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        let shared = Arc::clone(&core);
        threads.push(spawn("store-ingest", move || ingest::run(&shared, receiver, sequence))?);
        if let Some(every) = core.settings.upkeep_every {
            let shared = Arc::clone(&core);
            threads.push(spawn("store-upkeep", move || upkeep::run(&shared, every, &stopped))?);
        }
        let readers = Arc::new(Semaphore::new(core.settings.readers.max(1)));
        Ok(Self {
            core,
            commands: Mutex::new(Some(commands)),
            stop_upkeep: Mutex::new(Some(stop_upkeep)),
            threads: Mutex::new(threads),
            readers,
        })
    }

    /// Checks every file of a store that is not open, moves what is damaged out of the way and keeps the rest.
    /// Blocks for as long as it takes to read everything.
    pub fn repair(settings: &Settings) -> Result<RepairReport> {
        upkeep::repair::repair(settings)
    }

    /// Stops both threads after the work they are at. Later writes fail, reads go on.
    pub fn close(&self) {
        self.commands.lock().take();
        self.stop_upkeep.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }

    /// Runs one round of upkeep now, and flushes the head when `flush` is set. Blocks.
    pub fn upkeep(&self, flush: bool) -> Result<()> {
        upkeep::round(&self.core, flush)
    }

    async fn command(&self, command: Command) -> Result<()> {
        let Some(commands) = self.commands.lock().clone() else {
            return Err(Error::Engine("store is closed".into()));
        };
        let (reply, outcome) = oneshot::channel();
        commands.try_send((command, reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded { waiting: commands.max_capacity() },
            mpsc::error::TrySendError::Closed(_) => Error::Engine("store is closed".into()),
        })?;
        outcome.await.unwrap_or_else(|_| Err(Error::Engine("store is closed".into())))
    }

    /// Answers a question on the blocking pool; at most `Settings::readers` at a time.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.core);
        let permit = Arc::clone(&self.readers)
            .acquire_owned()
            .await
            .map_err(|_| Error::Engine("store is closed".into()))?;
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            question(&core)
        });
        answer.await.unwrap_or_else(|e| Err(Error::Engine(format!("question failed: {e}"))))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Writer for EmbeddedStore {
    async fn write(&self, documents: Documents) -> Result<Written> {
        let waiting = self.core.state.read().head_rows();
        if waiting > HEAD_LIMIT * self.core.settings.head_rows {
            return Err(Error::Overloaded { waiting });
        }
        self.command(Command::Write(documents)).await?;
        Ok(Written::default())
    }
}

#[async_trait]
impl Health for EmbeddedStore {
    async fn ready(&self) -> Result<(), String> {
        let status = self.status().await.map_err(|error| error.to_string())?;
        status.refusing.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Reader for EmbeddedStore {
    async fn status(&self) -> Result<StoreStatus> {
        self.ask(|core| Ok(query::status(core))).await
    }

    async fn stacks(&self, selection: &Selection, group_by: Option<Dimension>) -> Result<StackSet> {
        let selection = selection.clone();
        self.ask(move |core| query::stacks::stacks(core, &selection, group_by)).await
    }

    async fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        group_by: Option<Dimension>,
        top: usize,
    ) -> Result<Timeline> {
        let selection = selection.clone();
        self.ask(move |core| query::timeline::timeline(core, &selection, grid, group_by, top)).await
    }

    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
        let ids = ids.to_vec();
        self.ask(move |core| queue::frames(core, &ids)).await
    }

    async fn values(
        &self,
        dimension: Dimension,
        prefix: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<GroupCount>> {
        let prefix = prefix.to_owned();
        self.ask(move |core| query::timeline::values(core, dimension, &prefix, range, limit)).await
    }

    async fn events(&self, question: &EventQuestion) -> Result<EventSet> {
        let question = question.clone();
        self.ask(move |core| query::events::events(core, &question)).await
    }

    async fn hosts(&self, ids: &[Arc<str>], _: TimeRange) -> Result<Vec<HostFacts>> {
        let ids = ids.to_vec();
        self.ask(move |core| query::events::hosts(core, &ids)).await
    }
}

#[async_trait]
impl Queue for EmbeddedStore {
    async fn due(&self, now: UnixNanos, max_files: usize, max_addresses: usize) -> Result<Vec<PendingFile>> {
        self.ask(move |core| queue::due(core, now, max_files, max_addresses)).await
    }

    async fn name(&self, frames: Vec<StackFrame>) -> Result<()> {
        self.command(Command::Name(frames)).await
    }

    async fn give_up(
        &self,
        file: FileId,
        addresses: &[u64],
        reason: &UnknownReason,
        retry_at: Option<UnixNanos>,
    ) -> Result<()> {
        let (addresses, reason) = (addresses.to_vec(), reason.clone());
        self.command(Command::GiveUp { file, addresses, reason, retry_at }).await
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::Engine(format!("start thread {name}: {e}")))
}

/// Reads everything that is held in memory. Returns the sequence number of the next commit beside it.
fn open_core(settings: Settings) -> Result<(Core, u64)> {
    let layout = Layout::open(&settings.path)?;
    let lock = layout.lock()?;
    let database = Database::open(layout.database())?;
    make_tables(&database)?;
    let (dictionaries, gathered) = logs::load(&database, &layout.database())?;
    let (state, sequence) = load_head(&database, &layout.database(), (settings.clock)().millis() as i64)?;
    let segments = upkeep::load_segments(&database, &layout)?;
    let exports = Exports::load(&database)?;
    let next_file = next_file(&database)?;
    sweep(&layout, &segments, &exports)?;
    let marks = LogMarks { persisted: Marks::of(&dictionaries), gathered, late: None };
    let core = Core {
        pending: Mutex::new(PendingFiles::load(&database)?),
        settings,
        layout,
        database,
        dictionaries: RwLock::new(dictionaries),
        marks: Mutex::new(marks),
        state: RwLock::new(State { segments, ..state }),
        upkeep: Mutex::new(UpkeepState::new(next_file, exports)),
        refusing: Mutex::new(None),
        _lock: lock,
    };
    Ok((core, sequence))
}

/// Makes the tables that are missing, so that readers find them.
fn make_tables(database: &Database) -> Result<()> {
    let missing = database.read(|txn| Ok(txn.list_tables()?.count() < 15))?;
    if !missing {
        return Ok(());
    }
    database.write(|txn| {
        for log in logs::Log::ALL {
            txn.open_table(log.table())?;
        }
        txn.open_table(tables::LATE_STACKS)?;
        txn.open_table(tables::EXECUTABLES)?;
        txn.open_table(tables::HOSTS)?;
        txn.open_table(tables::NAMES)?;
        txn.open_table(tables::UNNAMED)?;
        txn.open_table(tables::REASONS)?;
        txn.open_table(tables::HEAD)?;
        txn.open_table(tables::SEGMENTS)?;
        txn.open_table(tables::EXPORTS)?;
        txn.open_table(tables::COUNTERS)?;
        Ok(())
    })
}

fn load_head(database: &Database, path: &Path, now_ms: i64) -> Result<(State, u64)> {
    database.read(|txn| {
        let mut state = State::default();
        let mut next = txn.open_table(tables::COUNTERS)?.get(tables::NEXT_SEQUENCE)?.map_or(0, |n| n.value());
        for entry in txn.open_table(tables::HEAD)?.iter()? {
            let (sequence, blob) = entry?;
            let mut columns = Columns::default();
            head::decode(blob.value(), &mut columns).ok_or_else(|| {
                Fault::Store(Error::Corrupt {
                    path: path.to_owned(),
                    problem: format!("head: commit {} is malformed", sequence.value()),
                })
            })?;
            state.append(sequence.value(), now_ms, columns);
            next = next.max(sequence.value() + 1);
        }
        Ok((state, next))
    })
}

fn next_file(database: &Database) -> Result<u64> {
    database
        .read(|txn| Ok(txn.open_table(tables::COUNTERS)?.get(tables::NEXT_FILE)?.map_or(0, |n| n.value())))
}

/// Deletes files that a crash has left without an entry in the manifest.
fn sweep(layout: &Layout, segments: &[Arc<segment::Segment>], exports: &Exports) -> Result<()> {
    let mut removed = 0;
    for part in Part::ALL {
        let named: Vec<_> = segments
            .iter()
            .filter(|s| s.meta.file(part).is_some())
            .filter_map(|s| s.path(part).file_name().map(|n| n.to_string_lossy().into_owned()))
            .collect();
        removed += Layout::sweep(&layout.folder(part), |name| named.iter().any(|n| n == name))?;
    }
    let named = exports.file_names();
    removed += Layout::sweep(&layout.dictionaries(), |name| named.iter().any(|n| n == name))?;
    if removed > 0 {
        tracing::info!(removed, "deleted files of an interrupted upkeep");
    }
    Ok(())
}
