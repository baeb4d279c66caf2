//! Samples per stack and group, and the part of the call-path trie that they need.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::super::core::Core;
use super::super::dictionary::{Dictionaries, ROOT};
use super::super::segment::{Batch, Fields};
use super::filter::RowFilter;
use super::group::{Grouping, Groups};
use super::plan::{Plan, Sink, Window};
use super::{PerResource, damaged};
use crate::model::{Dimension, Selection};
use crate::store::{GroupedCount, Precision, Result, StackSet, StackTrie};

/// Answers [`crate::store::Reader::stacks`].
pub(in super::super) fn stacks(
    core: &Core,
    selection: &Selection,
    group_by: Option<Dimension>,
) -> Result<StackSet> {
    let snapshot = core.snapshot();
    let (filter, groups, stacks, resources) = {
        let d = core.dictionaries.read();
        (RowFilter::new(&selection.filter, &d), Groups::new(group_by, &d), d.stacks.len(), d.resources.len())
    };
    let fields = Fields::STACK.with(groups.fields());
    let plan = Plan::stacks(&snapshot, Window::of(selection.range), &filter, fields)?;
    let new = || Counter::new(groups.grouping.clone(), stacks, resources);
    let mut counter = plan.run(core.settings.threads, Fields::default(), new)?;
    if counter.damaged {
        return Err(damaged(core));
    }
    counter.counts.order();
    let d = core.dictionaries.read();
    let (trie, mut counts) = prune(&d, &counter.counts);
    let mut names = Vec::new();
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    // Small group numbers, which nearly all are: new number plus one, 0 = none yet.
    let mut small = [0u32; 4096];
    for count in &mut counts {
        let mut number = || {
            *numbers.entry(count.group).or_insert_with(|| {
                names.push(groups.name(count.group));
                names.len() as u32 - 1
            })
        };
        count.group = match small.get_mut(count.group as usize) {
            None => number(),
            Some(known) => {
                if *known == 0 {
                    *known = number() + 1;
                }
                *known - 1
            }
        };
    }
    if names.is_empty() {
        names.push("".into());
    }
    Ok(StackSet {
        trie: Arc::new(trie),
        groups: names,
        counts,
        cpu_ns: counter.per_resource.cpu_ns(d.resources.values()),
        precision: Precision::Exact,
    })
}

/// Samples per (group, stack). The first group of a stack has a place in an array, further ones are in a map: most
/// stacks belong to one executable.
#[derive(Debug)]
pub(super) struct StackCounts {
    /// Samples and group of each stack, beside each other because they are always used together.
    places: Vec<[u64; 2]>,
    pub(super) touched: Vec<u32>,
    more: HashMap<(u32, u32), u64>,
}

impl StackCounts {
    fn new(stacks: usize) -> Self {
        // Zeroed memory is not touched before it is written, so a small question stays small.
        Self { places: vec![[0; 2]; stacks], touched: Vec::new(), more: HashMap::new() }
    }

    /// `false` when there is no such stack.
    #[inline]
    fn add(&mut self, group: u32, stack: u32, samples: u64) -> bool {
        let Some([sum, owner]) = self.places.get_mut(stack as usize) else { return false };
        if *sum == 0 {
            *owner = u64::from(group);
            *sum = samples;
            self.touched.push(stack);
        } else if *owner == u64::from(group) {
            *sum += samples;
        } else {
            *self.more.entry((group, stack)).or_insert(0) += samples;
        }
        true
    }

    /// Puts the touched stacks in ascending order: everything that is looked up by stack, node or frame number then is
    /// read nearly in sequence, which for millions of stacks is most of the time.
    pub(super) fn order(&mut self) {
        if self.touched.len() * 16 > self.places.len() {
            self.touched.clear();
            let touched = self.places.iter().enumerate().filter(|(_, [samples, _])| *samples > 0);
            self.touched.extend(touched.map(|(stack, _)| stack as u32));
        } else {
            self.touched.sort_unstable();
        }
    }

