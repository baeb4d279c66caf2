//! From counts at leaves to own and total samples of every node on a counted path, group by group.

use std::sync::Arc;

use crate::store::StackSet;

use super::cut::Cut;
use super::{Cancel, Error, Fold, Result};

/// Nodes of the stack tree that carry samples, per group in ascending order, so parents stand before children.
/// Each group starts with node 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Names of the groups, as in the stack set.
    pub(super) groups: Vec<Arc<str>>,
    /// Group of each run of entries and where the run starts, by group; groups without samples are absent.
    pub(super) runs: Vec<(u32, usize)>,
    /// Node in the trie.
    pub(super) node: Vec<u32>,
    /// Samples that end in the node.
    pub(super) own: Vec<u64>,
    /// Samples that end in the node or below.
    pub(super) total: Vec<u64>,
    /// What was pruned below a node; empty when nothing was.
    pub(super) folded: Vec<Fold>,
}

impl Weights {
    /// Adds up a stack set.
    pub fn new(set: &StackSet, cancel: &Cancel) -> Result<Self> {
        check(set)?;
        let mut weights = Self { groups: set.groups.clone(), ..Self::default() };
        let nodes = set.trie.parent.len();
        // Entry of a trie node within the current group, and the group it was last seen in (plus one).
        let mut slot = vec![0u32; nodes];
        let mut stamp = vec![0u32; nodes];
        for (group, counts) in by_group(set) {
            cancel.check()?;
            let start = weights.node.len();
            weights.runs.push((group, start));
            let mark = group + 1;
            stamp[0] = mark;
            let mut touched = vec![0u32];
            for count in &counts {
                let mut node = set.counts[*count as usize].node;
                while stamp[node as usize] != mark {
                    stamp[node as usize] = mark;
                    touched.push(node);
                    node = set.trie.parent[node as usize];
                }
            }
            if touched.len() > nodes / 8 {
                // Reading all stamps in order is cheaper than sorting that many.
                touched = (0..nodes as u32).filter(|node| stamp[*node as usize] == mark).collect();
            } else {
                touched.sort_unstable();
            }
            for (i, node) in touched.iter().enumerate() {
                slot[*node as usize] = i as u32;
            }
            let mut own = vec![0u64; touched.len()];
            for count in &counts {
                let count = &set.counts[*count as usize];
                own[slot[count.node as usize] as usize] += count.samples;
            }
            let mut total = own.clone();
            for i in (1..touched.len()).rev() {
                total[slot[set.trie.parent[touched[i] as usize] as usize] as usize] += total[i];
            }
            weights.node.append(&mut touched);
            weights.own.append(&mut own);
            weights.total.append(&mut total);
        }
        Ok(weights)
    }

    /// All samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.runs.iter().map(|(_, start)| self.total[*start]).sum()
    }

    /// Samples whose outermost frame is code: not a marker that says why the stack is cut, and not missing.
    #[must_use]
    pub fn complete(&self, set: &StackSet) -> u64 {
        let kind = |node: u32| set.trie.frames[set.trie.frame[node as usize] as usize].1;
        (self.node.iter().zip(&self.total))
            .filter(|(node, _)| **node != 0 && set.trie.parent[**node as usize] == 0)
            .filter(|(node, _)| !kind(**node).is_error())
            .map(|(_, total)| total)
            .sum()
    }

    /// Entries of each run.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> + '_ {
        self.runs.iter().enumerate().map(|(i, (group, start))| {
            let end = self.runs.get(i + 1).map_or(self.node.len(), |next| next.1);
            (*group, *start..end)
        })
    }

    /// Leaves the `budget` heaviest entries (and the root of every group); what goes is counted at the entry above it.
    #[must_use]
    pub fn prune(self, set: &StackSet, budget: usize) -> Self {
        let Some(mut cut) = Cut::new(&self.total, budget) else { return self };
        let mut pruned = Self { groups: self.groups.clone(), ..Self::default() };
        let mut kept_as = vec![0u32; set.trie.parent.len()];
        let mut is_kept = vec![false; set.trie.parent.len()];
        for (group, range) in self.ranges() {
            pruned.runs.push((group, pruned.node.len()));
            for i in range {
                let node = self.node[i] as usize;
                let parent = set.trie.parent[node] as usize;
                let fold = self.folded.get(i).copied().unwrap_or_default();
                is_kept[node] = cut.keeps(self.total[i]) || node == 0;
                if is_kept[node] {
                    kept_as[node] = pruned.node.len() as u32;
                    pruned.node.push(self.node[i]);
                    pruned.own.push(self.own[i]);
                    pruned.total.push(self.total[i]);
                    pruned.folded.push(fold);
                } else {
                    kept_as[node] = kept_as[parent];
                    let above = &mut pruned.folded[kept_as[node] as usize];
                    above.nodes += 1 + fold.nodes;
                    // A node below a folded one is part of its total already.
                    above.samples += if is_kept[parent] { self.total[i] } else { 0 };
                }
            }
        }
        pruned
    }

    /// Distinct frames on the weighed paths, ascending.
    #[must_use]
    pub fn frames(&self, set: &StackSet) -> Vec<u32> {
        let mut seen = vec![false; set.trie.frames.len()];
        for &node in self.node.iter().filter(|node| **node != 0) {
            seen[set.trie.frame[node as usize] as usize] = true;
        }
        (0..seen.len() as u32).filter(|frame| seen[*frame as usize]).collect()
    }
}

