//! Names of frames, and the queue of those that have none.
//!
//! Three tables: names, reasons why there is none, and the waiting frames with their attempts and due dates. A frame
//! is in `names` or in one or both of the others. Changed in the transactions of `ingest`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::super::{Error, FrameDetail, PendingFile, Result};
use super::codec::{Bytes, put_text, put_u64};
use super::core::Core;
use super::database::{Database, Fault};
use super::tables;
use crate::model::{FileId, FrameId, SourceLine, UnixNanos, UnknownReason};

/// Functions at one place beyond which a stored value is refused as malformed.
const MAX_LINES: usize = 10_000;

/// Frames for which one more thread is worth its start.
const FRAMES_PER_THREAD: usize = 2048;

/// A change to what is known of a frame.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// It has a name.
    Named(Vec<u8>),
    /// It has been seen without one.
    Unnamed,
    /// An attempt has failed.
    Failed {
        /// Encoded reason.
        reason: Vec<u8>,
        /// Next attempt; `None` = never.
        retry_at: Option<UnixNanos>,
    },
}

/// Changes of one commit by frame, so that they are applied in the order of the keys.
pub(super) type Changes = BTreeMap<[u8; 24], Change>;

/// Encodes the functions at one place.
pub(super) fn encode_lines(lines: &[SourceLine]) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, lines.len() as u64);
    for line in lines {
        put_text(&mut out, &line.function);
        put_text(&mut out, &line.file);
        put_u64(&mut out, u64::from(line.line));
        put_u64(&mut out, u64::from(line.column));
    }
    out
}

/// Inverse of [`encode_lines`]; `None` when malformed.
pub(super) fn decode_lines(value: &[u8]) -> Option<Vec<SourceLine>> {
    let mut bytes = Bytes(value);
    let count = bytes.count().filter(|c| *c <= MAX_LINES)?;
    (0..count)
        .map(|_| {
            Some(SourceLine {
                function: bytes.text()?,
                file: bytes.text()?,
                line: bytes.u32()?,
                column: bytes.u32()?,
            })
        })
        .collect()
}

/// Encodes a reason.
pub(super) fn encode_reason(reason: &UnknownReason) -> Vec<u8> {
    let (tag, text) = match reason {
        UnknownReason::Pending => (0, ""),
        UnknownReason::FileUnavailable(why) => (1, why.as_str()),
        UnknownReason::NoSymbols => (2, ""),
        UnknownReason::NotCovered => (3, ""),
        UnknownReason::BadFile(why) => (4, why.as_str()),
    };
    let mut out = vec![tag];
    out.extend_from_slice(text.as_bytes());
    out
}

/// Inverse of [`encode_reason`]; a tag of the future reads as "not looked up".
fn decode_reason(value: &[u8]) -> UnknownReason {
    let Some((tag, text)) = value.split_first() else { return UnknownReason::Pending };
    let text = String::from_utf8_lossy(text).into_owned();
    match tag {
        1 => UnknownReason::FileUnavailable(text),
        2 => UnknownReason::NoSymbols,
        3 => UnknownReason::NotCovered,
        4 => UnknownReason::BadFile(text),
        _ => UnknownReason::Pending,
    }
}

/// A frame that waits.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    retries: u32,
    due: UnixNanos,
}

impl Waiting {
    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, u64::from(self.retries));
        put_u64(&mut out, self.due.0);
        out
    }

    fn decode(value: &[u8]) -> Self {
        let mut bytes = Bytes(value);
        let read = |bytes: &mut Bytes<'_>| Some(Self { retries: bytes.u32()?, due: UnixNanos(bytes.u64()?) });
        // A malformed entry is due at once: the attempt rewrites it.
        read(&mut bytes).unwrap_or_default()
    }
}

/// Executables with waiting frames, so that asking for work does not read the whole queue.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingFiles(HashMap<FileId, Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    frames: u64,
    /// No frame is due before this.
    due: UnixNanos,
}

/// What a transaction did to the queue, applied to [`PendingFiles`] once it is durable.
#[derive(Debug, Default)]
pub(super) struct QueueDelta(Vec<(FileId, i64, Option<UnixNanos>)>);

