//! The search of `bpf/search.h`, step by step, over pages as they were written: for walks that user space
//! makes up for, and for tests.

use super::pages::CHILDREN;
use crate::agent::bpf::abi;

/// What holds at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Number of the rule.
    pub(super) rule: u16,
    /// Bytes passed since the address of its row, at most [`abi::MAX_PASSED`].
    pub(super) passed: u32,
}

fn step(index: &mut usize, by: usize, key: u64, at: impl Fn(usize) -> u32) {
    let difference = key.wrapping_sub(u64::from(at(*index + by)));
    *index += ((difference >> 63) ^ 1) as usize * by;
}

fn search_inner(word: impl Fn(usize) -> u32, offset: u64) -> usize {
    let mut i = 0;
    for by in [256, 128, 64, 32, 16, 8, 4, 2, 1] {
        step(&mut i, by, offset, &word);
    }
    i
}

fn search_leaf(word: impl Fn(usize) -> u32, offset: u64) -> Found {
    let mut group = 0;
    for by in [32, 16, 8, 4, 2, 1] {
        step(&mut group, by, offset, &word);
    }
    let passed = offset.wrapping_sub(u64::from(word(group))).min(u64::from(abi::GROUP_SPAN));
    let key = passed << abi::ROW_RULE_BITS | ((1 << abi::ROW_RULE_BITS) - 1);
    let (group, mut row) = (group << 4, 0);
    for by in [8, 4, 2, 1] {
        step(&mut row, by, key, |row| word(group + row));
    }
    let found = word(group + row);
    let passed = passed.wrapping_sub(u64::from(found >> abi::ROW_RULE_BITS));
    Found {
        rule: (found & ((1 << abi::ROW_RULE_BITS) - 1)) as u16,
        passed: passed.min(u64::from(abi::MAX_PASSED)) as u32,
    }
}

/// What holds at `offset` of the table with this root; `None` before the first row. `word` reads a word of a page.
pub(super) fn find(word: &impl Fn(u32, usize) -> u32, root: u32, offset: u64) -> Option<Found> {
    if root >= abi::TABLE_PENDING || offset >= 0xffff_ffff {
        return None;
    }
    let mut id = root & 0x00ff_ffff;
    for _ in 0..root >> 24 {
        match search_inner(|i| word(id, i), offset) {
            0 => return None,
            i => id = word(id, CHILDREN + i),
        }
    }
    (offset >= u64::from(word(id, abi::LEAF_FIRST_GROUP as usize)))
        .then(|| search_leaf(|i| word(id, i), offset))
}
