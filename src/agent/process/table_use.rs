//! How much each published table is used, and which would be given up for another one.
//!
//! Heat counts samples that lie in a file; the converter tells, whoever evicts asks. It halves twice a minute, so that what
//! was busy an hour ago does not keep what is busy now out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::model::FileId;

/// Time in which heat halves.
const HALVED_EVERY: Duration = Duration::from_secs(30);

/// Samples that lay in a file, fading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heat(Arc<AtomicU32>);

impl Heat {
    /// A sample lies in the file.
    pub(crate) fn touch(&self) {
        // One thread writes; a lost count would only be a lost count.
        self.0.store(self.get().saturating_add(1), Ordering::Relaxed);
    }

    /// Samples, fading.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn halve(&self) {
        self.0.store(self.get() / 2, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Use {
    heat: Heat,
    /// Bytes of the table; 0 while it is not published.
    bytes: u64,
}

/// Heat and size by content.
#[derive(Debug)]
pub(super) struct Uses {
    by_file: HashMap<FileId, Use>,
    halved: Instant,
}

impl Default for Uses {
    fn default() -> Self {
        Self { by_file: HashMap::new(), halved: Instant::now() }
    }
}

impl Uses {
    /// A file whose table is asked for. Of several with this content, the one that asks last counts.
    pub(super) fn asked(&mut self, file: FileId, heat: &Heat) {
        self.by_file.insert(file, Use { heat: heat.clone(), bytes: 0 });
    }

    /// Its table is published.
    pub(super) fn published(&mut self, file: FileId, bytes: u64) {
        if let Some(known) = self.by_file.get_mut(&file) {
            known.bytes = bytes;
        }
    }

    /// Its table is no longer published.
    pub(super) fn forget(&mut self, file: FileId) {
        self.by_file.remove(&file);
    }

    /// Published tables to give up, coldest first, so that `bytes` for `file` become free. None when that would take tables
    /// that are used half as much as it, or more: two of about equal heat must not push each other out in turn.
    pub(super) fn colder_than(&self, file: FileId, bytes: u64) -> Vec<FileId> {
        let heat = self.by_file.get(&file).map_or(0, |newcomer| newcomer.heat.get());
        let published = self.by_file.iter().filter(|(other, known)| known.bytes > 0 && **other != file);
        let mut colder: Vec<_> = published
            .map(|(other, known)| (known.heat.get(), *other, known.bytes))
            .filter(|(other_heat, ..)| *other_heat < heat / 2)
            .collect();
        colder.sort_unstable();
        let mut freed = 0;
        let victims = colder.into_iter().map_while(|(_, other, other_bytes)| {
            let still_wanted = freed < bytes;
            freed += other_bytes;
            still_wanted.then_some(other)
        });
        let victims: Vec<FileId> = victims.collect();
        if freed >= bytes { victims } else { Vec::new() }
    }

    /// Lets heat fade. Cheap to call often.
    pub(super) fn fade(&mut self, now: Instant) {
        if now.saturating_duration_since(self.halved) >= HALVED_EVERY {
            self.halved = now;
            self.by_file.values().for_each(|known| known.heat.halve());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u64) -> FileId {
        FileId::from_words(0, n)
    }

    /// Files 1, 2, … with these heats and tables of 100 bytes, and file 0 that wants one.
    fn uses(newcomer: u32, heats: &[u32]) -> Uses {
        let mut uses = Uses::default();
        for (n, heat) in std::iter::once(&newcomer).chain(heats).enumerate() {
            let known = Heat::default();
            (0..*heat).for_each(|_| known.touch());
            uses.asked(file(n as u64), &known);
            if n > 0 {
                uses.published(file(n as u64), 100);
            }
        }
        uses
    }

    #[test]
    fn the_least_used_go_and_no_more_than_needed() {
        assert_eq!(uses(20, &[7, 3, 5, 9]).colder_than(file(0), 150), [file(2), file(3)]);
        assert_eq!(uses(20, &[7, 3, 5, 9]).colder_than(file(0), 100), [file(2)]);
    }

    #[test]
    fn a_table_is_not_given_up_for_one_of_about_its_own_use() {
        assert!(uses(20, &[10, 11, 12]).colder_than(file(0), 100).is_empty());
        assert!(uses(0, &[0, 0]).colder_than(file(0), 100).is_empty());
        // Half of the room is no room.
        assert!(uses(20, &[1, 19]).colder_than(file(0), 150).is_empty());
    }

    #[test]
    fn heat_fades() {
        let mut uses = uses(20, &[8]);
        let start = uses.halved;
        uses.fade(start + HALVED_EVERY / 2);
        assert_eq!(uses.by_file[&file(1)].heat.get(), 8);
        uses.fade(start + HALVED_EVERY);
        uses.fade(start + HALVED_EVERY);
        assert_eq!(uses.by_file[&file(1)].heat.get(), 4);
        uses.forget(file(1));
        assert!(uses.colder_than(file(0), 100).is_empty());
    }
}