impl PendingFiles {
    /// Reads the queue once.
    pub(super) fn load(database: &Database) -> Result<Self> {
        database.read(|txn| {
            let mut files = Self::default();
            for entry in txn.open_table(tables::UNNAMED)?.iter()? {
                let (key, value) = entry?;
                let due = Waiting::decode(value.value()).due;
                files.add(FrameId::from_bytes(key.value()).file, due);
            }
            Ok(files)
        })
    }

    fn add(&mut self, file: FileId, due: UnixNanos) {
        let pending = self.0.entry(file).or_insert(Pending { frames: 0, due });
        pending.frames += 1;
        pending.due = pending.due.min(due);
    }

    /// Follows a committed transaction.
    pub(super) fn apply(&mut self, delta: QueueDelta) {
        for (file, frames, due) in delta.0 {
            let pending = self.0.entry(file).or_insert(Pending { frames: 0, due: UnixNanos(u64::MAX) });
            pending.frames = pending.frames.saturating_add_signed(frames);
            if let Some(due) = due {
                pending.due = pending.due.min(due);
            }
        }
        self.0.retain(|_, pending| pending.frames > 0);
    }

    /// Executables that may have due frames, longest due first.
    fn due(&self, now: UnixNanos) -> Vec<FileId> {
        let mut due: Vec<_> = self.0.iter().filter(|(_, p)| p.due <= now).map(|(f, p)| (p.due, *f)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, file)| file).collect()
    }
}

/// Applies the changes of one commit.
pub(super) fn apply(txn: &WriteTransaction, changes: &Changes) -> Result<QueueDelta, Fault> {
    let mut delta = QueueDelta::default();
    if changes.is_empty() {
        return Ok(delta);
    }
    let mut names = txn.open_table(tables::NAMES)?;
    let mut unnamed = txn.open_table(tables::UNNAMED)?;
    let mut reasons = txn.open_table(tables::REASONS)?;
    for (key, change) in changes {
        let file = FrameId::from_bytes(*key).file;
        match change {
            Change::Named(lines) => {
                let known = names.get(key)?.is_some_and(|old| old.value() == lines.as_slice());
                if known {
                    continue;
                }
                names.insert(key, lines.as_slice())?;
                if unnamed.remove(key)?.is_some() {
                    delta.0.push((file, -1, None));
                }
                reasons.remove(key)?;
            }
            Change::Unnamed => {
                let known =
                    unnamed.get(key)?.is_some() || reasons.get(key)?.is_some() || names.get(key)?.is_some();
                if !known {
                    unnamed.insert(key, Waiting::default().encode().as_slice())?;
                    delta.0.push((file, 1, Some(UnixNanos(0))));
                }
            }
            Change::Failed { reason, retry_at } => {
                if names.get(key)?.is_some() {
                    continue;
                }
                reasons.insert(key, reason.as_slice())?;
                let before = unnamed.get(key)?.map(|old| Waiting::decode(old.value()));
                if let Some(due) = *retry_at {
                    let retries = before.map_or(0, |w| w.retries).saturating_add(1);
                    unnamed.insert(key, Waiting { retries, due }.encode().as_slice())?;
                    delta.0.push((file, i64::from(before.is_none()), Some(due)));
                } else if unnamed.remove(key)?.is_some() {
                    delta.0.push((file, -1, None));
                }
            }
        }
    }
    Ok(delta)
}

/// Answers [`crate::store::Queue::due`].
pub(super) fn due(
    core: &Core,
    now: UnixNanos,
    max_files: usize,
    max_addresses: usize,
) -> Result<Vec<PendingFile>> {
    let candidates = core.pending.lock().due(now);
    let mut out = Vec::new();
    for file in candidates {
        if out.len() >= max_files {
            break;
        }
        let (pending, next) = core.database.read(|txn| {
            let table = txn.open_table(tables::UNNAMED)?;
            let mut pending = PendingFile { file, name: "".into(), addresses: Vec::new(), retries: 0 };
            let mut next = UnixNanos(u64::MAX);
            let first = FrameId { file, address_or_line: 0 }.to_bytes();
            let last = FrameId { file, address_or_line: u64::MAX }.to_bytes();
            for entry in table.range(first..=last)? {
                let (key, value) = entry?;
                let waiting = Waiting::decode(value.value());
                next = next.min(waiting.due);
                if waiting.due <= now {
                    if pending.addresses.len() == max_addresses {
                        break;
                    }
                    pending.addresses.push(FrameId::from_bytes(key.value()).address_or_line);
                    pending.retries = pending.retries.max(waiting.retries);
                }
            }
            Ok((pending, next))
        })?;
        if pending.addresses.is_empty() {
            // Nothing is due yet. A frame that arrived since this was read is due at 0 and must not be forgotten.
            if let Some(known) = core.pending.lock().0.get_mut(&file)
                && known.due != UnixNanos(0)
            {
                known.due = next;
            }
            continue;
        }
        let name = core.dictionaries.read().executables.get(&file).map(|e| Arc::clone(&e.name));
        out.push(PendingFile { name: name.unwrap_or_else(|| "".into()), ..pending });
    }
    Ok(out)
}

