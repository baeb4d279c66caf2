//! A reader over one stack set in memory, and an agent that always says the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::model::{Dimension, Filter, FrameId, Selection, TimeRange, UnixNanos};
use crate::query::testing;
use crate::store::{
    Error, EventQuestion, EventSet, FrameDetail, GroupCount, HostFacts, Reader, Result, Series, StackSet,
    StoreStatus, TimeGrid, Timeline,
};
use crate::web::{AgentStatus, CollectorStatus, Counter, RoleStatus};

#[derive(Default)]
pub(super) struct MemoryReader {
    pub(super) set: StackSet,
    pub(super) details: BTreeMap<FrameId, FrameDetail>,
    /// Error of every call.
    pub(super) failure: Option<fn() -> Error>,
    /// Filter of the last selection.
    pub(super) asked: Arc<Mutex<Option<Filter>>>,
    /// Waits before answering with stacks, and how many wait now.
    pub(super) hold: Option<Arc<tokio::sync::Notify>>,
    pub(super) waiting: Arc<AtomicUsize>,
    /// Calls of `stacks` so far.
    pub(super) stacks_asked: Arc<AtomicUsize>,
    /// Calls of `frames` so far.
    pub(super) frames_asked: Arc<AtomicUsize>,
}

/// Counts down when what waits is dropped.
pub(super) struct Waiting(pub(super) Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MemoryReader {
    pub(super) fn scene() -> Self {
        let (set, details) = testing::scene();
        let details = set.trie.frames.iter().map(|(id, _)| *id).zip(details).collect();
        Self { set, details, ..Self::default() }
    }

    fn fail(&self) -> Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure()))
    }

    fn groups(&self) -> Vec<GroupCount> {
        let mut samples = vec![0; self.set.groups.len()];
        for count in &self.set.counts {
            samples[count.group as usize] += count.samples;
        }
        let groups = self.set.groups.iter().cloned().zip(samples);
        let mut groups: Vec<_> = groups.map(|(value, samples)| GroupCount { value, samples }).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.samples));
        groups
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn status(&self) -> Result<StoreStatus> {
        self.fail()?;
        Ok(StoreStatus {
            description: "memory".into(),
            event_bytes: 1000,
            dictionary_bytes: 500,
            samples: 25,
            stacks: 6,
            frames: 7,
            executables: 3,
            extent: Some(TimeRange {
                from: UnixNanos::from_millis(1_763_733_000_000),
                to: UnixNanos::from_millis(1_763_733_999_000),
            }),
            refusing: None,
            is_set_up: true,
        })
    }

    async fn stacks(&self, selection: &Selection, group_by: Option<Dimension>) -> Result<StackSet> {
        self.fail()?;
        *self.asked.lock().unwrap() = Some(selection.filter.clone());
        self.stacks_asked.fetch_add(1, Ordering::SeqCst);
        if let Some(hold) = &self.hold {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(self.waiting.clone());
            hold.notified().await;
        }
        if group_by.is_some() {
            return Ok(self.set.clone());
        }
        let mut merged = BTreeMap::new();
        for count in &self.set.counts {
            *merged.entry(count.node).or_insert(0) += count.samples;
        }
        let counts =
            merged.into_iter().map(|(node, samples)| crate::store::GroupedCount { group: 0, node, samples });
        Ok(StackSet { groups: vec!["".into()], counts: counts.collect(), ..self.set.clone() })
    }

    async fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        group_by: Option<Dimension>,
        top: usize,
    ) -> Result<Timeline> {
        self.fail()?;
        *self.asked.lock().unwrap() = Some(selection.filter.clone());
        // All samples lie in the first bucket.
        let series = |group: Arc<str>, total: u64| {
            let mut samples = vec![0; grid.buckets as usize];
            samples[0] = total;
            Series { group, total, samples }
        };
        let groups = if group_by.is_some() {
            self.groups()
        } else {
            vec![GroupCount { value: "".into(), samples: self.groups().iter().map(|g| g.samples).sum() }]
        };
        let other = groups.iter().skip(top).map(|g| g.samples).sum();
        Ok(Timeline {
            groups: groups.len() as u64,
            series: groups.into_iter().take(top).map(|g| series(g.value, g.samples)).collect(),
            other: series("".into(), other),
            cpu_ns: self.set.cpu_ns,
            complete: 22,
            hosts: 1,
            precision: self.set.precision,
        })
    }

    async fn frames(&self, ids: &[FrameId]) -> Result<Vec<FrameDetail>> {
        self.frames_asked.fetch_add(1, Ordering::SeqCst);
        self.fail()?;
        Ok(ids.iter().map(|id| self.details.get(id).cloned().unwrap_or_default()).collect())
    }

    async fn values(
        &self,
        _: Dimension,
        prefix: &str,
        _: TimeRange,
        limit: usize,
    ) -> Result<Vec<GroupCount>> {
        self.fail()?;
        let matching = self.groups().into_iter().filter(|group| group.value.starts_with(prefix));
        Ok(matching.take(limit).collect())
    }

    async fn events(&self, _: &EventQuestion) -> Result<EventSet> {
        self.fail()?;
        Ok(EventSet::default())
    }

    async fn hosts(&self, _: &[Arc<str>], _: TimeRange) -> Result<Vec<HostFacts>> {
        Ok(Vec::new())
    }
}

pub(super) struct OneAgent;

impl RoleStatus for OneAgent {
    fn agent(&self) -> Option<AgentStatus> {
        Some(AgentStatus {
            running: true,
            frequency_hz: 20,
            cpus: 2,
            kernel: "6.18.44".into(),
            object: "modern".into(),
            processes: 51,
            tables: 130,
            pool_bytes: 4 << 20,
            resident_bytes: 41_000_000,
            counters: vec![
                Counter { name: "ticks".into(), value: 100 },
                Counter { name: "stored".into(), value: 100 },
            ],
            ..AgentStatus::default()
        })
    }

    fn collector(&self) -> Option<CollectorStatus> {
        None
    }
}
