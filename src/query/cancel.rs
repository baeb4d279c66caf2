//! A flag that stops a reduction nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Error, Result};

/// Shared stop flag. Clones raise and read the same flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

/// Raises its flag when dropped: held by whoever waits for the answer.
#[derive(Debug)]
pub struct CancelOnDrop(Option<Cancel>);

impl Cancel {
    /// Raises the flag.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// A guard that raises this flag when it goes.
    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }

    /// [`Error::Cancelled`] once the flag is up. Reducers ask between passes and every few thousand steps.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// [`Cancel::check`] once in 65,536 steps: an atomic load per step would show in the profile.
    pub(super) fn check_every(&self, step: usize) -> Result<()> {
        if step.is_multiple_of(1 << 16) { self.check() } else { Ok(()) }
    }
}

impl CancelOnDrop {
    /// The answer is there: the flag stays down.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_stops_the_work() {
        let cancel = Cancel::default();
        let guard = cancel.on_drop();
        cancel.on_drop().disarm();
        assert!(cancel.check().is_ok());
        drop(guard);
        assert!(matches!(cancel.check(), Err(Error::Cancelled)));
    }
}
