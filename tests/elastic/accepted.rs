//! Templates take every kind of document that is written, in every shape, under every licence.

use std::collections::BTreeMap;

use everflame::store::elastic::{Encoder, Generation, Kind as Document, Shape};
use serde_json::Value;

use crate::documents::{NOW, made};
use crate::elasticsearch::{Cluster, Kind};
use crate::program::setup;

/// Sends documents of this shape; what was written by kind.
pub(crate) fn write(cluster: &Cluster, shape: Shape, hosts: u64, events: u64) -> BTreeMap<Document, usize> {
    let mut written = BTreeMap::new();
    let (documents, encoder) = (made(hosts, events), Encoder::new(shape, 7));
    for body in encoder.parts(&documents, NOW, 4 << 20) {
        let answer = cluster.send("POST", "/_bulk", "application/x-ndjson", &body.bytes);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.body["items"].as_array().unwrap();
        assert_eq!(items.len(), body.items.len());
        for (item, answer) in body.items.iter().zip(items) {
            let result = answer.as_object().unwrap().values().next().unwrap();
            assert!(result["status"].as_u64().unwrap() < 300, "{item:?}: {answer}");
            assert_eq!(result.get("error"), None, "{answer}");
            *written.entry(item.kind).or_default() += 1;
        }
    }
    written
}

fn check(kind: Kind, generation: Generation, flag: &str) {
    let Some(cluster) = Cluster::take("documents of every kind", kind) else { return };
    setup(&cluster.url(), &["--generation", flag], &[]).ended(0);
    let shape = Shape::of(generation);
    let written = write(&cluster, shape, 3, 2000);
    let of = |kind: Document| written.get(&kind).copied().unwrap_or(0) as u64;
    let names = generation.names();
    let mut expected = vec![
        (names.events.to_owned(), of(Document::Event)),
        (names.stacktraces.to_owned(), of(Document::StackTrace)),
        (names.stackframes.to_owned(), of(Document::StackFrame)),
        (names.executables.to_owned(), of(Document::Executable)),
        (names.hosts.to_owned(), of(Document::Host)),
    ];
    expected.extend(names.queued_executables.map(|name| (name.to_owned(), of(Document::QueuedExecutable))));
    expected.extend(names.queued_frames.map(|name| (name.to_owned(), of(Document::QueuedFrame))));
    if shape.sampled_streams {
        expected.extend(
            (1..=3).map(|level| (generation.sampled_events(level), of(Document::SampledEvent(level)))),
        );
    }
    assert_eq!(of(Document::Event), 2000, "{written:?}");
    for (name, documents) in expected {
        assert!(documents > 0, "{name}: nothing written: {written:?}");
        assert_eq!(cluster.count(&name), documents, "{name}");
    }
    found_by_fields(&cluster, generation);
}

/// What readers filter, group and look up by is there under the names that they use.
fn found_by_fields(cluster: &Cluster, generation: Generation) {
    let events = generation.names().events;
    let body = serde_json::json!({
        "size": 0,
        "query": { "bool": { "filter": [
            { "term": { "process.executable.name": "program-2" } },
            { "term": { "host.id": "8457605156473050001" } },
            { "range": { "@timestamp": { "gte": "1700504427", "lt": "1700505027", "format": "epoch_second" } } },
        ] } },
        "aggs": {
            "stacks": { "terms": { "field": "Stacktrace.id" } },
            "frequency": { "terms": { "field": "Stacktrace.sampling_frequency" } },
            "thread": { "terms": { "field": "process.thread.name" } },
            "pod": { "terms": { "field": "orchestrator.resource.name" } },
            "service": { "terms": { "field": "service.name" } },
        },
    });
    let found = cluster.must("POST", &format!("/{events}/_search"), Some(&body));
    let hits = found["hits"]["total"]["value"].as_u64().unwrap();
    assert!(hits > 20, "{found}");
    let buckets = |name: &str| found["aggregations"][name]["buckets"].as_array().unwrap().clone();
    assert_eq!(buckets("frequency").len(), 1, "{found}");
    assert_eq!(buckets("frequency")[0]["doc_count"].as_u64(), Some(hits));
    for name in ["stacks", "thread", "pod", "service"] {
        assert!(!buckets(name).is_empty(), "{name}: {found}");
    }
    assert_eq!(buckets("pod")[0]["key"], "service-2-7d4b9c6f5-00001");
    // Inlined functions keep their order and their number.
    let frames = cluster.documents(generation.names().stackframes);
    let field = |hit: &Value| match generation {
        Generation::Classic => hit["_source"]["Stackframe.function.name"].clone(),
        Generation::Otel => hit["_source"]["function.name"].clone(),
    };
    let inlined =
        frames.iter().map(field).find(|names| names.as_array().is_some_and(|names| names.len() == 2));
    let inlined = inlined.unwrap_or_else(|| panic!("inlined functions in {}", frames[0]));
    assert!(inlined[0].as_str().unwrap().starts_with("outer_"), "{inlined}");
}

#[test]
fn classic_documents_on_basic_and_trial() {
    check(Kind::Basic, Generation::Classic, "classic");
    check(Kind::Trial, Generation::Classic, "classic");
}

#[test]
fn documents_of_opentelemetrys_shape_on_basic_and_trial() {
    check(Kind::Basic, Generation::Otel, "otel");
    check(Kind::Trial, Generation::Otel, "otel");
}
