//! `pf-host-agent`: option names are those of the command line, the environment and the key-value file alike.

mod filter;
mod later;
mod tracers;

use std::path::PathBuf;
use std::time::Duration;

use super::settings::Expected;
use super::{ByteSize, HostPort, Secret, Section, Settings};

pub use filter::FilterSection;

/// Which kernel object to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelObject {
    /// Decided by probing.
    #[default]
    Auto,
    /// The one with `bpf_loop`.
    Modern,
    /// The one for older kernels.
    Legacy,
}

/// How samples come out of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelBuffers {
    /// Decided by probing.
    #[default]
    Auto,
    /// One ring for all CPUs.
    Shared,
    /// A perf buffer of each CPU.
    PerCpu,
}

/// Settings of the agent role.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct AgentSection {
    /// Debug logs.
    pub verbose: bool,
    /// Skip the check for kernels with known faults.
    pub no_kernel_version_check: bool,
    /// Labels of this host, `;` separated in the file.
    pub tags: Vec<String>,
    /// Project, 1 to 4095.
    pub project_id: u32,
    /// Token for the collector.
    pub secret_token: Option<Secret>,
    /// Collector; `None` in all-in-one.
    pub collection_agent: Option<HostPort>,
    /// Plain text to the collector.
    pub disable_tls: bool,
    /// Samples per second and CPU.
    pub samples_per_second: u32,
    /// Length of a report window.
    pub reporter_interval: Duration,
    /// Share of the interval by which windows vary.
    pub reporter_jitter: f64,
    /// How long to wait, give or take 30 %, before ending after a collector said that it takes nothing from this agent.
    pub refused_wait: Duration,
    /// Where finished unwind tables are kept; root without a word: `/var/cache/everflame`.
    pub cache_directory: Option<PathBuf>,
    /// Which kernel object to load.
    pub kernel_object: KernelObject,
    /// How samples come out of the kernel.
    pub kernel_buffers: KernelBuffers,
    /// Type information of the running kernel (BTF), where it carries none itself.
    pub kernel_types: Option<PathBuf>,
    /// Bytes of unwind tables in the kernel.
    pub table_pool: ByteSize,
    /// Who is sampled.
    pub filter: FilterSection,
    /// Chance in percent that an interval is sampled, 1 to 99, and the interval's length; `None` = always.
    pub probabilistic: Option<(u32, Duration)>,
    /// Time between two looks at counters, CPUs, ceilings and chosen containers.
    pub monitor_interval: Duration,
    /// Time between two comparisons of the clocks; zero = once at start.
    pub clock_sync_interval: Duration,
    /// Say in a frame of its own why a stack is not whole.
    pub send_error_frames: bool,
    /// Sample idle CPUs too.
    pub send_idle_frames: bool,
    /// Environment variables whose values are reported with the samples of a process.
    pub env_vars: Vec<String>,
    /// Interpreters that are looked into.
    pub tracers: Vec<String>,
    /// Doublings of the kernel side's room for tables and processes, 0 to 8.
    pub map_scale_factor: u32,
    /// Raw stacks that are remembered, so that a known one costs a look-up.
    pub frame_cache_size: u32,
    /// What the kernel tells while it checks the programs: 0 nothing, 1 a summary, 2 each instruction.
    pub bpf_log_level: u32,
    /// Share of the machine's CPU time that the agent may take, in percent.
    pub max_cpu_percent: Option<f64>,
    /// Memory that the agent may take, tables in the kernel included.
    pub max_memory: Option<ByteSize>,
}

impl AgentSection {
    /// Name of the section.
    pub const NAME: &str = "pf-host-agent";
    /// File that is read when no `-config` is given.
    pub const DEFAULT_FILE: &str = "/etc/Elastic/universal-profiling/pf-host-agent.conf";
    /// Prefixes of environment variables, the weightiest last.
    pub const VARIABLES: [&str; 2] = ["OTEL_PROFILING_AGENT", "PRODFILER"];

    /// Name of an option that had another one in internal builds of the reference agent.
    pub(super) fn canonical(option: &str) -> &str {
        const PUBLISHED: [&str; 4] =
            ["samples-per-second", "reporter-interval", "monitor-interval", "send-error-frames"];
        option.strip_prefix("private-").filter(|name| PUBLISHED.contains(name)).unwrap_or(option)
    }
}

