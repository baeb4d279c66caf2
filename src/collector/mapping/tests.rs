//! The vectors of Elastic's document schema and its corrections, on small batches; `super::super::captures` has real ones.

use std::collections::BTreeMap;

use super::*;
use crate::model::{SourceLine, UnixNanos};
use crate::store::document::encode;

/// Everything an event says, as one comparable text.
fn our_events(documents: &Documents) -> Vec<String> {
    let mut events = Vec::new();
    for event in &documents.events {
        let r = &documents.resources[event.resource as usize];
        for time in &event.times {
            events.push(format!(
                "{} {} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                time.0,
                encode::stack_id(event.stack),
                r.executable_name,
                event.thread_name,
                r.frequency_hz,
                r.host_id,
                r.host_name,
                r.container_id,
                r.container_name,
                r.pod_name,
                r.namespace_name,
                r.service_name,
            ));
        }
    }
    events.sort();
    events
}

fn our_stacks(documents: &Documents) -> BTreeMap<String, (String, String)> {
    let stack = |stack: &StackTrace| {
        let ids: String = stack.frames.iter().map(|(id, _)| encode::frame_id(*id)).collect();
        let types = encode::frame_types(stack.frames.iter().map(|(_, kind)| *kind));
        (encode::stack_id(stack.id), (ids, types))
    };
    documents.stacktraces.iter().map(stack).collect()
}

fn our_executables(documents: &Documents) -> BTreeMap<String, String> {
    documents.executables.iter().map(|e| (encode::file_id(e.id), e.name.to_string())).collect()
}

fn list<K, V>(map: BTreeMap<K, V>) -> Vec<(K, V)> {
    map.into_iter().collect()
}

fn line(function: &str, file: &str, line: u32) -> SourceLine {
    SourceLine { function: function.into(), file: file.into(), line, column: 0 }
}

/// One resource, one profile at 20 Hz, the libc of the golden profile, and one sample of all `frames`, leaf first.
fn one_stack(frames: Vec<Frame>) -> Batch {
    let libc = crate::model::Executable {
        file_id: FileId::parse_hex("600dcafe4a110000f2bf38c493f5fb92").ok(),
        name: "libc.so.6".into(),
        gnu_build_id: "".into(),
    };
    let count = frames.len() as u32;
    Batch {
        resources: vec![Resource {
            host_id: "localhost".into(),
            executable_name: "libc.so.6".into(),
            ..Resource::default()
        }],
        executables: vec![libc],
        frames,
        stack_frames: (0..count).collect(),
        stacks: std::iter::once(0..count).collect(),
        profiles: vec![crate::model::ProfileInfo { period_ns: 50_000_000, ..Default::default() }],
        samples: vec![crate::model::Sample { times: 0..1, ..Default::default() }],
        times: vec![UnixNanos(0)],
    }
}

fn native(address: u64) -> Frame {
    Frame { kind: FrameKind::NATIVE, executable: Some(0), address, lines: Vec::new() }
}

fn python(lines: Vec<SourceLine>) -> Frame {
    Frame { kind: FrameKind::PYTHON, executable: None, address: 0, lines }
}

#[test]
fn the_golden_profile_gives_its_documents() {
    let mapped = documents(&one_stack(vec![native(111)]));
    let documents = mapped.documents;
    let expected = ("YA3K_koRAADyvzjEk_X7kgAAAAAAAABv".to_owned(), "AQM".to_owned());
    assert_eq!(our_stacks(&documents), BTreeMap::from([("02VzuClbpt_P3xxwox83Ng".to_owned(), expected)]));
    let expected =
        "0 02VzuClbpt_P3xxwox83Ng \"libc.so.6\" \"\" 20 \"localhost\" \"\" \"\" \"\" \"\" \"\" \"\"";
    assert_eq!(our_events(&documents), [expected]);
    assert_eq!(
        list(our_executables(&documents)),
        [("YA3K_koRAADyvzjEk_X7kg".to_owned(), "libc.so.6".to_owned())]
    );
    assert_eq!(
        documents.unnamed.iter().map(|id| encode::frame_id(*id)).collect::<Vec<_>>(),
        ["YA3K_koRAADyvzjEk_X7kgAAAAAAAABv"]
    );
    assert!(documents.stackframes.is_empty());
    // Correction 5.9 #1: the host is written.
    assert_eq!(&*documents.hosts[0].id, "localhost");
}

#[test]
fn a_value_of_two_is_two_samples_at_the_same_time() {
    let mut batch = one_stack(vec![native(111)]);
    batch.samples[0].values = vec![2];
    let mapped = documents(&batch);
    assert_eq!((mapped.samples, our_events(&mapped.documents).len()), (2, 2));
}

