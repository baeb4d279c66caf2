//! Bodies read back as JSON, against the documents that readers expect.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::lookup::MAX_FRAMES;
use super::*;
use crate::model::{FileId, FrameId, FrameKind, SourceLine, StackId};
use crate::store::document::{Event, EventResource, Executable, Host, StackFrame, StackTrace, encode};

/// 2023-11-20T18:20:27Z, a Monday.
const NOW: UnixNanos = UnixNanos(1_700_504_427_000_000_000);
const MONDAY: u64 = 1_700_438_400;

/// Actions with their documents.
fn lines(body: &BulkBody) -> Vec<(Kind, Value, Value)> {
    let mut start = 0;
    body.items
        .iter()
        .map(|item| {
            let text = std::str::from_utf8(&body.bytes[start..item.end]).unwrap();
            start = item.end;
            let (action, document) = text.strip_suffix('\n').unwrap().split_once('\n').unwrap();
            assert!(!document.contains('\n'));
            (item.kind, serde_json::from_str(action).unwrap(), serde_json::from_str(document).unwrap())
        })
        .collect()
}

fn encoded(shape: Shape, documents: &Documents) -> Vec<(Kind, Value, Value)> {
    let body = Encoder::new(shape, 1).encode(documents, NOW);
    assert_eq!(body.items.last().map_or(0, |item| item.end), body.bytes.len());
    lines(&body)
}

fn only(kind: Kind, all: &[(Kind, Value, Value)]) -> (Value, Value) {
    let mut found = all.iter().filter(|(k, ..)| *k == kind);
    let (_, action, document) = found.next().unwrap_or_else(|| panic!("no {kind:?} in {all:?}"));
    assert!(found.next().is_none(), "several {kind:?}");
    (action.clone(), document.clone())
}

fn libc() -> FileId {
    FileId::parse_hex("600dcafe4a110000f2bf38c493f5fb92").unwrap()
}

fn frame(address: u64) -> FrameId {
    FrameId { file: libc(), address_or_line: address }
}

/// The golden profile of the schema's vector 28.
fn golden() -> Documents {
    let id = crate::model::stack_id([frame(111)]);
    Documents {
        resources: vec![EventResource {
            host_id: "localhost".into(),
            executable_name: "libc.so.6".into(),
            frequency_hz: 20,
            ..EventResource::default()
        }],
        events: vec![Event { stack: id, times: vec![UnixNanos(0)], ..Event::default() }],
        stacktraces: vec![StackTrace { id, frames: vec![(frame(111), FrameKind::NATIVE)] }],
        executables: vec![Executable { id: libc(), name: "libc.so.6".into(), gnu_build_id: "".into() }],
        hosts: vec![Host { id: "localhost".into(), ..Host::default() }],
        unnamed: vec![frame(111)],
        unnamed_files: vec![libc()],
        ..Documents::default()
    }
}

/// `samples` events on two threads.
fn many(samples: u64) -> Documents {
    let mut documents = golden();
    let times = |from: u64| (0..samples / 2).map(|n| UnixNanos(NOW.0 + from + n * 10_000_001)).collect();
    documents.events = ["a", "b"]
        .into_iter()
        .zip([0, 77])
        .map(|(name, from)| Event {
            thread_name: name.into(),
            times: times(from),
            ..documents.events[0].clone()
        })
        .collect();
    documents
}

