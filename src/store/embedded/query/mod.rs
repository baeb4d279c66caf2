//! Questions: which rows to read (`plan`), which of them count (`filter`), and what is added up.
//!
//! Reads a [`super::core::Snapshot`] and never waits for writers. Exact: every stored sample of the selection is counted
//! once, from sums where these say the same.

pub(super) mod events;
mod filter;
mod group;
mod plan;
pub(super) mod stacks;
pub(super) mod timeline;

use std::collections::HashSet;

use super::core::Core;
use super::layout::Part;
use crate::model::{TimeRange, UnixNanos};
use crate::store::document::EventResource;
use crate::store::{Error, StoreStatus};

/// Samples per resource.
#[derive(Debug)]
struct PerResource(Vec<u64>);

impl PerResource {
    fn new(resources: usize) -> Self {
        Self(vec![0; resources])
    }

    /// `false` when there is no such resource.
    fn add(&mut self, resource: i32, samples: u64) -> bool {
        self.0.get_mut(resource as usize).map(|sum| *sum += samples).is_some()
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }

    fn with_samples<'r>(
        &self,
        resources: &'r [EventResource],
    ) -> impl Iterator<Item = (&'r EventResource, u64)> {
        resources.iter().zip(self.0.iter().copied()).filter(|(_, samples)| *samples > 0)
    }

    /// CPU time of all samples in nanoseconds: each stands for one period of its resource's frequency.
    fn cpu_ns(&self, resources: &[EventResource]) -> u64 {
        let ns = |(r, samples): (&EventResource, u64)| {
            u128::from(samples) * 1_000_000_000 / u128::from(r.frequency_hz.max(1))
        };
        self.with_samples(resources).map(ns).sum::<u128>().try_into().unwrap_or(u64::MAX)
    }

    /// Distinct hosts; those without an ID count by name.
    fn hosts(&self, resources: &[EventResource]) -> u64 {
        let host = |(r, _): (&EventResource, u64)| {
            if r.host_id.is_empty() { (false, r.host_name.clone()) } else { (true, r.host_id.clone()) }
        };
        self.with_samples(resources).map(host).collect::<HashSet<_>>().len() as u64
    }
}

/// Events that point to values that no dictionary has.
fn damaged(core: &Core) -> Error {
    Error::Corrupt {
        path: core.layout.folder(Part::Events),
        problem: "events point beyond the dictionaries".into(),
    }
}

/// Answers [`crate::store::Reader::status`].
pub(super) fn status(core: &Core) -> StoreStatus {
    let snapshot = core.snapshot();
    let mut extent: Option<(i64, i64)> = None;
    let extents = snapshot.segments.iter().map(|s| s.meta.extent());
    for (min, max) in extents.chain(snapshot.head.iter().filter_map(|c| c.extent())) {
        let (a, b) = extent.unwrap_or((min, max));
        extent = Some((a.min(min), b.max(max)));
    }
    let exported: u64 = std::fs::read_dir(core.layout.dictionaries())
        .map_or(0, |entries| entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum());
    let head_rows: usize = snapshot.head.iter().map(|c| c.len()).sum();
    let rows: u64 = snapshot.segments.iter().map(|s| s.meta.rows).sum();
    let d = core.dictionaries.read();
    let nanos = |ms: i64| UnixNanos::from_millis(ms.max(0) as u64);
    StoreStatus {
        description: format!("embedded {}", core.layout.root().display()),
        event_bytes: snapshot.segments.iter().map(|s| s.meta.bytes()).sum(),
        dictionary_bytes: core.database.bytes() + exported,
        samples: rows + head_rows as u64,
        stacks: d.stacks.len() as u64,
        frames: d.frames.len() as u64,
        executables: d.executables.len() as u64,
        // Half open: the last sample lies inside.
        extent: extent.map(|(min, max)| TimeRange { from: nanos(min), to: nanos(max.saturating_add(1)) }),
        refusing: core.refusing.lock().clone(),
        is_set_up: true,
    }
}
