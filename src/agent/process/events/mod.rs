//! Perf side-band of all CPUs, merged by time: which processes and executable mappings come and go.
//!
//! Knows rings and records, not what they mean for a process (`super::table`). Bounded by the rings; what they lose
//! is counted and asks for a new look at `/proc`.

mod record;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub(crate) use record::{Event, EventKind, MappedRange};
use record::{Parsed, parse};

use crate::agent::host::{cpu, perf_ring::PerfRing};

/// Data pages of each ring: 32 pages hold about 1000 records, some 100 `exec`s.
const RING_PAGES: usize = 32;
/// The same on machines with more than [`MANY_CPUS`]: rings lie in unswappable memory.
const RING_PAGES_MANY_CPUS: usize = 16;
const MANY_CPUS: usize = 64;

/// Rings of all CPUs.
#[derive(Debug)]
pub(crate) struct Events {
    rings: Vec<(u32, PerfRing)>,
    pages: usize,
    malformed: u64,
    batch: Vec<Event>,
}

impl Events {
    /// Opens a ring on each CPU that is switched on.
    ///
    /// # Errors
    /// When not even one CPU can be followed.
    pub(crate) fn open() -> io::Result<Self> {
        let cpus = cpu::online_cpus();
        let pages = if cpus.len() > MANY_CPUS { RING_PAGES_MANY_CPUS } else { RING_PAGES };
        let mut events =
            Self { rings: Vec::with_capacity(cpus.len()), pages, malformed: 0, batch: Vec::new() };
        for cpu in cpus {
            match PerfRing::open(cpu, pages) {
                Ok(ring) => events.rings.push((cpu, ring)),
                // Switched off since the list was read.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(events)
    }

    /// Opens rings on CPUs that were switched on since. A ring of a CPU that is off stays and stays empty.
    /// Says whether any was new: what happened there before is unknown.
    pub(crate) fn follow_cpus(&mut self) -> io::Result<bool> {
        let before = self.rings.len();
        for cpu in cpu::online_cpus() {
            if self.rings.iter().any(|(known, _)| *known == cpu) {
                continue;
            }
            match PerfRing::open(cpu, self.pages) {
                Ok(ring) => self.rings.push((cpu, ring)),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.rings.len() > before)
    }

    /// Everything that waits in the rings, ordered by time.
    pub(crate) fn drain(&mut self) -> std::vec::Drain<'_, Event> {
        let Self { rings, batch, malformed, .. } = self;
        batch.clear();
        for (_, ring) in rings {
            let bytes = ring.drain(|record| match parse(record) {
                Parsed::Event(event) => batch.push(event),
                Parsed::Other => {}
                Parsed::Malformed => *malformed += 1,
            });
            if ring.was_full(bytes) {
                let time_ns = batch.last().map_or(0, |event| event.time_ns);
                batch.push(Event { time_ns, kind: EventKind::Lost { count: 0 } });
            }
        }
        // Stable: records of one CPU with equal time keep their order.
        batch.sort_by_key(|event| event.time_ns);
        batch.drain(..)
    }

    /// Records that did not fit their layout.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Descriptors that become readable with the first record.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|(_, ring)| ring.as_fd())
    }
}
