//! Identifiers that the store is known to hold, so that it is not asked to write them again and again.
//!
//! Bounded memory, nothing else: losing it costs writes, never data. An identifier is marked after the write that
//! carried it succeeded, and forgotten after a lifetime, because stores drop old documents. Shared by all exports; each
//! kind of identifier has a lock of its own, held for one kind of one export.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;
use twox_hash::XxHash64;

use crate::model::{FileId, FrameId, StackId, UnixNanos};
use crate::store::Documents;
use crate::store::document::Host;

/// Stacks and frames remembered: about 6 MiB each when full.
const MANY: usize = 1 << 17;
/// Executables remembered.
const FEW: usize = 1 << 14;
/// Hosts remembered: a collector may stand before a large fleet. About 50 MiB when full.
const HOSTS: usize = 1 << 20;

/// How long an identifier is trusted to be stored, unless said otherwise. Elasticsearch readers look into an index
/// generation for at least 6 hours after the next one began; half of that is safe.
pub const LIFETIME: Duration = Duration::from_hours(3);
/// The same where look-ups are data streams, which are read as a whole: documents only have to outlive the retention of
/// those that point to them.
pub const STREAM_LIFETIME: Duration = Duration::from_hours(24);

/// Set of at most `capacity` keys, each with the time it was added. The half used longest ago is forgotten at once.
#[derive(Debug)]
struct Recent<K> {
    young: HashMap<K, UnixNanos>,
    old: HashMap<K, UnixNanos>,
    capacity: usize,
    lifetime: u64,
}

impl<K: Eq + Hash> Recent<K> {
    fn contains(&mut self, key: &K, now: UnixNanos) -> bool {
        let lifetime = self.lifetime;
        let fresh = |added: &UnixNanos| now.0.saturating_sub(added.0) < lifetime;
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

/// One kind of identifiers.
#[derive(Debug)]
struct Known<K>(Mutex<Recent<K>>);

impl<K: Eq + Hash + Clone> Known<K> {
    fn new(capacity: usize, lifetime: Duration) -> Self {
        let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        Self(Mutex::new(Recent { young: HashMap::new(), old: HashMap::new(), capacity, lifetime }))
    }

    /// Takes out the documents that are known; returns the keys of the others.
    fn retain_new<D>(&self, documents: &mut Vec<D>, key: impl Fn(&D) -> K, now: UnixNanos) -> Vec<K> {
        let mut fresh = Vec::new();
        if documents.is_empty() {
            return fresh;
        }
        let mut known = self.0.lock();
        documents.retain(|document| {
            let key = key(document);
            let new = !known.contains(&key, now);
            if new {
                fresh.push(key);
            }
            new
        });
        fresh
    }

    fn mark(&self, written: Vec<K>, now: UnixNanos) {
        if !written.is_empty() {
            let mut known = self.0.lock();
            for key in written {
                known.insert(key, now);
            }
        }
    }
}

/// A host by its identity and its facts: those that become known later are written too.
type HostKey = (u64, u64);

/// What the store is known to hold.
#[derive(Debug)]
pub struct Seen {
    stacks: Known<StackId>,
    frames: Known<FrameId>,
    unnamed: Known<FrameId>,
    unnamed_files: Known<FileId>,
    executables: Known<FileId>,
    hosts: Known<HostKey>,
}

/// Identifiers that a write carries; hand them to [`Seen::mark`] when it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    stacks: Vec<StackId>,
    frames: Vec<FrameId>,
    unnamed: Vec<FrameId>,
    unnamed_files: Vec<FileId>,
    executables: Vec<FileId>,
    hosts: Vec<HostKey>,
}

impl Default for Seen {
    fn default() -> Self {
        Self::new(LIFETIME)
    }
}

impl Seen {
    /// Nothing known yet; what becomes known is trusted for `lifetime`.
    #[must_use]
    pub fn new(lifetime: Duration) -> Self {
        Self {
            stacks: Known::new(MANY, lifetime),
            frames: Known::new(MANY, lifetime),
            unnamed: Known::new(MANY, lifetime),
            unnamed_files: Known::new(FEW, lifetime),
            executables: Known::new(FEW, lifetime),
            hosts: Known::new(HOSTS, lifetime),
        }
    }

