//! From the samples' clock to the wall, here and only here.

use crate::agent::host::clock::{monotonic_ns, realtime_ns};
use crate::model::UnixNanos;

/// Difference between the wall clock and `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WallClock {
    offset_ns: i128,
}

impl WallClock {
    /// Compares the clocks now.
    pub(crate) fn synced() -> Self {
        let mut clock = Self { offset_ns: 0 };
        clock.sync();
        clock
    }

    /// Compares the clocks again: the wall clock is moved by people and slewed by NTP, and the other stands still while
    /// the machine sleeps. Of three tries the tightest counts.
    pub(crate) fn sync(&mut self) {
        let tries = (0..3).map(|_| {
            let (before, wall, after) = (monotonic_ns(), realtime_ns(), monotonic_ns());
            (after - before, i128::from(wall) - i128::from(before) - i128::from(after - before) / 2)
        });
        if let Some((_, offset_ns)) = tries.min_by_key(|(width, _)| *width) {
            self.offset_ns = offset_ns;
        }
    }

    /// Wall time of a monotonic time.
    pub(crate) fn wall(&self, monotonic_ns: u64) -> UnixNanos {
        let wall = i128::from(monotonic_ns) + self.offset_ns;
        UnixNanos(u64::try_from(wall.max(0)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_now() {
        let wall = WallClock::synced().wall(monotonic_ns());
        assert!(wall.0.abs_diff(realtime_ns()) < 50_000_000);
    }

    #[test]
    fn times_before_1970_stay_at_its_start() {
        assert_eq!(WallClock { offset_ns: -10 }.wall(5), UnixNanos(0));
    }
}
