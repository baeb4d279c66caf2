//! From counted events to events that happened: thinning, scaling, and one frequency for all.
//!
//! Every decision is drawn from a sequence that the request starts, so the same request gets the same answer. Stores that
//! count every event are not thinned: their counts are the answer.

use crate::store::EventSet;

/// Frequency of events that do not say theirs, in Hz.
pub const DEFAULT_HZ: u32 = 19;

/// A sequence of random numbers (splitmix64).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that starts with `seed`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed))
    }

    /// The next number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number whose expectation is `value`.
    pub fn round(&mut self, value: f64) -> u64 {
        let floor = value.floor();
        // Whole values draw nothing, so that they do not depend on what came before.
        let fraction = value - floor;
        floor as u64 + u64::from(fraction > 0.0 && self.unit() < fraction)
    }
}

/// Counts of events that happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resampled {
    /// Events of each entry of [`EventSet::counts`]; 0 where thinning left none.
    pub events: Vec<u64>,
    /// Sum of them.
    pub total: u64,
    /// Part of the events of the stream that the counts stand on.
    pub sampling_rate: f64,
    /// Highest frequency of all events in Hz; counts of others are raised to it.
    pub frequency_hz: u32,
}

/// Thins to about `sample_size` events and scales up again.
#[must_use]
pub fn resample(set: &EventSet, sample_size: u64, seed: u32) -> Resampled {
    let counted: u64 = set.counts.iter().map(|count| count.events).sum();
    let keep = if !set.exact && counted > sample_size { sample_size as f64 / counted as f64 } else { 1.0 };
    let rate = set.probability * keep;
    let frequencies =
        || set.counts.iter().filter_map(|count| Some(set.keys.get(count.key as usize)?.frequency_hz));
    let highest = frequencies().max().unwrap_or(DEFAULT_HZ);
    let mixed = frequencies().any(|hz| hz != highest);
    let mut random = Random::new(seed);
    let events: Vec<u64> =
        set.counts
            .iter()
            .map(|count| {
                let kept = if keep < 1.0 {
                    (0..count.events).filter(|_| random.unit() < keep).count() as u64
                } else {
                    count.events
                };
                let happened = random.round(kept as f64 * set.factor / rate);
                match set.keys.get(count.key as usize) {
                    Some(key) if mixed => random
                        .round(happened as f64 * f64::from(highest) / f64::from(key.frequency_hz.max(1))),
                    _ => happened,
                }
            })
            .collect();
    Resampled { total: events.iter().sum(), events, sampling_rate: rate, frequency_hz: highest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventCount, EventKey};

    fn set(events: &[(u64, u32)]) -> EventSet {
        let counts =
            (0u32..).zip(events).map(|(i, (events, _))| EventCount { key: i, stack: i, events: *events });
        let keys = events.iter().map(|(_, hz)| EventKey { frequency_hz: *hz, ..EventKey::default() });
        EventSet { counts: counts.collect(), keys: keys.collect(), ..EventSet::default() }
    }

    #[test]
    fn what_was_counted_whole_stays_as_it_is() {
        let few = resample(&set(&[(5, 20), (7, 20)]), 20, 1);
        assert_eq!((few.events, few.total, few.frequency_hz), (vec![5, 7], 12, 20));
        let exact = EventSet { exact: true, ..set(&[(500, 20), (700, 20)]) };
        assert_eq!(resample(&exact, 20, 1).events, [500, 700]);
    }

    #[test]
    fn the_same_request_draws_the_same_numbers_and_keeps_the_sum_about() {
        let many = EventSet { factor: 5.0, ..set(&[(30_000, 20), (10_000, 20), (1, 20)]) };
        let (first, again, other) =
            (resample(&many, 4_000, 7), resample(&many, 4_000, 7), resample(&many, 4_000, 8));
        assert_eq!(first, again);
        assert_ne!(first.events, other.events);
        let expected = 5.0 * 40_001.0;
        // 4,000 events have a deviation of 1.6 %.
        assert!((first.total as f64 - expected).abs() < expected * 0.08, "{first:?}");
        assert!((first.sampling_rate - 4_000.0 / 40_001.0).abs() < 1e-9);
    }

    #[test]
    fn slower_samplers_count_for_more() {
        let mixed = resample(&set(&[(10, 100), (10, 20)]), 1000, 1);
        assert_eq!((mixed.events, mixed.frequency_hz), (vec![10, 50], 100));
    }

    #[test]
    fn rounding_keeps_its_expectation() {
        let mut random = Random::new(3);
        let sum: u64 = (0..10_000).map(|_| random.round(2.25)).sum();
        assert!((sum as f64 - 22_500.0).abs() < 200.0, "{sum}");
        assert_eq!(random.round(4.0), 4);
    }
}