/// Indices of the counts of each group that has any, groups ascending.
fn by_group(set: &StackSet) -> Vec<(u32, Vec<u32>)> {
    let mut groups: Vec<Vec<u32>> = vec![Vec::new(); set.groups.len()];
    for (i, count) in set.counts.iter().enumerate() {
        groups[count.group as usize].push(i as u32);
    }
    (0u32..).zip(groups).filter(|(_, counts)| !counts.is_empty()).collect()
}

/// Every index points where it should: a store read from disk is outside data.
fn check(set: &StackSet) -> Result<()> {
    let (trie, broken) = (&set.trie, |problem: String| Err(Error::BrokenTrie { problem }));
    if trie.frame.len() != trie.parent.len() {
        return broken(format!("expected {} frames, found {}", trie.parent.len(), trie.frame.len()));
    }
    if let Some(node) = (1..trie.parent.len()).find(|node| trie.parent[*node] as usize >= *node) {
        return broken(format!("node {node} has parent {}", trie.parent[node]));
    }
    if let Some(node) = (1..trie.frame.len()).find(|node| trie.frame[*node] as usize >= trie.frames.len()) {
        return broken(format!("node {node} has frame {} of {}", trie.frame[node], trie.frames.len()));
    }
    let inside = |c: &&crate::store::GroupedCount| {
        (c.node as usize) < trie.parent.len() && (c.group as usize) < set.groups.len()
    };
    match set.counts.iter().find(|count| !inside(count)) {
        Some(count) => broken(format!("a count at node {} of group {}", count.node, count.group)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::testing::{scene, scenes};
    use crate::store::GroupedCount;

    #[test]
    fn totals_hold_everything_below() {
        let (set, _) = scene();
        let weights = Weights::new(&set, &Cancel::default()).unwrap();
        assert_eq!(weights.samples(), set.counts.iter().map(|c| c.samples).sum::<u64>());
        assert_eq!(weights.complete(&set), weights.samples() - 3);
    }

    #[test]
    fn a_broken_tree_is_refused() {
        let (set, _) = scene();
        let with = |change: &dyn Fn(&mut StackSet)| {
            let mut broken = set.clone();
            change(&mut broken);
            matches!(Weights::new(&broken, &Cancel::default()), Err(Error::BrokenTrie { .. }))
        };
        assert!(with(&|s| Arc::make_mut(&mut s.trie).parent[1] = 1));
        assert!(with(&|s| Arc::make_mut(&mut s.trie).frame[1] = 9999));
        assert!(with(&|s| Arc::make_mut(&mut s.trie).frame.truncate(2)));
        assert!(with(&|s| s.counts.push(GroupedCount { group: 0, node: 9999, samples: 1 })));
        assert!(with(&|s| s.counts.push(GroupedCount { group: 99, node: 1, samples: 1 })));
    }

    proptest! {
        #[test]
        fn pruning_loses_nothing((set, _) in scenes(), budget in 0usize..20) {
            let all = Weights::new(&set, &Cancel::default()).unwrap();
            let pruned = all.clone().prune(&set, budget);
            prop_assert_eq!(pruned.samples(), all.samples());
            prop_assert!(pruned.node.len() <= budget + pruned.runs.len());
            let own: u64 = pruned.own.iter().sum();
            let folded: u64 = pruned.folded.iter().map(|f| f.samples).sum();
            prop_assert_eq!(own + folded, all.samples());
            let nodes: u64 = pruned.folded.iter().map(|f| f.nodes).sum();
            prop_assert_eq!(nodes as usize + pruned.node.len(), all.node.len());
        }
    }
}
