//! Reading Elasticsearch beyond what both engines share: estimates, what is missing, what is forbidden, what is old.

use std::sync::Arc;

use everflame::config::{CollectorSection, ElasticsearchOutput, Environment, Layers, OutputSection, resolve};
use everflame::model::{
    Dimension, FileId, Filter, FrameId, FrameKind, Pattern, Selection, SourceLine, TimeRange, UnixNanos,
    UnknownReason, stack_id,
};
use everflame::store::document::{Event, EventResource, Executable, StackFrame, StackTrace};
use everflame::store::elastic::{Client, ElasticReader, Encoder, Generation, ReadLimits, Shape};
use everflame::store::{
    Documents, Error, EventFilter, EventQuestion, ForeignEvents, Precision, Reader, Remote, TimeGrid,
};
use serde_json::json;

use crate::elasticsearch::{Cluster, Kind};

/// 2026-11-21T12:00:00Z.
const NOON: UnixNanos = UnixNanos::from_millis(1_795_262_400_000);
const HOUR: TimeRange = TimeRange { from: NOON, to: UnixNanos::from_millis(1_795_266_000_000) };

fn output(cluster: &Cluster, more: &[&str]) -> ElasticsearchOutput {
    let hosts = format!("output.elasticsearch.hosts={}", cluster.url());
    let settings = Layers::new(Environment::default())
        .overrides(std::iter::once(hosts.as_str()).chain(more.iter().copied()))
        .settings();
    let section: CollectorSection = resolve(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    match section.output {
        OutputSection::Elasticsearch(output) => *output,
        OutputSection::Embedded(_) => panic!("another output was set"),
    }
}

fn client(cluster: &Cluster) -> Arc<Client> {
    Arc::new(Client::new(&output(cluster, &[])).unwrap())
}

fn run<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(question)
}

fn all() -> Selection {
    Selection { range: HOUR, filter: Filter::All }
}

fn frame(address: u64) -> FrameId {
    FrameId { file: FileId::from_words(7, 8), address_or_line: address }
}

/// `samples` events, spread over ten stacks with fixed shares, two threads and one hour.
fn documents(samples: u64) -> Documents {
    let traces: Vec<StackTrace> = (0..10u64)
        .map(|i| {
            let frames: Vec<_> =
                [1, 100 + i].into_iter().map(|address| (frame(address), FrameKind::NATIVE)).collect();
            StackTrace { id: stack_id(frames.iter().rev().map(|(id, _)| *id)), frames }
        })
        .collect();
    let resource = EventResource {
        host_id: "h".into(),
        executable_name: "app".into(),
        frequency_hz: 20,
        ..EventResource::default()
    };
    let event = |i: usize, trace: &StackTrace| Event {
        resource: 0,
        stack: trace.id,
        thread_name: if i < 5 { "a".into() } else { "b".into() },
        times: (0..samples / 10)
            .map(|n| UnixNanos(NOON.0 + (n * 10 + i as u64) * (3_600_000_000_000 / samples)))
            .collect(),
        ..Event::default()
    };
    Documents {
        resources: vec![resource],
        events: traces.iter().enumerate().map(|(i, trace)| event(i, trace)).collect(),
        stackframes: vec![StackFrame {
            id: frame(1),
            lines: vec![SourceLine { function: "main".into(), file: "app.c".into(), line: 3, column: 0 }],
        }],
        executables: vec![Executable { id: frame(1).file, name: "app".into(), gnu_build_id: "".into() }],
        stacktraces: traces,
        ..Documents::default()
    }
}

fn fill(cluster: &Cluster, shape: Shape, documents: &Documents) {
    let encoder = Encoder::new(shape, 7);
    for part in encoder.parts(documents, NOON, 4 << 20) {
        let answer = cluster.send("POST", "/_bulk", "application/x-ndjson", &part.bytes);
        assert_eq!(
            (answer.status, &answer.body["errors"]),
            (200, &json!(false)),
            "{}",
            answer.body["items"][0]
        );
    }
    cluster.refresh();
}