#[test]
fn the_golden_profile_in_the_first_generation() {
    let all = encoded(Shape::of(Generation::Classic), &golden());
    let (action, event) = only(Kind::Event, &all);
    let id = action["create"]["_id"].as_str().unwrap();
    assert_eq!(id.len(), 20);
    assert_eq!(
        action,
        json!({"create": {"_index": "profiling-events-all", "_id": id, "require_data_stream": true}})
    );
    assert_eq!(
        event,
        json!({
            "@timestamp": "1970-01-01T00:00:00Z", "Stacktrace.count": 1, "Stacktrace.sampling_frequency": 20,
            "Stacktrace.id": "02VzuClbpt_P3xxwox83Ng", "ecs.version": "1.12.0", "host.id": "localhost",
            "process.executable.name": "libc.so.6", "process.thread.name": "", "profiling.project.id": 2,
        })
    );
    assert_eq!(
        only(Kind::StackTrace, &all),
        (
            json!({"create": {"_index": "profiling-stacktraces", "_id": "02VzuClbpt_P3xxwox83Ng"}}),
            json!({
                "ecs.version": "1.12.0", "Stacktrace.frame.types": "AQM",
                "Stacktrace.frame.ids": "YA3K_koRAADyvzjEk_X7kgAAAAAAAABv",
            })
        )
    );
    let (action, executable) = only(Kind::Executable, &all);
    assert_eq!(
        action,
        json!({"update": {"_index": "profiling-executables", "_id": "YA3K_koRAADyvzjEk_X7kg"}})
    );
    assert_eq!((&executable["scripted_upsert"], &executable["upsert"]), (&json!(true), &json!({})));
    assert_eq!(
        executable["script"]["params"],
        json!({
            "timestamp": MONDAY, "buildid": "YA3K_koRAADyvzjEk_X7kg", "filename": "libc.so.6",
            "ecsversion": "1.12.0",
        })
    );
    let now = "2023-11-20T18:20:27Z";
    assert_eq!(
        only(Kind::QueuedFrame, &all),
        (
            json!({"create": {"_index": "profiling-sq-leafframes", "_id": "YA3K_koRAADyvzjEk_X7kgAAAAAAAABv"}}),
            json!({
                "ecs.version": "1.12.0", "Stacktrace.frame.id": ["YA3K_koRAADyvzjEk_X7kgAAAAAAAABv"],
                "Time.created": now, "Symbolization.time.next": now, "Symbolization.retries": 0,
            })
        )
    );
    assert_eq!(
        only(Kind::QueuedExecutable, &all),
        (
            json!({"create": {"_index": "profiling-sq-executables", "_id": "YA3K_koRAADyvzjEk_X7kg"}}),
            json!({
                "ecs.version": "1.12.0", "Executable.file.id": ["YA3K_koRAADyvzjEk_X7kg"],
                "Time.created": now, "Symbolization.time.next": now, "Symbolization.retries": 0,
            })
        )
    );
    assert_eq!(
        only(Kind::Host, &all).1,
        json!({"@timestamp": 1_700_504_427, "ecs.version": "1.12.0", "host.id": "localhost"})
    );
    assert_eq!(all.iter().filter(|(kind, ..)| !matches!(kind, Kind::SampledEvent(_))).count(), 6);
}

#[test]
fn the_golden_profile_in_the_second_generation() {
    let all = encoded(Shape::of(Generation::Otel), &golden());
    let (action, event) = only(Kind::Event, &all);
    assert_eq!(action["create"]["_index"], "profiling-events-all.otel-default");
    assert_eq!(action["create"]["require_data_stream"], true);
    assert_eq!(
        event,
        json!({
            "@timestamp": "1970-01-01T00:00:00Z", "count": 1, "sampling_frequency": 20,
            "stacktrace.id": "02VzuClbpt_P3xxwox83Ng",
            "resource": {"attributes": {
                "host.id": "localhost", "process.executable.name": "libc.so.6", "thread.name": "",
            }},
        })
    );
    assert_eq!(
        only(Kind::StackTrace, &all),
        (
            json!({"create": {"_index": "profiling-stacktraces.otel-default", "_id": "02VzuClbpt_P3xxwox83Ng"}}),
            json!({
                "@timestamp": "1970-01-01T00:00:00Z", "frame.types": "AQM",
                "frame.ids": "YA3K_koRAADyvzjEk_X7kgAAAAAAAABv",
            })
        )
    );
    assert_eq!(
        only(Kind::Executable, &all),
        (
            json!({"create": {
                "_index": "profiling-executables.otel-default", "_id": "YA3K_koRAADyvzjEk_X7kg",
            }}),
            json!({"@timestamp": MONDAY, "resource": {"attributes": {
                "process.executable.build_id.htlhash": "600dcafe4a110000f2bf38c493f5fb92",
                "process.executable.name": "libc.so.6",
            }}})
        )
    );
    let (action, host) = only(Kind::Host, &all);
    assert_eq!(action["create"]["_index"], "profiling-hosts.otel-default");
    assert_eq!(
        host,
        json!({"@timestamp": 1_700_504_427, "resource": {"attributes": {"host.id": "localhost"}}})
    );
    // No queues and no down-sampled streams.
    assert_eq!(all.len(), 4);
}

