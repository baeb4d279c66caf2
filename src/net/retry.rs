//! When to try again: exponential back-off with jitter, so that a fleet does not come back all at once.

use std::time::Duration;

/// How often and how fast to repeat a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper end of the first pause; each further one is twice as long.
    pub first: Duration,
    /// Upper end of every pause.
    pub longest: Duration,
    /// Calls beyond the first.
    pub retries: u32,
}

impl Default for RetryPolicy {
    /// 0.5 s, 1 s, 2 s, 4 s, then give up.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(30), retries: 4 }
    }
}

impl RetryPolicy {
    /// Pause after the failed call number `attempt` (from 0); `None` = give up.
    ///
    /// `random` is in `[0, 1)`: the pause lies between half and all of its upper end. What the other side asked for
    /// (`retry_after`) is a lower end.
    #[must_use]
    pub fn pause(&self, attempt: u32, random: f64, retry_after: Option<Duration>) -> Option<Duration> {
        if attempt >= self.retries {
            return None;
        }
        let upper = self.first.saturating_mul(2u32.saturating_pow(attempt)).min(self.longest);
        let pause = upper.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        Some(pause.max(retry_after.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let policy =
            RetryPolicy { first: Duration::from_secs(1), longest: Duration::from_secs(5), retries: 5 };
        let pauses: Vec<_> =
            (0..6).map(|attempt| policy.pause(attempt, 1.0, None).map(|d| d.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), Some(5), None]);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(0, 0.0, None), Some(Duration::from_millis(250)));
        assert_eq!(policy.pause(0, 0.5, None), Some(Duration::from_millis(375)));
    }

    #[test]
    fn the_other_side_may_ask_for_more() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(0, 0.5, Some(Duration::from_secs(9))), Some(Duration::from_secs(9)));
        assert_eq!(policy.pause(4, 0.5, Some(Duration::from_secs(9))), None);
    }
}
