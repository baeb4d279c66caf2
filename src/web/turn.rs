//! One turn of a heavy query: the store as seen by whoever holds it.
//!
//! A store that reads files cannot stop in the middle when its caller is dropped. So each call runs as a task of its
//! own that holds the turn until the store is done; clients that ask and go away never make the store do more at the
//! same time than there are turns.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;

use crate::model::{Dimension, FrameId, Selection, TimeRange};
use crate::store::{
    EventQuestion, EventSet, FrameDetail, GroupCount, HostFacts, Reader, Result, StackSet, StoreStatus,
    TimeGrid, Timeline,
};

/// A reader that keeps its turn until the last of its calls has ended.
#[derive(Clone)]
pub(super) struct Turn {
    reader: Arc<dyn Reader>,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Turn {
    pub(super) fn new(reader: Arc<dyn Reader>, permit: OwnedSemaphorePermit) -> Self {
        Self { reader, permit: Arc::new(permit) }
    }

    /// Asks in a task of its own, unless the store stops by itself when nobody waits any more.
    async fn run<T, F>(&self, ask: impl FnOnce(Arc<dyn Reader>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (question, permit) = (ask(self.reader.clone()), self.permit.clone());
        if self.reader.stops_when_dropped() {
            return question.await;
        }
        let task = tokio::spawn(async move {
            let answer = question.await;
            drop(permit);
            answer
        });
        match task.await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(crate::store::Error::Engine("the process is stopping".into())),
        }
    }
}

#[async_trait]
impl Reader for Turn {
    async fn status(&self) -> Result<StoreStatus> {
        self.run(|reader| async move { reader.status().await }).await
    }

    async fn stacks(&self, selection: &Selection, group_by: Option<Dimension>) -> Result<StackSet> {
        let selection = selection.clone();
        self.run(move |reader| async move { reader.stacks(&selection, group_by).await }).await
    }

    async fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        group_by: Option<Dimension>,
        top: usize,
    ) -> Result<Timeline> {
        let selection = selection.clone();
        self.run(move |reader| async move { reader.timeline(&selection, grid, group_by, top).await }).await
    }

    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
        let ids = ids.to_vec();
        self.run(move |reader| async move { reader.frames(&ids).await }).await
    }

    async fn values(
        &self,
        dimension: Dimension,
        prefix: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<GroupCount>> {
        let prefix = prefix.to_owned();
        self.run(move |reader| async move { reader.values(dimension, &prefix, range, limit).await }).await
    }

    async fn events(&self, question: &EventQuestion) -> Result<EventSet> {
        let question = question.clone();
        self.run(move |reader| async move { reader.events(&question).await }).await
    }

    async fn hosts(&self, ids: &[Arc<str>], range: TimeRange) -> Result<Vec<HostFacts>> {
        let ids = ids.to_vec();
        self.run(move |reader| async move { reader.hosts(&ids, range).await }).await
    }

    fn stops_when_dropped(&self) -> bool {
        self.reader.stops_when_dropped()
    }

    fn speaks_query_dsl(&self) -> bool {
        self.reader.speaks_query_dsl()
    }
}
