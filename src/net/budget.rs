//! Bytes that the requests and queues of one process may hold together.
//!
//! Who is about to hold bytes claims them first and is told no when there is no room: whoever sent them is asked to come
//! back, instead of the system ending the process. Claims give their bytes back when they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Metric, Metrics};

/// A number of bytes to share. Clones share the same.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    refused: AtomicU64,
}

/// There is no room for so many bytes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {wanted} more bytes beside {used} of {limit} (memory_limit)")]
pub struct NoRoom {
    /// Bytes wanted.
    pub wanted: u64,
    /// Bytes held by all.
    pub used: u64,
    /// Bytes there are.
    pub limit: u64,
}

impl Budget {
    /// Shares `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared { limit, used: AtomicU64::new(0), refused: AtomicU64::new(0) }))
    }

    /// Bytes there are.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A claim that holds nothing yet.
    #[must_use]
    pub fn empty(&self) -> Claim {
        Claim { budget: self.clone(), bytes: 0 }
    }

    /// A claim of `bytes`.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn claim(&self, bytes: u64) -> Result<Claim, NoRoom> {
        let mut claim = self.empty();
        claim.grow(bytes)?;
        Ok(claim)
    }

    /// Shows limit, use and refusals on the pages.
    pub fn show(&self, metrics: &Metrics) {
        let shared = Arc::clone(&self.0);
        metrics.ask(move |answers| {
            answers.put(Metric::BudgetBytes, shared.limit);
            answers.put(Metric::BudgetUsedBytes, shared.used.load(Ordering::Relaxed));
            answers.put(Metric::BudgetRefusals, shared.refused.load(Ordering::Relaxed));
        });
    }
}

/// Bytes taken out of a budget until this is dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Budget,
    bytes: u64,
}

impl Claim {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more.
    ///
    /// # Errors
    /// When there is no room; what was held before stays.
    pub fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let shared = &self.budget.0;
        let taken = shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= shared.limit)
        });
        match taken {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(used) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                Err(NoRoom { wanted: bytes, used, limit: shared.limit })
            }
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        self.budget.0.used.fetch_sub(back, Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_share_the_limit_and_give_back() {
        let budget = Budget::new(100);
        let mut one = budget.claim(60).unwrap();
        let refused = budget.claim(41).unwrap_err();
        assert_eq!(refused.to_string(), "no room for 41 more bytes beside 60 of 100 (memory_limit)");
        let two = budget.claim(40).unwrap();
        assert!(one.grow(1).is_err());
        assert_eq!((one.bytes(), budget.used()), (60, 100));
        one.shrink_to(10);
        drop(two);
        assert_eq!(budget.used(), 10);
        assert!(one.grow(u64::MAX).is_err());
        drop(one);
        assert_eq!(budget.used(), 0);
    }
}
