//! What code lay where and when: the newest that covered an address at a time. Bounded in bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Change, Code, Source};

/// Bytes of an entry besides its name and lines: tree node, counts of the two shared parts.
const ENTRY_BYTES: usize = 120;
/// Most replaced entries that are remembered.
const MAX_PAST: usize = 4096;
/// How long replaced entries are remembered, in nanoseconds: 5 s, longer than samples wait.
const KEEP_PAST_NS: u64 = 5_000_000_000;

#[derive(Clone, Debug)]
struct Entry {
    /// First address of the code as it was made: lines count from here. The rest may begin later.
    made_at: u64,
    end: u64,
    from_ns: u64,
    name: Arc<str>,
    source: Option<Arc<Source>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let lines = self.source.as_ref().map_or(0, |source| source.file.len() + 8 * source.lines.len());
        ENTRY_BYTES + self.name.len() + lines
    }
}

/// Code at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: Arc<str>,
    /// Source file; empty when unknown.
    pub file: Arc<str>,
    /// Line; 0 when unknown.
    pub line: u32,
}

/// All code of one process.
#[derive(Debug, Default)]
pub struct CodeMap {
    /// By first address, not overlapping.
    live: BTreeMap<u64, Entry>,
    /// Replaced: until when, first address, entry. Oldest first.
    past: VecDeque<(u64, u64, Entry)>,
    bytes: usize,
    over_limit: u64,
    /// Raised by each change that alters what an address means.
    changes: u64,
}

impl CodeMap {
    /// Applies a change of which nothing more is known than that it came after `since_ns`, unless it says so itself. Takes
    /// no more than `max_bytes` for everything.
    pub fn apply(&mut self, change: Change, since_ns: u64, max_bytes: usize) {
        match change {
            Change::Begun => self.clear(),
            Change::Made(code) => {
                let Code { start, end, from_ns, name, source } = code;
                let from_ns = from_ns.unwrap_or(since_ns);
                self.insert(start, Entry { made_at: start, end, from_ns, name, source }, max_bytes);
            }
            Change::Moved { from, to, at_ns } => {
                let Some(old) = self.live.remove(&from) else { return };
                let from_ns = at_ns.unwrap_or(since_ns);
                let end = to.saturating_add(old.end - from);
                let made_at = to.wrapping_sub(from.wrapping_sub(old.made_at));
                let moved = Entry { made_at, end, from_ns, ..old.clone() };
                self.bury(from, old, from_ns);
                self.insert(to, moved, max_bytes);
            }
        }
    }

    /// The code that lay at `address` at `time_ns`; the next to come where nothing is known of that time.
    #[must_use]
    pub fn find(&self, address: u64, time_ns: u64) -> Option<Found> {
        let covers = |entry: &Entry| address < entry.end;
        let live =
            self.live.range(..=address).next_back().map(|(_, entry)| entry).filter(|entry| covers(entry));
        let then = || {
            let was = |(until_ns, start, entry): &&(u64, u64, Entry)| {
                *start <= address && covers(entry) && entry.from_ns <= time_ns && time_ns < *until_ns
            };
            self.past.iter().rev().find(was).map(|(.., entry)| entry)
        };
        let entry = match live {
            Some(entry) if entry.from_ns <= time_ns => entry,
            later => then().or(later)?,
        };
        let source = entry.source.as_deref();
        Some(Found {
            name: Arc::clone(&entry.name),
            file: source.map_or_else(|| Arc::from(""), |source| Arc::clone(&source.file)),
            line: source.map_or(0, |source| source.line(address.wrapping_sub(entry.made_at))),
        })
    }

    /// Changes when an address may mean something else than before.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Pieces of code that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Bytes in use, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries that had no room.
    #[must_use]
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    fn clear(&mut self) {
        *self = Self { over_limit: self.over_limit, changes: self.changes + 1, ..Self::default() };
    }

    fn insert(&mut self, start: u64, entry: Entry, max_bytes: usize) {
        if let Some(same) = self.live.get(&start)
            && (same.end, &same.name, &same.source) == (entry.end, &entry.name, &entry.source)
        {
            return;
        }
        if self.bytes + entry.bytes() > max_bytes {
            self.past.clear();
            self.bytes = self.live.values().map(Entry::bytes).sum();
            if self.bytes + entry.bytes() > max_bytes {
                self.over_limit += 1;
                return;
            }
        }
        self.changes += 1;
        // Whatever reaches into the new code is cut. What is left of it stays: some runtimes name regions, then parts.
        while let Some((old_start, old)) = self
            .live
            .range(..entry.end)
            .next_back()
            .filter(|(_, old)| old.end > start)
            .map(|(old_start, old)| (*old_start, old.clone()))
        {
            self.live.remove(&old_start);
            if old_start < start {
                self.put(old_start, Entry { end: start, ..old.clone() });
            }
            if old.end > entry.end {
                self.put(entry.end, old.clone());
            }
            self.bury(old_start, old, entry.from_ns);
        }
        self.put(start, entry);
    }