/// How far a number that is an estimate may be off: five times its deviation.
fn is_near(found: u64, truth: u64, factor: f64) -> bool {
    (found as f64 - truth as f64).abs() <= 5.0 * (truth as f64 * (factor - 1.0)).sqrt()
}

#[test]
fn what_is_too_large_is_estimated_and_says_so() {
    let Some(cluster) = Cluster::take("estimates over Elasticsearch", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    let samples = 30_000;
    fill(&cluster, Shape::of(Generation::Classic), &documents(samples));
    let limits = ReadLimits { exact_events: 20_000, target: 1_000, ..ReadLimits::default() };
    run(async {
        let exact = ElasticReader::new(client(&cluster), None);
        let set = exact.stacks(&all(), None).await.unwrap();
        assert_eq!(set.precision, Precision::Exact);
        assert_eq!(set.counts.iter().map(|count| count.samples).sum::<u64>(), samples);
        assert_eq!(set.cpu_ns, samples * 50_000_000);

        // By a down-sampled stream, then by random samples where there is none.
        for streams in [true, false] {
            if !streams {
                for level in 1..=11 {
                    cluster.must("DELETE", &format!("/_data_stream/profiling-events-5pow{level:02}"), None);
                }
            }
            let reader = ElasticReader::with_limits(client(&cluster), None, limits);
            let set = reader.stacks(&all(), Some(Dimension::ThreadName)).await.unwrap();
            let Precision::Sampled { factor } = set.precision else { panic!("{:?}", set.precision) };
            println!("streams {streams}: one of {factor} counted");
            assert!((5.0..=125.0).contains(&factor), "{factor}");
            let total: u64 = set.counts.iter().map(|count| count.samples).sum();
            assert!(is_near(total, samples, factor), "{total} by 1 of {factor}");
            assert_eq!(set.groups.len(), 2);
            for count in &set.counts {
                assert!(is_near(count.samples, samples / 10, factor), "{count:?} by 1 of {factor}");
            }
            let grid = TimeGrid { start: NOON, width_ns: 600_000_000_000, buckets: 6 };
            let timeline = reader.timeline(&all(), grid, Some(Dimension::ThreadName), 1).await.unwrap();
            assert_eq!(timeline.precision, set.precision);
            assert_eq!((timeline.groups, timeline.hosts, timeline.series.len()), (2, 1, 1));
            for bucket in 0..6 {
                let both = timeline.series[0].samples[bucket] + timeline.other.samples[bucket];
                assert!(is_near(both, samples / 6, factor), "bucket {bucket}: {both} by 1 of {factor}");
            }
            let values = reader.values(Dimension::ThreadName, "", HOUR, 5).await.unwrap();
            assert!(values.iter().all(|value| is_near(value.samples, samples / 2, factor)), "{values:?}");
        }
    });
}

#[test]
fn a_cluster_without_anything_is_an_empty_answer() {
    let Some(cluster) = Cluster::take("reading an empty cluster", Kind::Basic) else { return };
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let status = reader.status().await.unwrap();
        assert_eq!((status.samples, status.extent, status.is_set_up), (0, None, false));
        assert!(status.description.starts_with("Elasticsearch 8."), "{}", status.description);
        let set = reader.stacks(&all(), Some(Dimension::HostName)).await.unwrap();
        assert!(set.counts.is_empty() && set.groups.len() == 1);
        let grid = TimeGrid { start: NOON, width_ns: 1_000_000, buckets: 3 };
        let timeline = reader.timeline(&all(), grid, None, 5).await.unwrap();
        assert_eq!(timeline.series[0].samples, [0, 0, 0]);
        assert!(reader.values(Dimension::Executable, "", HOUR, 5).await.unwrap().is_empty());
        let frames = reader.frames(&[frame(1)]).await.unwrap();
        assert_eq!(frames[0].reason, Some(UnknownReason::Pending));
    });
}

