//! Answers of a store: columns and counts, no engine in sight.

use std::sync::Arc;

use crate::model::{FrameId, FrameKind, SourceLine, TimeRange, UnixNanos, UnknownReason};

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
}
