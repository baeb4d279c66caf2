//! Sleeping until a descriptor has something or the time is over.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Reusable set of descriptors to wait on.
#[derive(Debug, Default)]
pub struct WaitSet {
    entries: Vec<libc::pollfd>,
}

impl WaitSet {
    /// Waits until one of `descriptors` is readable or `timeout` is over. Says whether any is.
    /// A signal ends the wait early and counts as "none".
    ///
    /// # Errors
    /// When the kernel refuses the call.
    pub fn wait<'d>(
        &mut self,
        descriptors: impl Iterator<Item = BorrowedFd<'d>>,
        timeout: Duration,
    ) -> io::Result<bool> {
        self.entries.clear();
        self.entries.extend(descriptors.map(|descriptor| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }));
        // Rounded up, so that a wait of less than a millisecond does not become a busy loop.
        let millis = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // SAFETY: pointer and length describe `entries`, which this function borrows mutably for the whole call; the
        // descriptors stay open that long because their borrows (`'d`) outlive it.
        let ready =
            unsafe { libc::poll(self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t, millis) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn wakes_for_data_and_for_time() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut set = WaitSet::default();
        assert!(!set.wait([reader.as_fd()].into_iter(), Duration::from_millis(1)).unwrap());
        writer.write_all(b"x").unwrap();
        assert!(set.wait([reader.as_fd()].into_iter(), Duration::from_mins(1)).unwrap());
    }
}
