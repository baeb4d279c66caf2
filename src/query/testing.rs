//! Small stack sets for tests of the reducers: one made by hand, many made by chance.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;

use crate::model::{FileId, FrameId, FrameKind, SourceLine, UnknownReason};
use crate::store::{FrameDetail, GroupedCount, StackSet, StackTrie};

use super::flamegraph::Flamegraph;
use super::{FunctionNames, Weights};

/// Names of the frames that `weights` needs, out of the details of all frames.
pub(crate) fn names_of(set: &StackSet, weights: &Weights, details: &[FrameDetail]) -> FunctionNames {
    let frames = weights.frames(set);
    let asked: Vec<FrameDetail> = frames.iter().map(|frame| details[*frame as usize].clone()).collect();
    FunctionNames::new(&set.trie, &frames, &asked)
}

/// The tree as indented text: name, own, total, line, folded.
pub(crate) fn outline(graph: &Flamegraph, names: &FunctionNames) -> String {
    let tree = &graph.tree;
    let mut depth = vec![0usize; tree.parent.len()];
    let mut text = String::new();
    for i in 0..tree.parent.len() {
        depth[i] = if i == 0 { 0 } else { depth[tree.parent[i] as usize] + 1 };
        let drawn = graph.functions[tree.function[i] as usize];
        let function = &names.functions()[drawn.function as usize];
        let name = if i == 0 { "(all)" } else { &function.name };
        let _ = write!(text, "{:1$}{name}", "", depth[i] * 2);
        if drawn.inlined {
            text.push_str(" (inlined)");
        }
        if tree.line[i] != 0 {
            let _ = write!(text, ":{}", tree.line[i]);
        }
        let _ = write!(text, " {}/{}", tree.own[i], tree.total[i]);
        if let Some((_, fold)) = tree.folded.iter().find(|(node, _)| *node as usize == i) {
            let _ = write!(text, " folded {} in {}", fold.samples, fold.nodes);
        }
        text.push('\n');
    }
    text
}

fn id(file: u64, address: u64) -> FrameId {
    FrameId { file: FileId::from_words(file, file), address_or_line: address }
}

fn named(library: &str, lines: &[(&str, u32)]) -> FrameDetail {
    let lines = lines
        .iter()
        .map(|(function, line)| SourceLine {
            function: (*function).into(),
            file: "work.c".into(),
            line: *line,
            column: 0,
        })
        .collect();
    FrameDetail { library: library.into(), lines, reason: None }
}

/// Two processes; `main` at two addresses, an inlined function, recursion, a frame without a name, a cut stack.
/// Details stand in the order of the tree's frames.
pub(crate) fn scene() -> (StackSet, Vec<FrameDetail>) {
    let frames = vec![
        (id(1, 0x100), FrameKind::NATIVE),  // 0 main, first call site
        (id(1, 0x140), FrameKind::NATIVE),  // 1 main, second call site
        (id(1, 0x200), FrameKind::NATIVE),  // 2 work, with step inlined
        (id(1, 0x300), FrameKind::NATIVE),  // 3 recurse
        (id(2, 0x4567), FrameKind::NATIVE), // 4 no name
        (id(3, 0xffff), FrameKind::KERNEL), // 5 vfs_read
        (id(0, 0), FrameKind::ABORT),       // 6 cut
    ];
    let details = vec![
        named("app", &[("main", 10)]),
        named("app", &[("main", 20)]),
        named("app", &[("work", 30), ("step", 5)]),
        named("app", &[("recurse", 40)]),
        FrameDetail { library: "libfoo.so".into(), lines: vec![], reason: Some(UnknownReason::NoSymbols) },
        named("vmlinux", &[("vfs_read", 0)]),
        named("", &[("[truncated: no unwind table for libfoo.so]", 0)]),
    ];
    let trie = StackTrie {
        //           root main work main' rec rec work libfoo cut libfoo vfs_read
        parent: vec![0, 0, 1, 0, 3, 4, 5, 3, 0, 8, 7],
        frame: vec![0, 0, 2, 1, 3, 3, 2, 4, 6, 4, 5],
        frames,
    };
    let count = |group, node, samples| GroupedCount { group, node, samples };
    let counts = vec![
        count(0, 2, 10),
        count(0, 6, 4),
        count(0, 4, 1),
        count(1, 2, 5),
        count(1, 10, 2),
        count(1, 9, 3),
    ];
    let set = StackSet {
        trie: Arc::new(trie),
        groups: vec!["nginx".into(), "app".into()],
        counts,
        cpu_ns: 25 * 50_000_000,
        ..StackSet::default()
    };
    (set, details)
}

/// Stack sets of every shape with up to 60 nodes, 12 frames of 6 functions and 3 groups.
pub(crate) fn scenes() -> impl Strategy<Value = (StackSet, Vec<FrameDetail>)> {
    let nodes = prop::collection::vec((any::<prop::sample::Index>(), 0u32..12), 0..60);
    let counts = prop::collection::vec(((0u32..3, any::<prop::sample::Index>()), 1u64..50), 0..60);
    let lines = prop::collection::vec(prop::collection::vec((0usize..6, 0u32..9), 0..4), 12);
    (nodes, counts, lines).prop_map(|(nodes, counts, lines)| {
        let mut trie = StackTrie { parent: vec![0], frame: vec![0], frames: vec![] };
        for (parent, frame) in nodes {
            trie.parent.push(parent.index(trie.parent.len()) as u32);
            trie.frame.push(frame);
        }
        trie.frames = (0..12).map(|i| (id(7, i), FrameKind(3 + (i % 2) as u8))).collect();
        let mut seen = std::collections::BTreeMap::new();
        for ((group, node), samples) in counts {
            seen.insert((group, node.index(trie.parent.len()) as u32), samples);
        }
        let functions = ["a", "b", "c", "d", "e", "f"];
        let details = lines
            .into_iter()
            .map(|lines| {
                let lines: Vec<_> = lines.into_iter().map(|(f, line)| (functions[f], line)).collect();
                named("lib", &lines)
            })
            .collect();
        let counts =
            seen.into_iter().map(|((group, node), samples)| GroupedCount { group, node, samples }).collect();
        let set = StackSet {
            trie: Arc::new(trie),
            groups: ["x", "y", "z"].map(Into::into).to_vec(),
            counts,
            ..StackSet::default()
        };
        (set, details)
    })
}