#[test]
fn look_ups_in_streams_have_a_time_and_are_never_updated() {
    let shape = Shape { lookup_streams: true, ..Shape::of(Generation::Classic) };
    let mut documents = golden();
    documents.stackframes.push(StackFrame { id: frame(1), lines: vec![SourceLine::default()] });
    documents.events[0].times = vec![UnixNanos(9_000_000_000), UnixNanos(8_000_000_000)];
    let all = encoded(shape, &documents);
    for kind in [Kind::StackTrace, Kind::StackFrame] {
        let (action, document) = only(kind, &all);
        assert!(action["create"]["_id"].is_string());
        assert_eq!(document["@timestamp"], "1970-01-01T00:00:09Z");
        assert_eq!(document["ecs.version"], "1.12.0");
    }
    assert_eq!(
        only(Kind::Executable, &all),
        (
            json!({"create": {"_index": "profiling-executables", "_id": "YA3K_koRAADyvzjEk_X7kg"}}),
            json!({
                "@timestamp": MONDAY, "ecs.version": "1.12.0", "Executable.build.id": "YA3K_koRAADyvzjEk_X7kg",
                "Executable.file.name": "libc.so.6",
            })
        )
    );
    // The queues stay what they are.
    assert!(only(Kind::QueuedFrame, &all).1.get("@timestamp").is_none());
}

#[test]
fn everything_that_a_resource_says_is_in_its_events() {
    let mut documents = golden();
    documents.resources[0] = EventResource {
        host_id: "h".into(),
        host_name: "Demo \"Host\"".into(),
        executable_name: "e\\e".into(),
        container_id: "c".into(),
        container_name: "cn".into(),
        pod_name: "p".into(),
        namespace_name: "n".into(),
        service_name: "s".into(),
        frequency_hz: 0,
    };
    documents.events[0].thread_name = "worker\n1".into();
    let (_, event) = only(Kind::Event, &encoded(Shape::of(Generation::Classic), &documents));
    assert_eq!(
        event,
        json!({
            "@timestamp": "1970-01-01T00:00:00Z", "Stacktrace.count": 1, "Stacktrace.sampling_frequency": 1,
            "Stacktrace.id": "02VzuClbpt_P3xxwox83Ng", "ecs.version": "1.12.0", "profiling.project.id": 2,
            "host.id": "h", "host.name": "Demo \"Host\"", "process.executable.name": "e\\e", "container.id": "c",
            "container.name": "cn", "orchestrator.resource.name": "p", "k8s.namespace.name": "n",
            "service.name": "s", "process.thread.name": "worker\n1",
        })
    );
    let (_, event) = only(Kind::Event, &encoded(Shape::of(Generation::Otel), &documents));
    assert_eq!(
        event["resource"]["attributes"],
        json!({
            "host.id": "h", "host.name": "Demo \"Host\"", "process.executable.name": "e\\e", "container.id": "c",
            "container.name": "cn", "k8s.pod.name": "p", "k8s.namespace.name": "n", "service.name": "s",
            "thread.name": "worker\n1",
        })
    );
}

#[test]
fn frames_list_their_functions_outermost_first() {
    let line = |function: &str, line| SourceLine {
        function: function.into(),
        file: "deflate.c".into(),
        line,
        column: 0,
    };
    let documents = Documents {
        stackframes: vec![StackFrame {
            id: frame(111),
            lines: vec![line("deflate", 978), line("deflate_fast", u32::MAX)],
        }],
        ..Documents::default()
    };
    let classic = only(Kind::StackFrame, &encoded(Shape::of(Generation::Classic), &documents)).1;
    assert_eq!(
        classic,
        json!({
            "ecs.version": "1.12.0", "Stackframe.function.name": ["deflate", "deflate_fast"],
            "Stackframe.file.name": ["deflate.c", "deflate.c"], "Stackframe.line.number": [978, i32::MAX],
        })
    );
    let otel = only(Kind::StackFrame, &encoded(Shape::of(Generation::Otel), &documents)).1;
    // Without an event, the time is that of writing.
    assert_eq!(
        otel,
        json!({
            "@timestamp": "2023-11-20T18:20:27Z", "function.name": ["deflate", "deflate_fast"],
            "function.filename": ["deflate.c", "deflate.c"], "line.number": [978, i32::MAX],
        })
    );
}

