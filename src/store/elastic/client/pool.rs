//! Several hosts of one cluster: used in turn, left alone while they fail, asked again after growing pauses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Pause after the first failure of a host; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a host is asked again.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Which host to ask next.
#[derive(Debug)]
pub(super) struct Pool {
    hosts: Vec<Mutex<Health>>,
    next: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    failures: u32,
    /// Left alone until then.
    until: Option<Instant>,
    /// One call is finding out whether it is back.
    asked_again: bool,
}

impl Pool {
    /// `hosts` of them, at least one, all believed to live.
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            hosts: (0..hosts).map(|_| Mutex::default()).collect(),
            // Collectors of a fleet do not all begin with the first host.
            next: AtomicUsize::new(std::process::id() as usize),
        }
    }

    /// Hosts in the order to ask: the living in turn, then, for want of better, those that are left alone, the one
    /// whose pause ends first before the others. A host whose pause has ended counts as living for one caller; the
    /// others wait for what it finds.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut order, mut resting) = (Vec::with_capacity(self.hosts.len()), Vec::new());
        for index in 0..self.hosts.len() {
            let index = first.wrapping_add(index) % self.hosts.len();
            let mut health = self.hosts[index].lock();
            match health.until {
                None => order.push(index),
                Some(until) if until <= now => {
                    health.until = Some(now + pause(health.failures));
                    health.asked_again = true;
                    order.push(index);
                }
                Some(until) => resting.push((until, index)),
            }
        }
        resting.sort_unstable();
        order.extend(resting.into_iter().map(|(_, index)| index));
        order
    }

    /// The host has answered. Says whether it had been left alone.
    pub(super) fn answered(&self, index: usize) -> bool {
        std::mem::take(&mut *self.hosts[index].lock()).until.is_some()
    }

    /// The host has failed: it is left alone for a while. Says whether that is new.
    pub(super) fn failed(&self, index: usize, now: Instant) -> bool {
        let mut health = self.hosts[index].lock();
        // Calls that ran at the same time and failed together count as one failure.
        if !health.asked_again && health.until.is_some_and(|until| until > now) {
            return false;
        }
        health.failures = health.failures.saturating_add(1);
        health.until = Some(now + pause(health.failures));
        health.asked_again = false;
        health.failures == 1
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three hosts, the first of which is asked next.
    fn three() -> Pool {
        let pool = Pool::new(3);
        pool.next.store(0, Ordering::Relaxed);
        pool
    }

    #[test]
    fn living_hosts_take_turns() {
        let (pool, now) = (three(), Instant::now());
        assert_eq!(pool.order(now), [0, 1, 2]);
        assert_eq!(pool.order(now), [1, 2, 0]);
        assert_eq!(pool.order(now), [2, 0, 1]);
    }

    #[test]
    fn a_host_that_failed_is_asked_last_and_comes_back() {
        let (pool, now) = (three(), Instant::now());
        assert!(pool.failed(0, now));
        assert_eq!(pool.order(now), [1, 2, 0]);
        let later = now + FIRST_PAUSE;
        // One caller finds out, the others do not wait for it.
        assert_eq!(pool.order(later), [1, 2, 0]);
        assert_eq!(pool.order(later), [2, 1, 0]);
        assert!(pool.answered(0));
        assert!(!pool.answered(0));
        assert_eq!(pool.order(later), [0, 1, 2]);
    }

    #[test]
    fn pauses_grow_with_failures_that_are_not_of_the_same_moment() {
        let (pool, now) = (three(), Instant::now());
        assert!(pool.failed(0, now));
        assert!(!pool.failed(0, now), "a call that ran beside the first");
        let mut at = now + FIRST_PAUSE;
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            assert!(pool.order(at).contains(&0));
            assert!(!pool.failed(0, at), "known already");
            let until = pool.hosts[0].lock().until.unwrap();
            assert_eq!((until - at).as_secs(), expected);
            at = until;
        }
    }

    #[test]
    fn when_all_rest_the_one_whose_pause_ends_first_is_asked_first() {
        let (pool, now) = (three(), Instant::now());
        for (index, after) in [(1, 0), (0, 10), (2, 20)] {
            pool.failed(index, now + Duration::from_millis(after));
        }
        assert_eq!(pool.order(now + Duration::from_millis(30)), [1, 0, 2]);
    }
}
