//! From the ring to the outbox: samples converted, windows closed, and how often.

use std::time::Duration;

use super::{Engine, nanos};
use crate::agent::bpf::RawTrace;
use crate::agent::ceiling::MemoryLevel;
use crate::agent::counters::Counter;
use crate::agent::host::clock::monotonic_ns;
use crate::agent::process::Follower;
use crate::agent::reporter::{Frame, random};
use crate::agent::trace::{Converter, Late, Walked};

/// Longest time between two drains of the ring.
pub(super) const SLOW_DRAIN: Duration = Duration::from_millis(250);
/// Shortest one, when the ring fills fast.
const FAST_DRAIN: Duration = Duration::from_millis(50);
/// How long a sample waits for an unwind table, in nanoseconds: 1.5 s, less than ended processes are remembered.
const MAX_WAIT_NS: u64 = 1_500_000_000;

impl Engine {
    /// Converts everything that waits in the ring. Samples younger than the last look at the side-band are set aside
    /// until the next look, which follows at once: what they ran in may have been mapped in between. Samples that want a
    /// table in the making wait for it, up to [`MAX_WAIT_NS`]; the last ones do not.
    pub(super) fn drain(&mut self, last: bool) {
        let Self { sampler, tables, follower, converter, late, pending, window, counters, .. } = self;
        let waiting = sampler.waiting_bytes();
        follower.follow(tables, converter.names());
        let sync_every = nanos(self.settings.clock_sync_interval);
        if sync_every > 0 && monotonic_ns() >= self.next_sync_ns {
            self.next_sync_ns = monotonic_ns() + sync_every;
            converter.clock().sync();
        }
        let mut set_aside = std::mem::take(pending);
        let followed_ns = follower.followed_ns();
        let (mut received, mut refused) = (0, 0);
        let (mut completed, mut cut) = (0, 0);
        let mut convert =
            |raw: &RawTrace<'_>, converter: &mut Converter, follower: &mut Follower, tables: &_| {
                let may_wait =
                    !last && pending.has_room() && follower.followed_ns() < raw.time_ns + MAX_WAIT_NS;
                match late.walk(raw, follower, tables, may_wait) {
                    Late::Done(walked, how) => match converter.convert(&walked, follower, may_wait) {
                        Ok(Some(sample)) => {
                            completed += u64::from(how == Walked::Completed);
                            cut += u64::from(how == Walked::Cut);
                            refused += u64::from(!window.push(sample));
                        }
                        // Its code has no name yet. As it came, for what it is walked with may be better then too.
                        Ok(None) => pending.push(raw),
                        Err(_) => refused += 1,
                    },
                    Late::Wait(executable) => {
                        follower.want_table(&executable);
                        pending.push(raw);
                    }
                }
            };
        set_aside.drain(|raw| convert(raw, converter, follower, tables));
        sampler.drain(|raw| {
            received += 1;
            if raw.time_ns <= followed_ns {
                convert(&raw, converter, follower, tables);
            } else {
                set_aside.push(&raw);
            }
        });
        if !set_aside.is_empty() {
            follower.follow(tables, converter.names());
            set_aside.drain(|raw| convert(raw, converter, follower, tables));
        }
        self.stacks_completed_late += completed;
        self.stacks_cut += cut;
        counters.add(Counter::Received, received);
        counters.add(Counter::DroppedWindowFull, refused);
        follower.converted(followed_ns, tables);
        self.drain_every = next_pause(self.drain_every, waiting, self.ring_bytes);
    }

    /// Hands over what was converted since the last time as one batch.
    pub(super) fn close_window(&mut self) {
        let now_ns = monotonic_ns();
        let clock = self.converter.clock();
        let (start, end) = (clock.wall(self.window_start_ns), clock.wall(now_ns));
        self.window_start_ns = now_ns;
        if self.window.len() > 0 {
            let frame = Frame { period_ns: self.settings.period_ns(), start, end };
            let mut batch = self.window.finish(self.converter.interner(), frame);
            // Once a batch is enough: who takes it in puts facts down by host, not by process.
            if let Some(resource) = batch.resources.first_mut() {
                resource.others.extend(self.facts.known());
            }
            self.outbox.put(batch);
        }
        self.converter.window_ended(self.governor.memory_level() >= MemoryLevel::SmallCaches);
    }

    /// Length of the next window, varied so that a fleet does not report all at once.
    pub(super) fn window_length_ns(&self) -> u64 {
        let factor = 1.0 + self.settings.report_jitter.clamp(0.0, 1.0) * (2.0 * random() - 1.0);
        nanos(self.settings.report_interval.mul_f64(factor)).max(nanos(FAST_DRAIN))
    }
}

/// Faster when a quarter of the ring was full, slower again when it was nearly empty.
fn next_pause(pause: Duration, waiting: u64, ring_bytes: u64) -> Duration {
    if waiting > ring_bytes / 4 {
        (pause / 2).max(FAST_DRAIN)
    } else if waiting < ring_bytes / 16 {
        (pause * 2).min(SLOW_DRAIN)
    } else {
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_follows_the_ring() {
        assert_eq!(next_pause(SLOW_DRAIN, 300, 1000), SLOW_DRAIN / 2);
        assert_eq!(next_pause(FAST_DRAIN, 999, 1000), FAST_DRAIN);
        assert_eq!(next_pause(FAST_DRAIN, 100, 1000), FAST_DRAIN);
        assert_eq!(next_pause(SLOW_DRAIN, 0, 1000), SLOW_DRAIN);
    }
}
