//! The pages of metrics that a server role was asked for.

use crate::config::{HostPort, MetricsAddress, MetricsSection};
use crate::net::{Limits, Listener, Shutdown};
use crate::telemetry::{Format, Metrics, Page};

use super::Failure;
use super::stack::{Task, net_failure};

/// Those who scrape are few.
const CONNECTIONS: usize = 64;

/// Pages that are bound and not yet served.
#[derive(Debug)]
pub(super) struct MetricsPages(Vec<(Listener, Page)>);

impl MetricsPages {
    /// Binds what the section names.
    pub(super) async fn bind(section: &MetricsSection, metrics: &Metrics) -> Result<Self, Failure> {
        let limits =
            Limits { connections: CONNECTIONS, window: Limits::SMALLEST_WINDOW, ..Limits::default() };
        let mut pages = Vec::new();
        if let Some(address) = &section.prometheus_host {
            let listener = Listener::bind(&address.to_string(), limits).await.map_err(net_failure)?;
            pages.push((listener, Page::new(metrics, Format::Prometheus)));
            tell(address);
        }
        if let Some(address) = &section.expvar_host {
            let listener = match address {
                MetricsAddress::Tcp(tcp) => {
                    tell(tcp);
                    Listener::bind(&tcp.to_string(), limits).await
                }
                MetricsAddress::Path(path) => Listener::bind_path(path, limits).await,
            };
            pages.push((listener.map_err(net_failure)?, Page::new(metrics, Format::Json)));
        }
        for (listener, _) in &pages {
            tracing::info!(address = %listener.address(), path = "/metrics", "serving metrics");
        }
        Ok(Self(pages))
    }

    /// Serves them until `shutdown` is called.
    pub(super) fn spawn(self, shutdown: &Shutdown) -> Vec<Task> {
        let serve = |(listener, page): (Listener, Page)| {
            let shutdown = shutdown.child_token();
            Task::spawn("metrics", shutdown.clone(), listener.serve(page, shutdown))
        };
        self.0.into_iter().map(serve).collect()
    }
}

fn tell(address: &HostPort) {
    if !address.is_loopback() {
        tracing::warn!(%address, "metrics are open to everybody who reaches this address: the page has no token and no TLS");
    }
}