    /// Group, stack and samples of each pair.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        let first = self.touched.iter().map(|&stack| {
            let [samples, group] = self.places[stack as usize];
            (group as u32, stack, samples)
        });
        first.chain(self.more.iter().map(|((group, stack), samples)| (*group, *stack, *samples)))
    }
}

pub(super) struct Counter {
    grouping: Grouping,
    pub(super) counts: StackCounts,
    per_resource: PerResource,
    pub(super) damaged: bool,
}

impl Counter {
    pub(super) fn new(grouping: Grouping, stacks: usize, resources: usize) -> Self {
        Self {
            grouping,
            counts: StackCounts::new(stacks),
            per_resource: PerResource::new(resources),
            damaged: false,
        }
    }

    /// Adds up runs of rows with the same resource, stack and group.
    #[inline]
    fn add_runs(&mut self, batch: &Batch<'_>, weights: Option<&[i32]>, value: impl Fn(usize) -> i32) {
        let (resource, stack) = (&batch.resource[..batch.len], &batch.stack[..batch.len]);
        let mut i = 0;
        while i < batch.len {
            let (r, s, v) = (resource[i], stack[i], value(i));
            let mut end = i + 1;
            while end < batch.len && stack[end] == s && resource[end] == r && value(end) == v {
                end += 1;
            }
            let samples = match weights {
                None => (end - i) as u64,
                Some(weights) => weights[i..end].iter().map(|w| *w as u64).sum(),
            };
            if samples > 0 {
                let known = self.per_resource.add(r, samples)
                    && self.counts.add(self.grouping.group(r, v), s as u32, samples);
                self.damaged |= !known;
            }
            i = end;
        }
    }
}

impl Sink for Counter {
    fn add(&mut self, batch: &Batch<'_>, weights: Option<&[i32]>) {
        let column = self.grouping.column(batch);
        if column.is_empty() {
            self.add_runs(batch, weights, |_| 0);
        } else {
            self.add_runs(batch, weights, |i| column[i]);
        }
    }

    fn merge(&mut self, other: Self) {
        for (group, stack, samples) in other.counts.all() {
            self.counts.add(group, stack, samples);
        }
        self.per_resource.merge(&other.per_resource);
        self.damaged |= other.damaged;
    }
}

/// The nodes above the counted stacks, renumbered in the same order, and the counts at their new leaves. The groups
/// keep their numbers.
fn prune(d: &Dictionaries, counts: &StackCounts) -> (StackTrie, Vec<GroupedCount>) {
    let leaf = |stack: u32| d.stack_node.get(stack as usize).copied().unwrap_or(ROOT);
    let (trie, used) = cut(d, counts);

    // Several stacks share a leaf when their frames are unknown, or when a sender has its own way to number stacks.
    let mut seen = vec![false; used.len()];
    let mut shared = HashSet::new();
    for &stack in &counts.touched {
        let node = used.number(leaf(stack));
        if std::mem::replace(&mut seen[node as usize], true) {
            shared.insert(node);
        }
    }
    let mut out: Vec<GroupedCount> = Vec::with_capacity(counts.touched.len() + counts.more.len());
    let mut place: HashMap<(u32, u32), usize> = HashMap::new();
    let mut push = |group: u32, stack: u32, samples: u64| {
        let node = used.number(leaf(stack));
        if !shared.is_empty() && shared.contains(&node) {
            if let Some(at) = place.get(&(group, node)) {
                out[*at].samples += samples;
                return;
            }
            place.insert((group, node), out.len());
        }
        out.push(GroupedCount { group, node, samples });
    };
    counts.all().for_each(|(group, stack, samples)| push(group, stack, samples));
    (trie, out)
}

