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
mod perf;
mod raw_trace;
mod ring;
mod statistics;
mod verifier;

pub use abi::CounterClass;
pub use choice::{Choice, FilterSettings, Hierarchy};
pub use features::{Features, Missing};
pub use load::{Error, Object, Sampler, SamplerSettings};
pub use maps::KernelMaps;
pub use raw_trace::{EndReason, RawTrace, UserFrame};
pub use statistics::{RunStatistics, StatisticsSwitch};
pub use verifier::{VerifierWork, verifier_work};
