//! The agent: samples every process of this host, kernel to user code, and reports batches.
//!
//! Knows nothing of stores and pages. Loses a sample only into a counter with a reason.
//!
//! Life: [`Agent::build`] does everything that may fail (loads the kernel object, follows processes, starts the ticking),
//! [`Agent::spawn`] cannot fail, [`AgentHandle::joined`] ends when the last window is delivered or given up.

pub mod bpf;
pub mod capabilities;
mod ceiling;
mod config;
mod counters;
mod engine;
mod facts;
mod filter;
pub mod host;
mod kernel_symbols;
mod lottery;
pub mod process;
pub mod reporter;
mod status;
pub mod tables;
mod trace;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use ceiling::Ceilings;
pub use config::Settings;
pub use counters::{Counter, Counters};
pub use filter::Filter;
pub use process::Executables;
pub use status::AgentStatus;

use self::capabilities::{Capabilities, Lacking};
use self::engine::Engine;
use self::reporter::{Delivery, Sink, channel};
use self::status::SharedStatus;
use crate::net::Shutdown;

/// How long the last batches may take to be delivered after the end.
const LAST_DELIVERY: Duration = Duration::from_secs(10);
/// How often somebody who waits for the agent's end looks after its thread.
const LOOK_AFTER_THREAD: Duration = Duration::from_millis(500);

/// Why the agent cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sampling is not possible.
    #[error(transparent)]
    Sampler(#[from] bpf::Error),
    /// A privilege without which nothing works.
    #[error("{0}")]
    Privilege(Lacking),
    /// Processes cannot be followed.
    #[error("cannot follow processes by perf events: {0}")]
    SideBand(#[source] io::Error),
    /// No thread.
    #[error("cannot start the agent's thread: {0}")]
    Thread(#[source] io::Error),
    /// A kernel that must not be used.
    #[error("{0}")]
    Kernel(host::kernel_version::UnfitKernel),
    /// None of the CPUs to be sampled is there.
    #[error("pin-cpu-ids: none of the CPUs {0:?} is online")]
    NoCpu(Vec<u32>),
    /// The agent's thread died.
    #[error("the agent's thread ended unexpectedly")]
    Died,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sampler(error) => error.hint(),
            Self::Kernel(unfit) => Some(unfit.hint()),
            Self::Privilege(_) => Some("run as root, or grant CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"),
            Self::SideBand(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                Some("run as root or with CAP_PERFMON, or raise kernel.perf_event_mlock_kb")
            }
            Self::SideBand(_) | Self::Thread(_) | Self::NoCpu(_) | Self::Died => None,
        }
    }
}

/// An agent that is built: it samples already, but nobody takes the samples yet.
pub struct Agent {
    engine: Engine,
    delivery: Delivery,
    sink: Arc<dyn Sink>,
    status: SharedStatus,
    executables: Arc<Executables>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("status", &self.status.get()).finish_non_exhaustive()
    }
}

impl Agent {
    /// Does everything that may fail.
    ///
    /// # Errors
    /// When privileges are missing or the kernel refuses; [`Error::hint`] says what to do.
    pub fn build(settings: Settings, sink: Arc<dyn Sink>) -> Result<Self, Error> {
        if settings.check_kernel
            && let Some(version) = host::kernel_version::read()
        {
            host::kernel_version::check(version).map_err(Error::Kernel)?;
        }
        for lacking in Capabilities::effective().map(Capabilities::lacking).unwrap_or_default() {
            if lacking.fatal {
                return Err(Error::Privilege(lacking));
            }
            tracing::warn!("{lacking}");
        }
        let counters = Arc::new(Counters::default());
        let status = SharedStatus::new(&counters);
        let executables = Arc::new(Executables::default());
        let (outbox, delivery) = channel(&counters);
        let engine = Engine::build(settings, &executables, outbox, counters, status.clone())?;
        Ok(Self { engine, delivery, sink, status, executables })
    }

    /// Starts the agent's thread and the delivery. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(self, shutdown: Shutdown) -> Result<AgentHandle, Error> {
        let Self { engine, delivery, sink, status, executables } = self;
        let thread = std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || engine.run(&shutdown))
            .map_err(Error::Thread)?;
        let barred = delivery.barred();
        let delivery = tokio::spawn(delivery.run(sink));
        Ok(AgentHandle { thread, delivery, barred, status, executables })
    }
}

/// A running agent.
#[derive(Debug)]
pub struct AgentHandle {
    thread: JoinHandle<()>,
    delivery: tokio::task::JoinHandle<()>,
    barred: tokio::sync::watch::Receiver<Option<String>>,
    status: SharedStatus,
    executables: Arc<Executables>,
}

/// Reads the state of an agent, also after it ended.
#[derive(Clone, Debug)]
pub struct StatusReader(SharedStatus);

impl StatusReader {
    /// State now, at most a second old.
    #[must_use]
    pub fn get(&self) -> AgentStatus {
        self.0.get()
    }
}

impl AgentHandle {
    /// Reader of the state, for whoever shows it.
    #[must_use]
    pub fn status(&self) -> StatusReader {
        StatusReader(self.status.clone())
    }

    /// Executables that processes of this host map or mapped lately.
    #[must_use]
    pub fn executables(&self) -> Arc<Executables> {
        Arc::clone(&self.executables)
    }

    /// Ends when the agent's thread has ended: after a shutdown, or because it died.
    pub async fn ended(&self) {
        while !self.thread.is_finished() {
            tokio::time::sleep(LOOK_AFTER_THREAD).await;
        }
    }

    /// Ends when the receiver takes nothing from this agent because its token or its version is wrong; says what it said.
    pub async fn barred(&self) -> String {
        let mut barred = self.barred.clone();
        let reason = barred.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The delivery has ended without that: it never will.
            None => std::future::pending().await,
        }
    }

    /// Waits for the end: the thread's, then that of the last delivery, for a bounded time.
    ///
    /// # Errors
    /// When the thread died instead of ending.
    pub async fn joined(self) -> Result<(), Error> {
        let Self { thread, delivery, .. } = self;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        if tokio::time::timeout(LAST_DELIVERY, delivery).await.is_err() {
            tracing::error!("last batches not delivered within {} s", LAST_DELIVERY.as_secs());
        }
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Died),
        }
    }
}
