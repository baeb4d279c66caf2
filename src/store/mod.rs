//! One document model, two engines behind [`Writer`], [`Reader`] and [`Queue`].
//!
//! Knows nothing of agents, wires or pages. Callers see the traits only; `run` chooses the engine.
//! Loses nothing that [`Writer::write`] has acknowledged; refuses with a retryable error instead.

pub mod document;
#[cfg(feature = "elastic")]
pub mod elastic;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod read;

use async_trait::async_trait;

pub use document::Documents;
pub use error::{Error, Remote, Result};
pub use read::{
    EventCount, EventFilter, EventKey, EventQuestion, EventSet, ForeignEvents, FrameDetail, GroupCount,
    GroupedCount, HostFacts, Precision, Series, StackSet, StackTrie, StoreStatus, TimeGrid, Timeline,
};

use crate::model::{Dimension, FileId, FrameId, Selection, TimeRange, UnixNanos, UnknownReason};

/// Takes documents. `Ok` means durable.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Writes one batch of documents. An error means that the batch has to be sent again as a whole; parts of it that
    /// were written are then found to be there already.
    ///
    /// # Errors
    /// [`Error::is_retryable`] tells the caller whether the same batch may be sent again (disk full, overload).
    async fn write(&self, documents: Documents) -> Result<Written>;
}

/// What became of a batch that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Samples that the engine will never take, whoever sends them; they are lost.
    pub rejected_samples: u64,
    /// Stack traces, frames and the like that were given up for a reason that passes (overload), so that later batches
    /// have to carry them again. Those that the engine will never take do not count.
    pub missed_look_ups: u64,
    /// Why, for the first of them.
    pub reason: Option<String>,
}

/// Says whether documents can be written now: what `/ready` answers.
#[async_trait]
pub trait Health: Send + Sync {
    /// `Ok` when everything that writing needs is there.
    ///
    /// # Errors
    /// The reason why not, in one line for a person.
    async fn ready(&self) -> Result<(), String>;
}

/// Answers questions about a selection. Counts are exact unless [`Precision`] says otherwise.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Size, extent and health of the store.
    async fn status(&self) -> Result<StoreStatus>;

    /// Samples per stack and group: the base of flame graphs, function lists and comparisons.
    async fn stacks(&self, selection: &Selection, group_by: Option<Dimension>) -> Result<StackSet>;

    /// Samples per time bucket, for the `top` largest groups and the rest.
    async fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        group_by: Option<Dimension>,
        top: usize,
    ) -> Result<Timeline>;

    /// Names of frames, in the order asked; a frame without a name carries the reason.
    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>>;

    /// Values of a dimension that start with `prefix`, with their samples, largest first.
    async fn values(
        &self,
        dimension: Dimension,
        prefix: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<GroupCount>>;

    /// Events per stack and key, as the profiling interface of Elasticsearch tells them apart.
    async fn events(&self, question: &EventQuestion) -> Result<EventSet>;

    /// What is known of some hosts around a time; hosts that nobody told of are left out.
    async fn hosts(&self, ids: &[std::sync::Arc<str>], range: TimeRange) -> Result<Vec<HostFacts>>;

    /// Whether dropping the future of a question stops the work for it.
    fn stops_when_dropped(&self) -> bool {
        false
    }

    /// Whether questions may carry [`EventFilter::QueryDsl`].
    fn speaks_query_dsl(&self) -> bool {
        false
    }
}

/// Native frames that wait for a name.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Executables with unnamed frames that are due at `now`, each with at most `max_addresses` of its addresses.
    async fn due(&self, now: UnixNanos, max_files: usize, max_addresses: usize) -> Result<Vec<PendingFile>>;

    /// Stores names; overwrites what was known and takes the frames off the queue.
    async fn name(&self, frames: Vec<document::StackFrame>) -> Result<()>;

    /// Keeps the reason why these frames have no name. They come back at `retry_at`, or never.
    async fn give_up(
        &self,
        file: FileId,
        addresses: &[u64],
        reason: &UnknownReason,
        retry_at: Option<UnixNanos>,
    ) -> Result<()>;
}

/// One executable and its addresses that have no name yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingFile {
    /// Executable.
    pub file: FileId,
    /// Base name, empty when unknown.
    pub name: std::sync::Arc<str>,
    /// ELF addresses in bytes.
    pub addresses: Vec<u64>,
    /// Failed attempts so far.
    pub retries: u32,
}
