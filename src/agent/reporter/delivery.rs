//! Brings batches to the sink: in order, a few tries each, then dropped and counted.
//!
//! Runs on the runtime; the agent's thread only leaves batches in a short queue and never waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{ReportError, Sink};
use crate::agent::counters::{Counter, Counters};
use crate::model::Batch;
use crate::net::RetryPolicy;

/// Batches that wait while one is on its way. With the default window that is 20 s of samples.
pub(crate) const QUEUE_BATCHES: usize = 4;

/// 0.5 s, 1 s, 2 s, then give up: longer than that and the queue behind is full.
const RETRIES: RetryPolicy =
    RetryPolicy { first: Duration::from_millis(500), longest: Duration::from_secs(5), retries: 3 };

/// Where finished windows are left.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Batch>,
    counters: Arc<Counters>,
}

impl Outbox {
    /// Leaves a batch. Counts it as dropped when too many wait already.
    pub(crate) fn put(&self, batch: Batch) {
        let samples = batch.sample_count();
        if self.queue.try_send(batch).is_err() {
            self.counters.add(Counter::DroppedBacklog, samples);
            tracing::error!(samples, waiting = QUEUE_BATCHES, "batch dropped: receiver is too slow");
        }
    }
}

/// Where the batches come out, to be run on a runtime.
#[derive(Debug)]
pub(crate) struct Delivery {
    retries: RetryPolicy,
    queue: mpsc::Receiver<Batch>,
    counters: Arc<Counters>,
    /// Why the receiver takes nothing from this agent.
    barred: watch::Sender<Option<String>>,
}

/// A pair of outbox and delivery.
pub(crate) fn channel(counters: &Arc<Counters>) -> (Outbox, Delivery) {
    let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
    (
        Outbox { queue: sender, counters: Arc::clone(counters) },
        Delivery {
            retries: RETRIES,
            queue: receiver,
            counters: Arc::clone(counters),
            barred: watch::Sender::new(None),
        },
    )
}

impl Delivery {
    /// Tells when the receiver takes nothing from this agent, and why.
    pub(crate) fn barred(&self) -> watch::Receiver<Option<String>> {
        self.barred.subscribe()
    }

    /// Delivers until the outbox is gone and empty.
    pub(crate) async fn run(mut self, sink: Arc<dyn Sink>) {
        while let Some(batch) = self.queue.recv().await {
            self.deliver(&*sink, &batch).await;
        }
    }

    async fn deliver(&self, sink: &dyn Sink, batch: &Batch) {
        let samples = batch.sample_count();
        if self.barred.borrow().is_some() {
            self.counters.add(Counter::DroppedRefused, samples);
            return;
        }
        let mut attempt = 0;
        loop {
            match sink.report(batch).await {
                Ok(()) => {
                    self.counters.add(Counter::Stored, samples);
                    self.counters.add(Counter::Batches, 1);
                    return;
                }
                Err(ReportError::Refused(reason)) => {
                    self.counters.add(Counter::DroppedRefused, samples);
                    tracing::error!(samples, "batch refused: {reason}");
                    return;
                }
                Err(ReportError::Barred(reason)) => {
                    self.counters.add(Counter::DroppedRefused, samples);
                    tracing::error!(samples, "the receiver takes nothing from this agent: {reason}");
                    self.barred.send_replace(Some(reason));
                    return;
                }
                Err(ReportError::Retryable(reason)) => {
                    let Some(pause) = self.retries.pause(attempt, random(), None) else {
                        self.counters.add(Counter::DroppedUnreachable, samples);
                        tracing::error!(samples, tries = attempt + 1, "batch dropped: {reason}");
                        return;
                    };
                    tracing::warn!(
                        pause_ms = pause.as_millis() as u64,
                        "batch not taken, trying again: {reason}"
                    );
                    self.counters.add(Counter::Retries, 1);
                    attempt += 1;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// A number in `[0, 1)`, good enough to keep a fleet from coming back all at once.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::model::{ProfileInfo, Resource, Sample, UnixNanos};

    /// Answers with what it is given, one answer per call, the last one for ever.
    struct Scripted {
        answers: Vec<Result<(), &'static str>>,
        calls: AtomicU32,
    }

    #[async_trait]
    impl Sink for Scripted {
        async fn report(&self, _batch: &Batch) -> Result<(), ReportError> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) as usize;
            match self.answers[call.min(self.answers.len() - 1)] {
                Ok(()) => Ok(()),
                Err("barred") => Err(ReportError::Barred("who are you".into())),
                Err("refused") => Err(ReportError::Refused("no".into())),
                Err(other) => Err(ReportError::Retryable(other.into())),
            }
        }
    }

    fn batch(samples: u32) -> Batch {
        Batch {
            resources: vec![Resource::default()],
            profiles: vec![ProfileInfo::default()],
            stacks: std::iter::once(0..0).collect(),
            samples: vec![Sample { times: 0..samples, ..Sample::default() }],
            times: vec![UnixNanos(1); samples as usize],
            ..Batch::default()
        }
    }

    async fn deliver(answers: Vec<Result<(), &'static str>>, batches: u32) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        let (outbox, mut delivery) = channel(&counters);
        delivery.retries.first = std::time::Duration::from_millis(2);
        for _ in 0..batches {
            outbox.put(batch(5));
        }
        drop(outbox);
        delivery.run(Arc::new(Scripted { answers, calls: AtomicU32::new(0) })).await;
        counters
    }

    fn sums(counters: &Counters) -> [u64; 4] {
        [Counter::Stored, Counter::DroppedBacklog, Counter::DroppedUnreachable, Counter::DroppedRefused]
            .map(|counter| counters.get(counter))
    }

    #[tokio::test]
    async fn tries_again_and_then_succeeds() {
        let counters = deliver(vec![Err("down"), Err("down"), Ok(())], 1).await;
        assert_eq!(sums(&counters), [5, 0, 0, 0]);
        assert_eq!(counters.get(Counter::Retries), 2);
    }

    #[tokio::test]
    async fn gives_up_and_counts() {
        assert_eq!(sums(&*deliver(vec![Err("down")], 2).await), [0, 0, 10, 0]);
        assert_eq!(sums(&*deliver(vec![Err("refused"), Ok(())], 2).await), [5, 0, 0, 5]);
    }

    #[tokio::test]
    async fn who_is_barred_asks_no_more_and_says_so() {
        let counters = Arc::new(Counters::default());
        let (outbox, delivery) = channel(&counters);
        let barred = delivery.barred();
        assert!(barred.borrow().is_none());
        outbox.put(batch(5));
        outbox.put(batch(5));
        drop(outbox);
        let sink = Arc::new(Scripted { answers: vec![Err("barred"), Ok(())], calls: AtomicU32::new(0) });
        delivery.run(Arc::clone(&sink) as Arc<dyn Sink>).await;
        assert_eq!(sums(&counters), [0, 0, 0, 10]);
        assert_eq!(sink.calls.load(Ordering::Relaxed), 1);
        assert_eq!(barred.borrow().as_deref(), Some("who are you"));
    }

    #[tokio::test]
    async fn full_queue_is_counted() {
        let counters = deliver(vec![Ok(())], QUEUE_BATCHES as u32 + 3).await;
        assert_eq!(sums(&counters), [5 * QUEUE_BATCHES as u64, 15, 0, 0]);
    }

    #[test]
    fn random_numbers_are_in_range_and_differ() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(numbers.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.01));
    }
}
