//! Events: one document per sample, all of them in one stream, ever fewer in the down-sampled ones.
//!
//! What the samples of a stack on a thread share is formatted once; a sample adds its identifier and its time.

use std::ops::Range;

use crate::model::UnixNanos;
use crate::store::Documents;
use crate::store::document::{Event, EventResource, encode};

use super::identity::{self, ID_BYTES, Ids};
use super::json::{Times, push_field, push_field_or_empty, push_number, push_quoted, push_raw};
use super::levels::Levels;
use super::{BulkBody, ECS_VERSION, Encoder, Item, Kind, Shape};

/// Between the identifier in the action and the time in the document.
const BETWEEN: &[u8] = b"\"}}\n{\"@timestamp\":\"";
/// `profiling.project.id`: events of one cluster are not split by project.
const PROJECT: &str = "2";
/// A document of usual length with its action.
const USUAL_BYTES: usize = 500;

/// Action of an event in `index`, up to its `_id`.
pub(super) fn action(index: &str) -> Vec<u8> {
    let mut action = Vec::new();
    push_raw(&mut action, "{\"create\":{\"_index\":");
    push_quoted(&mut action, index);
    push_raw(&mut action, ",\"require_data_stream\":true,\"_id\":\"");
    action
}

/// Writes the events of a batch, from where it stopped.
#[derive(Debug)]
pub(super) struct Events<'d> {
    shape: Shape,
    actions: &'d [Vec<u8>],
    documents: &'d Documents,
    ids: Ids,
    levels: Levels,
    times: Times,
    /// Next event, and its next sample.
    at: (usize, usize),
    /// What all documents of a resource say, one behind the other.
    described: Vec<u8>,
    /// Range in `described` by resource, once an event needed it.
    resources: Vec<Option<Range<usize>>>,
    /// What all documents of the event in hand say behind their time.
    tail: Vec<u8>,
}

impl<'d> Events<'d> {
    pub(super) fn new(encoder: &'d Encoder, documents: &'d Documents) -> Self {
        let hash = identity::of_events(documents);
        let first = documents.events.iter().filter_map(|event| event.times.first()).min();
        Self {
            shape: encoder.shape,
            actions: &encoder.events,
            documents,
            ids: Ids::new(first.copied().unwrap_or_default(), hash),
            levels: Levels::new(hash ^ encoder.seed),
            times: Times::default(),
            at: (0, 0),
            described: Vec::new(),
            resources: vec![None; documents.resources.len()],
            tail: Vec::new(),
        }
    }

    /// Makes room for all events at once.
    pub(super) fn reserve(&self, body: &mut BulkBody) {
        let samples: usize = self.documents.events.iter().map(|event| event.times.len()).sum();
        // A quarter more for the down-sampled streams: 1/5 + 1/25 + …
        let documents = if self.shape.sampled_streams { samples + samples / 4 } else { samples };
        body.items.reserve(documents);
        body.bytes.reserve(documents.saturating_mul(USUAL_BYTES));
    }

    /// Writes events until `body` holds `most` bytes or none is left.
    pub(super) fn write(&mut self, body: &mut BulkBody, most: usize) {
        let documents = self.documents;
        while let Some(event) = documents.events.get(self.at.0) {
            if self.at.1 == 0 {
                self.describe(event);
            }
            while let Some(time) = event.times.get(self.at.1) {
                if body.bytes.len() >= most {
                    return;
                }
                self.at.1 += 1;
                self.sample(body, *time);
            }
            self.at = (self.at.0 + 1, 0);
        }
    }

    #[inline]
    fn sample(&mut self, body: &mut BulkBody, time: UnixNanos) {
        let id: [u8; ID_BYTES] = self.ids.next();
        let out = &mut body.bytes;
        out.extend_from_slice(&self.actions[0]);
        let start = out.len();
        out.extend_from_slice(&id);
        out.extend_from_slice(BETWEEN);
        self.times.push(out, time);
        out.extend_from_slice(&self.tail);
        let end = out.len();
        body.items.push(Item { kind: Kind::Event, end });
        if self.actions.len() > 1 {
            for level in 1..=self.levels.draw() {
                out.extend_from_slice(&self.actions[level]);
                out.extend_from_within(start..end);
                body.items.push(Item { kind: Kind::SampledEvent(level as u8), end: out.len() });
            }
        }
    }

    /// Prepares what all samples of an event say.
    fn describe(&mut self, event: &Event) {
        let range = self.described(event.resource as usize);
        let tail = &mut self.tail;
        tail.clear();
        tail.extend_from_slice(&self.described[range]);
        if self.shape.is_otel() {
            push_field_or_empty(tail, "thread.name", &event.thread_name);
            push_raw(tail, "}},\"stacktrace.id\":");
        } else {
            push_field_or_empty(tail, "process.thread.name", &event.thread_name);
            push_raw(tail, ",\"Stacktrace.id\":");
        }
        push_quoted(tail, &encode::stack_id(event.stack));
        push_raw(tail, "}\n");
    }

    /// What all documents of a resource say, written when it is first asked for.
    fn described(&mut self, at: usize) -> Range<usize> {
        if let Some(Some(range)) = self.resources.get(at) {
            return range.clone();
        }
        let start = self.described.len();
        // Every index of a batch is valid; one that is not says nothing.
        let nothing = EventResource::default();
        let resource = self.documents.resources.get(at).unwrap_or(&nothing);
        if self.shape.is_otel() {
            otel_resource(&mut self.described, resource);
        } else {
            classic_resource(&mut self.described, resource);
        }
        let range = start..self.described.len();
        if let Some(known) = self.resources.get_mut(at) {
            *known = Some(range.clone());
        }
        range
    }
}

/// From the end of the time up to the thread's name.
fn classic_resource(out: &mut Vec<u8>, resource: &EventResource) {
    push_raw(out, "\",\"ecs.version\":");
    push_quoted(out, ECS_VERSION);
    push_raw(out, ",\"Stacktrace.count\":1,\"Stacktrace.sampling_frequency\":");
    push_number(out, u64::from(resource.frequency_hz.max(1)));
    push_raw(out, ",\"profiling.project.id\":");
    push_raw(out, PROJECT);
    push_field_or_empty(out, "host.id", &resource.host_id);
    push_field(out, "host.name", &resource.host_name);
    push_field(out, "orchestrator.resource.name", &resource.pod_name);
    push_field(out, "container.id", &resource.container_id);
    push_field(out, "container.name", &resource.container_name);
    push_field(out, "k8s.namespace.name", &resource.namespace_name);
    push_field(out, "service.name", &resource.service_name);
    push_field_or_empty(out, "process.executable.name", &resource.executable_name);
}

/// From the end of the time up to the thread's name, inside `resource.attributes`.
fn otel_resource(out: &mut Vec<u8>, resource: &EventResource) {
    push_raw(out, "\",\"count\":1,\"sampling_frequency\":");
    push_number(out, u64::from(resource.frequency_hz.max(1)));
    push_raw(out, ",\"resource\":{\"attributes\":{\"process.executable.name\":");
    super::json::push_text(out, &resource.executable_name);
    push_field_or_empty(out, "host.id", &resource.host_id);
    push_field(out, "host.name", &resource.host_name);
    push_field(out, "k8s.pod.name", &resource.pod_name);
    push_field(out, "container.id", &resource.container_id);
    push_field(out, "container.name", &resource.container_name);
    push_field(out, "k8s.namespace.name", &resource.namespace_name);
    push_field(out, "service.name", &resource.service_name);
}
