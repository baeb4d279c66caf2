//! `pf-elastic-collector`.

use std::fmt;
use std::path::PathBuf;

use super::fields::text;
use super::settings::Expected;
use super::{ByteSize, HostPort, OutputSection, Secret, Section, ServerTls, Settings};

/// Less memory than this holds the program, but no export.
const LEAST_MEMORY: ByteSize = ByteSize(200 << 20);

/// Settings of the collector role.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorSection {
    /// Listen address: gRPC, HTTP and health on one port.
    pub host: HostPort,
    /// Debug logs.
    pub verbose: bool,
    /// Metrics listeners.
    pub metrics: MetricsSection,
    /// Memory that the role stays below, in bytes; `None` = a quarter of the machine's.
    pub memory_limit: Option<ByteSize>,
    /// Token that agents must send; `None` = everybody may send.
    pub secret_token: Option<Secret>,
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
    /// JSON.
    pub expvar_host: Option<MetricsAddress>,
}

/// Where a page of metrics is: `host:port`, `unix:///path` or an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// TCP.
    Tcp(HostPort),
    /// A socket in the file system.
    Path(PathBuf),
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn metrics_address(settings: &Settings, key: &str) -> Option<MetricsAddress> {
    let show = |v: &Option<MetricsAddress>| v.as_ref().map_or_else(|| "off".into(), ToString::to_string);
    settings.field(key, None, show, |value| {
        let text = text(value).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let path = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(&*text));
        match path {
            Some("") => Err(Expected::new("a path behind unix://")),
            Some(path) => Ok(Some(MetricsAddress::Path(path.into()))),
            None => match text.parse() {
                Ok(address) => Ok(Some(MetricsAddress::Tcp(address))),
                Err(_) => Err(Expected::new("host:port, unix:///path or an absolute path")),
            },
        }
    })
}

/// Says of `agent_metrics` what comes of it here. The original sends telemetry of agents to its vendor unless told
/// otherwise; this program has no such place, and agents that speak OTLP send no telemetry beside their profiles.
fn agent_metrics(settings: &Settings) {
    let key = |name: &str| format!("{}.agent_metrics.{name}", CollectorSection::NAME);
    for name in ["disable", "disabled"] {
        if !settings.bool(&key(name), false) && settings.has(&key(name)) {
            let message = "nothing is ever sent to a cluster of the vendor, with or without this setting";
            settings.warn(&key(name), message, None);
        }
    }
    if settings.bool(&key("write_all"), false) {
        let message = "has no effect: agents that speak OTLP send facts of their hosts, which are always written, and no metrics";
        settings.warn(&key("write_all"), message, None);
    }
    let addresses = settings.list(&key("addresses"), &[]);
    let api_key = settings.secret(&key("api_key"));
    if !addresses.is_empty() || api_key.is_some() {
        let message = "nothing is sent there: facts of hosts go to the cluster of output.elasticsearch only";
        settings.warn(&key("addresses"), message, None);
    }
}

impl MetricsSection {
    pub(super) fn read(settings: &Settings, at: &str) -> Self {
        Self {
            prometheus_host: settings.optional_host_port(&format!("{at}.prometheus_host")),
            expvar_host: metrics_address(settings, &format!("{at}.expvar_host")),
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
        agent_metrics(settings);
        let mut memory_limit = settings.size(&key("memory_limit"), None);
        if memory_limit.is_some_and(|limit| limit < LEAST_MEMORY) {
            let message = format!("raised to {LEAST_MEMORY}: less holds the program, but no export");
            settings.warn(&key("memory_limit"), &message, None);
            memory_limit = Some(LEAST_MEMORY);
        }
        Self {
            host: settings.host_port(&key("host"), host),
            verbose: settings.bool(&key("verbose"), false),
            metrics: MetricsSection::read(settings, &key("metrics")),
            memory_limit,
            secret_token: settings.secret(&key("auth.secret_token")),
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
