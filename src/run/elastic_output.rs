//! Roles that write to Elasticsearch.

use std::sync::Arc;
use std::time::Duration;

use crate::collector::seen::STREAM_LIFETIME;
use crate::collector::{self, Ingest};
use crate::config::{CollectorSection, ElasticsearchOutput, GenerationChoice};
use crate::net::Shutdown;
use crate::store::elastic::Client;
use crate::store::elastic::bulk::ElasticWriter;
use crate::store::elastic::queue::DiskQueue;
use crate::telemetry::Metrics;

use super::Failure;
use super::lifecycle::{StopSignals, within};
use super::metrics_pages::MetricsPages;
use super::stack::{self, Task};

/// Requests on their way are answered within this; the writer has a shorter limit of its own.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The collector role over Elasticsearch, which need not be there yet.
pub(super) async fn collector(
    section: &CollectorSection,
    output: &ElasticsearchOutput,
) -> Result<(), Failure> {
    let mut signals = StopSignals::register()?;
    let client = Client::new(output).map_err(|error| {
        let hint = error.hint();
        Failure::with_hint(error, hint)
    })?;
    let client = Arc::new(client);
    let queue = output.disk_queue.as_ref().map(|queue| DiskQueue::open(&queue.path, queue.max_size.0));
    let queue = queue.transpose().map_err(|error| Failure::with_hint(error, None))?.map(Arc::new);
    let queued_bytes = queue.as_ref().map(|queue| queue.bytes());
    let metrics = Metrics::new();
    let pages = MetricsPages::bind(&section.metrics, &metrics).await?;
    let config = collector::Config::resolve(section);
    let writer = ElasticWriter::start(output, client.clone(), queue);
    writer.show(&metrics);
    let mut ingest = Ingest::new(writer.clone());
    // Where the shape is found out later, the shorter memory of aliases is right for data streams too.
    if output.generation == Some(GenerationChoice::Otel) {
        ingest = ingest.remembering_for(STREAM_LIFETIME);
    }
    let ingest = Arc::new(ingest);
    let collector = stack::bind_collector(section, &config, &ingest, writer.clone(), &metrics).await?;
    tracing::info!(
        address = %collector.address(),
        elasticsearch = client.address(),
        tls = section.tls.enabled,
        memory_bytes = config.budget.limit(),
        connections = config.limits.connections,
        queued_bytes,
        "taking OTLP profiles, gRPC and HTTP"
    );
    let shutdown = Shutdown::new();
    let pages = pages.spawn(&shutdown);
    let mut task = Task::spawn("collector", shutdown.clone(), collector.serve(shutdown));
    let ended = tokio::select! {
        signal = signals.next() => { tracing::info!(signal, "stopping"); None }
        how = task.ended() => Some(how),
    };
    // Senders first: each of them waits for the writer.
    if ended.is_none() {
        task.stop().await;
    }
    within("output", CLOSE_DEADLINE, writer.close()).await;
    for page in pages {
        page.stop().await;
    }
    ended.map_or(Ok(()), |how| Err(anyhow::anyhow!(how).into()))
}
