//! Settings of the agent as it runs: resolved, checked, with the defaults of the reference agent.

use std::path::PathBuf;
use std::time::Duration;

use super::Filter;
use super::bpf::{Buffers, Object, SamplerSettings};
use super::ceiling::Ceilings;
use crate::config::{AgentSection, KernelBuffers, KernelObject};

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
    /// Where finished unwind tables are kept between two starts; `None` = nowhere.
    pub cache_directory: Option<PathBuf>,
    /// Which kernel object to load.
    pub object: Object,
    /// How samples come out of the kernel.
    pub buffers: Buffers,
    /// Type information of the running kernel (BTF), where it carries none itself.
    pub kernel_types: Option<PathBuf>,
    /// Processes that the kernel side can know at the same time.
    pub max_processes: u32,
    /// Project that samples belong to, 1 to 4095.
    pub project_id: u32,
    /// Labels of this host.
    pub tags: Vec<String>,
    /// Only this process, for tests; `None` = all.
    pub only_pid: Option<u32>,
    /// Who is sampled.
    pub filter: Filter,
    /// CPUs that are sampled; `None` = all.
    pub cpus: Option<Vec<u32>>,
    /// Chance in percent that an interval is sampled, and the interval's length; `None` = always.
    pub probabilistic: Option<(u32, Duration)>,
    /// Time between two looks at counters, CPUs, chosen containers and own cost.
    pub monitor_interval: Duration,
    /// Time between two comparisons of the clocks; zero = once at start.
    pub clock_sync_interval: Duration,
    /// Say in a frame of its own why a stack is not whole.
    pub mark_truncated: bool,
    /// Environment variables whose values are reported.
    pub env_vars: Vec<String>,
    /// Raw stacks that are remembered.
    pub remembered_stacks: usize,
    /// What the kernel tells while it checks the programs, 0 to 2.
    pub log_level: u32,
    /// Refuse kernels with known faults.
    pub check_kernel: bool,
    /// What the agent may cost.
    pub ceilings: Ceilings,
    /// Whom the agent reports to, `host:port`; `None` = somebody in this process.
    pub collector: Option<String>,
    /// What the agent was told, as facts for people: names below `profiling.agent.config.`.
    pub told: Vec<(&'static str, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frequency_hz: 20,
            report_interval: Duration::from_secs(5),
            report_jitter: 0.2,
            table_pool_bytes: 64 << 20,
            cache_directory: None,
            object: Object::Auto,
            buffers: Buffers::Auto,
            kernel_types: None,
            max_processes: 8192,
            project_id: 1,
            tags: Vec::new(),
            only_pid: None,
            filter: Filter::default(),
            cpus: None,
            probabilistic: None,
            monitor_interval: Duration::from_secs(1),
            clock_sync_interval: Duration::from_millis(250),
            mark_truncated: true,
            env_vars: Vec::new(),
            remembered_stacks: 32_768,
            log_level: 0,
            check_kernel: true,
            ceilings: Ceilings::default(),
            collector: None,
            told: Vec::new(),
        }
    }
}

/// Processes that the kernel side can know at most: 80 MiB of table, and more than `pid_max` of most machines.
const MAX_PROCESSES: u32 = 1 << 20;

impl From<&AgentSection> for Settings {
    fn from(section: &AgentSection) -> Self {
        Self {
            frequency_hz: section.samples_per_second,
            report_interval: section.reporter_interval,
            report_jitter: section.reporter_jitter,
            table_pool_bytes: section.table_pool.0,
            cache_directory: section.cache_directory.clone().or_else(default_cache_directory),
            object: match section.kernel_object {
                KernelObject::Auto => Object::Auto,
                KernelObject::Modern => Object::Modern,
                KernelObject::Legacy => Object::Legacy,
            },
            buffers: match section.kernel_buffers {
                KernelBuffers::Auto => Buffers::Auto,
                KernelBuffers::Shared => Buffers::Shared,
                KernelBuffers::PerCpu => Buffers::PerCpu,
            },
            kernel_types: section.kernel_types.clone(),
            project_id: section.project_id,
            tags: section.tags.clone(),
            max_processes: (8192_u32 << section.map_scale_factor).min(MAX_PROCESSES),
            filter: Filter::from_section(&section.filter, section.send_idle_frames),
            cpus: section.filter.cpus.clone(),
            probabilistic: section.probabilistic,
            monitor_interval: section.monitor_interval,
            clock_sync_interval: section.clock_sync_interval,
            mark_truncated: section.send_error_frames,
            env_vars: section.env_vars.clone(),
            remembered_stacks: section.frame_cache_size as usize,
            log_level: section.bpf_log_level,
            check_kernel: !section.no_kernel_version_check,
            ceilings: Ceilings {
                cpu_share: section.max_cpu_percent.map(|percent| percent / 100.0),
                memory_bytes: section.max_memory.map(|size| size.0),
                whole_process: section.collection_agent.is_some(),
            },
            collector: section.collection_agent.as_ref().map(ToString::to_string),
            told: told(section),
            ..Self::default()
        }
    }
}

/// Where root keeps tables; others have to name a place.
fn default_cache_directory() -> Option<PathBuf> {
    rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/cache/everflame"))
}

/// Names are those of the hosts index; secrets are not among them.
fn told(section: &AgentSection) -> Vec<(&'static str, String)> {
    let (threshold, interval) = section.probabilistic.unwrap_or((100, Duration::from_mins(1)));
    vec![
        ("bpf_log_level", section.bpf_log_level.to_string()),
        (
            "cache_directory",
            section.cache_directory.as_ref().map_or_else(String::new, |d| d.display().to_string()),
        ),
        ("disable_tls", section.disable_tls.to_string()),
        ("map_scale_factor", section.map_scale_factor.to_string()),
        ("no_kernel_version_check", section.no_kernel_version_check.to_string()),
        ("probabilistic_interval", format!("{}s", interval.as_secs())),
        ("probabilistic_threshold", threshold.to_string()),
        ("sampling_frequency", section.samples_per_second.to_string()),
        ("tags", section.tags.join(";")),
        ("tracers", section.tracers.join(",")),
        ("verbose", section.verbose.to_string()),
    ]
}

impl Settings {
    /// Nanoseconds between two samples of one CPU.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.frequency_hz.max(1))
    }

    /// What the sampler needs of it. The ring holds 2 s of samples (per CPU and tick about 1 KiB, more for deep stacks) and
    /// half a second of stack copies, should every tick hit a process that is not known yet.
    #[must_use]
    pub fn sampler(&self, cpus: u32) -> SamplerSettings {
        const SAMPLE_BYTES: u64 = 2048;
        const COPY_BYTES: u64 = 16 << 10;
        let wanted = (2 * SAMPLE_BYTES + COPY_BYTES / 2) * u64::from(self.frequency_hz) * u64::from(cpus);
        SamplerSettings {
            frequency_hz: self.frequency_hz,
            object: self.object,
            buffers: self.buffers,
            kernel_types: self.kernel_types.clone(),
            ring_bytes: wanted.clamp(1 << 20, 64 << 20) as u32,
            max_processes: self.max_processes,
            only_pid: self.only_pid,
            cpus: self.cpus.clone(),
            log_level: self.log_level,
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
        assert_eq!(settings.sampler(1).ring_bytes, 12 * 1024 * 97);
        assert_eq!(settings.sampler(8).ring_bytes, (4 + 8) * 1024 * 97 * 8);
        assert_eq!(settings.sampler(100_000).ring_bytes, 64 << 20);
        assert_eq!(settings.period_ns(), 10_309_278);
    }
}
