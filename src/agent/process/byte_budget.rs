//! How many bytes of executables all workers together hold at a time.

use parking_lot::{Condvar, Mutex};

/// Bytes that may be held. What is larger than all of it waits until nobody holds any, and then has it alone.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    bytes: u64,
    held: Mutex<u64>,
    returned: Condvar,
}

impl ByteBudget {
    /// A budget of this size.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, held: Mutex::new(0), returned: Condvar::new() }
    }

    /// Waits until `bytes` may be held.
    pub(crate) fn take(&self, bytes: u64) -> Share<'_> {
        let mut held = self.held.lock();
        while *held > 0 && held.saturating_add(bytes) > self.bytes {
            self.returned.wait(&mut held);
        }
        *held = held.saturating_add(bytes);
        Share { budget: self, bytes }
    }
}

/// Bytes that may be held until this is dropped.
#[derive(Debug)]
pub(crate) struct Share<'b> {
    budget: &'b ByteBudget,
    bytes: u64,
}

impl Share<'_> {
    /// Holds more, at once: what is learnt only on the way. Others wait until it is returned.
    pub(crate) fn grow(&mut self, bytes: u64) {
        let mut held = self.budget.held.lock();
        *held = held.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock();
        *held = held.saturating_sub(self.bytes);
        drop(held);
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn never_more_is_held_than_allowed_and_the_largest_has_it_alone() {
        let budget = ByteBudget::new(100);
        let held = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4_u64 {
                let (budget, held) = (&budget, &held);
                scope.spawn(move || {
                    for round in 0..200 {
                        let bytes = [10, 40, 90, 300][((worker + round) % 4) as usize];
                        let share = budget.take(bytes);
                        assert!(share.bytes == bytes);
                        let together = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(together <= 100 || together == bytes, "{together} bytes held");
                        std::thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        assert_eq!(*budget.held.lock(), 0);
    }
}
