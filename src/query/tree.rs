//! A tree of functions that grows by paths, and its finished form: columns in depth-first order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::cut::Cut;
use super::names::{FunctionNames, Link};
use super::{Cancel, Result};

/// What was folded away below a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Nodes.
    pub nodes: u64,
    /// Samples.
    pub samples: u64,
}

/// A function as it is drawn: a function called and the same function inlined are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DrawnFunction {
    /// Index in [`FunctionNames::functions`].
    pub function: u32,
    /// Whether it was inlined wherever this entry is used.
    pub inlined: bool,
}

/// Columns of a finished tree. Node 0 is the root, `parent[i] < i`, depth first, siblings by function name.
/// `total = own + children's totals + folded samples` holds at every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlameTree {
    /// Parent; 0 for the root.
    pub parent: Vec<u32>,
    /// Index in the table of drawn functions.
    pub function: Vec<u32>,
    /// Samples that end here.
    pub own: Vec<u64>,
    /// Samples that end here or below.
    pub total: Vec<u64>,
    /// Line of the call or sample that most samples of the node have; 0 when unknown.
    pub line: Vec<u32>,
    /// Nodes with something folded away below them, ascending.
    pub folded: Vec<(u32, Fold)>,
}

impl FlameTree {
    /// Number of nodes folded away.
    #[must_use]
    pub fn folded_nodes(&self) -> u64 {
        self.folded.iter().map(|(_, fold)| fold.nodes).sum()
    }
}

/// A tree under construction. Nodes are in the order of creation, so parents stand before their children.
#[derive(Debug)]
pub(super) struct TreeBuilder {
    nodes: Vec<Node>,
    child: HashMap<u64, u32, BuildHasherDefault<PairHash>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    parent: u32,
    function: u32,
    own: u64,
    total: u64,
    /// Line of the heaviest contribution, and its weight.
    line: u32,
    line_weight: u64,
    /// Whether every contribution was inlined.
    inlined: bool,
    fold: Fold,
}

impl TreeBuilder {
    /// A tree of nothing but the root, which stands for `function`.
    pub(super) fn new(function: u32, expected_nodes: usize) -> Self {
        let mut child = HashMap::default();
        child.reserve(expected_nodes);
        let mut nodes = Vec::with_capacity(expected_nodes + 1);
        nodes.push(Node { function, ..Node::default() });
        Self { nodes, child }
    }

    /// Adds samples to the root's total.
    pub(super) fn add_root(&mut self, samples: u64) {
        self.nodes[0].total += samples;
    }

    /// The child of `parent` for this link, `samples` heavier than before.
    pub(super) fn child(&mut self, parent: u32, link: Link, samples: u64) -> u32 {
        let key = u64::from(parent) << 32 | u64::from(link.function);
        let next = self.nodes.len() as u32;
        let at = *self.child.entry(key).or_insert(next);
        if at == next {
            self.nodes.push(Node { parent, function: link.function, inlined: true, ..Node::default() });
        }
        let node = &mut self.nodes[at as usize];
        node.total += samples;
        node.inlined &= link.inlined;
        // Equals go by line, so that the picture does not depend on the order in which a store numbers its frames.
        if samples > node.line_weight || (samples == node.line_weight && link.line < node.line) {
            node.line_weight = samples;
            node.line = link.line;
        }
        at
    }

    /// Adds samples that end in a node.
    pub(super) fn end(&mut self, node: u32, samples: u64) {
        self.nodes[node as usize].own += samples;
    }

    /// Adds what was folded below a node before the tree was built.
    pub(super) fn fold(&mut self, node: u32, fold: Fold) {
        let below = &mut self.nodes[node as usize].fold;
        below.nodes += fold.nodes;
        below.samples += fold.samples;
    }

    /// Columns of at most `max_nodes` nodes (and the root), functions numbered by `table`.
    pub(super) fn finish(
        self,
        names: &FunctionNames,
        table: &mut DrawnFunctions,
        max_nodes: usize,
        cancel: &Cancel,
    ) -> Result<FlameTree> {
        let Self { mut nodes, child } = self;
        drop(child);
        cut(&mut nodes, max_nodes);
        cancel.check()?;
        let (first, kids) = sorted_children(&nodes, names);
        cancel.check()?;

        let count = nodes.len();
        let mut tree = FlameTree {
            parent: Vec::with_capacity(count),
            function: Vec::with_capacity(count),
            own: Vec::with_capacity(count),
            total: Vec::with_capacity(count),
            line: Vec::with_capacity(count),
            folded: Vec::new(),
        };
        // (node, number of its parent in the finished tree)
        let mut open = vec![(0u32, 0u32)];
        while let Some((at, parent)) = open.pop() {
            let node = &nodes[at as usize];
            let number = tree.parent.len() as u32;
            cancel.check_every(number as usize)?;
            tree.parent.push(parent);
            tree.function
                .push(table.number(DrawnFunction { function: node.function, inlined: node.inlined }));
            tree.own.push(node.own);
            tree.total.push(node.total);
            tree.line.push(node.line);
            if node.fold != Fold::default() {
                tree.folded.push((number, node.fold));
            }
            let range = first[at as usize] as usize..first[at as usize + 1] as usize;
            open.extend(kids[range].iter().rev().map(|kid| (*kid, number)));
        }
        Ok(tree)
    }
}

