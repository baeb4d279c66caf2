//! Answers of a store: columns and counts, no engine in sight.

use std::sync::Arc;

use crate::model::{
    Dimension, FrameId, FrameKind, Selection, SourceLine, StackId, TimeRange, UnixNanos, UnknownReason,
};

/// How far counts can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Precision {
    /// Every stored sample was counted.
    #[default]
    Exact,
    /// Counted in a down-sampled stream and scaled.
    Sampled {
        /// Stored samples per counted one.
        factor: f64,
    },
}

/// Call paths as a tree in arrays. Node 0 is the root, above every outermost frame; `parent[node] < node` for all
/// others, so one pass from the end adds up totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackTrie {
    /// Parent of each node; `parent[0]` is 0.
    pub parent: Vec<u32>,
    /// Index in `frames` of each node; meaningless for node 0.
    pub frame: Vec<u32>,
    /// Distinct frames.
    pub frames: Vec<(FrameId, FrameKind)>,
}

/// Samples of one group whose stack ends in one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupedCount {
    /// Index in [`StackSet::groups`].
    pub group: u32,
    /// Leaf node in the trie.
    pub node: u32,
    /// Samples.
    pub samples: u64,
}

/// All stacks of a selection with their samples.
#[derive(Clone, Debug, Default)]
pub struct StackSet {
    /// Call paths; may hold more than the selection needs.
    pub trie: Arc<StackTrie>,
    /// Values of the grouping dimension; one empty text when nothing is grouped.
    pub groups: Vec<Arc<str>>,
    /// Samples per group and leaf node, each pair once.
    pub counts: Vec<GroupedCount>,
    /// Sum of samples times their period, in nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// How far to trust the counts.
    pub precision: Precision,
}

/// Evenly spaced buckets: bucket `i` is `[start + i × width, start + (i+1) × width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeGrid {
    /// Start of the first bucket.
    pub start: UnixNanos,
    /// Width of a bucket in nanoseconds, not 0.
    pub width_ns: u64,
    /// Number of buckets.
    pub buckets: u32,
}

/// Samples of one group over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// Value of the grouping dimension.
    pub group: Arc<str>,
    /// Samples in the whole selection.
    pub total: u64,
    /// Samples per bucket.
    pub samples: Vec<u64>,
}

/// Samples over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Largest groups, largest first. One series with an empty name when nothing is grouped.
    pub series: Vec<Series>,
    /// Everything that is in no series.
    pub other: Series,
    /// Distinct groups in the selection.
    pub groups: u64,
    /// Sum of samples times their period, in nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// Samples whose stack is complete (does not end in a marker).
    pub complete: u64,
    /// Distinct hosts in the selection.
    pub hosts: u64,
    /// How far to trust the counts.
    pub precision: Precision,
}

/// A value of a dimension and its samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCount {
    /// Value.
    pub value: Arc<str>,
    /// Samples.
    pub samples: u64,
}

/// What is known of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameDetail {
    /// Base name of the executable; empty when unknown or none.
    pub library: Arc<str>,
    /// Functions at this place, outermost first (order of the documents). Empty without a name.
    pub lines: Vec<SourceLine>,
    /// Why `lines` is empty.
    pub reason: Option<UnknownReason>,
}

/// Size, extent and health of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Engine and place, for people: `embedded /var/lib/everflame`.
    pub description: String,
    /// Bytes of events on disk.
    pub event_bytes: u64,
    /// Bytes of dictionaries and manifest on disk.
    pub dictionary_bytes: u64,
    /// Stored samples.
    pub samples: u64,
    /// Distinct stacks.
    pub stacks: u64,
    /// Distinct frames.
    pub frames: u64,
    /// Distinct executables.
    pub executables: u64,
    /// First and last sample.
    pub extent: Option<TimeRange>,
    /// Why writing is refused now, if it is.
    pub refusing: Option<String>,
    /// Whether the place for samples exists.
    pub is_set_up: bool,
}