#[test]
fn a_stack_longer_than_a_term_keeps_both_ends() {
    let stack = |frames: u64| StackTrace {
        id: StackId([1; 16]),
        frames: (0..frames).map(|at| (frame(at), FrameKind::NATIVE)).collect(),
    };
    for (frames, expected) in [(1023, 1023), (1024, 1023), (8192, 1023)] {
        let documents = Documents { stacktraces: vec![stack(frames)], ..Documents::default() };
        let (_, document) = only(Kind::StackTrace, &encoded(Shape::of(Generation::Classic), &documents));
        let ids = document["Stacktrace.frame.ids"].as_str().unwrap();
        assert_eq!(ids.len(), expected * 32);
        assert!(ids.len() <= 32_766);
        assert_eq!(ids[..32], encode::frame_id(frame(0)));
        assert_eq!(ids[ids.len() - 32..], encode::frame_id(frame(frames - 1)));
        if frames > MAX_FRAMES as u64 {
            let marker = encode::parse_frame_id(&ids[511 * 32..512 * 32]).unwrap();
            assert_eq!(marker, FrameId { file: FileId::NONE, address_or_line: frames - 1022 });
            let types = encode::frame_types(
                std::iter::repeat_n(FrameKind::NATIVE, 511)
                    .chain([FrameKind::ABORT])
                    .chain(std::iter::repeat_n(FrameKind::NATIVE, 511)),
            );
            assert_eq!(document["Stacktrace.frame.types"], types);
        }
    }
}

#[test]
fn hosts_keep_the_case_of_values_and_have_the_types_of_their_mapping() {
    let facts = [
        ("host.type", "Standard_D4s_v3"),
        ("profiling.agent.config.present_cpu_cores", "8"),
        ("profiling.agent.config.map_scale_factor", "40000"),
        ("profiling.agent.config.verbose", "false"),
        ("profiling.agent.config.disable_tls", "perhaps"),
        ("profiling.agent.start_time", "1700504427000"),
        ("profiling.agent.config.probabilistic_threshold", "-1"),
        ("ec2.local_ipv4", "10.0.0.1"),
        ("ec2.public_ipv4", "none"),
        ("host.id", "another"),
        ("host.id.below", "x"),
        ("host..x", "x"),
        ("host.", "x"),
        ("profiling.agent.config", "{}"),
        ("os.type", "linux"),
        ("os.type.below", "x"),
    ];
    let facts = facts.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let host = Host { id: "AbC".into(), name: "Demo-Host".into(), facts };
    let documents = Documents { hosts: vec![host], ..Documents::default() };
    let expected = json!({
        "host.id": "AbC", "host.name": "Demo-Host", "host.type": "Standard_D4s_v3",
        "profiling.agent.config.present_cpu_cores": 8, "profiling.agent.config.verbose": false,
        "profiling.agent.start_time": 1_700_504_427_000u64, "ec2.local_ipv4": "10.0.0.1", "os.type": "linux",
    });
    let (_, otel) = only(Kind::Host, &encoded(Shape::of(Generation::Otel), &documents));
    assert_eq!(otel["resource"]["attributes"], expected);
    let (_, mut classic) = only(Kind::Host, &encoded(Shape::of(Generation::Classic), &documents));
    let fields = classic.as_object_mut().unwrap();
    assert_eq!(fields.remove("ecs.version"), Some(json!("1.12.0")));
    assert_eq!(fields.remove("@timestamp"), Some(json!(1_700_504_427)));
    assert_eq!(classic, expected);
}

