//! Pages of 4 KiB from parts of 4 MiB that are added on demand and never taken away.
//!
//! A page that was given back rests for [`GRACE`] before it is handed out again: a walk that found it just before takes
//! microseconds, so no running program reads it as something else.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Memory;
use crate::agent::bpf::abi;

/// Rest of a page between two uses: thousands of times the longest walk.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Words of one page.
pub type Page = [u32; abi::PAGE_WORDS as usize];

/// Why no pages were handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Budget reached.
    Full,
    /// The system refused another part.
    Kernel(i32),
}

/// Which pages are free, resting or in use.
#[derive(Debug)]
pub(super) struct Pool {
    free: Vec<u32>,
    resting: VecDeque<(Instant, u32)>,
    parts: u32,
    max_parts: u32,
}

impl Pool {
    /// An empty pool that may grow to `budget_bytes`, rounded down to whole parts, at least one.
    pub(super) fn new(budget_bytes: u64) -> Self {
        let parts = budget_bytes / u64::from(abi::PART_PAGES * abi::PAGE_WORDS * 4);
        let max_parts = parts.clamp(1, u64::from(abi::MAX_PARTS)) as u32;
        Self { free: Vec::new(), resting: VecDeque::new(), parts: 0, max_parts }
    }

    /// `count` pages, all or none; at least `reserve` stay obtainable for others.
    pub(super) fn take(
        &mut self,
        count: usize,
        reserve: usize,
        now: Instant,
        memory: &mut impl Memory,
    ) -> Result<Vec<u32>, Refusal> {
        self.wake(now);
        if self.obtainable() < count + reserve {
            return Err(Refusal::Full);
        }
        while self.free.len() < count {
            memory.add_part().map_err(Refusal::Kernel)?;
            let first = self.parts * abi::PART_PAGES;
            self.parts += 1;
            // Highest first, for they are taken from the end; page 0 means none.
            self.free.splice(0..0, (first.max(1)..first + abi::PART_PAGES).rev());
        }
        Ok(self.free.split_off(self.free.len() - count))
    }

    /// Takes no more parts, or as many as the budget allows again.
    pub(super) fn set_growth(&mut self, allowed: bool, budget_bytes: u64) {
        let budget = Self::new(budget_bytes).max_parts;
        self.max_parts = if allowed { budget.max(self.parts) } else { self.parts.max(1) };
    }

    /// Takes pages back that a program may still be reading.
    pub(super) fn give_back(&mut self, pages: impl IntoIterator<Item = u32>, now: Instant) {
        self.resting.extend(pages.into_iter().map(|page| (now, page)));
    }

    /// Takes pages back that no program has reached for [`GRACE`], or ever.
    pub(super) fn give_back_rested(&mut self, pages: impl IntoIterator<Item = u32>) {
        self.free.extend(pages);
    }

    /// Pages that could be handed out now, with all growth that the budget allows.
    pub(super) fn obtainable(&self) -> usize {
        let growth = (self.max_parts - self.parts) * abi::PART_PAGES;
        let page_zero = u32::from(self.parts == 0);
        self.free.len() + (growth - page_zero) as usize
    }

    /// Bytes taken from the system.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.parts * abi::PART_PAGES * abi::PAGE_WORDS * 4)
    }

    /// Bytes in use or resting.
    pub(super) fn used_bytes(&self) -> u64 {
        self.bytes() - (self.free.len() as u64 * u64::from(abi::PAGE_WORDS * 4)).min(self.bytes())
    }

    /// Most bytes it may take from the system.
    pub(super) fn budget_bytes(&self) -> u64 {
        u64::from(self.max_parts) * u64::from(abi::PART_PAGES * abi::PAGE_WORDS * 4)
    }

    /// Frees what has rested long enough.
    fn wake(&mut self, now: Instant) {
        while let Some(&(since, page)) = self.resting.front() {
            if now.saturating_duration_since(since) < GRACE {
                break;
            }
            self.resting.pop_front();
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tables::recorded::Recorded;

    const PART_BYTES: u64 = 4 << 20;

    #[test]
    fn grows_by_parts_up_to_its_budget() {
        let (mut memory, now) = (Recorded::default(), Instant::now());
        let mut pool = Pool::new(2 * PART_BYTES);
        let first = pool.take(10, 0, now, &mut memory).unwrap();
        assert_eq!(first.len(), 10);
        assert!(!first.contains(&0));
        assert_eq!(pool.bytes(), PART_BYTES);
        pool.take(1500, 0, now, &mut memory).unwrap();
        assert_eq!(pool.bytes(), 2 * PART_BYTES);
        assert_eq!(pool.take(1000, 0, now, &mut memory), Err(Refusal::Full));
        assert_eq!(pool.take(537, 0, now, &mut memory).unwrap().len(), 537);
        assert_eq!(pool.take(1, 0, now, &mut memory), Err(Refusal::Full));
    }

    #[test]
    fn hands_a_page_out_again_only_after_its_rest() {
        let (mut memory, now) = (Recorded::default(), Instant::now());
        let mut pool = Pool::new(PART_BYTES);
        let all = pool.take(1023, 0, now, &mut memory).unwrap();
        pool.give_back([all[5]], now);
        assert_eq!(pool.take(1, 0, now + GRACE / 2, &mut memory), Err(Refusal::Full));
        assert_eq!(pool.take(1, 0, now + GRACE, &mut memory), Ok(vec![all[5]]));
    }

    #[test]
    fn keeps_a_reserve() {
        let (mut memory, now) = (Recorded::default(), Instant::now());
        let mut pool = Pool::new(PART_BYTES);
        assert_eq!(pool.take(1000, 24, now, &mut memory), Err(Refusal::Full));
        assert!(pool.take(1000, 23, now, &mut memory).is_ok());
        assert!(pool.take(23, 0, now, &mut memory).is_ok());
    }
}
