//! What the embedded store can be told. Defaults live here and nowhere else.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::UnixNanos;

/// Reads the wall clock; passed in so that tests own the time.
pub type Clock = Arc<dyn Fn() -> UnixNanos + Send + Sync>;

/// Settings of one store.
#[derive(Clone)]
pub struct Settings {
    /// Directory that holds everything; created when missing.
    pub path: PathBuf,
    /// Age of the oldest batch in the head at which it becomes a segment.
    pub head_age: Duration,
    /// Samples in the head at which it becomes a segment. The store refuses to hold more than eight times as many.
    pub head_rows: usize,
    /// Time after the end of a UTC day when its hours become one file.
    pub day_after: Duration,
    /// Age at which times are rounded down to whole seconds; `None` = never.
    pub coarse_after: Option<Duration>,
    /// Age at which samples are dropped; `None` = never.
    pub retain_for: Option<Duration>,
    /// Bytes of event files beyond which the oldest are dropped; `None` = no limit.
    pub retain_bytes: Option<u64>,
    /// Batches that may wait for the next commit.
    pub waiting: usize,
    /// Questions answered at the same time; each may use several threads.
    pub readers: usize,
    /// Threads of one question.
    pub threads: usize,
    /// Pause between two rounds of upkeep; `None` = only when asked.
    pub upkeep_every: Option<Duration>,
    /// Free bytes below which writing is refused before anything is touched.
    pub reserve_bytes: u64,
    /// Wall clock.
    pub clock: Clock,
}

impl Settings {
    /// Defaults for a store at `path`, on the system's clock.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            path: path.into(),
            head_age: Duration::from_mins(10),
            head_rows: 1_000_000,
            day_after: Duration::from_hours(48),
            coarse_after: Some(Duration::from_hours(7 * 24)),
            retain_for: Some(Duration::from_hours(60 * 24)),
            retain_bytes: None,
            waiting: 256,
            readers: cores.clamp(2, 4),
            threads: cores.min(8),
            upkeep_every: Some(Duration::from_secs(5)),
            reserve_bytes: 16 << 20,
            clock: Arc::new(system_clock),
        }
    }
}

/// The system's wall clock.
fn system_clock() -> UnixNanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(since.as_nanos().try_into().unwrap_or(u64::MAX))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("path", &self.path)
            .field("head_age", &self.head_age)
            .field("head_rows", &self.head_rows)
            .field("day_after", &self.day_after)
            .field("coarse_after", &self.coarse_after)
            .field("retain_for", &self.retain_for)
            .field("retain_bytes", &self.retain_bytes)
            .finish_non_exhaustive()
    }
}
