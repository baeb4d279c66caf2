//! Values numbered in order of first appearance, with a look-up that does not hold them twice.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Values and their numbers. Numbers are dense, start at 0 and never change.
pub(crate) struct Interner<T> {
    values: Vec<T>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<T> std::fmt::Debug for Interner<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interner").field("len", &self.values.len()).finish_non_exhaustive()
    }
}

impl<T: Hash + Eq + Clone> Interner<T> {
    /// Number of `value`, given now if it has none yet; the flag says so.
    pub(crate) fn intern(&mut self, value: &T) -> (u32, bool) {
        let hash = self.hasher.hash_one(value);
        if let Some(number) = self.numbers.find(hash, |n| self.values[*n as usize] == *value) {
            return (*number, false);
        }
        (self.add(hash, value.clone()), true)
    }

    /// Appends a value that comes from disk; equal values keep their first number for look-ups.
    pub(crate) fn push(&mut self, value: T) {
        let hash = self.hasher.hash_one(&value);
        self.add(hash, value);
    }

    fn add(&mut self, hash: u64, value: T) -> u32 {
        let number = self.values.len() as u32;
        self.values.push(value);
        let (values, hasher) = (&self.values, &self.hasher);
        self.numbers.insert_unique(hash, number, |n| hasher.hash_one(&values[*n as usize]));
        number
    }

    /// All values in order of their numbers.
    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}
