//! One batch to the store: map, leave out what is known, write, remember.
//!
//! The way in for exports from the network and for the agent of the same process alike.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::counters::{Counter, Counters};
use super::mapping::{self, Dropped, Mapped};
use super::seen::Seen;
use crate::model::{Batch, UnixNanos};
use crate::store::{Result, Writer, Written};

/// What became of a batch that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestOutcome {
    /// Samples now in the store.
    pub samples: u64,
    /// Samples that the store will never take.
    pub rejected: u64,
    /// Why, for the first of them.
    pub reason: Option<String>,
    /// Samples that were left out before.
    pub dropped: Dropped,
}

/// Writes batches to a store.
pub struct Ingest {
    writer: Arc<dyn Writer>,
    seen: Seen,
    counters: Counters,
    clock: fn() -> UnixNanos,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Ingest {
    /// Writes to `writer`.
    #[must_use]
    pub fn new(writer: Arc<dyn Writer>) -> Self {
        Self { writer, seen: Seen::default(), counters: Counters::default(), clock: wall_clock }
    }

    /// Writes what the store holds again after `lifetime` ([`super::seen::LIFETIME`] when not said): stores differ in
    /// how long they can be trusted to show what was written once.
    #[must_use]
    pub fn remembering_for(mut self, lifetime: Duration) -> Self {
        self.seen = Seen::new(lifetime);
        self
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Writes one batch. `Ok` means that the store answers for it.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn ingest(&self, batch: &Batch) -> Result<IngestOutcome> {
        self.counters.add(Counter::BatchesReceived, 1);
        self.write(mapping::documents(batch)).await
    }

    /// Writes what [`mapping::documents`] made of a batch.
    pub(super) async fn write(&self, mapped: Mapped) -> Result<IngestOutcome> {
        let Mapped { mut documents, samples, dropped } = mapped;
        let count = |counter, count| self.counters.add(counter, count);
        count(Counter::SamplesReceived, samples + dropped.empty_stack + dropped.no_time + dropped.too_many);
        count(Counter::SamplesEmptyStack, dropped.empty_stack);
        count(Counter::SamplesNoTime, dropped.no_time);
        count(Counter::SamplesTooMany, dropped.too_many);
        let now = (self.clock)();
        let fresh = self.seen.retain_new(&mut documents, now);
        match self.writer.write(documents).await {
            Ok(Written { rejected_samples, missed_look_ups, reason }) => {
                // Which of them is not said: the next batch carries all of them again.
                if missed_look_ups == 0 {
                    self.seen.mark(fresh, now);
                }
                let rejected = rejected_samples.min(samples);
                count(Counter::BatchesWritten, 1);
                count(Counter::SamplesWritten, samples - rejected);
                count(Counter::SamplesRejected, rejected);
                Ok(IngestOutcome { samples: samples - rejected, rejected, reason, dropped })
            }
            Err(error) => {
                let retryable = error.is_retryable();
                count(if retryable { Counter::BatchesRetryable } else { Counter::BatchesFailed }, 1);
                count(Counter::SamplesRefused, samples);
                Err(error)
            }
        }
    }
}

fn wall_clock() -> UnixNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(since.as_nanos() as u64)
}
