//! Scenes made by hand through all three reductions.

use std::fmt::Write as _;
use std::sync::Arc;

use super::cost::Rates;
use super::resample::resample;
use super::{Prices, Scene, flamegraph, functions, stacktraces};
use crate::model::{FileId, FrameId, FrameKind, SourceLine, StackId, UnknownReason};
use crate::query::Cancel;
use crate::store::{EventCount, EventKey, EventSet, FrameDetail, StackTrie};

fn id(file: u64, address: u64) -> FrameId {
    FrameId { file: FileId::from_words(file, file + 1), address_or_line: address }
}

fn line(function: &str, file: &str, line: u32) -> SourceLine {
    SourceLine { function: function.into(), file: file.into(), line, column: 0 }
}

/// `main` calls `work` (with `step` inlined) and itself; a kernel thread without a name; one stack that nobody knows.
fn scene() -> Scene {
    let frames = vec![
        (id(1, 0x10), FrameKind::NATIVE),
        (id(1, 0x20), FrameKind::NATIVE),
        (id(2, 0xffff_ffff_8100_0010), FrameKind::KERNEL),
    ];
    let trie = StackTrie { parent: vec![0, 0, 1, 1, 0], frame: vec![0, 0, 1, 0, 2], frames };
    let named = |lines| FrameDetail { library: "app".into(), lines, reason: None };
    let details = [
        named(vec![line("main", "/src/app/main.c", 3)]),
        named(vec![line("work", "/src/app/main.c", 7), line("step", "/src/app/step.h", 9)]),
        FrameDetail { library: "vmlinux".into(), lines: vec![], reason: Some(UnknownReason::Pending) },
    ];
    let key = |executable: &str, thread: &str, service: &str| EventKey {
        executable: executable.into(),
        thread: thread.into(),
        host_id: "".into(),
        frequency_hz: 20,
        fields: vec![service.into()],
    };
    let stack = |n: u8, leaf| (StackId([n; 16]), leaf);
    let count = |key, stack, events| EventCount { key, stack, events };
    let set = EventSet {
        trie: Arc::new(trie),
        stacks: vec![stack(1, 2), stack(2, 3), stack(3, 4), stack(4, 0)],
        keys: vec![key("app", "a", "basket"), key("app", "b", ""), key("", "kworker", "")],
        counts: vec![count(0, 0, 5), count(1, 0, 2), count(0, 1, 1), count(2, 2, 4), count(0, 3, 100)],
        exact: true,
        ..EventSet::default()
    };
    let rates = Rates { prices: Prices::default(), duration_s: 600.0, frequency_hz: 20 };
    Scene::new(&set, &resample(&set, 20_000, 1), &details, &[], rates)
}

#[test]
fn the_graph_has_levels_for_executables_and_threads_and_nodes_for_inlined_functions() {
    let graph = flamegraph::draw(&scene(), &Cancel::default()).unwrap();
    let mut text = String::new();
    let mut open = vec![(0u32, 0usize)];
    while let Some((number, depth)) = open.pop() {
        let node = &graph.nodes[number as usize];
        let name = if node.function.is_empty() { &node.executable } else { &node.function };
        let mark = if node.is_inlined { " inlined" } else { "" };
        let _ = writeln!(
            text,
            "{:1$}{2:#x} {name:?}{mark} {3}/{4} at {5}",
            "",
            depth * 2,
            node.kind,
            node.exclusive,
            node.inclusive,
            node.address_or_line
        );
        open.extend(node.children.iter().rev().map(|child| (*child, depth + 1)));
    }
    insta::assert_snapshot!(text, @r#"
    0x100 "" 0/12 at 0
      0x101 "app" 0/8 at 0
        0x102 "a" 0/6 at 0
          0x3 "main" 0/6 at 16
            0x3 "work" 0/5 at 32
              0x3 "step" inlined 5/5 at 32
            0x3 "main" 1/1 at 16
        0x102 "b" 0/2 at 0
          0x3 "main" 0/2 at 16
            0x3 "work" 0/2 at 32
              0x3 "step" inlined 2/2 at 32
      0x101 "kernel" 0/4 at 0
        0x102 "kworker" 0/4 at 0
          0x4 "vmlinux" 4/4 at -2130706416
    "#);
    let own: f64 = graph.nodes.iter().map(|node| node.exclusive_annual.co2_tons).sum();
    assert!((own - graph.nodes[0].inclusive_annual.co2_tons).abs() < 1e-15);
}

#[test]
fn functions_count_a_stack_once_and_their_groups_each_occurrence() {
    let scene = scene();
    let functions = functions::rank(&scene, &Cancel::default()).unwrap();
    let seen: Vec<_> = functions
        .list
        .iter()
        .map(|f| {
            let groups: Vec<_> = f.sub_groups.iter().map(|(name, group)| (&**name, group.events)).collect();
            (&*f.place(&scene).1.function, f.own, f.total, groups)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("step", 7, 7, vec![("", 2), ("basket", 5)]),
            ("", 4, 4, vec![("", 4)]),
            // Recursion: one event, two occurrences.
            ("main", 1, 8, vec![("", 2), ("basket", 7)]),
            ("work", 0, 7, vec![("", 2), ("basket", 5)]),
        ]
    );
    assert_eq!((functions.own, functions.total), (12, 26));
}

#[test]
fn stacks_are_named_and_those_without_frames_left_out() {
    let scene = scene();
    assert_eq!(scene.total, 112);
    let found = stacktraces::collect(&scene);
    let counts: Vec<u64> = found.stacks.values().map(|stack| stack.events).collect();
    assert_eq!(counts, [7, 1, 4]);
    // Two frames and an inlined function, two frames, one frame.
    assert_eq!(found.total_frames, 6);
    let names: Vec<&str> = found.executables.values().map(|name| &**name).collect();
    assert_eq!(names, ["app", "vmlinux"]);
}
