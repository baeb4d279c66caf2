//! Filters over numbered columns: decided per resource where possible, else per thread, remembered.

use hashbrown::HashMap;

use super::super::dictionary::Dictionaries;
use super::super::segment::{Batch, Fields};
use crate::model::{Dimension, Filter};
use crate::store::document::EventResource;
use std::sync::Arc;

/// Thread and process combinations remembered before the memory is emptied.
const MEMO: usize = 1 << 20;

/// What a filter says about all samples of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All count.
    Accept,
    /// None counts.
    Reject,
    /// It depends on the thread.
    Depends,
}

/// Value of a dimension that is part of the resource; `None` for those of the thread.
pub(super) fn resource_value(resource: &EventResource, dimension: Dimension) -> Option<&Arc<str>> {
    Some(match dimension {
        Dimension::HostId => &resource.host_id,
        Dimension::HostName => &resource.host_name,
        Dimension::Executable => &resource.executable_name,
        Dimension::ContainerId => &resource.container_id,
        Dimension::ContainerName => &resource.container_name,
        Dimension::Pod => &resource.pod_name,
        Dimension::Namespace => &resource.namespace_name,
        Dimension::Service => &resource.service_name,
        Dimension::ThreadName | Dimension::Pid | Dimension::Tid => return None,
    })
}

fn decide(filter: &Filter, resource: &EventResource) -> Verdict {
    use Verdict::{Accept, Depends, Reject};
    match filter {
        Filter::All => Accept,
        Filter::Match(dimension, pattern) => match resource_value(resource, *dimension) {
            Some(value) if pattern.matches(value) => Accept,
            Some(_) => Reject,
            None => Depends,
        },
        Filter::And(parts) => {
            let verdicts: Vec<_> = parts.iter().map(|p| decide(p, resource)).collect();
            if verdicts.contains(&Reject) {
                Reject
            } else if verdicts.contains(&Depends) {
                Depends
            } else {
                Accept
            }
        }
        Filter::Or(parts) => {
            let verdicts: Vec<_> = parts.iter().map(|p| decide(p, resource)).collect();
            if verdicts.contains(&Accept) {
                Accept
            } else if verdicts.contains(&Depends) {
                Depends
            } else {
                Reject
            }
        }
        Filter::Not(part) => match decide(part, resource) {
            Accept => Reject,
            Reject => Accept,
            Depends => Depends,
        },
    }
}

/// A filter made ready for one question.
#[derive(Clone, Debug)]
pub(super) struct RowFilter {
    filter: Filter,
    verdicts: Arc<[Verdict]>,
    resources: Arc<[EventResource]>,
    threads: Arc<[Arc<str>]>,
    fields: Fields,
    memo: HashMap<(i32, i32, i32, i32), bool>,
}

impl RowFilter {
    /// Decides what can be decided per resource.
    pub(super) fn new(filter: &Filter, d: &Dictionaries) -> Self {
        let verdicts: Arc<[_]> = d.resources.values().iter().map(|r| decide(filter, r)).collect();
        let mut fields = Fields::default();
        let mut threads: Arc<[Arc<str>]> = Arc::new([]);
        let mut resources: Arc<[EventResource]> = Arc::new([]);
        if verdicts.contains(&Verdict::Depends) {
            for (dimension, field) in [
                (Dimension::ThreadName, Fields::THREAD),
                (Dimension::Pid, Fields::PID),
                (Dimension::Tid, Fields::TID),
            ] {
                if filter.mentions(dimension) {
                    fields = fields.with(field);
                }
            }
            resources = d.resources.values().into();
            threads = d.threads.values().into();
        }
        Self { filter: filter.clone(), verdicts, resources, threads, fields, memo: HashMap::new() }
    }

    /// Columns it needs beside the resource.
    pub(super) fn fields(&self) -> Fields {
        self.fields
    }

    /// Whether any of the resources numbered `first..=last` may have samples that count.
    pub(super) fn may_accept(&self, first: u32, last: u32) -> bool {
        let end = self.verdicts.len().min(last as usize + 1);
        self.verdicts.get(first as usize..end).is_none_or(|v| v.iter().any(|v| *v != Verdict::Reject))
    }

    /// Whether every sample counts.
    pub(super) fn accepts_all(&self) -> bool {
        self.verdicts.iter().all(|v| *v == Verdict::Accept)
    }

    /// Sets the weights of rows that do not count to 0.
    pub(super) fn apply(&mut self, batch: &Batch<'_>, weights: &mut [i32]) {
        let column = |values: &[i32], field: Fields, fields: Fields, i: usize| {
            if fields.has(field) { values.get(i).copied().unwrap_or(0) } else { 0 }
        };
        let mut last = None;
        let mut accepted = false;
        for (i, weight) in weights.iter_mut().enumerate().take(batch.len) {
            let key = (
                batch.resource[i],
                column(batch.thread, Fields::THREAD, self.fields, i),
                column(batch.pid, Fields::PID, self.fields, i),
                column(batch.tid, Fields::TID, self.fields, i),
            );
            if last != Some(key) {
                last = Some(key);
                accepted = self.accepts(key);
            }
            if !accepted {
                *weight = 0;
            }
        }
    }

    fn accepts(&mut self, key: (i32, i32, i32, i32)) -> bool {
        match self.verdicts.get(key.0 as usize) {
            Some(Verdict::Accept) => return true,
            Some(Verdict::Depends) => {}
            _ => return false,
        }
        if let Some(known) = self.memo.get(&key) {
            return *known;
        }
        let (resource, thread, pid, tid) = key;
        let (pid, tid) = ((pid as u32).to_string(), (tid as u32).to_string());
        let thread = self.threads.get(thread as usize).map_or("", |t| t);
        let Some(resource) = self.resources.get(resource as usize) else { return false };
        let accepted = self.filter.accepts(&|dimension| match dimension {
            Dimension::ThreadName => thread,
            Dimension::Pid => &pid,
            Dimension::Tid => &tid,
            other => resource_value(resource, other).map_or("", |v| v),
        });
        if self.memo.len() >= MEMO {
            self.memo.clear();
        }
        self.memo.insert(key, accepted);
        accepted
    }
}
