//! `pf-elastic-symbolizer`.

use super::{ByteSize, HostPort, MetricsSection, OutputSection, Section, ServerTls, Settings};

/// Settings of the symbolizer role.
#[derive(Clone, Debug, PartialEq)]
pub struct SymbolizerSection {
    /// Listen address.
    pub host: HostPort,
    /// Base URL of a mirror of distribution symbols.
    pub endpoint: Option<String>,
    /// Debug logs.
    pub verbose: bool,
    /// Metrics listeners.
    pub metrics: MetricsSection,
    /// Memory that the role should stay below, in bytes.
    pub memory_limit: Option<ByteSize>,
    /// TLS of the listener.
    pub tls: ServerTls,
    /// Where documents are.
    pub output: OutputSection,
}

impl SymbolizerSection {
    /// Name of the section.
    pub const NAME: &str = "pf-elastic-symbolizer";
    /// File that is read when no `-c` is given.
    pub const DEFAULT_FILE: &str = "/etc/Elastic/universal-profiling/pf-elastic-symbolizer.yml";
}

impl Section for SymbolizerSection {
    fn read(settings: &Settings) -> Self {
        let key = |name: &str| format!("{}.{name}", Self::NAME);
        Self {
            host: settings.host_port(&key("host"), HostPort::new("0.0.0.0", 8240)),
            endpoint: settings.optional_text(&key("endpoint")),
            verbose: settings.bool(&key("verbose"), false),
            metrics: MetricsSection::read(settings, &key("metrics")),
            memory_limit: settings.size(&key("memory_limit"), Some(ByteSize(200 << 20))),
            tls: ServerTls::read(settings, &key("ssl"), &["TLSv1.1", "TLSv1.2", "TLSv1.3"]),
            output: OutputSection::read(settings),
        }
    }
}
