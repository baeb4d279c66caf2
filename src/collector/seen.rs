//! Identifiers that the store is known to hold, so that it is not asked to write them again and again.
//!
//! Bounded memory, nothing else: losing it costs writes, never data. An identifier is marked after the write that
//! carried it succeeded, and forgotten after a lifetime, because stores drop old documents.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash64;

use crate::model::{FileId, FrameId, StackId, UnixNanos};
use crate::store::Documents;
use crate::store::document::Host;

/// Stacks and frames remembered: about 6 MiB each when full.
const MANY: usize = 1 << 17;
/// Executables remembered.
const FEW: usize = 1 << 14;

/// How long an identifier is trusted to be stored. Elasticsearch readers look into an index generation for at least
/// 6 hours after the next one began; half of that is safe.
pub const LIFETIME: Duration = Duration::from_hours(3);

/// Set of at most `capacity` keys, each with the time it was added. The half used longest ago is forgotten at once.
#[derive(Debug)]
struct Recent<K> {
    young: HashMap<K, UnixNanos>,
    old: HashMap<K, UnixNanos>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone> Recent<K> {
    fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity }
    }

    fn contains(&mut self, key: &K, now: UnixNanos) -> bool {
        let fresh = |added: &UnixNanos| now.0.saturating_sub(added.0) < LIFETIME.as_nanos() as u64;
        if let Some(added) = self.young.get(key) {
            return fresh(added);
        }
        let Some((key, added)) = self.old.remove_entry(key) else { return false };
        let known = fresh(&added);
        if known {
            self.insert(key, added);
        }
        known
    }

    fn insert(&mut self, key: K, added: UnixNanos) {
        if self.young.len() >= self.capacity / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, added);
    }
}

/// What the store is known to hold.
#[derive(Debug)]
pub struct Seen {
    stacks: Recent<StackId>,
    frames: Recent<FrameId>,
    unnamed: Recent<FrameId>,
    unnamed_files: Recent<FileId>,
    executables: Recent<FileId>,
    /// By identity and facts: those that become known later are written too.
    hosts: Recent<(Arc<str>, u64)>,
}

/// Identifiers that a write carries; hand them to [`Seen::mark`] when it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    stacks: Vec<StackId>,
    frames: Vec<FrameId>,
    unnamed: Vec<FrameId>,
    unnamed_files: Vec<FileId>,
    executables: Vec<FileId>,
    hosts: Vec<(Arc<str>, u64)>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            stacks: Recent::new(MANY),
            frames: Recent::new(MANY),
            unnamed: Recent::new(MANY),
            unnamed_files: Recent::new(FEW),
            executables: Recent::new(FEW),
            hosts: Recent::new(FEW),
        }
    }
}

impl Seen {
    /// Takes out of `documents` what the store holds already. Events always stay.
    pub fn retain_new(&mut self, documents: &mut Documents, now: UnixNanos) -> Fresh {
        let mut fresh = Fresh::default();
        keep_new(&mut self.stacks, &mut documents.stacktraces, |stack| stack.id, now, &mut fresh.stacks);
        keep_new(&mut self.frames, &mut documents.stackframes, |frame| frame.id, now, &mut fresh.frames);
        keep_new(&mut self.unnamed, &mut documents.unnamed, |id| *id, now, &mut fresh.unnamed);
        keep_new(
            &mut self.unnamed_files,
            &mut documents.unnamed_files,
            |id| *id,
            now,
            &mut fresh.unnamed_files,
        );
        keep_new(&mut self.executables, &mut documents.executables, |e| e.id, now, &mut fresh.executables);
        keep_new(&mut self.hosts, &mut documents.hosts, host_key, now, &mut fresh.hosts);
        fresh
    }

    /// Remembers what has been written.
    pub fn mark(&mut self, written: Fresh, now: UnixNanos) {
        written.stacks.into_iter().for_each(|id| self.stacks.insert(id, now));
        written.frames.into_iter().for_each(|id| self.frames.insert(id, now));
        written.unnamed.into_iter().for_each(|id| self.unnamed.insert(id, now));
        written.unnamed_files.into_iter().for_each(|id| self.unnamed_files.insert(id, now));
        written.executables.into_iter().for_each(|id| self.executables.insert(id, now));
        written.hosts.into_iter().for_each(|id| self.hosts.insert(id, now));
    }
}

fn host_key(host: &Host) -> (Arc<str>, u64) {
    let mut hash = XxHash64::with_seed(0);
    host.facts.hash(&mut hash);
    (host.id.clone(), hash.finish())
}

fn keep_new<D, K: Eq + Hash + Clone>(
    seen: &mut Recent<K>,
    documents: &mut Vec<D>,
    key: impl Fn(&D) -> K,
    now: UnixNanos,
    fresh: &mut Vec<K>,
) {
    documents.retain(|document| {
        let key = key(document);
        let new = !seen.contains(&key, now);
        if new {
            fresh.push(key);
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::document::StackTrace;

    fn one(id: u8) -> Documents {
        let stacktraces = vec![StackTrace { id: StackId([id; 16]), frames: Vec::new() }];
        Documents { stacktraces, ..Documents::default() }
    }

    #[test]
    fn an_identifier_is_known_after_its_write_succeeded_and_not_before() {
        let (mut seen, now) = (Seen::default(), UnixNanos(5));
        let mut documents = one(1);
        let fresh = seen.retain_new(&mut documents, now);
        assert_eq!(documents.stacktraces.len(), 1);
        // The write failed: the next batch carries it again.
        assert_eq!(seen.retain_new(&mut one(1), now), fresh);
        seen.mark(fresh, now);
        let mut documents = one(1);
        assert_eq!(seen.retain_new(&mut documents, now), Fresh::default());
        assert!(documents.stacktraces.is_empty());
    }

    #[test]
    fn an_identifier_is_forgotten_after_its_lifetime_however_often_it_is_used() {
        let mut seen = Seen::default();
        let fresh = seen.retain_new(&mut one(1), UnixNanos(0));
        seen.mark(fresh, UnixNanos(0));
        let lifetime = LIFETIME.as_nanos() as u64;
        for now in [lifetime / 2, lifetime - 1] {
            assert_eq!(seen.retain_new(&mut one(1), UnixNanos(now)), Fresh::default());
        }
        assert_ne!(seen.retain_new(&mut one(1), UnixNanos(lifetime)), Fresh::default());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut recent = Recent::new(100);
        recent.insert(u64::MAX, UnixNanos(0));
        for key in 0..10_000 {
            recent.insert(key, UnixNanos(0));
            assert!(recent.contains(&u64::MAX, UnixNanos(0)));
            assert!(recent.young.len() + recent.old.len() <= 100);
        }
        assert!(!recent.contains(&1, UnixNanos(0)));
    }
}
