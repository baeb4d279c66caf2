//! `pf-elastic-collector`.

use super::{ByteSize, HostPort, OutputSection, Secret, Section, ServerTls, Settings};

/// Settings of the collector role.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorSection {
    /// Listen address: gRPC, HTTP and health on one port.
    pub host: HostPort,
    /// Debug logs.
    pub verbose: bool,
    /// Metrics listeners.
    pub metrics: MetricsSection,
    /// Memory that the role should stay below, in bytes.
    pub memory_limit: Option<ByteSize>,
    /// Token that agents must send; `None` = everybody may send.
    pub secret_token: Option<Secret>,
    /// Telemetry of agents.
    pub agent_metrics: AgentMetrics,
    /// TLS of the listener.
    pub tls: ServerTls,
    /// Where documents go.
    pub output: OutputSection,
}

/// `metrics`: addresses of metrics pages, off when not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSection {
    /// Prometheus text.
    pub prometheus_host: Option<HostPort>,
    /// JSON; `host:port`, `unix:///path` or an absolute path.
    pub expvar_host: Option<String>,
}

/// `agent_metrics`: nothing leaves the own cluster, whatever is said here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentMetrics {
    /// Do not send telemetry to the vendor. Accepted; we never do.
    pub disable: bool,
    /// Store the full set of agent metrics.
    pub write_all: bool,
}

impl MetricsSection {
    pub(super) fn read(settings: &Settings, at: &str) -> Self {
        Self {
            prometheus_host: settings.optional_host_port(&format!("{at}.prometheus_host")),
            expvar_host: settings.optional_text(&format!("{at}.expvar_host")),
        }
    }
}

impl CollectorSection {
    /// Name of the section.
    pub const NAME: &str = "pf-elastic-collector";
    /// File that is read when no `-c` is given.
    pub const DEFAULT_FILE: &str = "/etc/Elastic/universal-profiling/pf-elastic-collector.yml";

    pub(super) fn read_with_host(settings: &Settings, host: HostPort, output: OutputSection) -> Self {
        let key = |name: &str| format!("{}.{name}", Self::NAME);
        settings.without_effect(&[
            key("metrics.prometheus_host"),
            key("metrics.expvar_host"),
            key("memory_limit"),
            key("agent_metrics.write_all"),
        ]);
        let disabled = settings.bool(&key("agent_metrics.disabled"), false);
        Self {
            host: settings.host_port(&key("host"), host),
            verbose: settings.bool(&key("verbose"), false),
            metrics: MetricsSection::read(settings, &key("metrics")),
            memory_limit: settings.size(&key("memory_limit"), None),
            secret_token: settings.secret(&key("auth.secret_token")),
            agent_metrics: AgentMetrics {
                disable: settings.bool(&key("agent_metrics.disable"), false) || disabled,
                write_all: settings.bool(&key("agent_metrics.write_all"), false),
            },
            tls: ServerTls::read(settings, &key("ssl"), &["TLSv1.3"]),
            output,
        }
    }
}

impl Section for CollectorSection {
    fn read(settings: &Settings) -> Self {
        let output = OutputSection::read(settings);
        Self::read_with_host(settings, HostPort::new("0.0.0.0", 8260), output)
    }
}
