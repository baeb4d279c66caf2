//! What happens behind the writers' backs: head → young segments → hours → days, ageing, retention, exports.
//!
//! One round at a time, each step a [`Publish`]: files first, then one transaction, then memory. A step that fails
//! leaves the store as it was and is tried again in the next round.

pub(super) mod export;
mod flush;
mod merge;
pub(super) mod repair;
mod retention;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::ReadableTable;

use super::core::Core;
use super::dictionary::logs;
use super::layout::Part;
use super::segment::{Meta, Segment};
use super::tables;
use crate::store::{Error, Result};

pub(super) use export::Exports;

/// Milliseconds of one hour.
const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of one day.
const DAY_MS: i64 = 24 * HOUR_MS;

/// What upkeep remembers between rounds.
#[derive(Debug, Default)]
pub(super) struct UpkeepState {
    /// Number of the next file.
    next_file: u64,
    /// Dictionaries in Parquet form.
    exports: Exports,
    /// A transaction whose outcome the disk did not tell.
    unresolved: Option<Publish>,
}

impl UpkeepState {
    /// As the manifest says.
    pub(super) fn new(next_file: u64, exports: Exports) -> Self {
        Self { next_file, exports, unresolved: None }
    }

    /// A number that no file has had.
    fn file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }
}

/// A change of the manifest.
#[derive(Debug, Default)]
struct Publish {
    /// Segments that appear.
    add: Vec<Meta>,
    /// Segments that go.
    remove: Vec<u64>,
    /// Head commits up to this one are in `add`.
    head_upto: Option<u64>,
    /// Exports that appear and go.
    exports: export::Change,
}

/// Runs rounds until `stop` is gone.
pub(super) fn run(core: &Core, every: Duration, stop: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(every) {
        if let Err(error) = round(core, false) {
            tracing::warn!(%error, "store upkeep failed, trying again");
        }
    }
}

/// One round. With `flush_now` the head becomes a segment whatever its age.
pub(super) fn round(core: &Core, flush_now: bool) -> Result<()> {
    let mut upkeep = core.upkeep.lock();
    resolve(core, &mut upkeep)?;
    let now_ms = core.now_ms();
    flush::flush_due(core, &mut upkeep, now_ms, flush_now)?;
    retention::drop_old(core, &mut upkeep, now_ms)?;
    while merge::merge_one(core, &mut upkeep, now_ms)? {}
    Ok(())
}

/// Finds out what became of a transaction whose outcome was unknown.
fn resolve(core: &Core, upkeep: &mut UpkeepState) -> Result<()> {
    let Some(publish) = upkeep.unresolved.take() else { return Ok(()) };
    match happened(core, &publish) {
        Ok(true) => settle(core, upkeep, publish),
        Ok(false) => discard(core, &publish),
        Err(error) => {
            upkeep.unresolved = Some(publish);
            return Err(error);
        }
    }
    Ok(())
}

fn happened(core: &Core, publish: &Publish) -> Result<bool> {
    core.database.read(|txn| {
        let segments = txn.open_table(tables::SEGMENTS)?;
        for meta in &publish.add {
            if segments.get(meta.id)?.is_none() {
                return Ok(false);
            }
        }
        for id in &publish.remove {
            if segments.get(id)?.is_some() {
                return Ok(false);
            }
        }
        publish.exports.happened(txn)
    })
}

/// Makes a change durable and visible. Its files are complete and synced.
fn publish(core: &Core, upkeep: &mut UpkeepState, publish: Publish) -> Result<()> {
    match transact(core, upkeep, &publish) {
        Ok(()) => {
            settle(core, upkeep, publish);
            Ok(())
        }
        Err(error) => {
            match happened(core, &publish) {
                Ok(true) => {
                    settle(core, upkeep, publish);
                    return Ok(());
                }
                Ok(false) => discard(core, &publish),
                Err(_) => upkeep.unresolved = Some(publish),
            }
            Err(error)
        }
    }
}

fn transact(core: &Core, upkeep: &UpkeepState, publish: &Publish) -> Result<()> {
    // Whoever gathers the runs of the dictionaries must know how long they are.
    let mut marks = core.marks.lock();
    let gathered = {
        let d = core.dictionaries.read();
        core.database.write(|txn| {
            let mut segments = txn.open_table(tables::SEGMENTS)?;
            for meta in &publish.add {
                segments.insert(meta.id, meta.encode().as_slice())?;
            }
            for id in &publish.remove {
                segments.remove(id)?;
            }
            let mut counters = txn.open_table(tables::COUNTERS)?;
            counters.insert(tables::NEXT_FILE, upkeep.next_file)?;
            if let Some(upto) = publish.head_upto {
                txn.open_table(tables::HEAD)?.retain_in(..=upto, |_, _| false)?;
                let before = counters.get(tables::NEXT_SEQUENCE)?.map_or(0, |n| n.value());
                counters.insert(tables::NEXT_SEQUENCE, before.max(upto + 1))?;
            }
            publish.exports.write(txn)?;
            logs::gather(txn, &d, &marks.gathered, &marks.persisted)
        })?
    };
    marks.gathered = gathered;
    Ok(())
}

/// Follows a durable change in memory.
fn settle(core: &Core, upkeep: &mut UpkeepState, publish: Publish) {
    let Publish { add, remove, head_upto, exports } = publish;
    let mut state = core.state.write();
    if let Some(upto) = head_upto {
        state.head.retain(|chunk| chunk.last_sequence > upto);
        state.sealed = None;
    }
    state.segments.retain(|segment| {
        let goes = remove.contains(&segment.meta.id);
        if goes {
            segment.retire();
        }
        !goes
    });
    state.segments.extend(add.into_iter().map(|meta| Arc::new(Segment::new(core.layout.clone(), meta))));
    state.segments.sort_by_key(|s| s.meta.extent());
    drop(state);
    upkeep.exports.settle(&core.layout, exports);
}

/// Removes the files of a change that did not happen.
fn discard(core: &Core, publish: &Publish) {
    for meta in &publish.add {
        for part in Part::ALL {
            // What stays behind is swept at the next start.
            let _ = std::fs::remove_file(core.layout.segment(meta.id, part));
        }
    }
    publish.exports.discard(&core.layout);
}

/// Reads the manifest and checks that its files are there.
pub(super) fn load_segments(
    database: &super::database::Database,
    layout: &super::layout::Layout,
) -> Result<Vec<Arc<Segment>>> {
    let metas: Vec<Meta> = database.read(|txn| {
        let mut metas = Vec::new();
        for entry in txn.open_table(tables::SEGMENTS)?.iter()? {
            let (id, value) = entry?;
            metas.push(Meta::decode(id.value(), value.value()).ok_or_else(|| Error::Corrupt {
                path: layout.database(),
                problem: format!("segments: entry {} is malformed", id.value()),
            })?);
        }
        Ok(metas)
    })?;
    for meta in &metas {
        for part in Part::ALL {
            let Some(file) = meta.file(part) else { continue };
            let path = layout.segment(meta.id, part);
            let found = std::fs::metadata(&path).map_or(0, |m| m.len());
            if found != file.bytes {
                let problem = format!("expected {} bytes, found {found}", file.bytes);
                return Err(Error::Corrupt { path, problem });
            }
        }
    }
    let mut segments: Vec<_> =
        metas.into_iter().map(|meta| Arc::new(Segment::new(layout.clone(), meta))).collect();
    segments.sort_by_key(|s| s.meta.extent());
    Ok(segments)
}
