//! Which down-sampled streams hold an event.

use super::super::LEVELS;

/// Of 2^64 equally likely numbers, those below the entry of a level reach it: one in five of the level before.
const REACHES: [u64; LEVELS as usize] = {
    let mut reaches = [0; LEVELS as usize];
    let (mut level, mut factor) = (0, 1u128);
    while level < reaches.len() {
        factor *= 5;
        reaches[level] = ((1u128 << 64) / factor) as u64;
        level += 1;
    }
    reaches
};

/// Draws levels: independent of each other, each event reaches level n with probability 5^-n.
#[derive(Clone, Debug)]
pub(super) struct Levels(u64);

impl Levels {
    /// Equal seeds draw equal levels.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Levels that the next event reaches; most reach none.
    #[inline]
    pub(super) fn draw(&mut self) -> usize {
        let number = self.number();
        REACHES.iter().take_while(|reach| number < **reach).count()
    }

    /// SplitMix64: a counter and a mixer, so that any seed is as good as any other.
    #[inline]
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws that reach each level at least, of `draws`.
    fn reached(seed: u64, draws: usize) -> [u64; LEVELS as usize] {
        let mut levels = Levels::new(seed);
        let mut reached = [0; LEVELS as usize];
        for _ in 0..draws {
            reached[..levels.draw()].iter_mut().for_each(|count| *count += 1);
        }
        reached
    }

    /// Four standard deviations around the expected number.
    fn check(level: u32, found: u64, draws: f64) {
        let share = 0.2f64.powi(level as i32);
        let (expected, deviation) = (draws * share, (draws * share * (1.0 - share)).sqrt());
        assert!(
            (found as f64 - expected).abs() <= 4.0 * deviation + 1.0,
            "level {level}: {found}, expected {expected:.0} ± {deviation:.0}"
        );
    }

    #[test]
    fn each_level_holds_a_fifth_of_the_one_before() {
        let draws = 4_000_000;
        for (level, found) in (1..).zip(reached(7, draws)) {
            check(level, found, draws as f64);
        }
    }

    #[test]
    fn the_first_draws_of_many_seeds_are_unbiased_too() {
        // A seed per batch: neighbouring seeds must not draw alike.
        let mut reached = [0; LEVELS as usize];
        for seed in 0..400_000 {
            reached[..Levels::new(seed).draw()].iter_mut().for_each(|count| *count += 1);
        }
        for (level, found) in (1..).zip(reached) {
            check(level, found, 400_000.0);
        }
    }

    #[test]
    fn an_event_does_not_depend_on_the_one_before() {
        let mut levels = Levels::new(3);
        let draws: Vec<bool> = (0..1_000_000).map(|_| levels.draw() > 0).collect();
        let both = draws.windows(2).filter(|pair| pair[0] && pair[1]).count();
        check(2, both as u64, 1_000_000.0);
    }

    #[test]
    fn the_highest_level_can_be_reached() {
        assert_eq!(REACHES[10], ((1u128 << 64) / 48_828_125) as u64);
        assert!(REACHES.is_sorted_by(|a, b| a > b));
    }
}
