//! [`Batch`] to [`Documents`]: identifiers, order and names as Elastic's Universal Profiling has them.
//!
//! Pure: no clock, no memory of earlier batches. Stacks, frames and executables come out once per batch, whether the
//! store knows them or not; [`super::seen`] takes out what it knows.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::sync::Arc;

use twox_hash::XxHash64;

use crate::model::{Batch, FileId, Frame, FrameId, FrameKind, Resource, StackId, stack_id};
use crate::store::Documents;
use crate::store::document::{Event, EventResource, Executable, Host, StackFrame, StackTrace};

/// Samples that one value can stand for. An agent would need ten minutes at 97 Hz on one CPU to see one stack that
/// often between two reports.
const MAX_REPEATS: u32 = 1 << 16;
/// Samples of one batch after repeats are spelled out: 32 MiB of times, as much as a message holds.
const MAX_SAMPLES: u64 = 1 << 22;

/// Prefixes of attributes that describe the machine and not one process on it.
const HOST_FACTS: [&str; 11] = [
    "host.",
    "os.",
    "cloud.",
    "k8s.node.",
    "k8s.cluster.",
    "profiling.",
    "deployment.environment",
    "agent.",
    "ec2.",
    "azure.",
    "gce.",
];

/// Samples that are in no document, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Stack entries without a single frame.
    pub empty_stack: u64,
    /// Entries without a time.
    pub no_time: u64,
    /// Beyond what one value or one batch may stand for.
    pub too_many: u64,
}

/// Documents of a batch.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    /// What the store takes.
    pub documents: Documents,
    /// Samples in `documents`.
    pub samples: u64,
    /// Samples that are not.
    pub dropped: Dropped,
}

/// Turns a batch into documents.
#[must_use]
pub fn documents(batch: &Batch) -> Mapped {
    let frames: Vec<FrameId> = batch.frames.iter().map(|frame| frame_id(batch, frame)).collect();
    let mut mapped = Mapped::default();
    let used = map_stacks(batch, &frames, &mut mapped.documents);
    map_frames(batch, &frames, &used.frames, &mut mapped.documents);
    map_executables(batch, &mut mapped.documents);
    map_hosts(batch, &mut mapped.documents);
    map_events(batch, &used.stacks, &mut mapped);
    mapped
}

/// Identity of a frame: file and address, or a synthetic file made of its lines and the line number.
fn frame_id(batch: &Batch, frame: &Frame) -> FrameId {
    let file = frame.executable.and_then(|at| batch.executables[at as usize].file_id);
    let line = frame.lines.last().map_or(0, |line| u64::from(line.line));
    FrameId {
        file: file.unwrap_or_else(|| synthetic_file(frame)),
        address_or_line: if frame.address > 0 { frame.address } else { line },
    }
}

/// File ID of code that belongs to no executable: XXH64 of its lines, twice.
fn synthetic_file(frame: &Frame) -> FileId {
    let mut hash = XxHash64::with_seed(0);
    for line in &frame.lines {
        hash.write(line.function.as_bytes());
        hash.write(line.file.as_bytes());
        hash.write(&i64::from(line.line).to_be_bytes());
        hash.write(&i64::from(line.column).to_be_bytes());
    }
    let word = hash.finish();
    FileId::from_words(word, word)
}

/// What samples refer to.
struct Used {
    /// By stack of the batch.
    stacks: Vec<Option<StackId>>,
    /// By frame of the batch.
    frames: Vec<bool>,
}

fn map_stacks(batch: &Batch, frames: &[FrameId], documents: &mut Documents) -> Used {
    let mut used = Used { stacks: vec![None; batch.stacks.len()], frames: vec![false; frames.len()] };
    let mut known = HashSet::new();
    for sample in &batch.samples {
        let stack = batch.stack(sample.stack);
        if stack.is_empty() || used.stacks[sample.stack as usize].is_some() {
            continue;
        }
        let id = stack_id(stack.iter().map(|at| frames[*at as usize]));
        used.stacks[sample.stack as usize] = Some(id);
        if !known.insert(id) {
            continue;
        }
        let root_first = stack.iter().rev().map(|at| {
            used.frames[*at as usize] = true;
            (frames[*at as usize], batch.frames[*at as usize].kind)
        });
        documents.stacktraces.push(StackTrace { id, frames: root_first.collect() });
    }
    used
}

fn map_frames(batch: &Batch, ids: &[FrameId], used: &[bool], documents: &mut Documents) {
    let (mut named, mut unnamed, mut files) = (HashSet::new(), HashSet::new(), HashSet::new());
    for ((frame, id), _) in batch.frames.iter().zip(ids).zip(used).filter(|(_, used)| **used) {
        if is_named(frame) {
            if named.insert(*id) {
                // OTLP has the innermost inlined function first, the documents have it last.
                let lines = frame.lines.iter().rev().cloned().collect();
                documents.stackframes.push(StackFrame { id: *id, lines });
            }
        } else if can_be_named(batch, frame) && unnamed.insert(*id) {
            documents.unnamed.push(*id);
            if files.insert(id.file) {
                documents.unnamed_files.push(id.file);
            }
        }
    }
}

/// Whether the sender said more than a number.
fn is_named(frame: &Frame) -> bool {
    frame.lines.iter().any(|line| !line.function.is_empty() || !line.file.is_empty())
}

