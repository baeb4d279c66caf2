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
        a.iter().filter(|x| !b.contains(x)).take(3).map(|x| format!("  {x:?}\n")).collect::<String>()
    };
    assert!(
        ours == theirs,
        "{scene}: {} ours, {} theirs\nonly ours:\n{}only theirs:\n{}",
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
