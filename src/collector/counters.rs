//! What the collector has done, as numbers. Every sample received is in exactly one of written, refused and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Answers, Metric};

/// One number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Exports that arrived, well-formed or not.
    BatchesReceived,
    /// Exports written.
    BatchesWritten,
    /// Exports that could not be read.
    BatchesMalformed,
    /// Exports that the store asked to send again.
    BatchesRetryable,
    /// Exports that the store could not write.
    BatchesFailed,
    /// Senders without the right token.
    Unauthorized,
    /// Exports that did not arrive in time.
    Late,
    /// Exports whose connection ended before they were whole.
    Cut,
    /// Exports larger than what is taken.
    TooLarge,
    /// Exports in a form that is not known here: framing, packing, kind of content.
    Unpackable,
    /// Exports for which there was no memory.
    NoRoom,
    /// Samples in exports that could be read.
    SamplesReceived,
    /// Samples written.
    SamplesWritten,
    /// Samples of exports that the store did not take.
    SamplesRefused,
    /// Samples that the store will never take.
    SamplesRejected,
    /// Samples without a frame.
    SamplesEmptyStack,
    /// Samples without a time.
    SamplesNoTime,
    /// Samples beyond what one value or one export may stand for.
    SamplesTooMany,
    /// Profiles that measure something else than samples.
    ProfilesOtherType,
    /// Profiles whose period is no CPU time.
    ProfilesOtherPeriod,
    /// Sample entries of those profiles.
    EntriesOfOtherProfiles,
    /// Negative values, read as 0.
    NegativeValues,
    /// Executables whose file ID could not be read.
    UnreadableFileIds,
}

impl Counter {
    /// All of them, in the order shown.
    pub const ALL: [Self; 23] = [
        Self::BatchesReceived,
        Self::BatchesWritten,
        Self::BatchesMalformed,
        Self::BatchesRetryable,
        Self::BatchesFailed,
        Self::Unauthorized,
        Self::Late,
        Self::Cut,
        Self::TooLarge,
        Self::Unpackable,
        Self::NoRoom,
        Self::SamplesReceived,
        Self::SamplesWritten,
        Self::SamplesRefused,
        Self::SamplesRejected,
        Self::SamplesEmptyStack,
        Self::SamplesNoTime,
        Self::SamplesTooMany,
        Self::ProfilesOtherType,
        Self::ProfilesOtherPeriod,
        Self::EntriesOfOtherProfiles,
        Self::NegativeValues,
        Self::UnreadableFileIds,
    ];

    /// Name on pages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BatchesReceived => "batches_received",
            Self::BatchesWritten => "batches_written",
            Self::BatchesMalformed => "batches_refused.malformed",
            Self::BatchesRetryable => "batches_refused.retryable",
            Self::BatchesFailed => "batches_refused.failed",
            Self::Unauthorized => "requests_refused.token",
            Self::Late => "requests_refused.late",
            Self::Cut => "requests_refused.cut",
            Self::TooLarge => "requests_refused.too_large",
            Self::Unpackable => "requests_refused.unknown_form",
            Self::NoRoom => "requests_refused.memory",
            Self::SamplesReceived => "samples_received",
            Self::SamplesWritten => "samples_written",
            Self::SamplesRefused => "samples_refused",
            Self::SamplesRejected => "samples_dropped.rejected",
            Self::SamplesEmptyStack => "samples_dropped.empty_stack",
            Self::SamplesNoTime => "samples_dropped.no_time",
            Self::SamplesTooMany => "samples_dropped.too_many",
            Self::ProfilesOtherType => "profiles_rejected.sample_type",
            Self::ProfilesOtherPeriod => "profiles_rejected.period_type",
            Self::EntriesOfOtherProfiles => "entries_of_rejected_profiles",
            Self::NegativeValues => "negative_values",
            Self::UnreadableFileIds => "unreadable_file_ids",
        }
    }
}

impl Counter {
    /// Metric and label under which it stands on metrics pages.
    fn metric(self) -> (Metric, Option<(&'static str, &'static str)>) {
        let outcome = |word| (Metric::CollectorBatches, Some(("outcome", word)));
        let refused = |word| (Metric::CollectorRefusedRequests, Some(("reason", word)));
        let dropped = |word| (Metric::CollectorSamplesDropped, Some(("reason", word)));
        let odd = |word| (Metric::CollectorOddities, Some(("kind", word)));
        match self {
            Self::BatchesReceived => outcome("received"),
            Self::BatchesWritten => outcome("written"),
            Self::BatchesMalformed => outcome("malformed"),
            Self::BatchesRetryable => outcome("retryable"),
            Self::BatchesFailed => outcome("failed"),
            Self::Unauthorized => refused("token"),
            Self::Late => refused("late"),
            Self::Cut => refused("cut"),
            Self::TooLarge => refused("too_large"),
            Self::Unpackable => refused("unknown_form"),
            Self::NoRoom => refused("memory"),
            Self::SamplesReceived => (Metric::CollectorSamplesReceived, None),
            Self::SamplesWritten => (Metric::CollectorSamplesWritten, None),
            Self::SamplesRefused => dropped("store"),
            Self::SamplesRejected => dropped("rejected"),
            Self::SamplesEmptyStack => dropped("empty_stack"),
            Self::SamplesNoTime => dropped("no_time"),
            Self::SamplesTooMany => dropped("too_many"),
            Self::ProfilesOtherType => odd("profiles_of_other_type"),
            Self::ProfilesOtherPeriod => odd("profiles_of_other_period"),
            Self::EntriesOfOtherProfiles => odd("entries_of_other_profiles"),
            Self::NegativeValues => odd("negative_values"),
            Self::UnreadableFileIds => odd("unreadable_file_ids"),
        }
    }
}

/// All numbers of one collector.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    pub(super) fn add(&self, counter: Counter, count: u64) {
        self.0[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Value of one number.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Puts all of them onto a metrics page.
    pub(super) fn answer(&self, answers: &mut Answers) {
        for counter in Counter::ALL {
            let (metric, label) = counter.metric();
            answers.put_with(metric, label.as_slice(), self.get(counter) as f64);
        }
    }

    /// All numbers with their names.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().map(|counter| (counter.name(), self.get(*counter))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_place_and_its_name() {
        let names: std::collections::HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        let shown: std::collections::HashSet<_> = Counter::ALL.iter().map(|c| c.metric()).collect();
        assert_eq!(shown.len(), Counter::ALL.len());
        for (at, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, at);
        }
    }
}
