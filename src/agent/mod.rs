//! The agent: samples every process of this host, kernel to user code, and reports batches.
//!
//! Knows nothing of stores and pages. Loses a sample only into a counter with a reason.

pub mod bpf;
pub mod capabilities;
mod counters;
pub mod host;
mod kernel_symbols;
pub mod process;
pub mod reporter;
pub mod tables;
mod trace;