#[test]
fn a_rolled_over_table_is_read_whole() {
    let Some(cluster) = Cluster::take("indices behind an alias", Kind::Trial) else { return };
    cluster.set_up_by_elastic();
    let documents = documents(100);
    let (old, new) = documents.stacktraces.split_at(4);
    let part = |traces: &[StackTrace]| Documents { stacktraces: traces.to_vec(), ..Documents::default() };
    fill(&cluster, Shape::of(Generation::Classic), &part(old));
    for table in ["stacktraces", "stackframes", "executables"] {
        cluster.must("POST", &format!("/profiling-{table}/_rollover"), None);
    }
    fill(
        &cluster,
        Shape::of(Generation::Classic),
        &Documents { stacktraces: new.to_vec(), ..documents.clone() },
    );
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let set = reader.stacks(&all(), None).await.unwrap();
        assert!(set.counts.iter().all(|count| count.node != 0 && count.samples == 10), "{:?}", set.counts);
        let ids: Vec<_> = set.trie.frames.iter().map(|(id, _)| *id).collect();
        let details = reader.frames(&ids).await.unwrap();
        assert!(details.iter().all(|detail| &*detail.library == "app"));
        assert_eq!(details.iter().filter(|detail| !detail.lines.is_empty()).count(), 1);
    });
}

#[test]
fn a_stack_that_comes_late_is_found_when_it_is_there() {
    let Some(cluster) = Cluster::take("late stacks", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    let documents = documents(100);
    let shape = Shape::of(Generation::Classic);
    fill(&cluster, shape, &Documents { stacktraces: Vec::new(), ..documents.clone() });
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let set = reader.stacks(&all(), None).await.unwrap();
        assert_eq!((set.counts.len(), set.counts[0].node, set.counts[0].samples), (1, 0, 100));
        fill(
            &cluster,
            shape,
            &Documents { stacktraces: documents.stacktraces.clone(), ..Documents::default() },
        );
        let set = reader.stacks(&all(), None).await.unwrap();
        assert_eq!(set.counts.len(), 10);
        let grid = TimeGrid { start: NOON, width_ns: 3_600_000_000_000, buckets: 1 };
        let timeline = reader.timeline(&all(), grid, None, 1).await.unwrap();
        assert_eq!((timeline.complete, timeline.cpu_ns), (100, 5_000_000_000));
    });
}

#[test]
fn who_may_only_read_gets_the_same_and_who_may_not_is_told_what_is_missing() {
    let Some(cluster) = Cluster::take("privileges of readers", Kind::Secured) else { return };
    cluster.put(
        "/_index_template/test-profiling",
        &json!({ "index_patterns": ["profiling-events-*"], "data_stream": {}, "priority": 500, "template": { "mappings": {
            "properties": { "Stacktrace.id": { "type": "keyword" }, "process.thread.name": { "type": "keyword" },
                "@timestamp": { "type": "date_nanos" }, "process.executable.name": { "type": "keyword" },
                "host.id": { "type": "keyword" }, "host.name": { "type": "keyword" },
                "Stacktrace.sampling_frequency": { "type": "long" } } } } }),
    );
    fill(&cluster, Shape::of(Generation::Classic), &documents(100));
    let reader = |role: &serde_json::Value| {
        let key =
            format!("output.elasticsearch.api_key={}", cluster.api_key("reader", &json!({ "r": role })));
        let output = output(&cluster, &[&key]);
        ElasticReader::new(Arc::new(Client::new(&output).unwrap()), None)
    };
    let names = ["profiling-*", ".profiling-*"];
    let least = reader(
        &json!({ "indices": [{ "names": names, "privileges": ["read"], "allow_restricted_indices": false }] }),
    );
    let none = reader(&json!({ "cluster": ["monitor"], "indices": [] }));
    run(async {
        let set = least.stacks(&all(), None).await.unwrap();
        assert_eq!(set.counts.len(), 10);
        assert!(set.counts.iter().all(|count| count.node != 0));
        let details = least.frames(&[frame(1)]).await.unwrap();
        assert_eq!((&*details[0].library, details[0].lines.len()), ("app", 1));
        assert_eq!(least.status().await.unwrap().samples, 100);

        let error = none.stacks(&all(), None).await.unwrap_err();
        let hint = error.hint().unwrap_or_default();
        assert!(matches!(error, Error::Remote { kind: Remote::Forbidden, .. }), "{error}");
        assert!(hint.contains("read") && hint.contains("profiling-*"), "{hint}");
        let stranger = ElasticReader::new(client(&cluster), None);
        let error = stranger.status().await.unwrap_err();
        assert!(matches!(error, Error::Remote { kind: Remote::NoLogin, .. }), "{error}");
    });
}

