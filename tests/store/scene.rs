//! A store in a directory of its own, with a clock that the test turns, and documents to put in.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use everflame::model::{FileId, FrameId, FrameKind, TimeRange, UnixNanos, stack_id};
use everflame::store::Result;
use everflame::store::document::{Documents, Event, EventResource, StackTrace};
use everflame::store::embedded::{EmbeddedStore, Settings};

/// 2026-01-05T00:00:00Z, a Monday.
pub(crate) const MONDAY_MS: u64 = 1_767_571_200_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

/// A directory and a clock.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    now_ms: Arc<AtomicU64>,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            now_ms: Arc::new(AtomicU64::new(MONDAY_MS)),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn set_now(&self, ms: u64) {
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    /// Settings with the clock of this scene and upkeep on demand only.
    pub(crate) fn settings(&self) -> Settings {
        let now = Arc::clone(&self.now_ms);
        Settings {
            upkeep_every: None,
            retain_for: None,
            clock: Arc::new(move || UnixNanos::from_millis(now.load(Ordering::Relaxed))),
            ..Settings::new(self.path())
        }
    }

    pub(crate) fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.settings()).unwrap()
    }

    pub(crate) fn block<T>(&self, future: impl Future<Output = Result<T>>) -> T {
        self.runtime.block_on(future).unwrap()
    }
}

pub(crate) fn range(from_ms: u64, to_ms: u64) -> TimeRange {
    TimeRange { from: UnixNanos::from_millis(from_ms), to: UnixNanos::from_millis(to_ms) }
}

/// A resource of host `host` running `executable`.
pub(crate) fn resource(host: u32, executable: &str) -> EventResource {
    EventResource {
        host_id: format!("{host}").into(),
        host_name: format!("host-{host}").into(),
        executable_name: executable.into(),
        container_name: if host.is_multiple_of(2) { "web".into() } else { "".into() },
        frequency_hz: 20 + host,
        ..EventResource::default()
    }
}

/// A stack of frames given root first as addresses; address 0 is a marker.
pub(crate) fn trace(addresses: &[u64]) -> StackTrace {
    let frames: Vec<_> = addresses
        .iter()
        .map(|a| {
            let file = FileId([(*a % 7) as u8; 16]);
            let kind = if *a == 0 { FrameKind::ABORT } else { FrameKind::NATIVE };
            (FrameId { file, address_or_line: *a }, kind)
        })
        .collect();
    StackTrace { id: stack_id(frames.iter().rev().map(|f| f.0)), frames }
}

/// One event.
pub(crate) fn event(resource: u32, trace: &StackTrace, thread: &str, tid: u32, times_ms: &[u64]) -> Event {
    Event {
        resource,
        stack: trace.id,
        thread_name: thread.into(),
        pid: tid / 10,
        tid,
        times: times_ms.iter().map(|t| UnixNanos(t * 1_000_000 + 123)).collect(),
    }
}

/// Documents of one resource, stack and thread.
pub(crate) fn simple(addresses: &[u64], times_ms: &[u64]) -> Documents {
    let trace = trace(addresses);
    Documents {
        resources: vec![resource(1, "app")],
        events: vec![event(0, &trace, "main", 10, times_ms)],
        stacktraces: vec![trace],
        ..Documents::default()
    }
}
