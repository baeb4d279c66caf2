//! How much of the agent one process may take by changing its mappings. Pure.
//!
//! Nothing here is about speed: a process that maps and unmaps all day is followed as exactly as others, only not each
//! change by itself. While the kernel side is not told, samples of that process come with stack copies.

use std::collections::HashMap;

/// Mapping records of one process that are applied one by one between two pauses. What is beyond is read from `/proc`
/// at once: cheaper, and it also tells what was unmapped.
const MAPS_A_LOOK: u32 = 256;
/// Rest after each page of mappings that was published, in nanoseconds: 5 ms. A replaced page rests for a second, so one
/// process holds at most 200 resting ones, 0.8 MB of the pool.
const PAGE_REST_NS: u64 = 5_000_000;
/// Mappings on a page, about.
const MAPPINGS_A_PAGE: usize = 127;
/// Reading `/proc` again rests this many times as long as it took: 2 % of a CPU.
const READ_REST: u64 = 50;
/// Shortest rest after reading `/proc`, in nanoseconds: 100 ms.
const SHORTEST_READ_REST_NS: u64 = 100_000_000;

/// What restless processes were given.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Mapping records of this look.
    maps: HashMap<u32, u32>,
    /// Not to be published before.
    publish: HashMap<u32, u64>,
    /// Not to be read before.
    read: HashMap<u32, u64>,
}

impl Shares {
    /// A new look at the side-band begins.
    pub(super) fn begin_look(&mut self) {
        self.maps.clear();
    }

    /// Whether one more mapping record of a process is applied in this look.
    pub(super) fn takes_map(&mut self, pid: u32) -> bool {
        let count = self.maps.entry(pid).or_default();
        *count = count.saturating_add(1);
        *count <= MAPS_A_LOOK
    }

    /// When a process may be published; not later than now if it rested.
    pub(super) fn publish_at(&self, pid: u32) -> u64 {
        self.publish.get(&pid).copied().unwrap_or(0)
    }

    /// A process was published with so many mappings.
    pub(super) fn published(&mut self, pid: u32, mappings: usize, now_ns: u64) {
        let pages = mappings.div_ceil(MAPPINGS_A_PAGE).max(1) as u64;
        self.publish.insert(pid, now_ns + pages * PAGE_REST_NS);
    }

    /// Whether the mappings of a process may be read from `/proc`.
    pub(super) fn may_read(&self, pid: u32, now_ns: u64) -> bool {
        self.read.get(&pid).is_none_or(|rested_ns| now_ns >= *rested_ns)
    }

    /// They were, and it took so long.
    pub(super) fn was_read(&mut self, pid: u32, now_ns: u64, took_ns: u64) {
        self.read.insert(pid, now_ns + took_ns.saturating_mul(READ_REST).max(SHORTEST_READ_REST_NS));
    }

    /// Forgets those that rested.
    pub(super) fn forget_rested(&mut self, now_ns: u64) {
        self.publish.retain(|_, rested_ns| *rested_ns > now_ns);
        self.read.retain(|_, rested_ns| *rested_ns > now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_its_own_share_of_a_look() {
        let mut shares = Shares::default();
        let taken = (0..1000).filter(|_| shares.takes_map(1)).count();
        assert_eq!(taken, MAPS_A_LOOK as usize);
        assert!(shares.takes_map(2));
        shares.begin_look();
        assert!(shares.takes_map(1));
    }

    #[test]
    fn rest_grows_with_what_was_written_and_with_what_reading_took() {
        let mut shares = Shares::default();
        assert_eq!(shares.publish_at(1), 0);
        shares.published(1, 5, 1000);
        shares.published(2, 5000, 1000);
        assert_eq!([1, 2].map(|pid| shares.publish_at(pid) - 1000), [PAGE_REST_NS, 40 * PAGE_REST_NS]);
        assert!(shares.may_read(1, 1000));
        shares.was_read(1, 1000, 100);
        shares.was_read(2, 1000, SHORTEST_READ_REST_NS);
        let after = 1000 + SHORTEST_READ_REST_NS;
        assert!(!shares.may_read(1, after - 1) && shares.may_read(1, after));
        assert!(!shares.may_read(2, after) && shares.may_read(2, 1000 + READ_REST * SHORTEST_READ_REST_NS));
        shares.forget_rested(u64::MAX);
        assert!(shares.publish.is_empty() && shares.read.is_empty());
    }
}
