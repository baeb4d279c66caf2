//! The loop: due files off the queue, onto the pool, results back.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ExecutableSource;
use super::cache::Cache;
use super::counters::Counters;
use super::debug_files::DebugFiles;
use super::naming::Naming;
use super::pool::Pool;
use super::retry::next_attempt;
use crate::model::{FileId, UnixNanos};
use crate::store::{PendingFile, Queue};

/// Most files that are worked on or wait for a thread: 64, with their addresses 2 MiB at most.
const MAX_FILES: usize = 64;
/// Most addresses of one file that are taken at once: 4096, 32 KiB. More of them come with the next turn.
const MAX_ADDRESSES: usize = 4096;
/// Longest pause after the queue failed.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// Time on the wall clock.
pub(super) type Clock = Arc<dyn Fn() -> UnixNanos + Send + Sync>;

/// Settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that parse; at least 1.
    pub threads: usize,
    /// Memory for indices that are kept, in bytes. Parsing takes more for a moment: at most about 350 MiB a thread for
    /// a file made to be large (strings 128, symbols 48, names 128, ranges 32), a few MiB for ordinary ones.
    pub cache_bytes: usize,
    /// How often the queue is asked when nobody calls [`Handle::wake`].
    pub interval: Duration,
    /// Folders with separate debug files below `.build-id`.
    pub debug_folders: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 1,
            cache_bytes: 64 << 20,
            interval: Duration::from_secs(1),
            debug_folders: vec!["/usr/lib/debug".into()],
        }
    }
}

/// What the symbolizer works with.
#[derive(Clone)]
pub struct Dependencies {
    /// Work and results.
    pub queue: Arc<dyn Queue>,
    /// Executables by identity.
    pub source: Arc<dyn ExecutableSource>,
    /// Time on the wall clock.
    pub clock: Arc<dyn Fn() -> UnixNanos + Send + Sync>,
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}

/// Lets others wake the symbolizer and read its numbers.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    notify: Arc<Notify>,
    counters: Arc<Counters>,
}

impl Handle {
    /// New frames are on the queue. Cheap; calls while the symbolizer is at work add up to one.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Numbers since start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The symbolizer, built and not yet running.
pub struct Symbolizer {
    queue: Arc<dyn Queue>,
    naming: Arc<Naming>,
    pool: Pool,
    interval: Duration,
    handle: Handle,
}

impl fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbolizer").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Symbolizer {
    /// Starts the threads; nothing is done yet.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn build(config: Config, dependencies: Dependencies) -> std::io::Result<Self> {
        let handle = Handle::default();
        let naming = Naming {
            source: dependencies.source,
            debug_files: DebugFiles::new(config.debug_folders),
            cache: Mutex::new(Cache::new(config.cache_bytes)),
            counters: Arc::clone(&handle.counters),
            clock: dependencies.clock,
        };
        Ok(Self {
            queue: dependencies.queue,
            naming: Arc::new(naming),
            pool: Pool::start(config.threads)?,
            interval: config.interval,
            handle,
        })
    }

    /// For those who bring work or show numbers.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown`. What is under way then is left on the queue for the next start.
    #[must_use]
    pub fn spawn(self, shutdown: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.run() => {}
            }
        })
    }

    async fn run(self) {
        let mut running = JoinSet::new();
        let mut in_flight = HashSet::new();
        let mut pause = self.interval;
        loop {
            let before = in_flight.len();
            let due = self.take(&mut in_flight, &mut running).await;
            match due {
                // Nothing to do is a good sign; with something to do, the store's answer to its result decides.
                Ok(0) => pause = self.interval,
                Ok(_) => {}
                Err(()) => pause = (pause * 2).min(MAX_PAUSE),
            }
            let is_full = due.is_ok_and(|files| files >= MAX_FILES);
            let took_some = in_flight.len() > before;
            // Ask again when woken, when the interval is over, when a file with more addresses than fit is done, or
            // when the last answer was full and its files are done.
            let timer = tokio::time::sleep(pause);
            tokio::pin!(timer);
            loop {
                tokio::select! {
                    Some(done) = running.join_next(), if !running.is_empty() => {
                        // A job that panicked has no result; its file stays on the queue.
                        let Ok(done) = done else { continue };
                        let Done { file, addresses, stored } = done;
                        in_flight.remove(&file);
                        if !stored {
                            pause = (pause * 2).min(MAX_PAUSE);
                            continue;
                        }
                        pause = self.interval;
                        if addresses >= MAX_ADDRESSES || (is_full && took_some && in_flight.is_empty()) {
                            break;
                        }
                    }
                    () = self.handle.notify.notified(), if pause == self.interval => break,
                    () = &mut timer => break,
                }
            }
        }
    }

    /// Takes due files as far as there is room. Gives how many the queue named.
    async fn take(&self, in_flight: &mut HashSet<FileId>, running: &mut JoinSet<Done>) -> Result<usize, ()> {
        let room = MAX_FILES.saturating_sub(in_flight.len());
        if room == 0 {
            return Ok(0);
        }
        // Those under way are still due: ask for so many that others are among the answer.
        let due = match self.queue.due((self.naming.clock)(), room + in_flight.len(), MAX_ADDRESSES).await {
            Ok(due) => due,
            Err(error) => {
                Counters::add(&self.handle.counters.queue_errors, 1);
                tracing::warn!(%error, "symbolization queue cannot be read, trying again later");
                return Err(());
            }
        };
        let files = due.len();
        for pending in due.into_iter().filter(|pending| !pending.addresses.is_empty()) {
            if in_flight.len() >= MAX_FILES {
                break;
            }
            if in_flight.insert(pending.file) {
                running.spawn(work(
                    Arc::clone(&self.queue),
                    Arc::clone(&self.naming),
                    self.pool.clone(),
                    pending,
                ));
            }
        }
        Ok(files)
    }
}

/// A file that was worked on.
#[derive(Debug)]
struct Done {
    file: FileId,
    /// How many of its addresses.
    addresses: usize,
    /// Whether the store took the result.
    stored: bool,
}

async fn work(queue: Arc<dyn Queue>, naming: Arc<Naming>, pool: Pool, pending: PendingFile) -> Done {
    let (file, addresses, retries) = (pending.file, pending.addresses.len(), pending.retries);
    let on_thread = Arc::clone(&naming);
    let Some(outcome) = pool.run(move || on_thread.name(&pending)).await else {
        return Done { file, addresses, stored: false };
    };
    let counters = &naming.counters;
    let failed = |error: crate::store::Error| {
        Counters::add(&counters.queue_errors, 1);
        tracing::warn!(%error, %file, "names cannot be stored, trying again later");
        Done { file, addresses, stored: false }
    };
    let named = outcome.named.len();
    if named > 0
        && let Err(error) = queue.name(outcome.named).await
    {
        return failed(error);
    }
    Counters::add(&counters.named, named);
    for (reason, unnamed) in outcome.unnamed {
        let retry_at = next_attempt((naming.clock)(), &reason, retries);
        if let Err(error) = queue.give_up(file, &unnamed, &reason, retry_at).await {
            return failed(error);
        }
        counters.unnamed(&reason, unnamed.len());
    }
    Done { file, addresses, stored: true }
}

#[cfg(test)]
mod tests;
