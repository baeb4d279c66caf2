//! A writer with its settings, and batches to give to it.

use std::sync::Arc;
use std::time::Duration;

use everflame::config::ElasticsearchOutput;
use everflame::model::{StackId, UnixNanos};
use everflame::store::document::{Event, EventResource};
use everflame::store::elastic::Client;
use everflame::store::elastic::bulk::ElasticWriter;
use everflame::store::elastic::queue::DiskQueue;
use everflame::store::{Documents, Error, Writer as _, Written};

/// Settings for one address, with short pauses.
pub(crate) fn output(address: &str) -> ElasticsearchOutput {
    ElasticsearchOutput {
        hosts: vec![address.to_owned()],
        backoff_init: Duration::from_millis(50),
        timeout: Duration::from_mins(1),
        ..ElasticsearchOutput::default()
    }
}

/// A writer that has found out what the cluster is.
pub(crate) async fn writer(
    output: &ElasticsearchOutput,
    queue: Option<Arc<DiskQueue>>,
) -> Arc<ElasticWriter> {
    let client = Arc::new(Client::new(output).unwrap());
    let writer = ElasticWriter::start(output, client, queue);
    let start = std::time::Instant::now();
    while writer.shape().is_none() {
        assert!(start.elapsed() < crate::elasticsearch::DEADLINE, "{:?}", writer.problem());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer
}

/// Samples of one stack of `host`; each `number` gives other ones.
pub(crate) fn batch(host: &str, number: u64, samples: u64) -> Documents {
    let start = 1_700_000_000_000_000_000 + number * 1_000_000_000;
    Documents {
        resources: vec![EventResource { host_id: host.into(), frequency_hz: 20, ..EventResource::default() }],
        events: vec![Event {
            stack: StackId(u128::from(number).to_be_bytes()),
            thread_name: "thread".into(),
            times: (0..samples).map(|at| UnixNanos(start + at * 1000)).collect(),
            ..Event::default()
        }],
        ..Documents::default()
    }
}

/// Writes as a patient sender does: again and again until it is taken.
pub(crate) async fn insist(writer: &ElasticWriter, documents: &Documents) -> Written {
    let start = std::time::Instant::now();
    loop {
        match writer.write(documents.clone()).await {
            Ok(written) => return written,
            Err(error) => give_up_when_late(start, &error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn give_up_when_late(start: std::time::Instant, error: &Error) {
    assert!(error.is_retryable(), "{error}");
    assert!(start.elapsed() < crate::elasticsearch::DEADLINE, "{error}");
}

/// Events of a host in the stream of all events.
pub(crate) fn count(url: &str, host: &str) -> u64 {
    let address = url.trim_start_matches("http://");
    let call = |method: &str, path: &str| {
        let answer =
            crate::elasticsearch::http::request(address, method, path, &[("Host", address)], b"").unwrap();
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()
    };
    call("POST", "/profiling-events-all/_refresh");
    let answer = call("GET", &format!("/profiling-events-all/_count?q=host.id:{host}"));
    answer["count"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}
