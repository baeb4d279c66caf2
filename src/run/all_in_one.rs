//! Every role in one process, joined by in-process adapters.
//!
//! Start: store, page, collector, symbolizer, agent. Stop: the reverse, each step with a deadline: the agent drains its
//! last window, the collector its requests, the store commits.

use std::sync::Arc;
use std::time::Duration;

use crate::collector::{self, Ingest};
use crate::config::AllInOneSection;
use crate::net::Shutdown;
use crate::store::{Reader, Writer};
use crate::symbolizer::{self, Symbolizer};
use crate::telemetry::Metrics;

use super::adapters::Roles;
use super::agent_part::AgentPart;
use super::lifecycle::{StopSignals, within};
use super::metrics_pages::MetricsPages;
use super::stack::{self, Page, Task};
use super::summary::Summary;
use super::{Failure, adapters};

/// Closing the store waits for the commit under way.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(20);

/// Runs until a signal comes or a role dies.
pub(super) async fn run(section: AllInOneSection) -> Result<(), Failure> {
    let mut signals = StopSignals::register()?;
    let shutdown = Shutdown::new();

    // Everything that may fail comes before anything that runs.
    let store = stack::open_store(&section.store)?;
    let reader: Arc<dyn Reader> = store.clone();
    let writer: Arc<dyn Writer> = store.clone();
    let ingest = Arc::new(Ingest::new(writer));
    let page = Page::bind(&section.web).await?;
    let metrics = Metrics::new();
    let metrics_pages = MetricsPages::bind(&section.collector.metrics, &metrics).await?;
    let config = collector::Config::resolve(&section.collector);
    let collector =
        stack::bind_collector(&section.collector, &config, &ingest, store.clone(), &metrics).await?;
    let status = reader.status().await.map_err(|error| {
        let hint = error.hint();
        Failure::with_hint(error, hint)
    })?;

    let executables = adapters::Executables::default();
    let symbolizer = Symbolizer::build(
        symbolizer::Config::default(),
        symbolizer::Dependencies {
            queue: store.clone(),
            source: Arc::new(executables.clone()),
            clock: Arc::new(stack::wall_clock),
        },
    )
    .map_err(|error| Failure::with_hint(error, None))?;
    #[cfg(feature = "agent")]
    let mut agent = {
        let sink = adapters::InProcessSink::new(ingest.clone(), symbolizer.handle());
        AgentPart::start(&section, Arc::new(sink), &shutdown)
    };
    #[cfg(not(feature = "agent"))]
    let mut agent = AgentPart::start(&section, &shutdown);
    if let Some(registry) = agent.executables() {
        executables.connect(registry);
    }

    let mut summary = Summary::default();
    agent.describe(&mut summary);
    summary
        .store(&status)
        .line("collector", format!("{} (OTLP profiles, gRPC and HTTP)", collector.address()))
        .line("page", page.url.clone());

    let roles = Arc::new(Roles {
        agent: agent.view(),
        collector: Some((collector.address().to_string(), ingest.clone())),
    });
    let mut page = page.spawn(&section.web, reader, roles, &shutdown);
    let metrics_pages = metrics_pages.spawn(&shutdown);
    let stop_collector = shutdown.child_token();
    let mut collector = Task::spawn("collector", stop_collector.clone(), collector.serve(stop_collector));
    let stop_symbolizer = shutdown.child_token();
    let mut symbolizer =
        Task::adopt("symbolizer", stop_symbolizer.clone(), symbolizer.spawn(stop_symbolizer));
    summary.print();

    let ended = tokio::select! {
        signal = signals.next() => { tracing::info!(signal, "stopping"); None }
        how = page.ended() => Some(how),
        how = collector.ended() => Some(how),
        how = symbolizer.ended() => Some(how),
        how = agent.ended() => Some(how),
    };
    // A second signal does not wait.
    tokio::select! {
        () = async {
            agent.stop().await;
            collector.stop().await;
            symbolizer.stop().await;
            page.stop().await;
            for page in metrics_pages {
                page.stop().await;
            }
            let closing = tokio::task::spawn_blocking(move || store.close());
            within("store", CLOSE_DEADLINE, closing).await;
        } => {}
        signal = signals.insistence() => tracing::warn!(signal, "stopped at once; what was not yet stored is lost"),
    }
    match ended {
        None => Ok(()),
        Some(how) => Err(Failure::with_hint(anyhow::anyhow!(how), None)),
    }
}
