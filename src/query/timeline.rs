//! Buckets of a time axis: round widths, aligned to multiples of themselves.

use crate::model::{TimeRange, UnixNanos};
use crate::store::{TimeGrid, Timeline};

/// Widths in milliseconds that people read easily.
const WIDTHS_MS: [u64; 33] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500, // below a second
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000, // seconds
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000, // minutes
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000, // hours
    86_400_000,
    172_800_000,
    604_800_000,
    1_209_600_000,
    2_419_200_000,
    4_838_400_000,
    14_515_200_000, // days, weeks
];

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// The finest grid of round width that covers `range` with at most `max_buckets` buckets.
/// The first bucket may start before the range, the last may end behind it.
#[must_use]
pub fn grid(range: TimeRange, max_buckets: u32) -> TimeGrid {
    let max_buckets = u64::from(max_buckets.max(1));
    // A range across a boundary needs two buckets of any round width: one bucket is the range in whole milliseconds.
    if max_buckets == 1 {
        let start = range.from.0 / MS * MS;
        let width_ns = range.to.0.saturating_sub(start).div_ceil(MS).max(1).saturating_mul(MS);
        return TimeGrid { start: UnixNanos(start), width_ns, buckets: 1 };
    }
    let widest = WIDTHS_MS[WIDTHS_MS.len() - 1] * MS;
    let doubled = std::iter::successors(Some(widest), |width| width.checked_mul(2)).skip(1);
    let fitting = WIDTHS_MS.iter().map(|ms| ms * MS).chain(doubled).find_map(|width_ns| {
        let start = range.from.0 / width_ns * width_ns;
        let buckets = range.to.0.saturating_sub(start).div_ceil(width_ns).max(1);
        (buckets <= max_buckets).then_some((start, width_ns, buckets))
    });
    // The widest doubling covers half of all time in nanoseconds, so two buckets hold any range.
    let (start, width_ns, buckets) = fitting.expect("two buckets of the widest width cover all of time");
    TimeGrid { start: UnixNanos(start), width_ns, buckets: buckets as u32 }
}

/// Samples of a whole timeline.
#[must_use]
pub fn samples(timeline: &Timeline) -> u64 {
    timeline.series.iter().map(|series| series.total).sum::<u64>() + timeline.other.total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(from_ms: u64, to_ms: u64) -> TimeRange {
        TimeRange { from: UnixNanos::from_millis(from_ms), to: UnixNanos::from_millis(to_ms) }
    }

    #[test]
    fn widths_are_round_and_starts_aligned() {
        for (from, to, max, start, width, buckets) in [
            (1_763_733_100_000, 1_763_734_000_000, 240, 1_763_733_100_000, 5_000, 180),
            (1_763_733_100_001, 1_763_734_000_001, 240, 1_763_733_100_000, 5_000, 181),
            (0, 86_400_000, 240, 0, 600_000, 144),
            (0, 7 * 86_400_000, 100, 0, 7_200_000, 84),
            (10, 20, 240, 10, 1, 10),
            (999, 1_001, 1, 999, 2, 1),
        ] {
            let grid = grid(range(from, to), max);
            assert_eq!(
                (grid.start.millis(), grid.width_ns / MS, grid.buckets),
                (start, width, buckets),
                "{from}..{to} in {max}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_range_is_covered(from in any::<u64>(), to in any::<u64>(), max in 0u32..3000) {
            let range = TimeRange { from: UnixNanos(from.min(to)), to: UnixNanos(from.max(to)) };
            let grid = grid(range, max);
            prop_assert!(grid.buckets >= 1 && grid.buckets <= max.max(1));
            prop_assert!(grid.start <= range.from && grid.width_ns > 0);
            let end = u128::from(grid.start.0) + u128::from(grid.width_ns) * u128::from(grid.buckets);
            prop_assert!(end >= u128::from(range.to.0));
        }
    }
}
