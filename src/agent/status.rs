//! What the agent tells about itself: `status.agent` of `docs/api.md`.

use std::sync::Arc;

use parking_lot::Mutex;

use super::counters::{Counter, Counters};

/// State of the agent now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentStatus {
    /// Samples are taken.
    pub running: bool,
    /// Why not, or what is missing although it runs.
    pub problem: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Samples per second and CPU.
    pub frequency_hz: u32,
    /// CPUs that tick.
    pub cpus: u32,
    /// Kernel release.
    pub kernel: Arc<str>,
    /// Kernel object in use: `modern` or `legacy`.
    pub object: &'static str,
    /// Living processes, kernel threads included.
    pub processes: u64,
    /// Unwind tables in the kernel.
    pub tables: u64,
    /// Bytes taken for them.
    pub pool_bytes: u64,
    /// Resident memory of this process in bytes.
    pub resident_bytes: u64,
    /// Name and value of every counter.
    pub counters: Vec<(&'static str, u64)>,
    /// Ticks since the start against frequency × busy time of all CPUs; `None` until there is enough of it.
    pub tick_share: Option<f64>,
    /// What is different from a plain run at this moment: not sampling by chance, something given up for a ceiling.
    pub notes: Vec<String>,
}

/// The state, shared between the agent's thread, which writes, and whoever shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedStatus {
    shown: Arc<Mutex<AgentStatus>>,
    counters: Arc<Counters>,
}

impl SharedStatus {
    /// Nothing runs yet; `counters` are those that user space counts.
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        Self { shown: Arc::default(), counters: Arc::clone(counters) }
    }

    /// A copy of the state. Deliveries are counted up to this moment, the rest at most a second ago.
    pub(crate) fn get(&self) -> AgentStatus {
        let mut status = self.shown.lock().clone();
        for counter in Counter::ALL {
            if let Some((_, value)) = status.counters.iter_mut().find(|(name, _)| *name == counter.name()) {
                *value = self.counters.get(counter);
            }
        }
        status
    }

    /// Changes the state.
    pub(crate) fn update(&self, change: impl FnOnce(&mut AgentStatus)) {
        change(&mut self.shown.lock());
    }
}

/// Ticks against what the CPUs were busy, since a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickShare {
    frequency_hz: u32,
    start: super::host::cpu::CpuTime,
    ticks_before: u64,
}

/// Busy time below which the share says nothing: 5 s of one CPU.
const MIN_BUSY_TICKS: u64 = 5 * super::host::cpu::CPU_TIME_HZ;

impl TickShare {
    /// Begins to compare, when there were `ticks_before` already.
    pub(crate) fn new(frequency_hz: u32, start: super::host::cpu::CpuTime, ticks_before: u64) -> Self {
        Self { frequency_hz, start, ticks_before }
    }

    /// `ticks` that ended on a busy CPU ÷ (frequency × busy seconds).
    pub(crate) fn of(&self, ticks: u64, now: super::host::cpu::CpuTime) -> Option<f64> {
        let busy = now.busy.checked_sub(self.start.busy).filter(|busy| *busy >= MIN_BUSY_TICKS)?;
        let seconds = busy as f64 / super::host::cpu::CPU_TIME_HZ as f64;
        Some(ticks.saturating_sub(self.ticks_before) as f64 / (seconds * f64::from(self.frequency_hz)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::cpu::CpuTime;

    #[test]
    fn share_compares_with_busy_time_only() {
        let start = CpuTime { busy: 1000, idle: 5, stolen: 0 };
        let share = TickShare::new(20, start, 10);
        let after = |busy| CpuTime { busy, idle: 1_000_000, stolen: 0 };
        assert_eq!(share.of(200, after(2000)), Some(0.95));
        assert_eq!(share.of(9, after(1100)), None);
        assert_eq!(share.of(9, after(10)), None);
    }
}