impl Section for AgentSection {
    fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("{}.{name}", Self::NAME);
        // The secret of all kinds of agents must be present only where a collector is named; `run` checks that.
        settings.without_effect(&[key("no-kernel-version-check")]);
        later::refuse(settings);
        let map_scale_factor = settings.number(&key("map-scale-factor"), 0, 0..=8) as u32;
        let table_pool = ByteSize((64 << 20 << map_scale_factor).min(MAX_TABLE_POOL));
        Self {
            verbose: settings.bool(&key("verbose"), false),
            no_kernel_version_check: settings.bool(&key("no-kernel-version-check"), false),
            tags: tags(settings, &key("tags")),
            project_id: project_id(settings, &key("project-id")),
            secret_token: settings.secret(&key("secret-token")),
            collection_agent: settings.optional_host_port(&key("collection-agent")),
            disable_tls: settings.bool(&key("disable-tls"), false),
            samples_per_second: settings.number(&key("samples-per-second"), 20, 1..=1_000) as u32,
            reporter_interval: settings.duration(
                &key("reporter-interval"),
                Duration::from_secs(5),
                Duration::from_millis(500)..=Duration::from_mins(5),
            ),
            reporter_jitter: settings.fraction(&key("reporter-jitter"), 0.2),
            refused_wait: settings.duration(
                &key("private-refused-wait"),
                Duration::from_mins(10),
                Duration::ZERO..=Duration::from_hours(1),
            ),
            cache_directory: settings.optional_text(&key("cache-directory")).map(PathBuf::from),
            kernel_object: settings.word(
                &key("kernel-object"),
                KernelObject::Auto,
                &[
                    ("auto", KernelObject::Auto),
                    ("modern", KernelObject::Modern),
                    ("legacy", KernelObject::Legacy),
                ],
            ),
            kernel_buffers: settings.word(
                &key("kernel-buffers"),
                KernelBuffers::Auto,
                &[
                    ("auto", KernelBuffers::Auto),
                    ("shared", KernelBuffers::Shared),
                    ("per-cpu", KernelBuffers::PerCpu),
                ],
            ),
            kernel_types: settings.optional_text(&key("kernel-types")).map(PathBuf::from),
            table_pool: settings.size(&key("table-pool"), Some(table_pool)).unwrap_or(table_pool),
            filter: FilterSection::read(settings),
            probabilistic: probabilistic(settings),
            monitor_interval: settings.duration(
                &key("monitor-interval"),
                Duration::from_secs(1),
                Duration::from_secs(1)..=Duration::from_mins(5),
            ),
            clock_sync_interval: settings.duration(
                &key("clock-sync-interval"),
                Duration::from_millis(250),
                Duration::ZERO..=Duration::from_hours(24),
            ),
            send_error_frames: settings.bool(&key("send-error-frames"), true),
            send_idle_frames: settings.bool(&key("send-idle-frames"), false),
            env_vars: env_vars(settings, &key("env-vars")),
            tracers: tracers::read(settings, &key("tracers")),
            map_scale_factor,
            frame_cache_size: settings.number(&key("frame-cache-size"), 32_768, 1024..=1_048_576) as u32,
            bpf_log_level: settings.number(&key("bpf-log-level"), 0, 0..=2) as u32,
            max_cpu_percent: settings.percent(&key("max-cpu-percent")),
            max_memory: max_memory(settings, &key("max-memory")),
        }
    }
}

/// What the kernel side has page numbers for: 256 parts of 4 MiB.
const MAX_TABLE_POOL: u64 = 1 << 30;
/// Below this the agent cannot work: what it needs before it has seen a process.
const MIN_MEMORY: u64 = 24 << 20;
/// Most environment variables that can be named.
const MAX_ENV_VARS: usize = 32;

fn project_id(settings: &Settings, key: &str) -> u32 {
    settings.field(key, 1, u32::to_string, |value| {
        let text = super::fields::text(value).unwrap_or_default();
        let id = text.parse().ok().filter(|id| (1..=4095).contains(id));
        id.ok_or_else(|| Expected::whole(format!("invalid project id {text} (need > 0 and < 4096)")))
    })
}

/// Labels, `;` between them. Those that are none are dropped with a warning.
fn tags(settings: &Settings, key: &str) -> Vec<String> {
    let text = settings.text(key, "");
    let (tags, others): (Vec<&str>, Vec<&str>) =
        text.split(';').filter(|tag| !tag.is_empty()).partition(|tag| is_tag(tag));
    for other in others {
        let hint = "tags are letters, digits and -:._ with ; between them";
        settings.warn(key, &format!("tag \"{other}\" is left out"), Some(hint));
    }
    tags.into_iter().map(str::to_owned).collect()
}

fn is_tag(tag: &str) -> bool {
    tag.chars().all(|c| c.is_ascii_alphanumeric() || "-:._".contains(c))
}

fn probabilistic(settings: &Settings) -> Option<(u32, Duration)> {
    let key = |name: &str| format!("{}.probabilistic-{name}", AgentSection::NAME);
    let threshold = settings.number(&key("threshold"), 100, 1..=100) as u32;
    let minute = Duration::from_mins(1);
    let interval = settings.duration(&key("interval"), minute, minute..=Duration::from_mins(5));
    (threshold < 100).then_some((threshold, interval))
}

fn env_vars(settings: &Settings, key: &str) -> Vec<String> {
    let mut names = settings.list(key, &[]);
    let is_name = |name: &String| !name.contains(['=', '\0']);
    if let Some(other) = names.iter().find(|name| !is_name(name)) {
        settings.problem(key, format!("expected names of environment variables, found \"{other}\""), None);
    }
    if names.len() > MAX_ENV_VARS {
        let found = names.len();
        settings.problem(key, format!("expected at most {MAX_ENV_VARS} names, found {found}"), None);
    }
    names.retain(is_name);
    names.truncate(MAX_ENV_VARS);
    names
}

fn max_memory(settings: &Settings, key: &str) -> Option<ByteSize> {
    let limit = settings.size(key, None)?;
    if limit.0 < MIN_MEMORY {
        let message = format!("expected at least {}, found {limit}", ByteSize(MIN_MEMORY));
        settings.problem(key, message, None);
    }
    Some(limit)
}