/// The nodes above the counted stacks as a trie, and their new numbers.
pub(super) fn cut(d: &Dictionaries, counts: &StackCounts) -> (StackTrie, UsedNodes) {
    let nodes = d.nodes.values();
    let leaf = |stack: u32| d.stack_node.get(stack as usize).copied().unwrap_or(ROOT);
    let used = UsedNodes::new(nodes, counts.touched.iter().map(|stack| leaf(*stack)));
    let mut trie = StackTrie {
        parent: Vec::with_capacity(used.len()),
        frame: Vec::with_capacity(used.len()),
        frames: Vec::new(),
    };
    // New number of each frame plus one, 0 = none yet.
    let mut frames = vec![0u32; d.frames.len()];
    used.each(|node| {
        let (parent, frame) = nodes[node as usize];
        trie.parent.push(used.number(parent));
        let frame = match frames.get_mut(frame as usize) {
            None => 0,
            Some(new) => {
                if *new == 0 {
                    trie.frames.push(d.frames.values()[frame as usize]);
                    *new = trie.frames.len() as u32;
                }
                *new - 1
            }
        };
        trie.frame.push(frame);
    });
    (trie, used)
}

/// Some leaves and all nodes above them, as bits, with their new numbers: their ranks.
pub(super) struct UsedNodes {
    words: Vec<u64>,
    /// Nodes in all words before.
    before: Vec<u32>,
    len: usize,
}

impl UsedNodes {
    fn new(nodes: &[(u32, u32)], leaves: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut words = vec![0u64; nodes.len().div_ceil(64)];
        let is_new = |words: &mut [u64], node: u32| {
            let (word, bit) = (&mut words[node as usize / 64], 1u64 << (node % 64));
            let new = *word & bit == 0;
            *word |= bit;
            new
        };
        is_new(&mut words, ROOT);
        if leaves.len() * 8 > nodes.len() {
            // Most of the trie: one pass from the end, for a parent comes before its children.
            for leaf in leaves {
                is_new(&mut words, leaf);
            }
            for word in (0..words.len()).rev() {
                let mut bit = 64;
                while bit > 0 {
                    // Marks that appear below `bit` while the word is read are seen, too.
                    let below = if bit == 64 { words[word] } else { words[word] & ((1 << bit) - 1) };
                    if below == 0 {
                        break;
                    }
                    bit = below.ilog2();
                    is_new(&mut words, nodes[word * 64 + bit as usize].0);
                }
            }
        } else {
            for mut node in leaves {
                while is_new(&mut words, node) {
                    node = nodes[node as usize].0;
                }
            }
        }
        let mut len = 0;
        let before = words
            .iter()
            .map(|word| {
                len += word.count_ones();
                len - word.count_ones()
            })
            .collect();
        Self { words, before, len: len as usize }
    }

    fn len(&self) -> usize {
        self.len
    }

    /// New number of a used node.
    #[inline]
    pub(super) fn number(&self, node: u32) -> u32 {
        let word = node as usize / 64;
        self.before[word] + (self.words[word] & ((1u64 << (node % 64)) - 1)).count_ones()
    }

    /// All used nodes in ascending order.
    fn each(&self, mut visit: impl FnMut(u32)) {
        for (i, word) in self.words.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                visit(i as u32 * 64 + word.trailing_zeros());
                word &= word - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_mark_find_the_same_nodes() {
        let nodes: Vec<(u32, u32)> = (0..1000u32).map(|i| (i / 3, i)).collect();
        for step in [1usize, 2, 3, 7, 90, 333] {
            let leaves: Vec<u32> = (0..1000).step_by(step).map(|i| i as u32).collect();
            let used = UsedNodes::new(&nodes, leaves.iter().copied());
            let mut expected: Vec<u32> = vec![0];
            for leaf in leaves {
                let mut node = leaf;
                while node != 0 {
                    expected.push(node);
                    node = nodes[node as usize].0;
                }
            }
            expected.sort_unstable();
            expected.dedup();
            let mut found = Vec::new();
            used.each(|node| found.push(node));
            assert_eq!(found, expected, "every {step}th");
            assert!(found.iter().enumerate().all(|(i, node)| used.number(*node) == i as u32));
            assert_eq!(used.len(), found.len());
        }
    }
}