/// Folds the lightest nodes into the nearest one that stays.
fn cut(nodes: &mut Vec<Node>, max_nodes: usize) {
    let totals: Vec<u64> = nodes[1..].iter().map(|node| node.total).collect();
    let Some(mut cut) = Cut::new(&totals, max_nodes) else { return };
    // Number after the cut of each node, or of the node that it is folded into.
    let mut number = vec![0u32; nodes.len()];
    let mut kept = 1;
    let mut is_kept = vec![false; nodes.len()];
    is_kept[0] = true;
    for at in 1..nodes.len() {
        let node = nodes[at];
        let parent = node.parent as usize;
        is_kept[at] = cut.keeps(node.total);
        if is_kept[at] {
            number[at] = kept as u32;
            nodes[kept] = Node { parent: number[parent], ..node };
            kept += 1;
        } else {
            number[at] = number[parent];
            let above = &mut nodes[number[parent] as usize].fold;
            above.nodes += 1 + node.fold.nodes;
            // A node below a folded one is part of its total already.
            above.samples += if is_kept[parent] { node.total } else { 0 };
        }
    }
    nodes.truncate(kept);
}

/// Children of every node by name: `kids[first[n]..first[n + 1]]`.
fn sorted_children(nodes: &[Node], names: &FunctionNames) -> (Vec<u32>, Vec<u32>) {
    let rank = ranks(names);
    let mut first = vec![0u32; nodes.len() + 2];
    for node in &nodes[1..] {
        first[node.parent as usize + 2] += 1;
    }
    for i in 1..first.len() {
        first[i] += first[i - 1];
    }
    let mut kids = vec![0u32; nodes.len() - 1];
    for (at, node) in nodes.iter().enumerate().skip(1) {
        let slot = &mut first[node.parent as usize + 1];
        kids[*slot as usize] = at as u32;
        *slot += 1;
    }
    for at in 0..nodes.len() {
        let range = first[at] as usize..first[at + 1] as usize;
        if range.len() > 1 {
            kids[range].sort_unstable_by_key(|kid| rank[nodes[*kid as usize].function as usize]);
        }
    }
    (first, kids)
}

/// Place of every function in the order of names; equal names go by library, kind and key.
pub(super) fn ranks(names: &FunctionNames) -> Vec<u32> {
    let functions = names.functions();
    let mut order: Vec<u32> = (0..functions.len() as u32).collect();
    order.sort_unstable_by(|a, b| {
        let [a, b] = [&functions[*a as usize], &functions[*b as usize]];
        (&a.name, &a.library, a.kind, a.key).cmp(&(&b.name, &b.library, b.kind, b.key))
    });
    let mut rank = vec![0; functions.len()];
    for (place, function) in (0u32..).zip(order) {
        rank[function as usize] = place;
    }
    rank
}

/// Numbers the drawn functions in the order of their first use; several trees may share one table.
#[derive(Debug)]
pub(super) struct DrawnFunctions {
    pub(super) list: Vec<DrawnFunction>,
    /// Number plus one of each function, called and inlined.
    numbers: Vec<[u32; 2]>,
}

impl DrawnFunctions {
    pub(super) fn new(names: &FunctionNames) -> Self {
        Self { list: Vec::new(), numbers: vec![[0; 2]; names.functions().len()] }
    }

    fn number(&mut self, drawn: DrawnFunction) -> u32 {
        let number = &mut self.numbers[drawn.function as usize][usize::from(drawn.inlined)];
        if *number == 0 {
            self.list.push(drawn);
            *number = self.list.len() as u32;
        }
        *number - 1
    }
}

/// Spreads a (parent, function) pair over 64 bits; both are small numbers that we made ourselves.
#[derive(Clone, Copy, Debug, Default)]
struct PairHash(u64);

impl Hasher for PairHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, pair: u64) {
        // Multiplication moves entropy up, folding brings it back down: the table uses both ends.
        let product = u128::from(self.0 ^ pair).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}
