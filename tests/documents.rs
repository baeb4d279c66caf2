//! Documents of real captures on a real Elasticsearch with Elastic's own templates: all taken, once.

#[path = "cannot_run/mod.rs"]
mod cannot_run;
#[path = "elasticsearch/mod.rs"]
mod elasticsearch;

use std::collections::BTreeMap;
use std::path::Path;

use elasticsearch::{Cluster, Kind as Licence};
use everflame::collector::mapping::documents;
use everflame::model::{FileId, FrameId, FrameKind, StackId, UnixNanos};
use everflame::store::Documents;
use everflame::store::document::StackTrace;
use everflame::store::elastic::{BulkBody, Encoder, Generation, Kind, Shape};
use everflame::wire::otlp::decode;
use serde_json::{Value, json};

/// 2026-11-21, when the captures were made.
const NOW: UnixNanos = UnixNanos(1_795_264_382_000_000_000);
const WEEK: u64 = 7 * 86_400 * 1_000_000_000;

/// Documents of one capture of each folder, as one host.
fn captured() -> Vec<Documents> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/otlp");
    let folders = ["c", "go", "node", "python-shared", "error-frames"];
    folders
        .iter()
        .map(|folder| {
            let bytes = std::fs::read(root.join(folder).join("request-001.otlp.pb")).expect("a capture");
            let mut batch = decode(&bytes).expect("a valid capture").batch;
            for resource in &mut batch.resources {
                resource.host_id = "AbC".into();
                resource.others.push(("host.arch".into(), "amd64".into()));
                resource.others.push(("profiling.agent.config.present_cpu_cores".into(), "8".into()));
                // Would lose the document if it were written as it is.
                resource.others.push(("profiling.agent.start_time".into(), "yesterday".into()));
            }
            documents(&batch).documents
        })
        .collect()
}

/// Sends a body; results (`created`, `updated`, `noop` or the type of the error) of its items by what they are.
fn send(cluster: &Cluster, body: &BulkBody) -> BTreeMap<(Kind, String), usize> {
    let answer = cluster.send("POST", "/_bulk", "application/x-ndjson", &body.bytes);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let items = answer.body["items"].as_array().expect("items");
    assert_eq!(items.len(), body.items.len());
    let mut results = BTreeMap::new();
    for (item, sent) in items.iter().zip(&body.items) {
        let (_, item) = item.as_object().expect("an item").iter().next().expect("an action");
        let result = item["result"].as_str().or_else(|| item["error"]["type"].as_str()).expect("a result");
        let taken = item["status"].as_u64() < Some(300) || item["status"] == 409;
        assert!(taken, "{:?}: {item}", sent.kind);
        // All down-sampled streams together.
        let kind = if let Kind::SampledEvent(_) = sent.kind { Kind::SampledEvent(1) } else { sent.kind };
        *results.entry((kind, result.to_owned())).or_default() += 1;
    }
    results
}

fn only(kind: Kind, result: &str, results: &BTreeMap<(Kind, String), usize>) -> usize {
    let of_kind: Vec<_> = results.iter().filter(|((k, _), _)| *k == kind).collect();
    assert!(
        matches!(of_kind[..], [((_, r), _)] if r == result),
        "{kind:?}: expected {result}, found {results:?}"
    );
    *of_kind[0].1
}

/// The licence decides how the source of an executable comes back to its script: as written, or made up from the index.
fn check(licence: Licence) {
    let Some(cluster) = Cluster::take("documents on a real Elasticsearch", licence) else { return };
    cluster.set_up_by_elastic();
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    let (mut events, mut sampled) = (0, 0);
    for (second, documents) in (0..).zip(captured()) {
        // One host with the same facts each time: told apart by the time of writing.
        let now = UnixNanos(NOW.0 + second * 1_000_000_000);
        let body = encoder.encode(&documents, now);
        let first = send(&cluster, &body);
        assert!(
            first.keys().all(|(_, result)| matches!(
                &**result,
                "created" | "noop" | "version_conflict_engine_exception"
            )),
            "{first:?}"
        );
        events += only(Kind::Event, "created", &first);
        sampled += only(Kind::SampledEvent(1), "created", &first);
        only(Kind::Host, "created", &first);
        // The same bytes again, as after a cut connection: nothing is stored twice.
        let again = send(&cluster, &body);
        for kind in [Kind::Event, Kind::SampledEvent(1), Kind::StackTrace, Kind::StackFrame, Kind::Host] {
            only(kind, "version_conflict_engine_exception", &again);
        }
        only(Kind::Executable, "noop", &again);
        only(Kind::QueuedFrame, "version_conflict_engine_exception", &again);
        // Encoded anew a week later: events are the same, executables move on.
        let later = send(&cluster, &encoder.encode(&documents, UnixNanos(now.0 + WEEK)));
        only(Kind::Event, "version_conflict_engine_exception", &later);
        assert!(later.contains_key(&(Kind::Executable, "updated".to_owned())), "{later:?}");
        let back = send(&cluster, &body);
        assert!(back.contains_key(&(Kind::Executable, "updated".to_owned())), "{back:?}");
    }
    assert_eq!(cluster.count("profiling-events-all"), events as u64);
    assert_eq!(cluster.count("profiling-events-5pow*"), sampled as u64);
    let executables = cluster.documents("profiling-executables");
    assert!(executables.len() > 14);
    for hit in executables {
        // Flat as written, or nested as made up.
        let source = &hit["_source"];
        let id = source.get("Executable.build.id").or_else(|| source.pointer("/Executable/build/id"));
        assert_eq!(id, Some(&hit["_id"]));
        let version = source.get("ecs.version").or_else(|| source.pointer("/ecs/version"));
        assert_eq!(version, Some(&json!("1.12.0")));
    }
    let hosts = cluster.documents("profiling-hosts");
    assert_eq!(hosts[0]["_source"]["profiling.agent.config.present_cpu_cores"], json!(8));
}

#[test]
fn a_server_under_a_basic_licence_takes_every_document_once() {
    check(Licence::Basic);
}

#[test]
fn a_server_with_synthetic_sources_takes_every_document_once() {
    check(Licence::Trial);
}

#[test]
fn the_longest_stack_that_is_written_is_the_longest_that_is_taken() {
    let Some(cluster) = Cluster::take("the longest stack", Licence::Basic) else { return };
    cluster.set_up_by_elastic();
    let file = FileId::parse_hex("600dcafe4a110000f2bf38c493f5fb92").expect("32 digits");
    let stack = |id: u8, frames: u64| StackTrace {
        id: StackId([id; 16]),
        frames: (0..frames).map(|at| (FrameId { file, address_or_line: at }, FrameKind::NATIVE)).collect(),
    };
    let encoder = Encoder::new(Shape::of(Generation::Classic), 0);
    let long = Documents { stacktraces: vec![stack(1, 1023), stack(2, 5000)], ..Documents::default() };
    assert_eq!(only(Kind::StackTrace, "created", &send(&cluster, &encoder.encode(&long, NOW))), 2);
    // One frame more, as it would be without the cut.
    let ids: Value = "A".repeat(1024 * 32).into();
    let document =
        json!({"ecs.version": "1.12.0", "Stacktrace.frame.ids": ids, "Stacktrace.frame.types": "AQM"});
    let answer = cluster.call("PUT", "/profiling-stacktraces/_create/x", Some(&document));
    assert_eq!(answer.status, 400, "{}", answer.body);
}