#[test]
fn documents_of_the_second_generation_are_read() {
    let Some(cluster) = Cluster::take("documents of the second generation", Kind::Trial) else { return };
    // What the templates of Elasticsearch 9.6 come to for the fields that matter.
    let attributes = json!({ "type": "passthrough", "dynamic": true, "priority": 40, "properties": {
        "host.id": { "type": "keyword" }, "host.name": { "type": "keyword" }, "thread.name": { "type": "keyword" },
        "process.executable.name": { "type": "keyword" }, "service.name": { "type": "keyword" } } });
    let events = json!({ "dynamic": false, "properties": {
        "@timestamp": { "type": "date_nanos" }, "stacktrace.id": { "type": "keyword" },
        "sampling_frequency": { "type": "long" }, "count": { "type": "long" },
        "process.thread.name": { "type": "alias", "path": "resource.attributes.thread.name" },
        "resource": { "properties": { "attributes": attributes } } } });
    for (name, pattern, mappings) in [
        ("test-events", "profiling-events*.otel-default", events),
        ("test-tables", "profiling-stack*.otel-default", json!({ "dynamic": false })),
        ("test-executables", "profiling-executables.otel-default", json!({ "dynamic": false })),
    ] {
        let template = json!({ "index_patterns": [pattern], "data_stream": {}, "priority": 500,
            "template": { "mappings": mappings } });
        cluster.put(&format!("/_index_template/{name}"), &template);
    }
    fill(&cluster, Shape::of(Generation::Otel), &documents(1000));
    run(async {
        for generation in [None, Some(Generation::Otel)] {
            let reader = ElasticReader::new(client(&cluster), generation);
            let thread = Filter::Match(Dimension::ThreadName, Pattern::exact("b"));
            let selection = Selection { range: HOUR, filter: thread };
            let set = reader.stacks(&selection, Some(Dimension::Executable)).await.unwrap();
            assert_eq!(set.groups, ["app".into()]);
            assert_eq!(set.counts.iter().map(|count| count.samples).sum::<u64>(), 500);
            assert!(set.counts.iter().all(|count| count.node != 0));
            assert_eq!(set.cpu_ns, 500 * 50_000_000);
            let details = reader.frames(&[frame(1), frame(100)]).await.unwrap();
            let seen = (&*details[0].library, &*details[0].lines[0].function, &*details[1].library);
            assert_eq!(seen, ("app", "main", "app"));
            let status = reader.status().await.unwrap();
            assert_eq!((status.samples, status.stacks, status.is_set_up), (1000, 10, true));
            let values = reader.values(Dimension::ThreadName, "a", HOUR, 5).await.unwrap();
            assert_eq!((values.len(), values[0].samples), (1, 500));
        }
        // The first generation was asked for and has nothing.
        let reader = ElasticReader::new(client(&cluster), Some(Generation::Classic));
        assert!(reader.stacks(&all(), None).await.unwrap().counts.is_empty());
    });
}

#[test]
fn a_cluster_that_allows_few_buckets_is_asked_in_smaller_pages() {
    let Some(cluster) = Cluster::take("a low limit of buckets", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    fill(&cluster, Shape::of(Generation::Classic), &documents(1000));
    cluster.put("/_cluster/settings", &json!({ "persistent": { "search.max_buckets": 900 } }));
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let set = reader.stacks(&all(), Some(Dimension::ThreadName)).await.unwrap();
        assert_eq!(set.counts.iter().map(|count| count.samples).sum::<u64>(), 1000);
    });
    cluster.put("/_cluster/settings", &json!({ "persistent": { "search.max_buckets": 5 } }));
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let error = reader.stacks(&all(), None).await.unwrap_err();
        assert!(matches!(error, Error::Remote { kind: Remote::TooManyBuckets, .. }), "{error}");
        assert!(error.hint().unwrap().contains("search.max_buckets"));
    });
}

