//! What the writer has done, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Kind;

/// One number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Bulk requests that were answered.
    Requests,
    /// Bulk requests that were not, or that were refused as a whole.
    RequestsFailed,
    /// Bytes of bulk requests before compression, repeats included.
    RequestBytes,
    /// Documents that Elasticsearch holds now.
    DocumentsWritten,
    /// Of those, documents that were there already.
    DocumentsAlreadyThere,
    /// Documents sent again, each time.
    DocumentsRetried,
    /// Documents that Elasticsearch will never take.
    DocumentsRejected,
    /// Of those, samples.
    SamplesRejected,
    /// Batches refused because too many bytes are on their way.
    RefusedOverloaded,
    /// Batches refused because Elasticsearch does not take documents.
    RefusedUnavailable,
    /// Batches refused because the disk queue is full or broken.
    RefusedQueue,
    /// Batches that went to the disk queue.
    Queued,
}

impl Counter {
    /// All of them, in the order shown.
    pub const ALL: [Self; 12] = [
        Self::Requests,
        Self::RequestsFailed,
        Self::RequestBytes,
        Self::DocumentsWritten,
        Self::DocumentsAlreadyThere,
        Self::DocumentsRetried,
        Self::DocumentsRejected,
        Self::SamplesRejected,
        Self::RefusedOverloaded,
        Self::RefusedUnavailable,
        Self::RefusedQueue,
        Self::Queued,
    ];

    /// Name on pages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "bulk_requests",
            Self::RequestsFailed => "bulk_requests_failed",
            Self::RequestBytes => "bulk_request_bytes",
            Self::DocumentsWritten => "documents_written",
            Self::DocumentsAlreadyThere => "documents_already_there",
            Self::DocumentsRetried => "documents_retried",
            Self::DocumentsRejected => "documents_rejected",
            Self::SamplesRejected => "samples_rejected",
            Self::RefusedOverloaded => "output_refused.overloaded",
            Self::RefusedUnavailable => "output_refused.unavailable",
            Self::RefusedQueue => "output_refused.queue",
            Self::Queued => "output_queued",
        }
    }
}

/// Words for kinds of documents, as in logs and metrics, in the order of [`place`].
const KINDS: [&str; 8] = [
    "event",
    "sampled_event",
    "stacktrace",
    "stackframe",
    "executable",
    "host",
    "queued_executable",
    "queued_frame",
];

const fn place(kind: Kind) -> usize {
    match kind {
        Kind::Event => 0,
        Kind::SampledEvent(_) => 1,
        Kind::StackTrace => 2,
        Kind::StackFrame => 3,
        Kind::Executable => 4,
        Kind::Host => 5,
        Kind::QueuedExecutable => 6,
        Kind::QueuedFrame => 7,
    }
}

/// Word for a kind of document.
pub(super) const fn word(kind: Kind) -> &'static str {
    KINDS[place(kind)]
}

/// Documents by kind, before they are added to the numbers that all see.
#[derive(Debug, Default)]
pub(super) struct Tally([u64; KINDS.len()]);

impl Tally {
    pub(super) fn add(&mut self, kind: Kind) {
        self.0[place(kind)] += 1;
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Numbers that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    numbers: [AtomicU64; Counter::ALL.len()],
    written: [AtomicU64; KINDS.len()],
}

impl Counters {
    /// Adds to one number.
    pub fn add(&self, counter: Counter, count: u64) {
        self.numbers[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// One number.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.numbers[counter as usize].load(Ordering::Relaxed)
    }

    /// Counts documents that Elasticsearch holds now.
    pub(super) fn written(&self, tally: &Tally) {
        self.add(Counter::DocumentsWritten, tally.sum());
        for (number, count) in self.written.iter().zip(tally.0) {
            number.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Documents that Elasticsearch holds now, by kind.
    #[must_use]
    pub fn written_by_kind(&self) -> Vec<(&'static str, u64)> {
        KINDS.into_iter().zip(self.written.iter().map(|number| number.load(Ordering::Relaxed))).collect()
    }

    /// All numbers with their names.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.into_iter().map(|counter| (counter.name(), self.get(counter))).collect()
    }
}
