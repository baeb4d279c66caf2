//! What the writer says of itself: readiness and metrics.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Counter, ElasticWriter, Lane};
use crate::store::Health;
use crate::telemetry::{Metric, Metrics};

#[async_trait]
impl Health for ElasticWriter {
    async fn ready(&self) -> Result<(), String> {
        match self.problem() {
            // What the disk takes is taken.
            Some(_) if matches!(self.lane, Lane::Queue(_)) && self.shape().is_some() => Ok(()),
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

impl ElasticWriter {
    /// Shows its numbers on the pages.
    pub fn show(self: &Arc<Self>, metrics: &Metrics) {
        let writer = Arc::downgrade(self);
        metrics.ask(move |answers| {
            let Some(writer) = writer.upgrade() else { return };
            let count = |counter| writer.counters().get(counter);
            answers.put(Metric::BulkRequests, count(Counter::Requests));
            answers.put(Metric::BulkFailures, count(Counter::RequestsFailed));
            answers.put(Metric::BulkBytes, count(Counter::RequestBytes));
            answers.put(Metric::DocumentsRetried, count(Counter::DocumentsRetried));
            answers.put(Metric::DocumentsAlreadyThere, count(Counter::DocumentsAlreadyThere));
            for (kind, documents) in writer.counters().written_by_kind() {
                answers.put_with(Metric::DocumentsWritten, &[("index", kind)], documents as f64);
            }
            for (kind, error, documents) in writer.rejected() {
                answers.put_with(
                    Metric::DocumentsRejected,
                    &[("kind", kind), ("error", &error)],
                    documents as f64,
                );
            }
            for (reason, counter) in [
                ("overloaded", Counter::RefusedOverloaded),
                ("unavailable", Counter::RefusedUnavailable),
                ("queue", Counter::RefusedQueue),
            ] {
                answers.put_with(Metric::OutputRefused, &[("reason", reason)], count(counter) as f64);
            }
            if let Some(bytes) = writer.queued_bytes() {
                answers.put(Metric::QueueBytes, bytes);
                answers.put(Metric::QueueBatches, count(Counter::Queued));
                answers.put(Metric::QueueDamaged, writer.queue_damaged());
            }
        });
    }
}
