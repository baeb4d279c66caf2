//! Indices of executables that were asked for lately, within a budget of bytes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{FileId, UnixNanos, UnknownReason};
use crate::symbols::SymbolIndex;

/// Most entries, whatever their size: 4096. One that only says why a file is bad takes about 300 bytes.
const MAX_ENTRIES: usize = 4096;
/// Age after which an entry is built anew, in nanoseconds: one hour. A debug file may have been installed.
const MAX_AGE_NS: u64 = 3_600_000_000_000;
/// Memory of an entry beside its index: key, entry, the text of a reason.
const ENTRY_BYTES: usize = 300;

/// What is known of one file: its index, or why it cannot be read.
pub(super) type Known = Result<Arc<SymbolIndex>, UnknownReason>;

/// Least recently used out first.
#[derive(Debug)]
pub(super) struct Cache {
    budget_bytes: usize,
    bytes: usize,
    /// Grows with each use; the order of entries.
    tick: u64,
    entries: HashMap<FileId, Entry>,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    bytes: usize,
    used: u64,
    since: UnixNanos,
}

fn size(known: &Known) -> usize {
    ENTRY_BYTES + known.as_ref().map_or(0, |index| index.bytes())
}

impl Cache {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, bytes: 0, tick: 0, entries: HashMap::new() }
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&mut self, file: FileId, now: UnixNanos) -> Option<Known> {
        let entry = self.entries.get_mut(&file)?;
        if now.0.saturating_sub(entry.since.0) > MAX_AGE_NS {
            self.remove(file);
            return None;
        }
        self.tick += 1;
        entry.used = self.tick;
        Some(entry.known.clone())
    }

    /// Keeps an entry, or takes its size anew after use (names made ready count). One larger than the whole budget is
    /// not kept: it was used once, and everything else is worth more.
    pub(super) fn put(&mut self, file: FileId, known: &Known, now: UnixNanos) {
        let since = self.entries.get(&file).map_or(now, |entry| entry.since);
        self.remove(file);
        let bytes = size(known);
        if bytes > self.budget_bytes {
            return;
        }
        while self.bytes + bytes > self.budget_bytes || self.entries.len() >= MAX_ENTRIES {
            let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(file, _)| *file)
            else {
                break;
            };
            self.remove(oldest);
        }
        self.tick += 1;
        self.bytes += bytes;
        self.entries.insert(file, Entry { known: known.clone(), bytes, used: self.tick, since });
    }

    fn remove(&mut self, file: FileId) {
        if let Some(entry) = self.entries.remove(&file) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64) -> FileId {
        FileId::from_words(0, number)
    }

    #[test]
    fn oldest_leave_first_and_the_budget_holds() {
        let mut cache = Cache::new(3 * ENTRY_BYTES);
        let bad: Known = Err(UnknownReason::BadFile("header".into()));
        let now = UnixNanos(0);
        for number in 0..3 {
            cache.put(file(number), &bad, now);
        }
        assert!(cache.get(file(0), now).is_some());
        cache.put(file(3), &bad, now);
        assert!(cache.get(file(1), now).is_none(), "1 was used least recently");
        assert!(cache.get(file(0), now).is_some());
        assert_eq!(cache.bytes(), 3 * ENTRY_BYTES);
    }

    #[test]
    fn entries_age_from_their_first_day() {
        let mut cache = Cache::new(usize::MAX);
        let bad: Known = Err(UnknownReason::NoSymbols);
        cache.put(file(0), &bad, UnixNanos(0));
        cache.put(file(0), &bad, UnixNanos(MAX_AGE_NS));
        assert!(cache.get(file(0), UnixNanos(MAX_AGE_NS)).is_some());
        assert!(cache.get(file(0), UnixNanos(MAX_AGE_NS + 1)).is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
