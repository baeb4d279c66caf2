//! Documents of real captures against those that the public exporter made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::collector::seen::Seen;
use crate::model::{SourceLine, UnixNanos};
use crate::store::document::encode;
use crate::wire::otlp::decode;

/// What the exporter gives a frame without mapping and lines.
const NO_FILE: &str = "70bbN1HY6ZnvRts3UdjpmQ";

fn captures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "pb"));
    files.sort();
    files
}

/// Documents by index, each with its `_id`.
fn bulk(request: &Path) -> BTreeMap<String, Vec<(String, Value)>> {
    let name = request.file_name().unwrap().to_str().unwrap();
    let number = name.trim_start_matches("request-").trim_end_matches(".otlp.pb");
    let file = request.with_file_name(format!("bulk-{number}.ndjson.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    let mut documents: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    while let Some(action) = lines.next() {
        let (_, target) = action.as_object().unwrap().iter().next().unwrap();
        let id = target["_id"].as_str().unwrap_or_default().to_owned();
        documents
            .entry(target["_index"].as_str().unwrap().to_owned())
            .or_default()
            .push((id, lines.next().unwrap()));
    }
    documents
}

fn text<'v>(document: &'v Value, field: &str) -> &'v str {
    document[field].as_str().unwrap_or_default()
}

/// RFC 3339 with up to nine fractional digits, UTC, to nanoseconds.
fn nanos(text: &str) -> u64 {
    let (date, time) = text.strip_suffix('Z').unwrap().split_once('T').unwrap();
    let parts: Vec<i64> = date.split('-').map(|part| part.parse().unwrap()).collect();
    let (year, month, day) = (parts[0], parts[1], parts[2]);
    // Days since 1970-01-01 in the proleptic Gregorian calendar, years starting in March.
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let seconds = clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
    (days * 86_400 + seconds) as u64 * 1_000_000_000 + format!("{fraction:0<9}").parse::<u64>().unwrap()
}

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

fn their_events(documents: &[(String, Value)]) -> Vec<String> {
    let mut events: Vec<String> = documents
        .iter()
        .map(|(_, d)| {
            assert_eq!(d["Stacktrace.count"], 1);
            format!(
                "{} {} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                nanos(text(d, "@timestamp")),
                text(d, "Stacktrace.id"),
                text(d, "process.executable.name"),
                text(d, "process.thread.name"),
                d["Stacktrace.sampling_frequency"],
                text(d, "host.id"),
                text(d, "host.name"),
                text(d, "container.id"),
                text(d, "container.name"),
                text(d, "orchestrator.resource.name"),
                text(d, "k8s.namespace.name"),
                text(d, "service.name"),
            )
        })
        .collect();
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

fn their_stacks(documents: &[(String, Value)]) -> BTreeMap<String, (String, String)> {
    let stack = |(id, d): &(String, Value)| {
        (
            id.clone(),
            (text(d, "Stacktrace.frame.ids").to_owned(), text(d, "Stacktrace.frame.types").to_owned()),
        )
    };
    documents.iter().map(stack).collect()
}

type Lines = Vec<(String, String, u64)>;

fn our_frames(documents: &Documents) -> BTreeMap<String, Lines> {
    let line = |l: &SourceLine| (l.function.to_string(), l.file.to_string(), u64::from(l.line));
    let frame = |f: &StackFrame| (encode::frame_id(f.id), f.lines.iter().map(line).collect());
    documents.stackframes.iter().map(frame).collect()
}

/// Corrections: inline order is reversed (schema 5.9 #5); frames without any name are not written (#7).
fn their_frames(documents: &[(String, Value)]) -> BTreeMap<String, Lines> {
    let column = |d: &Value, field: &str| d[field].as_array().cloned().unwrap_or_default();
    documents
        .iter()
        .map(|(id, d)| {
            let names = column(d, "Stackframe.function.name").into_iter();
            let files = column(d, "Stackframe.file.name").into_iter();
            let lines = column(d, "Stackframe.line.number").into_iter();
            let mut lines: Lines = names
                .zip(files)
                .zip(lines)
                .map(|((n, f), l)| {
                    (n.as_str().unwrap().to_owned(), f.as_str().unwrap().to_owned(), l.as_u64().unwrap())
                })
                .collect();
            lines.reverse();
            (id.clone(), lines)
        })
        .filter(|(_, lines)| lines.iter().any(|(name, file, _)| !name.is_empty() || !file.is_empty()))
        .collect()
}

fn our_executables(documents: &Documents) -> BTreeMap<String, String> {
    documents.executables.iter().map(|e| (encode::file_id(e.id), e.name.to_string())).collect()
}

fn their_executables(documents: &[(String, Value)]) -> BTreeMap<String, String> {
    let executable =
        |(id, d): &(String, Value)| (id.clone(), text(&d["script"]["params"], "filename").to_owned());
    documents.iter().map(executable).collect()
}

/// The queue. Corrections: frames without a file are not queued (5.9 #6); only native and Go code is (the kernel and
/// interpreted code never get a name there); every unnamed frame is, not only leaves, because ours names by address.
///
/// `queued` is everything ours has queued so far: what was no leaf in an earlier request may be one in this.
fn check_queue(
    queued: &BTreeSet<String>,
    all: &Documents,
    theirs: &BTreeMap<String, Vec<(String, Value)>>,
    scene: &str,
) {
    let kinds: BTreeMap<String, FrameKind> = all
        .stacktraces
        .iter()
        .flat_map(|stack| &stack.frames)
        .map(|(id, kind)| (encode::frame_id(*id), *kind))
        .collect();
    let native =
        |id: &str| matches!(kinds[id], FrameKind::NATIVE | FrameKind::GO) && !id.starts_with(NO_FILE);
    let leaves: Vec<&str> = theirs
        .get("profiling-sq-leafframes")
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|(id, _)| &**id)
        .collect();
    for id in &leaves {
        assert_eq!(queued.contains(*id), native(id), "{scene}: leaf {id}");
    }
    for id in &all.unnamed {
        let id = encode::frame_id(*id);
        assert!(native(&id), "{scene}: {id} is {:?}", kinds[&id]);
    }
    let files: BTreeSet<&str> = queued.iter().map(|id| &id[..22]).collect();
    for (file, _) in theirs.get("profiling-sq-executables").map(Vec::as_slice).unwrap_or_default() {
        let native = kinds.keys().any(|id| id.starts_with(file.as_str()) && native(id));
        assert_eq!(files.contains(&**file), native, "{scene}: file {file}");
    }
}

