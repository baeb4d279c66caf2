//! Ceilings for what the agent itself costs: a control loop that gives up what matters least first, and takes it back
//! when there is room again. Pure: times and measurements are arguments, the engine applies the levels.
//!
//! Two ladders that know nothing of each other, one for CPU time and one for memory. A rung is climbed when a measurement
//! lies above the ceiling, and left again when use was below half of it for a while, since the last rungs halve the cost.
//! Whoever comes back to a rung soon after leaving it waits twice as long before the next try.

use std::fmt;

/// What the agent may cost; `None` = as much as it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// Share of the CPU time of the whole machine, 0 to 1.
    pub cpu_share: Option<f64>,
    /// Bytes of memory, tables in the kernel included.
    pub memory_bytes: Option<u64>,
    /// Everything this process does is the agent's; otherwise only what its own threads do.
    pub whole_process: bool,
}

/// What the agent cost up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// CPU time so far, user and kernel side, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Memory now, bytes.
    pub(crate) memory_bytes: u64,
}

/// Something that is given up, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CpuLevel {
    /// Nothing is given up.
    Everything,
    /// Processes are looked after at leisure: short-lived ones have incomplete stacks.
    SlowLooks,
    /// Containers, pods and environments of new processes stay unknown.
    NoDescriptions,
    /// The sampling rate is halved this many times.
    SlowerBy(u8),
}

/// The same for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MemoryLevel {
    /// Nothing is given up.
    Everything,
    /// Stacks and names are forgotten after each window.
    SmallCaches,
    /// Unwind tables take no more room: those used least go.
    NoGrowth,
    /// No tables for executables that come anew.
    NoNewTables,
}

/// Most halvings: 1000 Hz become 1.
const MAX_HALVINGS: u8 = 10;

impl CpuLevel {
    fn at(rung: usize) -> Self {
        match rung {
            0 => Self::Everything,
            1 => Self::SlowLooks,
            2 => Self::NoDescriptions,
            rung => Self::SlowerBy((rung - 2).min(usize::from(MAX_HALVINGS)) as u8),
        }
    }

    /// Samples per second when `wanted` were asked for: at least one.
    pub(crate) fn frequency(self, wanted: u32) -> u32 {
        match self {
            Self::SlowerBy(halvings) => (wanted >> halvings).max(1),
            _ => wanted,
        }
    }
}

impl MemoryLevel {
    const ALL: [Self; 4] = [Self::Everything, Self::SmallCaches, Self::NoGrowth, Self::NoNewTables];
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("nothing is given up"),
            Self::SlowLooks => f.write_str("short-lived processes are looked after less often"),
            Self::NoDescriptions => f.write_str("containers and environments of new processes are not read"),
            Self::SlowerBy(halvings) => write!(f, "sampling rate divided by {}", 1u32 << halvings),
        }
    }
}

impl fmt::Display for MemoryLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everything => "nothing is given up",
            Self::SmallCaches => "stacks and names are forgotten after each window",
            Self::NoGrowth => "unwind tables take no more room",
            Self::NoNewTables => "no unwind tables for executables that come anew",
        })
    }
}

/// Seconds between two decisions about CPU time: long enough for a share to mean something.
const MEASURE_NS: u64 = 5_000_000_000;
/// Time for which memory is left alone after a change: what was given up must be given back to the system first.
const SETTLE_NS: u64 = 10_000_000_000;
/// Time of little use before something is taken back, at first and at most.
const PATIENCE_NS: u64 = 60_000_000_000;
const MAX_PATIENCE_NS: u64 = 3_600_000_000_000;
/// Below this share of the ceiling there is room: what is taken back at most doubles the cost.
const ROOM: f64 = 0.45;

#[derive(Clone, Debug)]
struct Ladder {
    rung: usize,
    top: usize,
    /// No change before.
    settled_ns: u64,
    room_since_ns: Option<u64>,
    left_ns: Option<u64>,
    patience_ns: u64,
}

impl Ladder {
    fn new(top: usize) -> Self {
        Self { rung: 0, top, settled_ns: 0, room_since_ns: None, left_ns: None, patience_ns: PATIENCE_NS }
    }

