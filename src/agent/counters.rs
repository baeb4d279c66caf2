//! What the agent counts. Names are those of `docs/api.md`, `status.agent.counters`.
//!
//! The balance: `ticks` = `stored` + all `dropped.*` + samples still on their way, at any time; none on the way after a
//! clean stop.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter of user space. The kernel side has its own, listed by `agent::bpf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Samples taken out of the ring.
    Received,
    /// Samples of a batch that the receiver answers for.
    Stored,
    /// Samples beyond the window's bounds.
    DroppedWindowFull,
    /// Samples of batches for which no room was left while others were on their way.
    DroppedBacklog,
    /// Samples of batches that could not be delivered in time.
    DroppedUnreachable,
    /// Samples of batches that the receiver refused.
    DroppedRefused,
    /// Batches handed over.
    Batches,
    /// Deliveries that were tried again.
    Retries,
}

impl Counter {
    /// All of them, in the order shown.
    pub const ALL: [Self; 8] = [
        Self::Received,
        Self::Stored,
        Self::DroppedWindowFull,
        Self::DroppedBacklog,
        Self::DroppedUnreachable,
        Self::DroppedRefused,
        Self::Batches,
        Self::Retries,
    ];

    /// Name for people and pages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Stored => "stored",
            Self::DroppedWindowFull => "dropped.window_full",
            Self::DroppedBacklog => "dropped.backlog",
            Self::DroppedUnreachable => "dropped.unreachable",
            Self::DroppedRefused => "dropped.refused",
            Self::Batches => "batches",
            Self::Retries => "retries",
        }
    }
}

/// The counters of one agent.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    /// Adds to a counter.
    pub fn add(&self, counter: Counter, count: u64) {
        self.0[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Value of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_place_and_name() {
        let counters = Counters::default();
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
            counters.add(counter, index as u64 + 1);
        }
        assert!(
            Counter::ALL
                .into_iter()
                .enumerate()
                .all(|(index, counter)| counters.get(counter) == index as u64 + 1)
        );
        let names: std::collections::HashSet<_> = Counter::ALL.into_iter().map(Counter::name).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }
}
