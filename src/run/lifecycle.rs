//! Life of a process: the runtime, the signals that end it, and an orderly stop with deadlines.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Signals this soon after the first are its echo.
const ECHO: Duration = Duration::from_secs(1);

/// Network and queries; parsing and folding run on the blocking pool, sampling on its own threads.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // Two threads serve any number of connections here; heavy work is elsewhere.
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("everflame-io")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// The signals that ask a process to stop. Registered before anything runs, so that none is missed.
pub(super) struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Starts to listen.
    pub(super) fn register() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot handle SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
        })
    }

    /// Waits for the next one and gives its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Waits for one that a person sent on purpose although stopping is under way: not the echo of the first. A
    /// terminal and `sudo`, or `timeout` and its group, deliver the same signal twice within milliseconds.
    pub(super) async fn insistence(&mut self) -> &'static str {
        let first = tokio::time::Instant::now();
        loop {
            let name = self.next().await;
            if first.elapsed() >= ECHO {
                return name;
            }
        }
    }
}

/// Waits for a task to end after it was told to; cuts it at the deadline.
pub(super) async fn join(what: &str, task: JoinHandle<()>, deadline: Duration) {
    let abort = task.abort_handle();
    match tokio::time::timeout(deadline, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(what, %error, "ended badly"),
        Err(_) => {
            abort.abort();
            tracing::warn!(what, ?deadline, "did not stop in time and was cut");
        }
    }
}

/// Runs `step` with a deadline; says so when it was too slow.
pub(super) async fn within<T>(what: &str, deadline: Duration, step: impl Future<Output = T>) -> Option<T> {
    let result = tokio::time::timeout(deadline, step).await;
    if result.is_err() {
        tracing::warn!(what, ?deadline, "did not stop in time and was left behind");
    }
    result.ok()
}
