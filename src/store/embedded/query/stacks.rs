//! Samples per stack and group, and the part of the call-path trie that they need.

use std::sync::Arc;

use hashbrown::HashMap;

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
    let new = || Counter {
        grouping: groups.grouping.clone(),
        counts: StackCounts::new(stacks),
        per_resource: PerResource::new(resources),
        damaged: false,
    };
    let counter = plan.run(core.settings.threads, Fields::default(), new)?;
    if counter.damaged {
        return Err(damaged(core));
    }
    let d = core.dictionaries.read();
    let (trie, counts) = prune(&d, &counter.counts);
    let mut names = Vec::new();
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    let counts = counts
        .into_iter()
        .map(|count| {
            let group = *numbers.entry(count.group).or_insert_with(|| {
                names.push(groups.name(count.group));
                names.len() as u32 - 1
            });
            GroupedCount { group, ..count }
        })
        .collect();
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
struct StackCounts {
    group: Vec<u32>,
    samples: Vec<u64>,
    touched: Vec<u32>,
    more: HashMap<(u32, u32), u64>,
}

impl StackCounts {
    fn new(stacks: usize) -> Self {
        // Zeroed memory is not touched before it is written, so a small question stays small.
        Self { group: vec![0; stacks], samples: vec![0; stacks], touched: Vec::new(), more: HashMap::new() }
    }

    /// `false` when there is no such stack.
    #[inline]
    fn add(&mut self, group: u32, stack: u32, samples: u64) -> bool {
        let Some(place) = self.samples.get_mut(stack as usize) else { return false };
        let owner = &mut self.group[stack as usize];
        if *place == 0 {
            *owner = group;
            *place = samples;
            self.touched.push(stack);
        } else if *owner == group {
            *place += samples;
        } else {
            *self.more.entry((group, stack)).or_insert(0) += samples;
        }
        true
    }
}

struct Counter {
    grouping: Grouping,
    counts: StackCounts,
    per_resource: PerResource,
    damaged: bool,
}

impl Counter {
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
        for &stack in &other.counts.touched {
            let i = stack as usize;
            self.counts.add(other.counts.group[i], stack, other.counts.samples[i]);
        }
        for ((group, stack), samples) in other.counts.more {
            self.counts.add(group, stack, samples);
        }
        self.per_resource.merge(&other.per_resource);
        self.damaged |= other.damaged;
    }
}

/// The nodes above the counted stacks, renumbered in the same order, and the counts at their new leaves. The groups
/// keep their numbers.
fn prune(d: &Dictionaries, counts: &StackCounts) -> (StackTrie, Vec<GroupedCount>) {
    let nodes = d.nodes.values();
    let leaf = |stack: u32| d.stack_node.get(stack as usize).copied().unwrap_or(ROOT);
    let used = used_nodes(nodes, counts.touched.iter().map(|stack| leaf(*stack)));
    let numbers = Renumbered::new(&used, nodes.len());

    let mut trie = StackTrie {
        parent: Vec::with_capacity(used.len()),
        frame: Vec::with_capacity(used.len()),
        frames: Vec::new(),
    };
    let mut frames: HashMap<u32, u32> = HashMap::new();
    for &node in &used {
        let (parent, frame) = nodes[node as usize];
        let frame = if node == ROOT {
            0
        } else {
            *frames.entry(frame).or_insert_with(|| {
                trie.frames.push(d.frames.values()[frame as usize]);
                trie.frames.len() as u32 - 1
            })
        };
        trie.parent.push(numbers.get(parent));
        trie.frame.push(frame);
    }

    // Several stacks share a leaf when their frames are unknown, or when a sender has its own way to number stacks.
    let mut out: Vec<GroupedCount> = Vec::with_capacity(counts.touched.len() + counts.more.len());
    let mut place: HashMap<(u32, u32), usize> = HashMap::new();
    let mut owner = vec![u32::MAX; used.len()];
    let mut shared = vec![false; used.len()];
    for &stack in &counts.touched {
        let node = numbers.get(leaf(stack)) as usize;
        shared[node] |= owner[node] != u32::MAX;
        owner[node] = stack;
    }
    let all = counts
        .touched
        .iter()
        .map(|stack| (counts.group[*stack as usize], *stack, counts.samples[*stack as usize]))
        .chain(counts.more.iter().map(|((group, stack), samples)| (*group, *stack, *samples)));
    for (group, stack, samples) in all {
        let node = numbers.get(leaf(stack));
        if shared[node as usize] {
            if let Some(at) = place.get(&(group, node)) {
                out[*at].samples += samples;
                continue;
            }
            place.insert((group, node), out.len());
        }
        out.push(GroupedCount { group, node, samples });
    }
    (trie, out)
}

/// The given nodes and all above them, in ascending order, the root always first.
fn used_nodes(nodes: &[(u32, u32)], leaves: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut seen = vec![0u64; nodes.len().div_ceil(64)];
    let mut used = vec![ROOT];
    seen[0] |= 1;
    for mut node in leaves {
        while seen[node as usize / 64] >> (node % 64) & 1 == 0 {
            seen[node as usize / 64] |= 1 << (node % 64);
            used.push(node);
            node = nodes[node as usize].0;
        }
    }
    used.sort_unstable();
    used
}

/// Old node number → new one.
enum Renumbered {
    /// For answers that need a good part of the trie.
    Array(Vec<u32>),
    /// For small answers from a large trie.
    Map(HashMap<u32, u32>),
}

impl Renumbered {
    fn new(used: &[u32], nodes: usize) -> Self {
        let pairs = used.iter().enumerate().map(|(new, old)| (*old, new as u32));
        if used.len() * 16 < nodes {
            return Self::Map(pairs.collect());
        }
        let mut array = vec![0; nodes];
        pairs.for_each(|(old, new)| array[old as usize] = new);
        Self::Array(array)
    }

    #[inline]
    fn get(&self, old: u32) -> u32 {
        match self {
            Self::Array(array) => array[old as usize],
            Self::Map(map) => map.get(&old).copied().unwrap_or(0),
        }
    }
}
