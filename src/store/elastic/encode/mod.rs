//! [`Documents`] to the bytes of bulk requests, in the shape of either generation.
//!
//! Pure: time and randomness are arguments, nothing is remembered from one call to the next, and equal documents give
//! equal events. Knows no network and no cluster; [`Shape`] says what the cluster looks like. No serde: one sample costs
//! a few copies.
//!
//! What readers need to make sense of events comes first: stack traces, frames, executables, queues, hosts, events.

mod event;
mod host;
mod identity;
mod json;
mod levels;
mod lookup;
#[cfg(test)]
mod tests;

use crate::model::UnixNanos;
use crate::store::Documents;

use super::{BulkBody, Generation, Item, Kind, LEVELS};
use event::Events;
use json::{push_quoted, push_raw};

/// `ecs.version` of every document of the first generation. Nobody reads it.
const ECS_VERSION: &str = "1.12.0";

/// What the cluster wants documents to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Names and fields.
    pub generation: Generation,
    /// Stack traces, frames and executables go to data streams, which take nothing but `create` with `@timestamp`.
    /// Always so in the second generation; in the first where Elasticsearch has begun to replace the aliases.
    pub lookup_streams: bool,
    /// Write the down-sampled streams beside the stream of all events.
    pub sampled_streams: bool,
}

impl Shape {
    /// What writers of this generation do by default. The second has no down-sampled streams: readers take an existing
    /// one for complete, so streams that only some of the writers fill would hide the events of all others.
    #[must_use]
    pub fn of(generation: Generation) -> Self {
        match generation {
            Generation::Classic => Self { generation, lookup_streams: false, sampled_streams: true },
            Generation::Otel => Self { generation, lookup_streams: true, sampled_streams: false },
        }
    }

    fn is_otel(self) -> bool {
        self.generation == Generation::Otel
    }

    /// Whether look-up documents carry `@timestamp` and cannot be updated.
    fn streams_lookups(self) -> bool {
        self.lookup_streams || self.is_otel()
    }
}

/// Writes documents of one shape. Cheap to share: encoding changes nothing in it.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    seed: u64,
    /// Action of an event up to its `_id`, by level.
    events: Vec<Vec<u8>>,
}

impl Encoder {
    /// Documents of `shape`.
    ///
    /// `seed` chooses which events the down-sampled streams hold. Collectors that share it give an export that is sent
    /// again, to whichever of them, the very same events in the very same streams.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        let names = shape.generation.names();
        let mut events = vec![event::action(names.events)];
        if shape.sampled_streams {
            events.extend((1..=LEVELS).map(|level| event::action(&shape.generation.sampled_events(level))));
        }
        Self { shape, seed, events }
    }

    /// What documents look like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Everything in one piece. `now` dates executables, hosts and queue entries; events have times of their own.
    #[must_use]
    pub fn encode(&self, documents: &Documents, now: UnixNanos) -> BulkBody {
        self.parts(documents, now, usize::MAX).next().unwrap_or_default()
    }

    /// The same in pieces of about `part_bytes`: each ends with the item that reaches the size. A piece is made when it
    /// is asked for, so that the whole is never held.
    #[must_use]
    pub fn parts<'d>(&'d self, documents: &'d Documents, now: UnixNanos, part_bytes: usize) -> Parts<'d> {
        Parts {
            encoder: self,
            documents,
            now,
            part_bytes,
            lookup_time: documents.events.iter().filter_map(|event| event.times.first()).min().copied(),
            section: Section::StackTraces,
            at: 0,
            events: Events::new(self, documents),
        }
    }
}

/// Which documents come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    StackTraces,
    StackFrames,
    Executables,
    QueuedExecutables,
    QueuedFrames,
    Hosts,
    Events,
}

/// Pieces of one batch of documents; see [`Encoder::parts`].
#[derive(Debug)]
pub struct Parts<'d> {
    encoder: &'d Encoder,
    documents: &'d Documents,
    now: UnixNanos,
    part_bytes: usize,
    /// `@timestamp` of look-up documents in data streams.
    lookup_time: Option<UnixNanos>,
    section: Section,
    /// Next document of the section; events keep count themselves.
    at: usize,
    events: Events<'d>,
}

impl Iterator for Parts<'_> {
    type Item = BulkBody;

    fn next(&mut self) -> Option<BulkBody> {
        let mut body = BulkBody::default();
        if self.part_bytes == usize::MAX {
            self.events.reserve(&mut body);
        }
        while body.bytes.len() < self.part_bytes {
            if self.section == Section::Events {
                self.events.write(&mut body, self.part_bytes);
                break;
            }
            if !self.lookup(&mut body) {
                self.section = self.section.following();
                self.at = 0;
            }
        }
        (!body.items.is_empty()).then_some(body)
    }
}

impl Section {
    fn following(self) -> Self {
        match self {
            Self::StackTraces => Self::StackFrames,
            Self::StackFrames => Self::Executables,
            Self::Executables => Self::QueuedExecutables,
            Self::QueuedExecutables => Self::QueuedFrames,
            Self::QueuedFrames => Self::Hosts,
            Self::Hosts | Self::Events => Self::Events,
        }
    }
}

impl Parts<'_> {
    /// Writes the next document of the section; false when there is none.
    fn lookup(&mut self, body: &mut BulkBody) -> bool {
        let (shape, documents, at) = (self.encoder.shape, self.documents, self.at);
        let names = shape.generation.names();
        self.at += 1;
        let out = &mut body.bytes;
        let time = self.lookup_time.unwrap_or(self.now);
        let kind = match self.section {
            Section::StackTraces => documents.stacktraces.get(at).map(|stack| {
                lookup::stack_trace(out, shape, names.stacktraces, stack, time);
                Kind::StackTrace
            }),
            Section::StackFrames => documents.stackframes.get(at).map(|frame| {
                lookup::stack_frame(out, shape, names.stackframes, frame, time);
                Kind::StackFrame
            }),
            Section::Executables => documents.executables.get(at).map(|executable| {
                lookup::executable(out, shape, names.executables, executable, self.now);
                Kind::Executable
            }),
            Section::QueuedExecutables => {
                let queue = names.queued_executables.zip(documents.unnamed_files.get(at));
                queue.map(|(index, file)| {
                    lookup::queued_executable(out, index, *file, self.now);
                    Kind::QueuedExecutable
                })
            }
            Section::QueuedFrames => {
                names.queued_frames.zip(documents.unnamed.get(at)).map(|(index, frame)| {
                    lookup::queued_frame(out, index, *frame, self.now);
                    Kind::QueuedFrame
                })
            }
            Section::Hosts => documents.hosts.get(at).map(|host| {
                host::host(out, shape, names.hosts, host, self.now);
                Kind::Host
            }),
            Section::Events => None,
        };
        let Some(kind) = kind else { return false };
        body.items.push(Item { kind, end: body.bytes.len() });
        true
    }
}

/// Action line of `create` with an identifier of plain characters.
fn push_create(out: &mut Vec<u8>, index: &str, id: &str) {
    push_raw(out, "{\"create\":{\"_index\":");
    push_quoted(out, index);
    push_raw(out, ",\"_id\":");
    push_quoted(out, id);
    push_raw(out, "}}\n");
}
