//! When an address without a name is looked at again.

use std::time::Duration;

use crate::model::{UnixNanos, UnknownReason};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Attempts after which a file that never shows up is left alone: about a month.
const MAX_ATTEMPTS: u32 = 30;

/// Date of the next attempt after `retries` failed ones; `None` when another attempt cannot end differently.
pub(super) fn next_attempt(now: UnixNanos, reason: &UnknownReason, retries: u32) -> Option<UnixNanos> {
    let wait = match reason {
        _ if retries >= MAX_ATTEMPTS => return None,
        // The process may be gone and come back with the next start of the program.
        UnknownReason::Pending | UnknownReason::FileUnavailable(_) => match retries {
            0 => 10 * MINUTE,
            1 => HOUR,
            _ => DAY,
        },
        // The bytes behind an identity do not change, but somebody may install a debug file.
        UnknownReason::NoSymbols | UnknownReason::NotCovered => DAY,
        UnknownReason::BadFile(_) => return None,
    };
    Some(UnixNanos(now.0.saturating_add(wait.as_nanos() as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_gives_up_on_what_cannot_change() {
        let gone = UnknownReason::FileUnavailable("gone".into());
        let wait =
            |reason: &UnknownReason, retries| next_attempt(UnixNanos(5), reason, retries).map(|at| at.0 - 5);
        assert_eq!(wait(&gone, 0), Some(600_000_000_000));
        assert_eq!(wait(&gone, 1), Some(3_600_000_000_000));
        assert_eq!(wait(&gone, 7), Some(86_400_000_000_000));
        assert_eq!(wait(&gone, 30), None);
        assert_eq!(wait(&UnknownReason::NoSymbols, 0), Some(86_400_000_000_000));
        assert_eq!(wait(&UnknownReason::BadFile("header".into()), 0), None);
    }
}
