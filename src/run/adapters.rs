//! Where two roles of one process meet: each adapter implements the caller's trait over the other's handle.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use crate::collector::Ingest;
use crate::model::{FileId, UnknownReason};
use crate::symbolizer::ExecutableSource;
use crate::web::{AgentStatus, CollectorStatus, Counter, RoleStatus};

use super::agent_part::AgentView;

/// Health of the roles beside the page.
pub(super) struct Roles {
    pub(super) agent: AgentView,
    pub(super) collector: Option<(String, Arc<Ingest>)>,
}

impl RoleStatus for Roles {
    fn agent(&self) -> Option<AgentStatus> {
        Some(self.agent.status())
    }

    fn collector(&self) -> Option<CollectorStatus> {
        let (address, ingest) = self.collector.as_ref()?;
        Some(CollectorStatus { address: address.clone(), counters: counters(ingest.counters().list()) })
    }
}

/// Counters as the page shows them.
pub(super) fn counters(list: Vec<(&'static str, u64)>) -> Vec<Counter> {
    list.into_iter().map(|(name, value)| Counter { name: name.into(), value }).collect()
}

/// Executables by identity for the symbolizer: the agent's, once it runs.
#[derive(Clone, Default)]
pub(super) struct Executables(Arc<OnceLock<Box<dyn ExecutableSource>>>);

impl Executables {
    /// Connects the agent's registry. Only the first one counts.
    pub(super) fn connect(&self, source: Box<dyn ExecutableSource>) {
        // There is one agent per process, so a second call cannot happen.
        let _ = self.0.set(source);
    }
}

impl ExecutableSource for Executables {
    fn open(&self, file: FileId) -> Result<File, UnknownReason> {
        match self.0.get() {
            Some(source) => source.open(file),
            None => Err(UnknownReason::FileUnavailable("no agent runs in this process".into())),
        }
    }
}

#[cfg(feature = "agent")]
mod in_process {
    use std::sync::Arc;

    use async_trait::async_trait;

    use crate::agent::reporter::{ReportError, Sink};
    use crate::collector::Ingest;
    use crate::model::Batch;
    use crate::symbolizer;

    /// The collector of this process as the agent's sink: the batch is handed over as it is.
    pub(in crate::run) struct InProcessSink {
        ingest: Arc<Ingest>,
        symbolizer: symbolizer::Handle,
    }

    impl InProcessSink {
        pub(in crate::run) fn new(ingest: Arc<Ingest>, symbolizer: symbolizer::Handle) -> Self {
            Self { ingest, symbolizer }
        }
    }

    #[async_trait]
    impl Sink for InProcessSink {
        async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
            match self.ingest.ingest(batch).await {
                Ok(_) => {
                    self.symbolizer.wake();
                    Ok(())
                }
                Err(error) if error.is_retryable() => Err(ReportError::Retryable(error.to_string())),
                Err(error) => Err(ReportError::Refused(error.to_string())),
            }
        }
    }
}

#[cfg(feature = "agent")]
pub(super) use in_process::InProcessSink;