/// Answers [`crate::store::Reader::frames`].
pub(super) fn frames(core: &Core, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
    // In the order of the keys: neighbours share pages.
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_unstable_by_key(|i| ids[*i as usize]);
    let threads = core.settings.threads.min(ids.len() / FRAMES_PER_THREAD + 1).max(1);
    let parts = std::thread::scope(|scope| {
        let parts: Vec<_> = order
            .chunks(ids.len().div_ceil(threads).max(1))
            .map(|part| scope.spawn(|| part_of_frames(core, ids, part)))
            .collect();
        parts
            .into_iter()
            .map(|part| {
                part.join().unwrap_or_else(|_| Err(Error::Engine("a reading thread has panicked".into())))
            })
            .collect::<Vec<_>>()
    });
    let mut details = vec![FrameDetail::default(); ids.len()];
    let mut order = order.into_iter();
    for part in parts {
        for (detail, i) in part?.into_iter().zip(&mut order) {
            details[i as usize] = detail;
        }
    }
    let dictionaries = core.dictionaries.read();
    for (id, detail) in ids.iter().zip(&mut details) {
        if let Some(executable) = dictionaries.executables.get(&id.file) {
            detail.library = Arc::clone(&executable.name);
        }
    }
    Ok(details)
}

/// Names of `ids[part]`, in the order of `part`.
fn part_of_frames(core: &Core, ids: &[FrameId], part: &[u32]) -> Result<Vec<FrameDetail>> {
    core.database.read(|txn| {
        let names = txn.open_table(tables::NAMES)?;
        let reasons = txn.open_table(tables::REASONS)?;
        let mut details = vec![FrameDetail::default(); part.len()];
        let mut shared = SharedText::default();
        for (i, detail) in part.iter().zip(&mut details) {
            let id = ids[*i as usize];
            if let Some(value) = names.get(&id.to_bytes())? {
                detail.lines = decode_lines(value.value()).ok_or_else(|| Error::Corrupt {
                    path: core.layout.database(),
                    problem: format!("names: {id:?} is malformed"),
                })?;
                detail.lines.iter_mut().for_each(|line| shared.share(&mut line.file));
            }
            if detail.lines.is_empty() {
                let reason = reasons.get(&id.to_bytes())?.map(|r| decode_reason(r.value()));
                detail.reason = Some(reason.unwrap_or(UnknownReason::Pending));
            }
        }
        Ok(details)
    })
}

/// Holds equal texts of one answer once.
#[derive(Debug, Default)]
struct SharedText(HashSet<Arc<str>>);

impl SharedText {
    fn share(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.0.get(text) {
            *text = Arc::clone(known);
        } else {
            self.0.insert(Arc::clone(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_reasons_come_back() {
        let lines = vec![
            SourceLine { function: "outer".into(), file: "a.c".into(), line: 3, column: 0 },
            SourceLine { function: "inner".into(), file: "".into(), line: 0, column: 9 },
        ];
        assert_eq!(decode_lines(&encode_lines(&lines)), Some(lines));
        assert_eq!(decode_lines(&[200]), None);
        for reason in [
            UnknownReason::Pending,
            UnknownReason::FileUnavailable("gone".into()),
            UnknownReason::NoSymbols,
            UnknownReason::NotCovered,
            UnknownReason::BadFile("at 3".into()),
        ] {
            assert_eq!(decode_reason(&encode_reason(&reason)), reason);
        }
    }
}
