//! The kernel side as seen from user space: load, attach, drain, count. `unsafe` lives here.
//!
//! [`Sampler`] is the whole of it: it owns the BPF object, the clocks and the ring buffer, and gives [`KernelMaps`] to
//! `agent::tables`. Knows nothing of processes, executables or reports. A tick that does not end as a stored sample ends
//! in one of [`Sampler::counters`].

#![allow(unsafe_code)]

pub(crate) mod abi;
pub(crate) mod capset;
mod choice;
mod features;
mod load;
mod maps;
mod per_cpu_buffers;
mod perf;
mod pointer_signature;
mod raw_trace;
mod records;
mod restrictions;
mod ring;
mod stack_copies;
mod statistics;
mod verifier;

/// Limits of the kernel side's walk, for those who walk as it does.
pub(crate) mod limits {
    use super::abi;

    /// User frames of one sample.
    pub(crate) const MAX_USER_FRAMES: usize = abi::MAX_USER_FRAMES as usize;
    /// No code lies below.
    pub(crate) const LOWEST_CODE: u64 = abi::LOWEST_CODE as u64;
    /// User addresses have no bit beyond.
    pub(crate) const USER_BITS: u32 = abi::USER_BITS;
    /// Largest frame that a frame pointer is believed to span.
    pub(crate) const MAX_APPROXIMATE_FRAME: u64 = abi::MAX_APPROXIMATE_FRAME as u64;
}

pub use abi::CounterClass;
pub use choice::{Choice, FilterSettings, Hierarchy};
pub use features::{Features, Missing};
pub use load::{Buffers, Error, Object, Sampler, SamplerSettings};
pub use maps::KernelMaps;
pub(crate) use pointer_signature::mask as pointer_signature_bits;
pub use raw_trace::{EndReason, RawTrace, StackCopy, UserFrame};
pub use restrictions::{Lockdown, Restrictions};
pub use statistics::{RunStatistics, StatisticsSwitch};
pub use verifier::{VerifierWork, verifier_work};
