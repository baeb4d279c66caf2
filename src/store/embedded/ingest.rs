//! The one thread that writes: takes whatever waits, commits it in one transaction, then acknowledges.
//!
//! A commit costs a sync of the disk whatever its size, so waiting batches share one. An acknowledged batch is durable;
//! a refused one has left no trace but numbers in memory that nobody points to.

use std::collections::HashMap;
use std::sync::Arc;

use redb::ReadableTable;
use tokio::sync::{mpsc, oneshot};

use super::super::document::{Documents, Host, StackFrame};
use super::super::{Error, Result};
use super::codec::{put_text, put_u64};
use super::core::Core;
use super::dictionary::Dictionaries;
use super::dictionary::logs::{self, Marks};
use super::head::{self, Columns, Row};
use super::queue::{self, Change, Changes};
use super::tables;
use crate::model::{FileId, FrameId, UnixNanos, UnknownReason};

/// Samples of one transaction at most; a single batch may be larger.
const COMMIT_ROWS: usize = 500_000;
/// Samples of one batch at most.
const BATCH_ROWS: usize = 16_000_000;
/// Values of one dictionary at most: numbers travel as `i32` in Parquet files and stay positive there.
const MAX_VALUES: usize = i32::MAX as usize - BATCH_ROWS;

/// Where the outcome of a command goes.
pub(super) type Reply = oneshot::Sender<Result<()>>;

/// Work for the ingest thread.
#[derive(Debug)]
pub(super) enum Command {
    /// [`crate::store::Writer::write`]
    Write(Documents),
    /// [`crate::store::Queue::name`]
    Name(Vec<StackFrame>),
    /// [`crate::store::Queue::give_up`]
    GiveUp {
        /// Executable.
        file: FileId,
        /// Addresses.
        addresses: Vec<u64>,
        /// Why.
        reason: UnknownReason,
        /// Next attempt.
        retry_at: Option<UnixNanos>,
    },
}

/// What one transaction adds beside dictionary values.
#[derive(Debug, Default)]
struct Staged {
    rows: Columns,
    names: Changes,
    executables: HashMap<FileId, super::super::document::Executable>,
    hosts: HashMap<Arc<str>, Vec<u8>>,
}

/// Runs until the sender is gone. `sequence` is the number of the next commit.
pub(super) fn run(core: &Core, mut commands: mpsc::Receiver<(Command, Reply)>, mut sequence: u64) {
    while let Some((command, reply)) = commands.blocking_recv() {
        let mut staged = Staged::default();
        let mut replies = Vec::new();
        let mut next = Some((command, reply));
        let refusal = refuse_when_full(core);
        while let Some((command, reply)) = next {
            match refusal.as_ref().map_or_else(|| stage(core, command, &mut staged), |e| Err(repeat(e))) {
                Ok(()) => replies.push(reply),
                // A caller that has gone away does not want to know.
                Err(error) => drop(reply.send(Err(error))),
            }
            next = if staged.rows.len() < COMMIT_ROWS { commands.try_recv().ok() } else { None };
        }
        if replies.is_empty() {
            continue;
        }
        let outcome = commit(core, staged, sequence);
        note_health(core, &outcome);
        sequence += u64::from(outcome.is_ok());
        for reply in replies {
            drop(reply.send(outcome.as_ref().map_or_else(|e| Err(repeat(e)), |()| Ok(()))));
        }
    }
}

/// Refuses before anything is touched when the disk is nearly full.
fn refuse_when_full(core: &Core) -> Option<Error> {
    let full = core.layout.free_bytes().is_some_and(|free| free < core.settings.reserve_bytes);
    let error = full.then(|| Error::DiskFull { path: core.layout.root().to_owned() })?;
    note_health(core, &Err(repeat(&error)));
    Some(error)
}

/// Remembers why writing is refused, and says so once.
fn note_health(core: &Core, outcome: &Result<()>) {
    let mut refusing = core.refusing.lock();
    match outcome {
        Ok(()) => {
            if refusing.take().is_some() {
                tracing::info!("store writes again");
            }
        }
        Err(error) => {
            let text = error.to_string();
            if refusing.as_ref() != Some(&text) {
                tracing::error!(%error, "store refuses to write");
                *refusing = Some(text);
            }
        }
    }
}

/// The same error for the next caller.
fn repeat(error: &Error) -> Error {
    match error {
        Error::DiskFull { path } => Error::DiskFull { path: path.clone() },
        Error::Overloaded { waiting } => Error::Overloaded { waiting: *waiting },
        Error::Corrupt { path, problem } => Error::Corrupt { path: path.clone(), problem: problem.clone() },
        other => Error::Engine(other.to_string()),
    }
}