    fn put(&mut self, start: u64, entry: Entry) {
        self.bytes += entry.bytes();
        self.live.insert(start, entry);
    }

    /// Puts an entry that was taken out of `live` to those of the past.
    fn bury(&mut self, start: u64, entry: Entry, until_ns: u64) {
        self.past.push_back((until_ns, start, entry));
        while self.past.len() > MAX_PAST
            || self.past.front().is_some_and(|(until, ..)| until_ns.saturating_sub(*until) > KEEP_PAST_NS)
        {
            let Some((.., gone)) = self.past.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(gone.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn made(start: u64, end: u64, name: &str, from_ns: Option<u64>) -> Change {
        Change::Made(Code { start, end, from_ns, name: name.into(), source: None })
    }

    fn at(map: &CodeMap, address: u64, time_ns: u64) -> String {
        map.find(address, time_ns).map_or("-".into(), |found| found.name.to_string())
    }

    #[test]
    fn later_entries_win_where_they_overlap() {
        let mut map = CodeMap::default();
        for (start, end, name) in [(10, 100, "region"), (20, 30, "a"), (25, 40, "b"), (95, 120, "c")] {
            map.apply(made(start, end, name, None), 0, ROOM);
        }
        let found: Vec<_> =
            [9, 10, 19, 20, 24, 25, 39, 40, 94, 95, 119, 120].map(|address| at(&map, address, 9)).into();
        assert_eq!(found, ["-", "region", "region", "a", "a", "b", "b", "region", "region", "c", "c", "-"]);
        map.apply(made(0, 200, "all", None), 0, ROOM);
        assert_eq!((map.len(), at(&map, 22, 9)), (1, "all".into()));
    }

    #[test]
    fn each_time_has_its_own_code() {
        let mut map = CodeMap::default();
        map.apply(made(10, 20, "a", Some(100)), 0, ROOM);
        map.apply(made(10, 20, "b", Some(200)), 0, ROOM);
        map.apply(Change::Moved { from: 10, to: 50, at_ns: Some(300) }, 0, ROOM);
        let seen = |address| [50, 150, 250, 350].map(|time| at(&map, address, time));
        assert_eq!(seen(15), ["-", "a", "b", "-"]);
        assert_eq!(seen(55), ["b"; 4], "the next to come where nothing is known");
        // Without times of its own, since the last look.
        map.apply(made(50, 60, "c", None), 1000, ROOM);
        assert_eq!([999, 1000].map(|time| at(&map, 55, time)), ["b", "c"]);
    }

    #[test]
    fn lines_count_from_where_code_was_made() {
        let source = Some(Arc::new(Source { file: "a.js".into(), lines: vec![(0, 1), (8, 2)] }));
        let mut map = CodeMap::default();
        map.apply(
            Change::Made(Code { start: 100, end: 120, from_ns: None, name: "f".into(), source }),
            0,
            ROOM,
        );
        map.apply(made(90, 104, "g", None), 0, ROOM);
        let line = |map: &CodeMap, address| map.find(address, 9).map(|found| found.line);
        assert_eq!((line(&map, 104), line(&map, 108)), (Some(1), Some(2)));
        map.apply(Change::Moved { from: 104, to: 1004, at_ns: None }, 0, ROOM);
        assert_eq!((line(&map, 1007), line(&map, 1008), line(&map, 1020)), (Some(1), Some(2), None));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut map = CodeMap::default();
        for n in 0..100_000_u64 {
            map.apply(
                made(n * 8 % 8000, n * 8 % 8000 + 32, &format!("f{n}"), Some(n * 1_000_000)),
                0,
                100_000,
            );
            assert!(
                map.bytes() <= 110_000 + 3 * ENTRY_BYTES && map.past.len() <= MAX_PAST,
                "{n}: {}",
                map.bytes()
            );
        }
        let counted: usize =
            map.live.values().chain(map.past.iter().map(|(.., entry)| entry)).map(Entry::bytes).sum();
        assert_eq!(map.bytes(), counted);
        for n in 0..10_000 {
            map.apply(made(1 << 20 | n << 8, (1 << 20 | n << 8) + 8, "far", None), 0, 100_000);
        }
        assert!(map.over_limit() > 0 && map.bytes() <= 100_000);
    }

    #[test]
    fn same_entry_again_changes_nothing() {
        let mut map = CodeMap::default();
        map.apply(made(10, 20, "a", None), 0, ROOM);
        let changes = map.changes();
        map.apply(made(10, 20, "a", None), 50, ROOM);
        assert_eq!(map.changes(), changes);
        assert_eq!(at(&map, 15, 1), "a");
    }
}
