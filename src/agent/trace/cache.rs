//! Raw stacks seen before, to the number of the stack that they became.
//!
//! Two generations: when the young one is full it becomes the old one, and the old one is forgotten. A hit in the old
//! one moves up. No list to maintain, no allocation for known stacks once both have grown.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::interner::StackNumber;

/// 128-bit hash of image, generation and raw frames.
pub(crate) type Key = (u64, u64);

/// The key is a hash already.
#[derive(Debug, Default)]
struct FirstWord(u64);

impl Hasher for FirstWord {
    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, word: u64) {
        // The second word comes last; it is as good as the first.
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Entries = HashMap<Key, StackNumber, BuildHasherDefault<FirstWord>>;

/// The cache.
#[derive(Debug)]
pub(crate) struct TraceCache {
    /// Entries of one generation; 32,768 in each are about 3 MB.
    entries: usize,
    young: Entries,
    old: Entries,
    interner_generation: u32,
}

impl TraceCache {
    /// A cache of two generations of `entries` each.
    pub(crate) fn new(entries: usize) -> Self {
        Self { entries, young: Entries::default(), old: Entries::default(), interner_generation: 0 }
    }

    /// The stack under a key, as numbered by the interner of `generation`.
    pub(crate) fn get(&mut self, key: Key, generation: u32) -> Option<StackNumber> {
        if generation != self.interner_generation {
            self.interner_generation = generation;
            self.young.clear();
            self.old.clear();
            return None;
        }
        if let Some(stack) = self.young.get(&key) {
            return Some(*stack);
        }
        let stack = self.old.remove(&key)?;
        self.insert(key, stack);
        Some(stack)
    }

    /// Remembers a stack.
    pub(crate) fn insert(&mut self, key: Key, stack: StackNumber) {
        if self.young.len() >= self.entries {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION_ENTRIES: usize = 1000;

    #[test]
    fn used_entries_survive_and_others_go() {
        let mut cache = TraceCache::new(GENERATION_ENTRIES);
        cache.insert((0, 0), StackNumber(7));
        cache.insert((1, 1), StackNumber(8));
        for n in 2..3 * GENERATION_ENTRIES as u64 {
            cache.insert((n, n), StackNumber(0));
            assert_eq!(cache.get((0, 0), 0), Some(StackNumber(7)), "after {n}");
        }
        assert_eq!(cache.get((1, 1), 0), None);
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_ENTRIES);
    }

    #[test]
    fn new_numbering_empties_it() {
        let mut cache = TraceCache::new(GENERATION_ENTRIES);
        cache.insert((0, 0), StackNumber(7));
        assert_eq!(cache.get((0, 0), 1), None);
        assert_eq!(cache.get((0, 0), 1), None);
    }
}