/// Whether a symbolizer could name it: code compiled ahead of time in a file that is known. The kernel and
/// interpreted code are named by the agent or by nobody.
fn can_be_named(batch: &Batch, frame: &Frame) -> bool {
    matches!(frame.kind, FrameKind::NATIVE | FrameKind::GO)
        && frame.executable.is_some_and(|at| batch.executables[at as usize].file_id.is_some())
}

fn map_executables(batch: &Batch, documents: &mut Documents) {
    let mut known = HashSet::new();
    for executable in &batch.executables {
        if let Some(id) = executable.file_id
            && !executable.name.is_empty()
            && known.insert(id)
        {
            documents.executables.push(Executable {
                id,
                name: executable.name.clone(),
                gnu_build_id: executable.gnu_build_id.clone(),
            });
        }
    }
}

fn map_hosts(batch: &Batch, documents: &mut Documents) {
    let mut hosts: HashMap<&str, usize> = HashMap::new();
    for resource in batch.resources.iter().filter(|r| !r.host_id.is_empty()) {
        let at = match hosts.entry(&resource.host_id) {
            Entry::Occupied(at) => *at.get(),
            Entry::Vacant(new) => {
                documents.hosts.push(Host { id: resource.host_id.clone(), ..Host::default() });
                *new.insert(documents.hosts.len() - 1)
            }
        };
        describe_host(&mut documents.hosts[at], resource);
    }
}

fn describe_host(host: &mut Host, resource: &Resource) {
    if !resource.host_name.is_empty() {
        host.name = resource.host_name.clone();
    }
    for (key, value) in &resource.others {
        // Attribute names are ASCII; others are no facts that anybody asks for.
        if value.is_empty() || !HOST_FACTS.iter().any(|prefix| starts_with_any_case(key, prefix)) {
            continue;
        }
        let key: Arc<str> = key.to_ascii_lowercase().into();
        if !host.facts.iter().any(|(known, _)| *known == key) {
            host.facts.push((key, value.clone()));
        }
    }
}

fn starts_with_any_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn map_events(batch: &Batch, stacks: &[Option<StackId>], mapped: &mut Mapped) {
    let mut known: HashMap<EventResource, u32> = HashMap::new();
    // Nearly all samples of a profile share one resource: look that up first.
    let mut of_profile: Vec<Option<u32>> = vec![None; batch.profiles.len()];
    let resources = &mut mapped.documents.resources;
    for sample in &batch.samples {
        let times = batch.times_of(sample);
        let Some(stack) = stacks[sample.stack as usize] else {
            mapped.dropped.empty_stack += repeats_of(times.len(), &sample.values);
            continue;
        };
        if times.is_empty() {
            mapped.dropped.no_time += 1;
            continue;
        }
        let profile = &batch.profiles[sample.profile as usize];
        let described = &batch.resources[profile.resource as usize];
        let mut intern = |name: &Arc<str>| {
            let resource = event_resource(described, name, profile.period_ns);
            *known.entry(resource).or_insert_with_key(|new| {
                resources.push(new.clone());
                resources.len() as u32 - 1
            })
        };
        let resource = match &sample.executable_name {
            Some(name) => intern(name),
            None => {
                *of_profile[sample.profile as usize].get_or_insert_with(|| intern(&described.executable_name))
            }
        };
        let wanted = repeats_of(times.len(), &sample.values);
        let mut event = Event {
            resource,
            stack,
            thread_name: sample.thread_name.clone(),
            pid: described.pid,
            tid: sample.tid,
            times: Vec::new(),
        };
        let mut room = MAX_SAMPLES.saturating_sub(mapped.samples);
        if sample.values.is_empty() {
            event.times.extend_from_slice(&times[..times.len().min(room as usize)]);
        } else {
            for (time, value) in times.iter().zip(&sample.values) {
                let repeats = u64::from(*value.min(&MAX_REPEATS)).min(room);
                event.times.extend(std::iter::repeat_n(*time, repeats as usize));
                room -= repeats;
            }
        }
        let taken = event.times.len() as u64;
        mapped.samples += taken;
        mapped.dropped.too_many += wanted - taken;
        if taken > 0 {
            mapped.documents.events.push(event);
        }
    }
}

fn repeats_of(times: usize, values: &[u32]) -> u64 {
    if values.is_empty() { times as u64 } else { values.iter().map(|value| u64::from(*value)).sum() }
}

fn event_resource(resource: &Resource, executable_name: &Arc<str>, period_ns: u64) -> EventResource {
    EventResource {
        host_id: resource.host_id.clone(),
        host_name: resource.host_name.clone(),
        executable_name: executable_name.clone(),
        container_id: resource.container_id.clone(),
        container_name: resource.container_name.clone(),
        pod_name: resource.pod_name.clone(),
        namespace_name: resource.namespace_name.clone(),
        service_name: resource.service_name.clone(),
        frequency_hz: frequency_hz(period_ns),
    }
}

/// Samples per second of one CPU, at least 1.
fn frequency_hz(period_ns: u64) -> u32 {
    if period_ns == 0 {
        return 1;
    }
    ((1e9 / period_ns as f64).round() as u32).max(1)
}

#[cfg(test)]
mod tests;