/// Which events a question of the profiling interface is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// As every engine understands it.
    Selection(Selection),
    /// Query DSL as JSON text, for engines whose [`crate::store::Reader::speaks_query_dsl`] says so.
    QueryDsl(String),
}

/// Indices of somebody else whose documents point to stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignEvents {
    /// Names of the indices.
    pub indices: Vec<String>,
    /// Field that holds one or more stack identifiers.
    pub stack_field: String,
}

/// A question about events with everything by which the profiling interface tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuestion {
    /// Which events.
    pub filter: EventFilter,
    /// Further fields to tell events apart by.
    pub fields: Vec<Arc<str>>,
    /// Events that an estimate should be made of, above 0.
    pub sample_size: u64,
    /// Start of every random decision: the same question gets the same answer.
    pub seed: u32,
    /// Documents of OpenTelemetry's shape instead of Elastic's own, where a store tells them apart.
    pub otel: bool,
    /// Events of other indices instead of the profiling events.
    pub foreign: Option<ForeignEvents>,
    /// Whether [`EventSet::extent`] is wanted, which may cost a pass over the events.
    pub with_extent: bool,
}

impl EventQuestion {
    /// The fields that are dimensions; `None` in the place of others.
    #[must_use]
    pub fn dimensions(&self) -> Vec<Option<Dimension>> {
        let of = |name: &Arc<str>| Dimension::ALL.into_iter().find(|d| d.field() == &**name);
        self.fields.iter().map(of).collect()
    }
}

/// What tells events apart beside their stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// `process.executable.name`, empty when absent.
    pub executable: Arc<str>,
    /// `process.thread.name`, empty when absent.
    pub thread: Arc<str>,
    /// `host.id`, empty when absent.
    pub host_id: Arc<str>,
    /// Samples per second; 19 when not said.
    pub frequency_hz: u32,
    /// Values of the further fields, in the order asked.
    pub fields: Vec<Arc<str>>,
}

/// Events of one key with one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventCount {
    /// Index in [`EventSet::keys`].
    pub key: u32,
    /// Index in [`EventSet::stacks`].
    pub stack: u32,
    /// Events looked at; [`EventSet::factor`] and [`EventSet::probability`] make them events that happened.
    pub events: u64,
}

/// Events of a question, key by key.
#[derive(Clone, Debug)]
pub struct EventSet {
    /// Call paths.
    pub trie: Arc<StackTrie>,
    /// Identity of each stack and the node where it ends; node 0 when its frames are not known.
    pub stacks: Vec<(StackId, u32)>,
    /// Distinct keys.
    pub keys: Vec<EventKey>,
    /// Events per key and stack, each pair once.
    pub counts: Vec<EventCount>,
    /// First event and behind the last one; `None` without events, or when nobody asked.
    pub extent: Option<TimeRange>,
    /// Stored events per event of the stream that was read.
    pub factor: f64,
    /// Part of the stream that was looked at.
    pub probability: f64,
    /// Whether every stored event was counted because this store counts all of them.
    pub exact: bool,
}

impl Default for EventSet {
    fn default() -> Self {
        let trie = StackTrie { parent: vec![0], frame: vec![0], frames: Vec::new() };
        Self {
            trie: Arc::new(trie),
            stacks: Vec::new(),
            keys: Vec::new(),
            counts: Vec::new(),
            extent: None,
            factor: 1.0,
            probability: 1.0,
            exact: false,
        }
    }
}

/// What is known of a host, by the names of its document (`host.arch`, `cloud.provider`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `host.id`
    pub id: Arc<str>,
    /// Facts as text.
    pub facts: Vec<(Arc<str>, Arc<str>)>,
}

impl HostFacts {
    /// One fact; `None` when absent or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.facts.iter().find(|(found, _)| &**found == name)?;
        Some(&**value).filter(|value| !value.is_empty())
    }
}
