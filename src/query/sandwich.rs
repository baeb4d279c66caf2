//! Callers and callees of one function.
//!
//! A stack is split at the outermost occurrence of the function: what is above belongs to the callers, what is below
//! (recursion included) to the callees. So every sample counts once, and both trees have the same total.

use crate::store::StackSet;

use super::names::{FunctionNames, Link, NodeKind};
use super::tree::{DrawnFunction, DrawnFunctions, FlameTree, TreeBuilder};
use super::{Cancel, Result, Weights};

/// The two trees around one function, which is the root of both.
#[derive(Clone, Debug, Default)]
pub struct Sandwich {
    /// What the function calls.
    pub callees: FlameTree,
    /// What calls the function: children of a node are its callers.
    pub callers: FlameTree,
    /// Functions by the numbers in both trees.
    pub functions: Vec<DrawnFunction>,
}

/// Not inside the function.
const OUTSIDE: u32 = u32::MAX;

/// Splits all stacks that hold `focus`. With `by_group`, the far end of the callers holds the groups.
/// Each tree has at most `max_nodes` nodes beside its root.
///
/// Takes weights that were not pruned: occurrences below a folded node could not be found.
pub fn split(
    set: &StackSet,
    weights: &Weights,
    names: &mut FunctionNames,
    focus: u32,
    by_group: bool,
    max_nodes: usize,
    cancel: &Cancel,
) -> Result<Sandwich> {
    debug_assert!(weights.folded.is_empty(), "callers hand over all nodes");
    let groups: Vec<u32> = if by_group {
        weights.groups.iter().map(|name| names.add_level(NodeKind::GROUP, name)).collect()
    } else {
        Vec::new()
    };
    let names = &*names;
    let trie = &set.trie;
    let mut callees = TreeBuilder::new(focus, 0);
    let mut callers = TreeBuilder::new(focus, 0);
    // Node in `callees` of each trie node of the current group, or OUTSIDE.
    let mut inside = vec![OUTSIDE; trie.parent.len()];
    for (group, range) in weights.ranges() {
        for i in range {
            cancel.check_every(i)?;
            let (node, total) = (weights.node[i] as usize, weights.total[i]);
            inside[node] = OUTSIDE;
            if node == 0 {
                continue;
            }
            let links = names.links(trie.frame[node]);
            let mut at = inside[trie.parent[node] as usize];
            let mut below = links;
            if at == OUTSIDE {
                let Some(place) = links.iter().position(|link| link.function == focus) else { continue };
                at = 0;
                below = &links[place + 1..];
                callees.add_root(total);
                callers.add_root(total);
                let mut up = links[..place].iter().rev().fold(0, |at, link| callers.child(at, *link, total));
                let mut above = trie.parent[node] as usize;
                while above != 0 {
                    let links = names.links(trie.frame[above]).iter().rev();
                    up = links.fold(up, |at, link| callers.child(at, *link, total));
                    above = trie.parent[above] as usize;
                }
                if let Some(function) = groups.get(group as usize) {
                    up = callers.child(up, Link { function: *function, line: 0, inlined: false }, total);
                }
                callers.end(up, total);
            }
            at = below.iter().fold(at, |at, link| callees.child(at, *link, total));
            inside[node] = at;
            callees.end(at, weights.own[i]);
        }
    }
    let mut functions = DrawnFunctions::new(names);
    let callees = callees.finish(names, &mut functions, max_nodes, cancel)?;
    let callers = callers.finish(names, &mut functions, max_nodes, cancel)?;
    Ok(Sandwich { callees, callers, functions: functions.list })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::flamegraph::Flamegraph;
    use crate::query::testing::{names_of, outline, scene, scenes};

    #[test]
    fn stacks_split_at_the_outermost_occurrence() {
        let (set, details) = scene();
        let weights = Weights::new(&set, &Cancel::default()).unwrap();
        let mut names = names_of(&set, &weights, &details);
        let focus = names.functions().iter().position(|f| &*f.name == "recurse").unwrap() as u32;
        let both = split(&set, &weights, &mut names, focus, true, 100, &Cancel::default()).unwrap();
        let graph = |tree| Flamegraph { tree, functions: both.functions.clone() };
        insta::assert_snapshot!(outline(&graph(both.callees.clone()), &names), @r"
        (all) 1/5
          recurse:40 0/4
            work:30 0/4
              step (inlined):5 4/4
        ");
        insta::assert_snapshot!(outline(&graph(both.callers.clone()), &names), @r"
        (all) 0/5
          main:20 0/5
            nginx 5/5
        ");
    }

    proptest! {
        #[test]
        fn both_sides_hold_the_samples_of_the_function((set, details) in scenes(), by in any::<bool>()) {
            let cancel = Cancel::default();
            let weights = Weights::new(&set, &cancel).unwrap();
            let mut names = names_of(&set, &weights, &details);
            let list = crate::query::functions::count(&set, &weights, &names, &cancel).unwrap();
            for row in &list {
                let both = split(&set, &weights, &mut names, row.function, by, 7, &cancel).unwrap();
                for tree in [&both.callees, &both.callers] {
                    prop_assert_eq!(tree.total[0], row.total);
                    let shown: u64 = tree.own.iter().sum();
                    let folded: u64 = tree.folded.iter().map(|(_, f)| f.samples).sum();
                    prop_assert_eq!(shown + folded, row.total);
                }
            }
        }
    }
}
