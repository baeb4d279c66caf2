//! Questions over Elasticsearch: [`ElasticReader`] answers [`Reader`] from the documents of either generation.
//!
//! Counts come from aggregations over the event streams ([`counts`], [`timeline`]), call stacks and names from look-ups by
//! ID ([`lookup`]), which are remembered because they do not change ([`paths`], [`names`]). Nothing here writes. Dropping
//! the future of a question closes its connection, and Elasticsearch stops the search.

mod ask;
mod counts;
mod documents;
mod dsl;
mod events;
mod failure;
mod fields;
mod lookup;
mod names;
mod paths;
mod sampling;
mod status;
mod timeline;

use std::sync::Arc;

use async_trait::async_trait;

use super::{Client, Generation};
use crate::model::{Dimension, FrameId, Selection, TimeRange};
use crate::store::{
    EventQuestion, EventSet, FrameDetail, GroupCount, HostFacts, Reader, Result, StackSet, StoreStatus,
    TimeGrid, Timeline,
};
use ask::Ask;
use fields::FieldCache;
use lookup::Tables;
use names::NameCache;
use paths::PathCache;

/// How much is read before an answer is counted in a part of the samples and scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Events that are counted one by one. A page of an aggregation looks at all of them, some millions a second and
    /// shard.
    pub exact_events: u64,
    /// Distinct stacks of an exact answer: each is a document of about 1.5 kB to be fetched once.
    pub exact_stacks: u64,
    /// As `exact_events` where a field is not mapped and has to be read from each document, 30 µs each.
    pub exact_unmapped_events: u64,
    /// Events of an answer that is scaled: between 0.45 and 2.24 times as many are counted.
    pub target: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            exact_events: 5_000_000,
            exact_stacks: 150_000,
            exact_unmapped_events: 200_000,
            target: 100_000,
        }
    }
}

/// The store as Elasticsearch holds it. Clones share the connection and what is remembered.
#[derive(Clone, Debug)]
pub struct ElasticReader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ask: Ask,
    /// Generation that was set; otherwise the one with samples is looked for.
    generation: Option<Generation>,
    limits: ReadLimits,
    fields: FieldCache,
    tables: Tables,
    paths: PathCache,
    names: NameCache,
}

impl ElasticReader {
    /// A reader over a cluster. Connects with the first question.
    #[must_use]
    pub fn new(client: Arc<Client>, generation: Option<Generation>) -> Self {
        Self::with_limits(client, generation, ReadLimits::default())
    }

    /// A reader that samples earlier or later than usual.
    #[must_use]
    pub fn with_limits(client: Arc<Client>, generation: Option<Generation>, limits: ReadLimits) -> Self {
        Self(Arc::new(Inner {
            ask: Ask::new(client),
            generation,
            limits,
            fields: FieldCache::default(),
            tables: Tables::default(),
            paths: PathCache::default(),
            names: NameCache::default(),
        }))
    }
}

#[async_trait]
impl Reader for ElasticReader {
    async fn status(&self) -> Result<StoreStatus> {
        status::status(&self.0).await
    }

    async fn stacks(&self, selection: &Selection, group_by: Option<Dimension>) -> Result<StackSet> {
        counts::stacks(&self.0, selection, group_by).await
    }

    async fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        group_by: Option<Dimension>,
        top: usize,
    ) -> Result<Timeline> {
        timeline::timeline(&self.0, selection, grid, group_by, top).await
    }

    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
        names::frames(&self.0, ids).await
    }

    async fn values(
        &self,
        dimension: Dimension,
        prefix: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<GroupCount>> {
        timeline::values(&self.0, dimension, prefix, range, limit).await
    }

    async fn events(&self, question: &EventQuestion) -> Result<EventSet> {
        events::events(&self.0, question).await
    }

    async fn hosts(&self, ids: &[Arc<str>], range: TimeRange) -> Result<Vec<HostFacts>> {
        events::hosts(&self.0, ids, range).await
    }

    fn stops_when_dropped(&self) -> bool {
        true
    }

    fn speaks_query_dsl(&self) -> bool {
        true
    }
}