    /// Takes a measurement as share of the ceiling. Says whether the rung has changed.
    fn observe(&mut self, now_ns: u64, used: f64, settle_ns: u64) -> bool {
        if now_ns < self.settled_ns {
            return false;
        }
        if used > 1.0 {
            self.room_since_ns = None;
            if self.rung == self.top {
                return false;
            }
            self.rung += 1;
            // Taken back too early: wait longer the next time.
            if self.left_ns.take().is_some_and(|left| now_ns - left < 2 * self.patience_ns) {
                self.patience_ns = (self.patience_ns * 2).min(MAX_PATIENCE_NS);
            }
        } else if used < ROOM && self.rung > 0 {
            let since = *self.room_since_ns.get_or_insert(now_ns);
            if now_ns - since < self.patience_ns {
                return false;
            }
            self.rung -= 1;
            self.room_since_ns = None;
            self.left_ns = Some(now_ns);
        } else {
            self.room_since_ns = None;
            if self.left_ns.is_some_and(|left| now_ns - left > MAX_PATIENCE_NS) {
                (self.left_ns, self.patience_ns) = (None, PATIENCE_NS);
            }
            return false;
        }
        self.settled_ns = now_ns + settle_ns;
        true
    }
}

/// What a look led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The new level for CPU time.
    pub(crate) cpu: Option<CpuLevel>,
    /// The new level for memory.
    pub(crate) memory: Option<MemoryLevel>,
}

/// The control loop.
#[derive(Clone, Debug)]
pub(crate) struct Governor {
    ceilings: Ceilings,
    cpus: u32,
    measured: Option<(u64, u64)>,
    cpu: Ladder,
    memory: Ladder,
    /// Of the last measurement, as share of the machine.
    share: Option<f64>,
    changes: u64,
}

impl Governor {
    /// Keeps `ceilings` on a machine of `cpus`, sampling at `frequency_hz` while nothing is given up.
    pub(crate) fn new(ceilings: Ceilings, cpus: u32, frequency_hz: u32) -> Self {
        let halvings = frequency_hz.max(1).ilog2().min(u32::from(MAX_HALVINGS)) as usize;
        Self {
            ceilings,
            cpus: cpus.max(1),
            measured: None,
            cpu: Ladder::new(2 + halvings),
            memory: Ladder::new(MemoryLevel::ALL.len() - 1),
            share: None,
            changes: 0,
        }
    }

    /// Whether there is anything to keep.
    pub(crate) fn is_needed(&self) -> bool {
        self.ceilings.cpu_share.is_some() || self.ceilings.memory_bytes.is_some()
    }

    /// Takes what the agent cost up to now.
    pub(crate) fn observe(&mut self, now_ns: u64, cost: Cost) -> Changes {
        let mut changes = Changes::default();
        let (since_ns, cpu_ns) = *self.measured.get_or_insert((now_ns, cost.cpu_ns));
        let passed_ns = now_ns.saturating_sub(since_ns);
        if passed_ns >= MEASURE_NS {
            self.measured = Some((now_ns, cost.cpu_ns));
            let share = cost.cpu_ns.saturating_sub(cpu_ns) as f64 / (passed_ns as f64 * f64::from(self.cpus));
            self.share = Some(share);
            // The next measurement begins now, so the change is settled when it ends.
            if let Some(limit) = self.ceilings.cpu_share
                && self.cpu.observe(now_ns, share / limit, 0)
            {
                changes.cpu = Some(self.cpu_level());
            }
        }
        if let Some(limit) = self.ceilings.memory_bytes
            && self.memory.observe(now_ns, memory_share(cost.memory_bytes, limit), SETTLE_NS)
        {
            changes.memory = Some(self.memory_level());
        }
        self.changes += u64::from(changes.cpu.is_some()) + u64::from(changes.memory.is_some());
        changes
    }

    /// What is given up for CPU time.
    pub(crate) fn cpu_level(&self) -> CpuLevel {
        CpuLevel::at(self.cpu.rung)
    }

    /// What is given up for memory.
    pub(crate) fn memory_level(&self) -> MemoryLevel {
        MemoryLevel::ALL[self.memory.rung]
    }

    /// Share of the machine in the last measurement.
    pub(crate) fn share(&self) -> Option<f64> {
        self.share
    }

    /// Levels changed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Sentences about what is given up now.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.cpu.rung > 0 {
            notes.push(format!("ceiling of CPU time: {}", self.cpu_level()));
        }
        if self.memory.rung > 0 {
            notes.push(format!("ceiling of memory: {}", self.memory_level()));
        }
        notes
    }
}

/// Memory never falls below what the agent needs to live, so the way back is measured from the ceiling downwards: a
/// quarter of it must be free.
fn memory_share(bytes: u64, limit: u64) -> f64 {
    let used = bytes as f64 / limit as f64;
    if used > 1.0 { used } else { used * ROOM / 0.75 }
}

#[cfg(test)]
mod tests;
