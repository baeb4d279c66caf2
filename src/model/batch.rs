//! What one export says: the unit that agents hand over and collectors take in.
//!
//! Tables and indices, like the wire, so that decoding, mapping and encoding touch each distinct thing once.
//! Every index in a `Batch` is valid: whoever builds one checks them ([`Batch::check`] proves it in tests).

use std::ops::Range;
use std::sync::Arc;

use super::{FileId, Frame, UnixNanos};

/// One export.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Who was sampled: one entry per host × container × process.
    pub resources: Vec<Resource>,
    /// Files that frames point to.
    pub executables: Vec<Executable>,
    /// Distinct frames.
    pub frames: Vec<Frame>,
    /// Frame indices of all stacks, leaf first within each, one stack behind the other.
    pub stack_frames: Vec<u32>,
    /// Range of each stack in `stack_frames`.
    pub stacks: Vec<Range<u32>>,
    /// Profiles: what was measured, at which rate, for which resource.
    pub profiles: Vec<ProfileInfo>,
    /// Samples in the order received.
    pub samples: Vec<Sample>,
    /// Times of all samples, one sample's behind the other's.
    pub times: Vec<UnixNanos>,
}

/// Who was sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    /// `host.id`.
    pub host_id: Arc<str>,
    /// `host.name`.
    pub host_name: Arc<str>,
    /// `process.pid`; 0 when unknown.
    pub pid: u32,
    /// `process.executable.name` (base name); for kernel threads their name.
    pub executable_name: Arc<str>,
    /// `process.executable.path`.
    pub executable_path: Arc<str>,
    /// `container.id`.
    pub container_id: Arc<str>,
    /// `container.name`.
    pub container_name: Arc<str>,
    /// `k8s.pod.name`.
    pub pod_name: Arc<str>,
    /// `k8s.namespace.name`.
    pub namespace_name: Arc<str>,
    /// `service.name`.
    pub service_name: Arc<str>,
    /// Every other attribute, as text, in the order received.
    pub others: Vec<(Arc<str>, Arc<str>)>,
}

/// A file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Executable {
    /// Identity; `None` when the sender gave none that could be read.
    pub file_id: Option<FileId>,
    /// Base name.
    pub name: Arc<str>,
    /// GNU build ID in hex; empty when unknown.
    pub gnu_build_id: Arc<str>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SampleKind {
    /// CPU time by sampling: each time stamp is one sample.
    #[default]
    OnCpu,
}

/// One profile of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileInfo {
    /// Index in [`Batch::resources`].
    pub resource: u32,
    /// What was measured.
    pub kind: SampleKind,
    /// Nanoseconds between two samples of one CPU; 0 when not said.
    pub period_ns: u64,
    /// Start of the window.
    pub start: UnixNanos,
    /// Length of the window in nanoseconds.
    pub duration_ns: u64,
}

/// One stack seen at one or more times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Index in [`Batch::profiles`].
    pub profile: u32,
    /// Index in [`Batch::stacks`].
    pub stack: u32,
    /// `thread.name` (comm, at most 15 bytes from the kernel).
    pub thread_name: Arc<str>,
    /// `thread.id`; 0 when unknown.
    pub tid: u32,
    /// `process.executable.name` when said per sample (older agents); wins over the resource's.
    pub executable_name: Option<Arc<str>>,
    /// Range in [`Batch::times`].
    pub times: Range<u32>,
    /// Samples beyond one per time stamp, parallel to `times`; empty = one each.
    pub values: Vec<u32>,
}

impl Batch {
    /// Frame indices of one stack, leaf first.
    #[must_use]
    pub fn stack(&self, index: u32) -> &[u32] {
        let range = &self.stacks[index as usize];
        &self.stack_frames[range.start as usize..range.end as usize]
    }

    /// Times of one sample.
    #[must_use]
    pub fn times_of(&self, sample: &Sample) -> &[UnixNanos] {
        &self.times[sample.times.start as usize..sample.times.end as usize]
    }

    /// Number of samples, counting repeats.
    #[must_use]
    pub fn sample_count(&self) -> u64 {
        self.samples
            .iter()
            .map(|s| {
                if s.values.is_empty() {
                    u64::from(s.times.end - s.times.start)
                } else {
                    s.values.iter().map(|v| u64::from(*v)).sum()
                }
            })
            .sum()
    }

    /// Whether every index points into its table. Builders uphold this; tests ask.
    #[must_use]
    pub fn check(&self) -> bool {
        let inside = |range: &Range<u32>, len: usize| range.start <= range.end && range.end as usize <= len;
        self.frames.iter().all(|f| f.executable.is_none_or(|e| (e as usize) < self.executables.len()))
            && self.stack_frames.iter().all(|f| (*f as usize) < self.frames.len())
            && self.stacks.iter().all(|r| inside(r, self.stack_frames.len()))
            && self.profiles.iter().all(|p| (p.resource as usize) < self.resources.len())
            && self.samples.iter().all(|s| {
                (s.profile as usize) < self.profiles.len()
                    && (s.stack as usize) < self.stacks.len()
                    && inside(&s.times, self.times.len())
                    && (s.values.is_empty() || s.values.len() == (s.times.end - s.times.start) as usize)
            })
    }
}
