//! What the collector has done, as numbers. Every sample received is in exactly one of written, refused and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

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
    pub const ALL: [Self; 18] = [
        Self::BatchesReceived,
        Self::BatchesWritten,
        Self::BatchesMalformed,
        Self::BatchesRetryable,
        Self::BatchesFailed,
        Self::Unauthorized,
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
        for (at, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, at);
        }
    }
}
