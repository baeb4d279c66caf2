//! The documents: what both engines hold, in typed form.
//!
//! Text encodings (base64url, run lengths, RFC 3339) live in [`encode`]; index names in `names` once an engine needs
//! them. Shapes follow Elastic's Universal Profiling, so data of others is readable and ours is readable by others.

pub mod encode;

use std::sync::Arc;

use crate::model::{FileId, FrameId, FrameKind, SourceLine, StackId, UnixNanos};

/// Everything one batch adds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// Distinct resources that events point to.
    pub resources: Vec<EventResource>,
    /// Events: each a stack of a thread with its times.
    pub events: Vec<Event>,
    /// Call stacks not yet known to be stored.
    pub stacktraces: Vec<StackTrace>,
    /// Frames that carry names.
    pub stackframes: Vec<StackFrame>,
    /// Executables seen.
    pub executables: Vec<Executable>,
    /// Hosts seen.
    pub hosts: Vec<Host>,
    /// Native frames without a name, for the symbolization queue.
    pub unnamed: Vec<FrameId>,
    /// Executables of such frames, for engines that queue them by themselves.
    pub unnamed_files: Vec<FileId>,
}

/// Where an event happened: the dimensions shared by many events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventResource {
    /// `host.id`
    pub host_id: Arc<str>,
    /// `host.name`
    pub host_name: Arc<str>,
    /// `process.executable.name`
    pub executable_name: Arc<str>,
    /// `container.id`
    pub container_id: Arc<str>,
    /// `container.name`
    pub container_name: Arc<str>,
    /// `orchestrator.resource.name`
    pub pod_name: Arc<str>,
    /// `k8s.namespace.name`
    pub namespace_name: Arc<str>,
    /// `service.name`
    pub service_name: Arc<str>,
    /// `Stacktrace.sampling_frequency` in Hz, at least 1.
    pub frequency_hz: u32,
}

/// Samples of one stack on one thread. Engines that store one document per sample expand `times`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Index in [`Documents::resources`].
    pub resource: u32,
    /// `Stacktrace.id`
    pub stack: StackId,
    /// `process.thread.name`
    pub thread_name: Arc<str>,
    /// Process, 0 when unknown.
    pub pid: u32,
    /// Thread, 0 when unknown.
    pub tid: u32,
    /// One sample per entry; repeats are allowed.
    pub times: Vec<UnixNanos>,
}

/// A call stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackTrace {
    /// Identity.
    pub id: StackId,
    /// Frames, **root first** as in `Stacktrace.frame.ids`.
    pub frames: Vec<(FrameId, FrameKind)>,
}

/// Names at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrame {
    /// Identity.
    pub id: FrameId,
    /// Functions, **outermost first** as in `Stackframe.function.name`.
    pub lines: Vec<SourceLine>,
}

/// A file with code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Identity.
    pub id: FileId,
    /// Base name.
    pub name: Arc<str>,
    /// GNU build ID in hex, empty when unknown.
    pub gnu_build_id: Arc<str>,
}

/// A sampled machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `host.id`
    pub id: Arc<str>,
    /// `host.name`
    pub name: Arc<str>,
    /// Further facts by lower-case key.
    pub facts: Vec<(Arc<str>, Arc<str>)>,
}