    /// Takes out of `documents` what the store holds already. Events always stay.
    pub fn retain_new(&self, documents: &mut Documents, now: UnixNanos) -> Fresh {
        Fresh {
            stacks: self.stacks.retain_new(&mut documents.stacktraces, |stack| stack.id, now),
            frames: self.frames.retain_new(&mut documents.stackframes, |frame| frame.id, now),
            unnamed: self.unnamed.retain_new(&mut documents.unnamed, |id| *id, now),
            unnamed_files: self.unnamed_files.retain_new(&mut documents.unnamed_files, |id| *id, now),
            executables: self.executables.retain_new(&mut documents.executables, |file| file.id, now),
            hosts: self.hosts.retain_new(&mut documents.hosts, host_key, now),
        }
    }

    /// Remembers what has been written.
    pub fn mark(&self, written: Fresh, now: UnixNanos) {
        self.stacks.mark(written.stacks, now);
        self.frames.mark(written.frames, now);
        self.unnamed.mark(written.unnamed, now);
        self.unnamed_files.mark(written.unnamed_files, now);
        self.executables.mark(written.executables, now);
        self.hosts.mark(written.hosts, now);
    }
}

fn host_key(host: &Host) -> HostKey {
    let hash = |value: &dyn Fn(&mut XxHash64)| {
        let mut hash = XxHash64::with_seed(0);
        value(&mut hash);
        hash.finish()
    };
    (hash(&|hash| host.id.hash(hash)), hash(&|hash| (&host.name, &host.facts).hash(hash)))
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
        let (seen, now) = (Seen::default(), UnixNanos(5));
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
        for lifetime in [LIFETIME, STREAM_LIFETIME] {
            let seen = Seen::new(lifetime);
            let fresh = seen.retain_new(&mut one(1), UnixNanos(0));
            seen.mark(fresh, UnixNanos(0));
            let lifetime = lifetime.as_nanos() as u64;
            for now in [lifetime / 2, lifetime - 1] {
                assert_eq!(seen.retain_new(&mut one(1), UnixNanos(now)), Fresh::default());
            }
            assert_ne!(seen.retain_new(&mut one(1), UnixNanos(lifetime)), Fresh::default());
        }
    }

    #[test]
    fn every_kind_of_identifier_is_left_out_the_second_time_and_events_never() {
        use crate::store::document::{Event, Executable, StackFrame};
        let all = || Documents {
            events: vec![Event::default()],
            stacktraces: one(1).stacktraces,
            stackframes: vec![StackFrame { id: FrameId::default(), lines: Vec::new() }],
            executables: vec![Executable { id: FileId::default(), name: "".into(), gnu_build_id: "".into() }],
            hosts: vec![Host::default()],
            unnamed: vec![FrameId::default()],
            unnamed_files: vec![FileId::default()],
            ..Documents::default()
        };
        let seen = Seen::default();
        let fresh = seen.retain_new(&mut all(), UnixNanos(0));
        seen.mark(fresh, UnixNanos(0));
        let mut again = all();
        assert_eq!(seen.retain_new(&mut again, UnixNanos(0)), Fresh::default());
        assert_eq!(again, Documents { events: all().events, ..Documents::default() });
    }

    #[test]
    fn a_host_with_new_facts_is_written_again() {
        let seen = Seen::default();
        let with = |facts: &[(&str, &str)]| {
            let facts = facts.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            let host = Host { id: "a".into(), facts, ..Host::default() };
            Documents { hosts: vec![host], ..Documents::default() }
        };
        for (mut documents, expected) in [
            (with(&[]), 1),
            (with(&[]), 0),
            (with(&[("host.arch", "amd64")]), 1),
            (with(&[("host.arch", "amd64")]), 0),
        ] {
            let fresh = seen.retain_new(&mut documents, UnixNanos(0));
            assert_eq!(documents.hosts.len(), expected);
            seen.mark(fresh, UnixNanos(0));
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let known = Known::new(100, LIFETIME);
        let mut recent = known.0.lock();
        recent.insert(u64::MAX, UnixNanos(0));
        for key in 0..10_000 {
            recent.insert(key, UnixNanos(0));
            assert!(recent.contains(&u64::MAX, UnixNanos(0)));
            assert!(recent.young.len() + recent.old.len() <= 100);
        }
        assert!(!recent.contains(&1, UnixNanos(0)));
    }
}