#[test]
fn code_without_a_file_gets_one_made_of_its_lines() {
    for (frame, expected) in [
        (python(vec![line("main", "app.py", 42)]), "p2g3A3zyKSKnaDcDfPIpIgAAAAAAAAAq"),
        (python(Vec::new()), "70bbN1HY6ZnvRts3UdjpmQAAAAAAAAAA"),
    ] {
        let batch = one_stack(vec![frame.clone()]);
        assert_eq!(encode::frame_id(frame_id(&batch, &frame)), expected);
    }
    // An executable without a readable file ID is as good as none.
    let mut batch = one_stack(vec![native(111)]);
    batch.executables[0].file_id = None;
    assert_eq!(encode::frame_id(frame_id(&batch, &batch.frames[0])), "70bbN1HY6ZnvRts3UdjpmQAAAAAAAABv");
    assert!(documents(&batch).documents.unnamed.is_empty());
}

#[test]
fn the_line_number_of_the_last_line_stands_in_for_the_address() {
    let frame = python(vec![line("inner", "a.py", 1), line("outer", "a.py", 7)]);
    let batch = one_stack(vec![frame]);
    assert_eq!(frame_id(&batch, &batch.frames[0]).address_or_line, 7);
}

#[test]
fn inlined_functions_come_outermost_first() {
    let mut frame = native(111);
    frame.lines = vec![line("inlined", "a.c", 1), line("outer", "a.c", 2)];
    let documents = documents(&one_stack(vec![frame])).documents;
    let names: Vec<&str> = documents.stackframes[0].lines.iter().map(|line| &*line.function).collect();
    assert_eq!(names, ["outer", "inlined"]);
    assert!(documents.unnamed.is_empty());
}

#[test]
fn a_frame_of_empty_names_has_no_name() {
    let mut frame = native(111);
    frame.lines = vec![line("", "", 5)];
    let documents = documents(&one_stack(vec![frame])).documents;
    assert!(documents.stackframes.is_empty());
    assert_eq!(documents.unnamed.len(), 1);
}

#[test]
fn only_compiled_code_waits_for_names_and_not_only_leaves() {
    let kernel = Frame { kind: FrameKind::KERNEL, ..native(5) };
    let marker = Frame { kind: FrameKind::ABORT, ..python(Vec::new()) };
    let go = Frame { kind: FrameKind::GO, ..native(7) };
    let frames = vec![kernel, native(111), python(Vec::new()), go, native(222), marker];
    let documents = documents(&one_stack(frames)).documents;
    let addresses: Vec<u64> = documents.unnamed.iter().map(|id| id.address_or_line).collect();
    assert_eq!(addresses, [111, 7, 222]);
}

#[test]
fn frequency_is_rounded_and_never_zero() {
    for (period, expected) in [(50_000_000, 20), (52_631_578, 19), (0, 1), (u64::MAX, 1)] {
        assert_eq!(frequency_hz(period), expected);
    }
}

#[test]
fn huge_values_are_capped_and_counted() {
    let mut batch = one_stack(vec![native(111)]);
    batch.samples[0].values = vec![u32::MAX];
    let mapped = documents(&batch);
    assert_eq!(mapped.samples, u64::from(MAX_REPEATS));
    assert_eq!(mapped.dropped.too_many, u64::from(u32::MAX - MAX_REPEATS));
    // And all values together.
    let sample = batch.samples[0].clone();
    batch.samples = vec![sample; 100];
    let mapped = documents(&batch);
    assert_eq!(mapped.samples, MAX_SAMPLES);
    assert_eq!(mapped.samples + mapped.dropped.too_many, 100 * u64::from(u32::MAX));
}

#[test]
fn what_is_in_no_document_is_counted() {
    let mut batch = one_stack(vec![native(111)]);
    batch.stacks.push(0..0);
    batch.samples.push(crate::model::Sample { stack: 1, times: 0..1, ..Default::default() });
    batch.samples.push(crate::model::Sample { times: 1..1, ..Default::default() });
    let mapped = documents(&batch);
    assert_eq!((mapped.samples, mapped.dropped), (1, Dropped { empty_stack: 1, no_time: 1, too_many: 0 }));
}

#[test]
fn the_executable_of_a_sample_wins_over_that_of_the_resource() {
    let mut batch = one_stack(vec![native(111)]);
    batch.samples[0].executable_name = Some("java".into());
    let documents = documents(&batch).documents;
    assert_eq!(&*documents.resources[documents.events[0].resource as usize].executable_name, "java");
}

#[test]
fn hosts_keep_the_case_of_values_and_leave_processes_out() {
    let mut batch = one_stack(vec![native(111)]);
    batch.resources[0].host_name = "Demo-Host".into();
    batch.resources[0].others = [
        ("Host.Type", "Standard_D4s_v3"),
        ("cloud.region", "westeurope"),
        ("os.type", ""),
        ("process.environment_variable.SECRET", "x"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .to_vec();
    let hosts = documents(&batch).documents.hosts;
    let facts: Vec<(&str, &str)> = hosts[0].facts.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(facts, [("host.type", "Standard_D4s_v3"), ("cloud.region", "westeurope")]);
    assert_eq!((&*hosts[0].id, &*hosts[0].name), ("localhost", "Demo-Host"));
}
