//! What the page wants to know of the other roles of this process. Implemented by `run::adapters`.

use std::borrow::Cow;

/// Health of the roles that run beside the page.
pub trait RoleStatus: Send + Sync {
    /// The agent in this process, if there is one.
    fn agent(&self) -> Option<AgentStatus>;

    /// The collector in this process, if there is one.
    fn collector(&self) -> Option<CollectorStatus>;
}

/// A process with no role but the page.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageOnly;

impl RoleStatus for PageOnly {
    fn agent(&self) -> Option<AgentStatus> {
        None
    }

    fn collector(&self) -> Option<CollectorStatus> {
        None
    }
}

/// One counter, ever growing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Name with dots: `dropped.ring_full`.
    pub name: Cow<'static, str>,
    /// Events since the start of the process.
    pub value: u64,
}

/// The agent of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// Whether samples are taken.
    pub running: bool,
    /// Why not, or what is wrong although they are.
    pub problem: Option<String>,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// Samples per second and CPU.
    pub frequency_hz: u32,
    /// CPUs sampled.
    pub cpus: u32,
    /// Kernel release.
    pub kernel: String,
    /// BPF object in use: `modern` or `legacy`.
    pub object: String,
    /// Processes followed.
    pub processes: u64,
    /// Unwind tables loaded.
    pub tables: u64,
    /// Memory of the unwind pool in bytes.
    pub pool_bytes: u64,
    /// Resident memory of this process in bytes.
    pub resident_bytes: u64,
    /// What is different from a plain run now, in sentences.
    pub notes: Vec<String>,
    /// Ticks, stored samples, and every drop under its reason.
    pub counters: Vec<Counter>,
}

/// The collector of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorStatus {
    /// Where it listens.
    pub address: String,
    /// Batches and samples received, refused and written.
    pub counters: Vec<Counter>,
}
