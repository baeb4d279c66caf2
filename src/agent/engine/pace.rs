//! How often the side-band is looked at. Pure.

use std::time::Duration;

/// Pause after a look at the side-band: what comes meanwhile is taken together. Samples of that time lose nothing, for they
/// come with a copy of the stack; but a file that is gone before it was opened has no names and no table.
const SHORT_PAUSE: Duration = Duration::from_millis(25);
/// Pause while samples are no closer than this, so that few have to come with a copy, or while looking costs more than
/// [`FOLLOW_SHARE`]: a fork storm.
const LONG_PAUSE: Duration = Duration::from_millis(50);
/// Pause while looking is given up as far as it can be.
pub(super) const CEILING_PAUSE: Duration = Duration::from_millis(100);
/// CPU time that looking may take before pauses become long: 1 % of one CPU, measured over a second.
const FOLLOW_SHARE: u64 = 100;

/// How often the side-band is looked at.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since_ns: u64,
    cpu_before_ns: u64,
}

impl Pace {
    /// Pause after a look, given the CPU time that all looks took so far and how often each CPU is sampled.
    pub(super) fn pause(&mut self, now_ns: u64, cpu_ns: u64, frequency_hz: u32) -> Duration {
        const PERIOD_NS: u64 = 1_000_000_000;
        if now_ns.saturating_sub(self.since_ns) >= PERIOD_NS {
            *self = Self { since_ns: now_ns, cpu_before_ns: cpu_ns };
        }
        let spent_ns = cpu_ns.saturating_sub(self.cpu_before_ns);
        let is_rare = u128::from(frequency_hz) * LONG_PAUSE.as_millis() <= 1000;
        if is_rare || spent_ns > PERIOD_NS / FOLLOW_SHARE { LONG_PAUSE } else { SHORT_PAUSE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_has_a_budget() {
        let mut pace = Pace::default();
        let second = 1_000_000_000;
        assert_eq!(pace.pause(second, 50_000_000, 97), SHORT_PAUSE);
        assert_eq!(pace.pause(second + 1, 60_000_000, 97), SHORT_PAUSE);
        assert_eq!(pace.pause(second + 2, 60_000_001, 97), LONG_PAUSE);
        assert_eq!(pace.pause(2 * second, 70_000_000, 97), SHORT_PAUSE);
        assert_eq!(pace.pause(2 * second + 1, 70_000_000, 20), LONG_PAUSE);
    }
}
