//! Settings of the agent as it runs: resolved, checked, with the defaults of the reference agent.

use std::time::Duration;

use super::bpf::{Object, SamplerSettings};
use crate::config::{AgentSection, KernelObject};

/// Everything the agent needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Samples per second and CPU, 1 to 1000.
    pub frequency_hz: u32,
    /// Length of a report window.
    pub report_interval: Duration,
    /// Share of the interval by which windows vary, 0 to 1, so that a fleet does not report all at once.
    pub report_jitter: f64,
    /// Bytes of unwind tables that the kernel side may hold.
    pub table_pool_bytes: u64,
    /// Which kernel object to load.
    pub object: Object,
    /// Processes that the kernel side can know at the same time.
    pub max_processes: u32,
    /// Project that samples belong to, 1 to 4095.
    pub project_id: u32,
    /// Labels of this host.
    pub tags: Vec<String>,
    /// Only this process, for tests; `None` = all.
    pub only_pid: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frequency_hz: 20,
            report_interval: Duration::from_secs(5),
            report_jitter: 0.2,
            table_pool_bytes: 64 << 20,
            object: Object::Auto,
            max_processes: 8192,
            project_id: 1,
            tags: Vec::new(),
            only_pid: None,
        }
    }
}

impl From<&AgentSection> for Settings {
    fn from(section: &AgentSection) -> Self {
        Self {
            frequency_hz: section.samples_per_second,
            report_interval: section.reporter_interval,
            report_jitter: section.reporter_jitter,
            table_pool_bytes: section.table_pool.0,
            object: match section.kernel_object {
                KernelObject::Auto => Object::Auto,
                KernelObject::Modern => Object::Modern,
                KernelObject::Legacy => Object::Legacy,
            },
            project_id: section.project_id,
            tags: section.tags.clone(),
            ..Self::default()
        }
    }
}

impl Settings {
    /// Nanoseconds between two samples of one CPU.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.frequency_hz.max(1))
    }

    /// What the sampler needs of it. The ring holds 2 s of samples: per CPU and tick about 1 KiB, more for deep stacks.
    #[must_use]
    pub fn sampler(&self, cpus: u32) -> SamplerSettings {
        const SAMPLE_BYTES: u64 = 2048;
        let wanted = 2 * SAMPLE_BYTES * u64::from(self.frequency_hz) * u64::from(cpus);
        SamplerSettings {
            frequency_hz: self.frequency_hz,
            object: self.object,
            ring_bytes: wanted.clamp(1 << 20, 64 << 20) as u32,
            max_processes: self.max_processes,
            only_pid: self.only_pid,
            ..SamplerSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_grows_with_the_machine_within_bounds() {
        let settings = Settings { frequency_hz: 97, ..Settings::default() };
        assert_eq!(settings.sampler(1).ring_bytes, 1 << 20);
        assert_eq!(settings.sampler(128).ring_bytes, 2 * 2048 * 97 * 128);
        assert_eq!(settings.sampler(100_000).ring_bytes, 64 << 20);
        assert_eq!(settings.period_ns(), 10_309_278);
    }
}
