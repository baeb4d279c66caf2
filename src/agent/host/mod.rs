//! The machine: who it is, its clocks and CPUs, and the few system calls that the agent makes itself.
//!
//! Knows nothing of processes and samples. Never asks the network, never waits for anybody but in [`wait`].
//! `unsafe` is opened per file: [`clock`], [`wait`], [`memory_file`](mod@memory_file), [`perf_ring`].

pub mod clock;
pub mod container;
pub mod cpu;
mod identity;
pub mod kernel_version;
mod memory_file;
mod own_cost;
pub mod perf_ring;
pub mod wait;

use std::fs;
use std::sync::Arc;

pub use identity::{Environment, identify};
pub use memory_file::{memory_file, release_freed_memory};
pub use own_cost::OwnCpu;

/// What is reported about this machine with each sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// 64-bit identity as decimal text (`host.id`).
    pub id: Arc<str>,
    /// Host name.
    pub name: Arc<str>,
    /// Kernel release, for example `6.18.44`.
    pub kernel: Arc<str>,
    /// Architecture as OpenTelemetry spells it: `amd64`, `arm64`.
    pub arch: Arc<str>,
    /// CPUs switched on at start.
    pub cpus: u32,
    /// Where it lives.
    pub environment: Environment,
}

impl Host {
    /// Reads everything. What cannot be read is empty.
    #[must_use]
    pub fn read() -> Self {
        let line =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let (environment, id) = identify();
        Self {
            id: id.to_string().into(),
            environment,
            name: line("/proc/sys/kernel/hostname").into(),
            kernel: line("/proc/sys/kernel/osrelease").into(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .into(),
            cpus: cpu::online_cpus().len() as u32,
        }
    }
}
