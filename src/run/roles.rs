//! One function per role: resolve, build, run, stop.

use std::sync::Arc;

use crate::cli::{AgentArgs, AllInOneArgs, Role, ServerArgs, WebArgs};
use crate::collector::{self, Ingest};
use crate::config::{CollectorSection, OutputSection, PageStore, SymbolizerSection};
use crate::net::Shutdown;
use crate::store::Reader;
use crate::store::embedded::EmbeddedStore;
use crate::telemetry::{self, LogStyle, Metrics};
use crate::web::PageOnly;

use super::lifecycle::{self, StopSignals};
use super::metrics_pages::MetricsPages;
use super::resolve::{self, Outcome};
use super::stack::{self, Page, Task};
use super::summary::Summary;
use super::{Failure, all_in_one};

pub(super) fn all_in_one(args: &AllInOneArgs) -> Result<(), Failure> {
    let Outcome::Run(section, warnings) = resolve::all_in_one(args, is_root())? else { return Ok(()) };
    telemetry::init(LogStyle::Agent, section.agent.verbose || section.collector.verbose);
    warnings.tell();
    if args.repair {
        let mut summary = Summary::default();
        summary.line("repaired", stack::repair_store(&section.store)?);
        summary.print();
        return Ok(());
    }
    lifecycle::runtime()?.block_on(all_in_one::run(section))
}

pub(super) fn agent(args: &AgentArgs) -> Result<(), Failure> {
    if args.version || args.copyright {
        super::about::print(args.copyright);
        return Ok(());
    }
    let Outcome::Run(section, warnings) = resolve::agent(args)? else { return Ok(()) };
    telemetry::init(LogStyle::Agent, section.verbose);
    warnings.tell();
    #[cfg(not(feature = "agent"))]
    {
        drop(section);
        Err(Failure::Usage("error: this program was built without the agent".into()))
    }
    #[cfg(feature = "agent")]
    lifecycle::runtime()?.block_on(super::agent_role::run(section))
}

pub(super) fn collector(args: &ServerArgs) -> Result<(), Failure> {
    let outcome = resolve::server::<CollectorSection>(args, CollectorSection::DEFAULT_FILE)?;
    let Outcome::Run(section, warnings) = outcome else { return Ok(()) };
    telemetry::init(LogStyle::Server, section.verbose);
    warnings.tell();
    let output = match &section.output {
        OutputSection::Embedded(output) => output,
        #[cfg(feature = "elastic")]
        OutputSection::Elasticsearch(output) => {
            return lifecycle::runtime()?.block_on(super::elastic_output::collector(&section, output));
        }
        #[cfg(not(feature = "elastic"))]
        OutputSection::Elasticsearch(_) => {
            return Err(Failure::Usage("error: this program was built without Elasticsearch".into()));
        }
    };
    lifecycle::runtime()?.block_on(async {
        let mut signals = StopSignals::register()?;
        let store = stack::open_store(&output.store)?;
        let metrics = Metrics::new();
        let pages = MetricsPages::bind(&section.metrics, &metrics).await?;
        let config = collector::Config::resolve(&section);
        let ingest = Arc::new(Ingest::new(store.clone()));
        let collector = stack::bind_collector(&section, &config, &ingest, store.clone(), &metrics).await?;
        tracing::info!(
            address = %collector.address(),
            tls = section.tls.enabled,
            memory_bytes = config.budget.limit(),
            connections = config.limits.connections,
            "taking OTLP profiles, gRPC and HTTP"
        );
        let shutdown = Shutdown::new();
        let pages = pages.spawn(&shutdown);
        let task = Task::spawn("collector", shutdown.clone(), collector.serve(shutdown));
        let ended = serve(task, &mut signals, Some(store)).await;
        for page in pages {
            page.stop().await;
        }
        ended
    })
}

pub(super) fn web(args: &WebArgs) -> Result<(), Failure> {
    let Outcome::Run(section, warnings) = resolve::web(args, is_root())? else { return Ok(()) };
    telemetry::init(LogStyle::Server, false);
    warnings.tell();
    lifecycle::runtime()?.block_on(async {
        let mut signals = StopSignals::register()?;
        let (reader, embedded) = match &section.store {
            PageStore::Embedded(store) => {
                let store = stack::open_store(store)?;
                (store.clone() as Arc<dyn Reader>, Some(store))
            }
            PageStore::Elasticsearch(output) => (stack::elastic_reader(output)?, None),
        };
        let page = Page::bind(&section.web).await?;
        tracing::info!(page = page.url, "serving");
        let task = page.spawn(&section.web, reader, Arc::new(PageOnly), &Shutdown::new());
        serve(task, &mut signals, embedded).await
    })
}

pub(super) fn symbolizer(args: &ServerArgs) -> Result<(), Failure> {
    match resolve::server::<SymbolizerSection>(args, SymbolizerSection::DEFAULT_FILE)? {
        Outcome::Checked => Ok(()),
        Outcome::Run(..) => Err(Failure::not_built_yet(Role::Symbolizer)),
    }
}

/// Runs one task over a store until a signal comes, then stops it and closes the store where it is ours to close.
async fn serve(
    mut task: Task,
    signals: &mut StopSignals,
    store: Option<Arc<EmbeddedStore>>,
) -> Result<(), Failure> {
    let ended = tokio::select! {
        signal = signals.next() => { tracing::info!(signal, "stopping"); None }
        how = task.ended() => Some(how),
    };
    if ended.is_none() {
        task.stop().await;
    }
    if let Some(store) = store {
        let closing = tokio::task::spawn_blocking(move || store.close());
        lifecycle::within("store", all_in_one::CLOSE_DEADLINE, closing).await;
    }
    ended.map_or(Ok(()), |how| Err(anyhow::anyhow!(how).into()))
}

/// Whether this process runs as root; `/proc` says so without a system call of our own.
fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            line.split_whitespace().nth(1)?.parse::<u32>().ok()
        })
        .is_some_and(|uid| uid == 0)
}