#[test]
fn nobody_there_is_an_error_that_can_be_tried_again() {
    let settings =
        Layers::new(Environment::default()).overrides(["output.elasticsearch.hosts=127.0.0.1:1"]).settings();
    let section: CollectorSection = resolve(&settings).unwrap();
    let OutputSection::Elasticsearch(output) = section.output else { panic!("another output") };
    run(async {
        let reader = ElasticReader::new(Arc::new(Client::new(&output).unwrap()), None);
        let error = reader.stacks(&all(), None).await.unwrap_err();
        assert!(error.is_retryable() && error.hint().is_some(), "{error}");
    });
}

#[test]
fn a_question_that_nobody_waits_for_closes_its_connection() {
    use std::io::Read as _;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("output.elasticsearch.hosts={}", listener.local_addr().unwrap());
    let settings = Layers::new(Environment::default()).overrides([hosts.as_str()]).settings();
    let section: CollectorSection = resolve(&settings).unwrap();
    let OutputSection::Elasticsearch(output) = section.output else { panic!("another output") };
    // A server that takes the question and never answers.
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_mins(1))).unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        (stream, head)
    });
    run(async {
        let reader = ElasticReader::new(Arc::new(Client::new(&output).unwrap()), None);
        assert!(reader.stops_when_dropped());
        let question = tokio::spawn(async move { reader.stacks(&all(), None).await.map(drop) });
        let (mut stream, head) = tokio::task::spawn_blocking(|| asked.join().unwrap()).await.unwrap();
        assert_eq!(&head, b"GET ");
        question.abort();
        assert!(question.await.unwrap_err().is_cancelled());
        // The rest of the question, then the end of the connection.
        let rest = tokio::task::spawn_blocking(move || stream.read_to_end(&mut Vec::new())).await.unwrap();
        rest.unwrap();
    });
}

#[test]
fn events_of_other_indices_are_joined_with_their_stacks() {
    let Some(cluster) = Cluster::take("events of other indices", Kind::Basic) else { return };
    cluster.set_up_by_elastic();
    let documents = documents(100);
    fill(&cluster, Shape::of(Generation::Classic), &documents);
    cluster.put(
        "/test-traces",
        &json!({ "mappings": { "properties": { "profile.ids": { "type": "keyword" }, "@timestamp": { "type": "date" } } } }),
    );
    let id = |i: usize| everflame::store::document::encode::stack_id(documents.stacktraces[i].id);
    for n in 0..3 {
        let transaction = json!({ "@timestamp": NOON.millis() + n, "profile.ids": [id(0), id(1)] });
        cluster.must("POST", "/test-traces/_doc", Some(&transaction));
    }
    cluster.refresh();
    run(async {
        let reader = ElasticReader::new(client(&cluster), None);
        let foreign =
            ForeignEvents { indices: vec!["test-traces".into()], stack_field: "profile.ids".into() };
        let question = EventQuestion {
            filter: EventFilter::QueryDsl(r#"{"match_all": {}}"#.into()),
            fields: Vec::new(),
            sample_size: 20_000,
            seed: 1,
            otel: false,
            foreign: Some(foreign),
            with_extent: true,
        };
        let set = reader.events(&question).await.unwrap();
        assert_eq!(set.counts.iter().map(|count| count.events).collect::<Vec<_>>(), [3, 3]);
        assert!(set.stacks.iter().all(|(_, node)| *node != 0));
        assert_eq!(set.extent.map(|extent| extent.nanos()), Some(3_000_000));
        let escape = ForeignEvents { indices: vec!["a/_doc/1?".into()], stack_field: "x".into() };
        assert!(reader.events(&EventQuestion { foreign: Some(escape), ..question }).await.is_err());
    });
}
