//! The server side of one process: store, page and collector, built in the order they start and stopped in reverse.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::collector::{self, Collector, Ingest};
use crate::config::{CollectorSection, ElasticsearchOutput, GenerationChoice, StoreSection, WebSection};
use crate::model::UnixNanos;
use crate::net::{HostGuard, Limits, Listener, Shutdown};
use crate::store::elastic::{Client, ElasticReader, Generation};
use crate::store::embedded::{EmbeddedStore, Settings};
use crate::store::{Health, Reader};
use crate::telemetry::Metrics;
use crate::web;

use super::summary::group_digits;
use super::{Failure, lifecycle};

/// Running requests get this long to end.
const DRAIN: Duration = Duration::from_secs(5);
/// A task that does not end after its drain time is cut.
const DEADLINE: Duration = Duration::from_secs(8);
/// Heavy queries at the same time: each holds the counts of its stacks in memory.
const MAX_QUERIES: usize = 4;

/// Wall clock, read here and nowhere below.
pub(super) fn wall_clock() -> UnixNanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(since.as_nanos().try_into().unwrap_or(u64::MAX))
}

/// Settings of the store as its own room wants them.
fn store_settings(section: &StoreSection) -> Settings {
    Settings {
        retain_for: Some(section.retention),
        retain_bytes: section.retention_size.map(|size| size.0),
        coarse_after: Some(section.age_to_seconds),
        ..Settings::new(&section.data_dir)
    }
}

/// Opens the store; a failure carries its cure.
pub(super) fn open_store(section: &StoreSection) -> Result<Arc<EmbeddedStore>, Failure> {
    EmbeddedStore::open(store_settings(section)).map(Arc::new).map_err(|error| {
        let hint = error.hint();
        Failure::with_hint(error, hint)
    })
}

/// A reader over a cluster. Connects with the first question, so a cluster that is not there yet is no failure.
pub(super) fn elastic_reader(output: &ElasticsearchOutput) -> Result<Arc<dyn Reader>, Failure> {
    let client = Client::new(output).map_err(|error| {
        let hint = error.hint();
        Failure::with_hint(error, hint)
    })?;
    tracing::info!(elasticsearch = client.address(), "reading");
    let generation = output.generation.map(|choice| match choice {
        GenerationChoice::Classic => Generation::Classic,
        GenerationChoice::Otel => Generation::Otel,
    });
    Ok(Arc::new(ElasticReader::new(Arc::new(client), generation)))
}

/// Sets damaged files aside and tells which.
pub(super) fn repair_store(section: &StoreSection) -> Result<String, Failure> {
    let report = EmbeddedStore::repair(&store_settings(section)).map_err(|error| {
        let hint = error.hint();
        Failure::with_hint(error, hint)
    })?;
    let mut lines = vec![format!("{} event files are as they were", report.segments_kept)];
    lines.extend(report.problems);
    lines.extend(report.quarantined.iter().map(|path| format!("set aside: {}", path.display())));
    if report.samples_lost > 0 {
        lines.push(format!("{} samples were in damaged files", group_digits(report.samples_lost)));
    }
    if report.database_rebuilt {
        lines.push("the dictionaries were rebuilt from their Parquet copies".into());
    }
    Ok(lines.join("\n"))
}

/// A page that is bound and not yet served.
pub(super) struct Page {
    listener: Listener,
    /// Address for people, `http://127.0.0.1:8250`.
    pub(super) url: String,
}

impl Page {
    pub(super) async fn bind(section: &WebSection) -> Result<Self, Failure> {
        let limits = Limits { drain_time: DRAIN, ..Limits::default() };
        let listener = Listener::bind(&section.host.to_string(), limits).await.map_err(net_failure)?;
        if !section.host.is_loopback() && section.token.is_none() {
            tracing::warn!(
                address = %listener.address(),
                "the page is open to everybody who reaches this address: it has no token; set web.token"
            );
        }
        let shown = listener.address();
        Ok(Self { url: format!("http://{shown}"), listener })
    }

    pub(super) fn spawn(
        self,
        section: &WebSection,
        reader: Arc<dyn Reader>,
        roles: Arc<dyn web::RoleStatus>,
        shutdown: &Shutdown,
    ) -> Task {
        let parts = web::Parts {
            reader,
            roles,
            clock: Arc::new(wall_clock),
            guard: HostGuard::new(&section.allowed_hosts),
            token: section.token.as_ref().and_then(|token| web::AccessToken::new(token.reveal())),
            max_queries: MAX_QUERIES,
        };
        let service = web::service(web::WebState::new(parts));
        let shutdown = shutdown.child_token();
        Task::spawn("page", shutdown.clone(), self.listener.serve(service, shutdown))
    }
}

/// Binds the collector's port.
pub(super) async fn bind_collector(
    section: &CollectorSection,
    config: &collector::Config,
    ingest: &Arc<Ingest>,
    health: Arc<dyn Health>,
    metrics: &Metrics,
) -> Result<Collector, Failure> {
    let bound =
        Collector::bind(config, Arc::clone(ingest), Some(health), metrics).await.map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Failure::with_hint(error, hint)
        })?;
    if config.is_open() && !section.host.is_loopback() {
        tracing::warn!(
            address = %bound.address(),
            "everybody who reaches this address may send profiles: auth.secret_token is not set"
        );
    }
    Ok(bound)
}

pub(super) fn net_failure(error: crate::net::Error) -> Failure {
    let hint = error.hint().map(str::to_owned);
    Failure::with_hint(error, hint)
}

/// A task of one role with its own stop.
pub(super) struct Task {
    what: &'static str,
    shutdown: Shutdown,
    handle: JoinHandle<()>,
}

impl Task {
    pub(super) fn spawn(
        what: &'static str,
        shutdown: Shutdown,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { what, shutdown, handle: tokio::spawn(work) }
    }

    /// A task that a role has spawned itself.
    pub(super) fn adopt(what: &'static str, shutdown: Shutdown, handle: JoinHandle<()>) -> Self {
        Self { what, shutdown, handle }
    }

    /// Tells it to stop and waits.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        lifecycle::join(self.what, self.handle, DEADLINE).await;
    }

    /// Ends when the task ends by itself, which none should.
    pub(super) async fn ended(&mut self) -> String {
        let how = (&mut self.handle).await;
        match how {
            Ok(()) => format!("{} ended by itself", self.what),
            Err(error) => format!("{} ended: {error}", self.what),
        }
    }
}
