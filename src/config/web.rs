//! `web`: query API and page.

use super::{HostPort, Secret, Section, Settings};

/// Settings of the web role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSection {
    /// Listen address.
    pub host: HostPort,
    /// Token that a browser must show once; wanted on every address that is not loopback.
    pub token: Option<Secret>,
    /// Further names under which the page may be reached.
    pub allowed_hosts: Vec<String>,
}

impl Section for WebSection {
    fn read(settings: &Settings) -> Self {
        Self {
            host: settings.host_port("web.host", HostPort::new("127.0.0.1", 8250)),
            token: settings.secret("web.token"),
            allowed_hosts: settings.list("web.allowed_hosts", &[]),
        }
    }
}
