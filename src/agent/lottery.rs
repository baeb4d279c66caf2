//! Probabilistic mode: each interval is sampled as a whole or not at all, by chance. Pure.
//!
//! Within a sampled interval the period between two samples is the true one, so nothing is scaled; that only a share of
//! the intervals was sampled stands with every resource (`profiling.agent.config.probabilistic_threshold`).

use std::time::Duration;

/// Draws for one host.
#[derive(Clone, Debug)]
pub(crate) struct Lottery {
    threshold: u32,
    interval_ns: u64,
    next_ns: u64,
    sampling: bool,
}

impl Lottery {
    /// Samples an interval with a chance of `threshold` percent. The first draw is due at once.
    pub(crate) fn new(threshold: u32, interval: Duration) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self { threshold, interval_ns, next_ns: 0, sampling: true }
    }

    /// Draws when it is time to, with a number in `[0, 1)`. Says whether to sample when that has changed.
    pub(crate) fn draw(&mut self, now_ns: u64, random: f64) -> Option<bool> {
        if now_ns < self.next_ns {
            return None;
        }
        self.next_ns = now_ns.saturating_add(self.interval_ns);
        let drawn = (random * 100.0) as u32;
        let before = std::mem::replace(&mut self.sampling, self.threshold > drawn);
        (before != self.sampling).then_some(self.sampling)
    }

    /// Chance in percent.
    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Whether this interval is sampled.
    pub(crate) fn is_sampling(&self) -> bool {
        self.sampling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    #[test]
    fn draws_once_an_interval_and_compares_with_the_threshold() {
        let mut lottery = Lottery::new(30, Duration::from_mins(1));
        assert_eq!(lottery.draw(1, 0.30), Some(false));
        assert_eq!(lottery.draw(MINUTE_NS, 0.0), None);
        assert_eq!(lottery.draw(MINUTE_NS + 1, 0.2999), Some(true));
        assert_eq!(lottery.draw(2 * MINUTE_NS + 1, 0.0), None);
        assert!(lottery.is_sampling());
        assert_eq!(lottery.draw(3 * MINUTE_NS + 1, 0.9999), Some(false));
    }

    #[test]
    fn every_hundredth_counts() {
        for threshold in [1, 50, 99] {
            let mut lottery = Lottery::new(threshold, Duration::from_mins(1));
            let sampled = (0..100)
                .filter(|draw| {
                    lottery.draw(u64::from(*draw as u32) * MINUTE_NS, f64::from(*draw) / 100.0 + 0.001);
                    lottery.is_sampling()
                })
                .count();
            assert_eq!(sampled, threshold as usize);
        }
    }
}