/// Turns a command into rows and changes. All or nothing: a command that is refused leaves no row.
fn stage(core: &Core, command: Command, staged: &mut Staged) -> Result<()> {
    match command {
        Command::Write(documents) => stage_documents(&mut core.dictionaries.write(), documents, staged),
        Command::Name(frames) => {
            stage_names(frames, &mut staged.names);
            Ok(())
        }
        Command::GiveUp { file, addresses, reason, retry_at } => {
            let reason = queue::encode_reason(&reason);
            for address_or_line in addresses {
                let key = FrameId { file, address_or_line }.to_bytes();
                staged.names.insert(key, Change::Failed { reason: reason.clone(), retry_at });
            }
            Ok(())
        }
    }
}

fn stage_names(frames: Vec<StackFrame>, names: &mut Changes) {
    for frame in frames.into_iter().filter(|f| !f.lines.is_empty()) {
        names.insert(frame.id.to_bytes(), Change::Named(queue::encode_lines(&frame.lines)));
    }
}

fn stage_documents(d: &mut Dictionaries, documents: Documents, staged: &mut Staged) -> Result<()> {
    check(d, &documents)?;
    for trace in &documents.stacktraces {
        d.intern_stack(trace);
    }
    let resources: Vec<u32> = documents.resources.iter().map(|r| d.resources.intern(r).0).collect();
    for event in &documents.events {
        let row = Row {
            resource: resources[event.resource as usize],
            stack: d.intern_stack_id(event.stack),
            thread: d.threads.intern(&event.thread_name).0,
            tid: event.tid,
            time_ms: 0,
            pid: event.pid,
        };
        staged.rows.push_times(row, event.times.iter().map(|t| t.millis() as i64));
    }
    for id in documents.unnamed {
        staged.names.entry(id.to_bytes()).or_insert(Change::Unnamed);
    }
    stage_names(documents.stackframes, &mut staged.names);
    for executable in documents.executables {
        if d.executables.get(&executable.id) != Some(&executable) {
            staged.executables.insert(executable.id, executable);
        }
    }
    for host in documents.hosts {
        staged.hosts.insert(Arc::clone(&host.id), encode_host(&host));
    }
    Ok(())
}

/// Everything that can be wrong with a batch, looked at before anything is taken from it.
fn check(d: &Dictionaries, documents: &Documents) -> Result<()> {
    let resources = documents.resources.len();
    if let Some(event) = documents.events.iter().find(|e| e.resource as usize >= resources) {
        let found = event.resource;
        return Err(Error::Engine(format!(
            "batch: an event points to resource {found}, there are {resources}"
        )));
    }
    let rows: usize = documents.events.iter().map(|e| e.times.len()).sum();
    if rows > BATCH_ROWS {
        return Err(Error::TooMuch { what: format!("batch of {rows} samples"), limit: BATCH_ROWS as u64 });
    }
    let new: usize = documents.stacktraces.iter().map(|s| s.frames.len()).sum::<usize>()
        + documents.events.len()
        + documents.stacktraces.len();
    let largest = d.nodes.len().max(d.stacks.len()).max(d.frames.len());
    if largest.saturating_add(new) > MAX_VALUES {
        return Err(Error::TooMuch { what: "dictionary".into(), limit: MAX_VALUES as u64 });
    }
    Ok(())
}

fn encode_host(host: &Host) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, &host.name);
    put_u64(&mut out, host.facts.len() as u64);
    for (key, value) in &host.facts {
        put_text(&mut out, key);
        put_text(&mut out, value);
    }
    out
}

/// One durable transaction; afterwards the samples are visible.
fn commit(core: &Core, staged: Staged, sequence: u64) -> Result<()> {
    let mut marks = core.marks.lock();
    let persisted;
    let delta = {
        let d = core.dictionaries.read();
        persisted = Marks::of(&d);
        core.database.write(|txn| {
            logs::append(txn, &d, &marks.persisted)?;
            let mut head = txn.open_table(tables::HEAD)?;
            // A commit that failed in its last step may have happened after all; its caller was told otherwise.
            head.retain_in(sequence.., |_, _| false)?;
            if staged.rows.len() > 0 {
                head.insert(sequence, head::encode(&staged.rows, 0).as_slice())?;
            }
            drop(head);
            let mut executables: Vec<_> = staged.executables.values().collect();
            executables.sort_unstable_by_key(|e| e.id);
            let mut table = txn.open_table(tables::EXECUTABLES)?;
            for executable in executables {
                table.insert(executable.id.0, logs::put_executable(executable).as_slice())?;
            }
            drop(table);
            let mut table = txn.open_table(tables::HOSTS)?;
            for (id, value) in &staged.hosts {
                let known = table.get(&**id)?.is_some_and(|old| old.value() == value.as_slice());
                if !known {
                    table.insert(&**id, value.as_slice())?;
                }
            }
            drop(table);
            queue::apply(txn, &staged.names)
        })?
    };
    marks.persisted = persisted;
    {
        let mut d = core.dictionaries.write();
        marks.late = marks.late.into_iter().chain(d.late.drain(..)).min();
        d.executables.extend(staged.executables);
    }
    drop(marks);
    core.pending.lock().apply(delta);
    if staged.rows.len() > 0 {
        core.state.write().append(sequence, core.now_ms(), staged.rows);
    }
    Ok(())
}