/// Like `assert_eq`, but shows what differs instead of everything.
fn check_same<T: PartialEq + std::fmt::Debug>(ours: &[T], theirs: &[T], scene: &str) {
    let only = |a: &[T], b: &[T]| {
        a.iter().filter(|x| !b.contains(x)).take(3).map(|x| format!("  {x:?}")).collect::<Vec<_>>().join("\n")
    };
    assert!(
        ours == theirs,
        "{scene}: {} ours, {} theirs\nonly ours:\n{}\nonly theirs:\n{}",
        ours.len(),
        theirs.len(),
        only(ours, theirs),
        only(theirs, ours)
    );
}

fn list<K, V>(map: BTreeMap<K, V>) -> Vec<(K, V)> {
    map.into_iter().collect()
}

/// What the `resource` processor in front of the exporter added in `c-host`.
fn describe_host_as_processor(resource: &mut Resource) {
    resource.host_id = "0A1B2C3D4E5F60718293A4B5C6D7E8F9".into();
    resource.host_name = "Demo-Host".into();
    resource.container_id = "4f6a0c9d".into();
    resource.container_name = "demo-container".into();
    resource.pod_name = "demo-pod-1".into();
    resource.namespace_name = "demo-ns".into();
    resource.service_name = "demo-service".into();
}

fn check(folder: &str, expected: &str) -> usize {
    let mut seen = Seen::default();
    let mut queued = BTreeSet::new();
    let mut events = 0;
    for (request, answer) in captures(folder).iter().zip(captures(expected)) {
        let scene = request.display().to_string();
        let theirs = bulk(&answer);
        let mut decoded = decode(&std::fs::read(request).unwrap()).unwrap();
        assert!(decoded.batch.check(), "{scene}");
        assert_eq!((decoded.revision, decoded.left_out.profiles()), ("1.11", 0), "{scene}");
        if folder == "c-host" {
            decoded.batch.resources.iter_mut().for_each(describe_host_as_processor);
        }
        let mapped = documents(&decoded.batch);
        assert_eq!(mapped.dropped, Dropped::default(), "{scene}");
        let all = mapped.documents.clone();
        let mut ours = mapped.documents;
        let fresh = seen.retain_new(&mut ours, UnixNanos(1));
        seen.mark(fresh, UnixNanos(1));
        let theirs_of = |index: &str| theirs.get(index).map(Vec::as_slice).unwrap_or_default();
        check_same(&our_events(&ours), &their_events(theirs_of("profiling-events-all")), &scene);
        check_same(&list(our_stacks(&ours)), &list(their_stacks(theirs_of("profiling-stacktraces"))), &scene);
        check_same(&list(our_frames(&ours)), &list(their_frames(theirs_of("profiling-stackframes"))), &scene);
        check_same(
            &list(our_executables(&ours)),
            &list(their_executables(theirs_of("profiling-executables"))),
            &scene,
        );
        queued.extend(ours.unnamed.iter().map(|id| encode::frame_id(*id)));
        check_queue(&queued, &all, &theirs, &scene);
        assert_eq!(mapped.samples as usize, our_events(&ours).len(), "{scene}");
        events += mapped.samples as usize;
    }
    events
}

#[test]
fn documents_of_captures_equal_those_of_the_public_exporter() {
    for folder in ["c", "c-host", "go", "node", "python-debian", "error-frames"] {
        let events = check(folder, folder);
        assert!(events > 400, "{folder}: {events}");
    }
}

#[test]
fn references_into_the_string_table_give_the_same_documents() {
    check("string-refs", "c");
}

// From here on: the vectors of `elasticsearch-schema.md` §8 and the corrections of its §5.9, on small batches.

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