#[test]
fn down_sampled_streams_hold_events_of_the_full_one_and_each_the_fifth_of_the_next() {
    let documents = many(40_000);
    let all = encoded(Shape::of(Generation::Classic), &documents);
    let mut streams: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    let mut bodies: BTreeMap<String, Value> = BTreeMap::new();
    for (kind, action, document) in &all {
        let level = match kind {
            Kind::Event => "all".to_owned(),
            Kind::SampledEvent(level) => format!("5pow{level:02}"),
            _ => continue,
        };
        let create = &action["create"];
        assert_eq!(create["_index"], format!("profiling-events-{level}"));
        assert_eq!(create["require_data_stream"], true);
        let id = create["_id"].as_str().unwrap().to_owned();
        assert_eq!(bodies.entry(id.clone()).or_insert_with(|| document.clone()), document);
        assert!(streams.entry(level).or_default().insert(id), "an identifier twice");
    }
    assert_eq!(streams["all"].len(), 40_000);
    for (level, above) in [("5pow01", "all"), ("5pow02", "5pow01"), ("5pow03", "5pow02")] {
        assert!(streams[level].is_subset(&streams[above]), "{level}");
        let (expected, found) = (streams[above].len() as f64 / 5.0, streams[level].len() as f64);
        assert!((found - expected).abs() < 4.0 * (expected * 0.8).sqrt(), "{level}: {found}, {expected}");
    }
    let shape = Shape { sampled_streams: false, ..Shape::of(Generation::Classic) };
    let all = encoded(shape, &documents);
    assert!(!all.iter().any(|(kind, ..)| matches!(kind, Kind::SampledEvent(_))));
}

#[test]
fn pieces_are_the_whole_cut_between_items() {
    for generation in [Generation::Classic, Generation::Otel] {
        let documents = many(1000);
        let encoder = Encoder::new(Shape::of(generation), 1);
        let whole = encoder.encode(&documents, NOW);
        for part_bytes in [1, 1000, 64 << 10] {
            let (mut bytes, mut items) = (Vec::new(), 0);
            for part in encoder.parts(&documents, NOW, part_bytes) {
                let last = part.items.len() - 1;
                let full = if last == 0 { 0 } else { part.items[last - 1].end };
                // Only the item that reaches the size goes beyond it; an event brings its down-sampled twins.
                let twins =
                    part.items.iter().rev().take_while(|i| matches!(i.kind, Kind::SampledEvent(_))).count();
                assert!(full < part_bytes || twins > 0, "{full} bytes before the last item");
                items += part.items.len();
                bytes.extend(part.bytes);
            }
            assert_eq!((bytes, items), (whole.bytes.clone(), whole.items.len()), "{part_bytes}");
        }
    }
}

#[test]
fn a_batch_that_is_sent_again_is_the_same_batch() {
    let documents = many(1000);
    let ids = |documents: &Documents, seed| -> Vec<String> {
        let body = Encoder::new(Shape::of(Generation::Classic), seed).encode(documents, NOW);
        let events = lines(&body).into_iter().filter(|(kind, ..)| *kind == Kind::Event);
        events.map(|(_, action, _)| action["create"]["_id"].as_str().unwrap().to_owned()).collect()
    };
    let first = ids(&documents, 1);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 1000);
    // Known look-ups are left out the second time, and the clock has moved on.
    let again = Documents { stacktraces: Vec::new(), executables: Vec::new(), ..documents.clone() };
    assert_eq!(ids(&again, 1), first);
    assert_eq!(ids(&again, 2), first);
    // A nanosecond, a thread, a process or a machine is a difference.
    let changes: [fn(&mut Documents); 4] = [
        |d| d.events[1].times[7].0 += 1,
        |d| d.events[0].thread_name = "ab".into(),
        |d| d.events[0].pid = 1,
        |d| d.resources[0].host_id = "other".into(),
    ];
    for change in changes {
        let mut other = documents.clone();
        change(&mut other);
        assert!(ids(&other, 1).iter().all(|id| !first.contains(id)));
    }
}

#[test]
fn nothing_is_nothing() {
    let encoder = Encoder::new(Shape::of(Generation::Classic), 1);
    assert_eq!(encoder.encode(&Documents::default(), NOW), BulkBody::default());
    assert_eq!(encoder.parts(&Documents::default(), NOW, 100).count(), 0);
    // Builders uphold that every index is valid; a slip costs some fields, not the process.
    let mut documents = golden();
    documents.events[0].resource = 9;
    for generation in [Generation::Classic, Generation::Otel] {
        only(Kind::Event, &encoded(Shape::of(generation), &documents));
    }
}
