//! Self and total samples of every function.

use std::cmp::Reverse;

use crate::store::StackSet;

use super::names::FunctionNames;
use super::tree::ranks;
use super::{Cancel, Result, Weights};

/// One function with its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionRow {
    /// Index in [`FunctionNames::functions`].
    pub function: u32,
    /// Whether it was inlined wherever it was seen.
    pub inlined: bool,
    /// Samples that end in it.
    pub own: u64,
    /// Samples with it anywhere on the stack; a stack counts once however often the function is on it.
    pub total: u64,
}

/// Order of a list of functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By own samples.
    #[default]
    Own,
    /// By total samples.
    Total,
}

/// Nothing: the end of a list of siblings.
const NONE: u32 = u32::MAX;

/// Counts all functions on weighed paths, in no particular order. Own samples of all functions add up to all samples
/// but those without any frame.
pub fn count(
    set: &StackSet,
    weights: &Weights,
    names: &FunctionNames,
    cancel: &Cancel,
) -> Result<Vec<FunctionRow>> {
    let mut tally = Tally::new(names);
    // Entry of each trie node of the current group.
    let mut slot = vec![0u32; set.trie.parent.len()];
    for (_, range) in weights.ranges() {
        cancel.check()?;
        let (start, len) = (range.start, range.len());
        let mut parent = vec![0u32; len];
        let mut first_child = vec![NONE; len];
        let mut sibling = vec![NONE; len];
        for (i, parent) in parent.iter_mut().enumerate() {
            let node = weights.node[start + i] as usize;
            slot[node] = i as u32;
            *parent = slot[set.trie.parent[node] as usize];
        }
        for i in (1..len).rev() {
            let first = &mut first_child[parent[i] as usize];
            sibling[i] = *first;
            *first = i as u32;
        }
        // Depth first without recursion: down to the first child, else on to the next sibling of the nearest
        // ancestor that has one.
        let mut at = first_child[0];
        let mut steps = 0;
        while at != NONE {
            steps += 1;
            cancel.check_every(steps)?;
            let i = at as usize;
            let frame = |i: usize| set.trie.frame[weights.node[start + i] as usize];
            tally.enter(frame(i), weights.own[start + i], weights.total[start + i]);
            at = first_child[i];
            let mut leaving = i;
            while at == NONE && leaving != 0 {
                tally.leave(frame(leaving));
                at = sibling[leaving];
                leaving = parent[leaving] as usize;
            }
        }
    }
    Ok(tally.rows())
}

/// Sorts and cuts a list. Equal counts go by the other count, then by name, so that the order is always the same.
pub fn top(rows: &mut Vec<FunctionRow>, names: &FunctionNames, sort: Sort, limit: usize) {
    let rank = ranks(names);
    let key = |row: &FunctionRow| {
        let (first, second) = match sort {
            Sort::Own => (row.own, row.total),
            Sort::Total => (row.total, row.own),
        };
        (Reverse(first), Reverse(second), rank[row.function as usize])
    };
    if limit < rows.len() && limit > 0 {
        rows.select_nth_unstable_by_key(limit - 1, key);
    }
    rows.truncate(limit);
    rows.sort_unstable_by_key(key);
}

/// Counts per function, and how often each is on the path being walked.
struct Tally<'n> {
    names: &'n FunctionNames,
    rows: Vec<FunctionRow>,
    on_path: Vec<u32>,
}

impl<'n> Tally<'n> {
    fn new(names: &'n FunctionNames) -> Self {
        let functions = names.functions().len();
        let rows = (0..functions as u32)
            .map(|function| FunctionRow { function, inlined: true, own: 0, total: 0 })
            .collect();
        Self { names, rows, on_path: vec![0; functions] }
    }

    fn enter(&mut self, frame: u32, own: u64, total: u64) {
        let links = self.names.links(frame);
        for link in links {
            let function = link.function as usize;
            self.on_path[function] += 1;
            self.rows[function].inlined &= link.inlined;
            if self.on_path[function] == 1 {
                self.rows[function].total += total;
            }
        }
        if let Some(innermost) = links.last() {
            self.rows[innermost.function as usize].own += own;
        }
    }

    fn leave(&mut self, frame: u32) {
        for link in self.names.links(frame) {
            self.on_path[link.function as usize] -= 1;
        }
    }

    /// Functions that were seen.
    fn rows(self) -> Vec<FunctionRow> {
        self.rows.into_iter().filter(|row| row.total > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::query::testing::{names_of, scene, scenes};

    #[test]
    fn recursion_counts_once_and_ties_go_by_name() {
        let (set, details) = scene();
        let weights = Weights::new(&set, &Cancel::default()).unwrap();
        let names = names_of(&set, &weights, &details);
        let mut rows = count(&set, &weights, &names, &Cancel::default()).unwrap();
        top(&mut rows, &names, Sort::Total, 100);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (&*names.functions()[row.function as usize].name, row.own, row.total, row.inlined))
            .collect();
        assert_eq!(
            seen,
            [
                ("main", 0, 22, false),
                ("step", 19, 19, true),
                ("work", 0, 19, false),
                ("libfoo.so+0x4567", 3, 5, false),
                ("recurse", 1, 5, false),
                ("[truncated: no unwind table for libfoo.so]", 0, 3, false),
                ("vfs_read", 2, 2, false),
            ]
        );
        top(&mut rows, &names, Sort::Own, 2);
        assert_eq!(rows.iter().map(|row| row.own).collect::<Vec<_>>(), [19, 3]);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_stacks_one_by_one((set, details) in scenes()) {
            let cancel = Cancel::default();
            let weights = Weights::new(&set, &cancel).unwrap();
            let names = names_of(&set, &weights, &details);
            let (mut own, mut total) = (HashMap::new(), HashMap::new());
            let mut empty = 0;
            for count in &set.counts {
                let (mut node, mut seen) = (count.node as usize, HashSet::new());
                match names.functions().len() {
                    _ if node == 0 => empty += count.samples,
                    _ => {
                        let leaf = names.links(set.trie.frame[node]).last().unwrap().function;
                        *own.entry(leaf).or_insert(0) += count.samples;
                    }
                }
                while node != 0 {
                    seen.extend(names.links(set.trie.frame[node]).iter().map(|link| link.function));
                    node = set.trie.parent[node] as usize;
                }
                for function in seen {
                    *total.entry(function).or_insert(0) += count.samples;
                }
            }
            let rows = count(&set, &weights, &names, &cancel).unwrap();
            prop_assert_eq!(rows.len(), total.len());
            for row in &rows {
                prop_assert_eq!(row.total, total[&row.function]);
                prop_assert_eq!(row.own, own.get(&row.function).copied().unwrap_or(0));
            }
            prop_assert_eq!(rows.iter().map(|row| row.own).sum::<u64>() + empty, weights.samples());
        }
    }
}
