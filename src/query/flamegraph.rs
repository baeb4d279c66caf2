//! A stack set as one tree of functions: frames become functions, inlined functions become nodes of their own, and
//! neighbours that are the same function become one.

use crate::store::StackSet;

use super::names::{FunctionNames, Link, NodeKind};
use super::tree::{DrawnFunction, DrawnFunctions, FlameTree, TreeBuilder};
use super::{Cancel, Result, Weights};

/// A flame graph: a tree and the functions that it draws.
#[derive(Clone, Debug, Default)]
pub struct Flamegraph {
    /// The tree.
    pub tree: FlameTree,
    /// Functions by the numbers in the tree.
    pub functions: Vec<DrawnFunction>,
}

/// Draws a stack set. With `by_group`, the first level holds the groups.
pub fn draw(
    set: &StackSet,
    weights: &Weights,
    names: &mut FunctionNames,
    by_group: bool,
    max_nodes: usize,
    cancel: &Cancel,
) -> Result<Flamegraph> {
    let root = names.add_level(NodeKind::ROOT, &"".into());
    let groups: Vec<u32> = if by_group {
        weights.groups.iter().map(|name| names.add_level(NodeKind::GROUP, name)).collect()
    } else {
        Vec::new()
    };
    let mut tree = TreeBuilder::new(root, weights.node.len());
    // Drawn node of each trie node of the current group: parents stand before children, so it is always fresh.
    let mut drawn = vec![0u32; set.trie.parent.len()];
    for (group, range) in weights.ranges() {
        for i in range {
            cancel.check_every(i)?;
            let (node, total) = (weights.node[i] as usize, weights.total[i]);
            let mut at = if node == 0 { 0 } else { drawn[set.trie.parent[node] as usize] };
            if node == 0 {
                tree.add_root(total);
                if by_group {
                    let link = Link { function: groups[group as usize], line: 0, inlined: false };
                    at = tree.child(0, link, total);
                }
            } else {
                for link in names.links(set.trie.frame[node]) {
                    at = tree.child(at, *link, total);
                }
            }
            drawn[node] = at;
            tree.end(at, weights.own[i]);
            if let Some(fold) = weights.folded.get(i) {
                tree.fold(at, *fold);
            }
        }
    }
    let mut functions = DrawnFunctions::new(names);
    let tree = tree.finish(names, &mut functions, max_nodes, cancel)?;
    Ok(Flamegraph { tree, functions: functions.list })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::testing::{names_of, outline, scene, scenes};

    fn drawn(
        set: &StackSet,
        details: &[crate::store::FrameDetail],
        by: bool,
        max: usize,
    ) -> (Flamegraph, FunctionNames) {
        let cancel = Cancel::default();
        let weights = Weights::new(set, &cancel).unwrap();
        let mut names = names_of(set, &weights, details);
        (draw(set, &weights, &mut names, by, max, &cancel).unwrap(), names)
    }

    #[test]
    fn addresses_merge_inlines_expand_and_siblings_go_by_name() {
        let (set, details) = scene();
        let (graph, names) = drawn(&set, &details, true, usize::MAX);
        insta::assert_snapshot!(outline(&graph, &names), @r"
        (all) 0/25
          app 0/10
            [truncated: no unwind table for libfoo.so] 0/3
              libfoo.so+0x4567 3/3
            main:10 0/7
              libfoo.so+0x4567 0/2
                vfs_read 2/2
              work:30 0/5
                step (inlined):5 5/5
          nginx 0/15
            main:10 0/15
              recurse:40 1/5
                recurse:40 0/4
                  work:30 0/4
                    step (inlined):5 4/4
              work:30 0/10
                step (inlined):5 10/10
        ");
    }

    #[test]
    fn without_groups_the_same_stack_of_two_processes_is_one() {
        let (set, details) = scene();
        let (graph, names) = drawn(&set, &details, false, usize::MAX);
        insta::assert_snapshot!(outline(&graph, &names), @r"
        (all) 0/25
          [truncated: no unwind table for libfoo.so] 0/3
            libfoo.so+0x4567 3/3
          main:10 0/22
            libfoo.so+0x4567 0/2
              vfs_read 2/2
            recurse:40 1/5
              recurse:40 0/4
                work:30 0/4
                  step (inlined):5 4/4
            work:30 0/15
              step (inlined):5 15/15
        ");
    }

    #[test]
    fn the_lightest_are_folded_and_counted() {
        let (set, details) = scene();
        let (graph, names) = drawn(&set, &details, true, 4);
        insta::assert_snapshot!(outline(&graph, &names), @r"
        (all) 0/25 folded 10 in 8
          nginx 0/15
            main:10 0/15 folded 5 in 4
              work:30 0/10
                step (inlined):5 10/10
        ");
    }

    #[test]
    fn nothing_is_a_root_of_nothing() {
        let set = StackSet { groups: vec!["".into()], ..StackSet::default() };
        let (graph, _) = drawn(&set, &[], true, 10);
        assert_eq!((graph.tree.parent, graph.tree.total), (vec![0], vec![0]));
    }

    #[test]
    fn a_cancelled_drawing_stops() {
        let (set, details) = scene();
        let weights = Weights::new(&set, &Cancel::default()).unwrap();
        let mut names = names_of(&set, &weights, &details);
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(matches!(
            draw(&set, &weights, &mut names, true, 10, &cancel),
            Err(crate::query::Error::Cancelled)
        ));
    }

    proptest! {
        #[test]
        fn weight_is_conserved((set, details) in scenes(), by in any::<bool>(), max in 0usize..40, early in 1usize..40) {
            let cancel = Cancel::default();
            let samples: u64 = set.counts.iter().map(|c| c.samples).sum();
            let weights = Weights::new(&set, &cancel).unwrap().prune(&set, early);
            let mut names = names_of(&set, &weights, &details);
            let graph = draw(&set, &weights, &mut names, by, max, &cancel).unwrap();
            let tree = &graph.tree;
            prop_assert!(tree.parent.len() <= max + 1);
            prop_assert_eq!(tree.total[0], samples);
            let mut below = tree.own.clone();
            for (node, fold) in &tree.folded {
                below[*node as usize] += fold.samples;
            }
            for i in 1..tree.parent.len() {
                prop_assert!((tree.parent[i] as usize) < i);
                below[tree.parent[i] as usize] += tree.total[i];
            }
            prop_assert_eq!(&below, &tree.total);
            let shown: u64 = tree.own.iter().sum();
            prop_assert_eq!(shown + tree.folded.iter().map(|(_, f)| f.samples).sum::<u64>(), samples);
            // Depth first: the parent is the node before or one of its ancestors.
            for i in 1..tree.parent.len() {
                let mut at = i as u32 - 1;
                while at != tree.parent[i] {
                    prop_assert!(at != 0);
                    at = tree.parent[at as usize];
                }
            }
        }

        #[test]
        fn the_same_stacks_give_the_same_picture((set, details) in scenes()) {
            let (first, names) = drawn(&set, &details, true, 9);
            let mut shuffled = set.clone();
            shuffled.counts.reverse();
            let (second, other) = drawn(&shuffled, &details, true, 9);
            prop_assert_eq!(outline(&first, &names), outline(&second, &other));
        }
    }
}
