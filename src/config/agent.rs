//! `pf-host-agent`: option names are those of the command line, the environment and the key-value file alike.

use std::path::PathBuf;
use std::time::Duration;

use super::{ByteSize, HostPort, Secret, Section, Settings};

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

/// Settings of the agent role.
#[derive(Clone, Debug, PartialEq)]
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
    /// Where finished tables may be kept.
    pub cache_directory: Option<PathBuf>,
    /// Which kernel object to load.
    pub kernel_object: KernelObject,
    /// Bytes of unwind tables in the kernel.
    pub table_pool: ByteSize,
}

impl AgentSection {
    /// Name of the section.
    pub const NAME: &str = "pf-host-agent";
    /// File that is read when no `-config` is given.
    pub const DEFAULT_FILE: &str = "/etc/Elastic/universal-profiling/pf-host-agent.conf";
    /// Prefix of environment variables.
    pub const VARIABLES: &str = "PRODFILER";
}

impl Section for AgentSection {
    fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("{}.{name}", Self::NAME);
        // The secret of all kinds of agents must be present only where a collector is named; `run` checks that.
        settings.without_effect(&[key("cache-directory"), key("no-kernel-version-check")]);
        let tags = settings.text(&key("tags"), "");
        Self {
            verbose: settings.bool(&key("verbose"), false),
            no_kernel_version_check: settings.bool(&key("no-kernel-version-check"), false),
            tags: tags.split(';').filter(|tag| is_tag(tag)).map(str::to_owned).collect(),
            project_id: settings.number(&key("project-id"), 1, 1..=4095) as u32,
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
            table_pool: settings
                .size(&key("table-pool"), Some(ByteSize(64 << 20)))
                .unwrap_or(ByteSize(64 << 20)),
        }
    }
}

/// Tags are letters, digits and `-:._`; others are dropped.
fn is_tag(tag: &str) -> bool {
    !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || "-:._".contains(c))
}
