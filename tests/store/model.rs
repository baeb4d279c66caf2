//! The naive store: a list of samples, counted one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use everflame::model::{Dimension, FrameId, FrameKind, Selection, StackId, UnixNanos};
use everflame::store::document::{Documents, EventResource};
use everflame::store::{StackSet, TimeGrid, Timeline};

/// One stored sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) resource: EventResource,
    pub(crate) stack: StackId,
    pub(crate) thread_name: Arc<str>,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) time: UnixNanos,
}

type Path = Vec<(FrameId, FrameKind)>;

/// All samples and stacks ever written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naive {
    pub(crate) samples: Vec<Sample>,
    pub(crate) paths: HashMap<StackId, Path>,
}

impl Naive {
    pub(crate) fn write(&mut self, documents: &Documents) {
        for trace in &documents.stacktraces {
            self.paths.entry(trace.id).or_insert_with(|| trace.frames.clone());
        }
        for event in &documents.events {
            for time in &event.times {
                self.samples.push(Sample {
                    resource: documents.resources[event.resource as usize].clone(),
                    stack: event.stack,
                    thread_name: Arc::clone(&event.thread_name),
                    pid: event.pid,
                    tid: event.tid,
                    time: UnixNanos::from_millis(time.millis()),
                });
            }
        }
    }

    fn selected<'s>(&'s self, selection: &'s Selection) -> impl Iterator<Item = &'s Sample> {
        self.samples.iter().filter(|s| {
            selection.range.contains(s.time) && {
                let (pid, tid) = (s.pid.to_string(), s.tid.to_string());
                selection.filter.accepts(&|d| match d {
                    Dimension::Pid => &pid,
                    Dimension::Tid => &tid,
                    other => s.text(other),
                })
            }
        })
    }

    /// Samples per group and path.
    pub(crate) fn stacks(
        &self,
        selection: &Selection,
        by: Option<Dimension>,
    ) -> BTreeMap<(String, Path), u64> {
        let mut counts = BTreeMap::new();
        for sample in self.selected(selection) {
            let path = self.paths.get(&sample.stack).cloned().unwrap_or_default();
            *counts.entry((sample.group(by), path)).or_insert(0) += 1;
        }
        counts
    }

    pub(crate) fn cpu_ns(&self, selection: &Selection) -> u64 {
        let mut per_resource: HashMap<&EventResource, u64> = HashMap::new();
        self.selected(selection).for_each(|s| *per_resource.entry(&s.resource).or_default() += 1);
        per_resource.iter().map(|(r, n)| n * 1_000_000_000 / u64::from(r.frequency_hz.max(1))).sum()
    }

    /// What a timeline must say.
    pub(crate) fn timeline(
        &self,
        selection: &Selection,
        grid: TimeGrid,
        by: Option<Dimension>,
    ) -> NaiveTimeline {
        let mut out = NaiveTimeline::default();
        let mut hosts = HashSet::new();
        for sample in self.selected(selection) {
            let row =
                out.groups.entry(sample.group(by)).or_insert_with(|| vec![0; grid.buckets as usize + 1]);
            let bucket = sample
                .time
                .0
                .checked_sub(grid.start.0)
                .map(|since| (since / grid.width_ns) as usize)
                .filter(|b| *b < grid.buckets as usize);
            row[bucket.unwrap_or(grid.buckets as usize)] += 1;
            let complete =
                self.paths.get(&sample.stack).and_then(|p| p.first()).is_some_and(|f| !f.1.is_error());
            out.complete += u64::from(complete);
            hosts.insert(sample.resource.host_id.clone());
        }
        out.hosts = hosts.len() as u64;
        out.cpu_ns = self.cpu_ns(selection);
        out
    }
}

/// Samples per group and bucket (the last one = outside the grid).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NaiveTimeline {
    pub(crate) groups: BTreeMap<String, Vec<u64>>,
    pub(crate) complete: u64,
    pub(crate) hosts: u64,
    pub(crate) cpu_ns: u64,
}

impl Sample {
    fn text(&self, dimension: Dimension) -> &str {
        match dimension {
            Dimension::HostId => &self.resource.host_id,
            Dimension::HostName => &self.resource.host_name,
            Dimension::Executable => &self.resource.executable_name,
            Dimension::ThreadName => &self.thread_name,
            Dimension::ContainerId => &self.resource.container_id,
            Dimension::ContainerName => &self.resource.container_name,
            Dimension::Pod => &self.resource.pod_name,
            Dimension::Namespace => &self.resource.namespace_name,
            Dimension::Service => &self.resource.service_name,
            Dimension::Pid | Dimension::Tid => unreachable!("numbers are formatted by the caller"),
        }
    }

    fn group(&self, by: Option<Dimension>) -> String {
        match by {
            None => String::new(),
            Some(Dimension::Pid) => self.pid.to_string(),
            Some(Dimension::Tid) => self.tid.to_string(),
            Some(other) => self.text(other).to_owned(),
        }
    }
}

/// An answer of the store in the form of [`Naive::stacks`]; checks the shape of the trie on the way.
pub(crate) fn flatten(set: &StackSet) -> BTreeMap<(String, Path), u64> {
    let mut counts = BTreeMap::new();
    assert!(set.trie.parent.iter().enumerate().skip(1).all(|(i, p)| (*p as usize) < i), "parents come first");
    let mut seen = HashSet::new();
    for count in &set.counts {
        assert!(seen.insert((count.group, count.node)), "each pair once");
        let mut path = Vec::new();
        let mut node = count.node;
        while node != 0 {
            path.push(set.trie.frames[set.trie.frame[node as usize] as usize]);
            node = set.trie.parent[node as usize];
        }
        path.reverse();
        *counts.entry((set.groups[count.group as usize].to_string(), path)).or_insert(0) += count.samples;
    }
    counts
}

/// An answer of the store in the form of [`Naive::timeline`], all groups asked for.
pub(crate) fn flatten_timeline(timeline: &Timeline) -> NaiveTimeline {
    let groups = timeline
        .series
        .iter()
        .filter(|s| s.total > 0)
        .map(|s| {
            let mut row = s.samples.clone();
            row.push(s.total - s.samples.iter().sum::<u64>());
            (s.group.to_string(), row)
        })
        .collect();
    NaiveTimeline { groups, complete: timeline.complete, hosts: timeline.hosts, cpu_ns: timeline.cpu_ns }
}
