//! [`Batch`] to `ExportProfilesServiceRequest`, revision 1.11.
//!
//! One dictionary per message, entry 0 of each table the none value, every other entry used by something. Keys and
//! values of resource attributes are plain text: not every receiver reads the newer references into the string table.
//! A batch beyond the size limit becomes several messages, each complete by itself.

use std::collections::HashMap;
use std::sync::Arc;

use super::attributes::Key;
use super::limits::MAX_MESSAGE_BYTES;
use crate::model::{Batch, Frame, ProfileInfo, Resource, Sample};
use crate::wire::protobuf::Writer;

/// Who says it: name and version of the scope.
const SCOPE: (&str, &str) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// Messages of a batch, and what did not fit into any.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// Exports, each at most the limit long.
    pub messages: Vec<Vec<u8>>,
    /// Entries of [`Batch::samples`] that are beyond the limit alone.
    pub too_large: u64,
}

/// Writes a batch as messages of at most [`MAX_MESSAGE_BYTES`].
#[must_use]
pub fn encode(batch: &Batch) -> Encoded {
    encode_within(batch, MAX_MESSAGE_BYTES)
}

/// Writes a batch as messages of at most `limit` bytes.
#[must_use]
pub fn encode_within(batch: &Batch, limit: usize) -> Encoded {
    let mut order: Vec<u32> = (0..batch.samples.len() as u32).collect();
    // Profiles of one resource stand together, samples of one profile too; otherwise as received.
    order.sort_by_key(|at| {
        let profile = batch.samples[*at as usize].profile;
        (batch.profiles[profile as usize].resource, profile)
    });
    let mut encoded = Encoded::default();
    let whole = 0..order.len();
    let mut waiting = vec![whole];
    while let Some(part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        let message = message(batch, &order[part.clone()]);
        if message.len() <= limit {
            encoded.messages.push(message);
        } else if part.len() == 1 {
            encoded.too_large += 1;
        } else {
            let middle = part.start + part.len() / 2;
            waiting.extend([middle..part.end, part.start..middle]);
        }
    }
    encoded
}

fn message(batch: &Batch, samples: &[u32]) -> Vec<u8> {
    let mut tables = Tables::new(batch);
    let mut out = Writer::default();
    let sample = |at: &u32| &batch.samples[*at as usize];
    let profile = |sample: &Sample| &batch.profiles[sample.profile as usize];
    for of_resource in samples.chunk_by(|a, b| profile(sample(a)).resource == profile(sample(b)).resource) {
        let resource = profile(sample(&of_resource[0])).resource;
        out.message(1, |out| {
            out.message(1, |out| write_resource(out, &batch.resources[resource as usize]));
            out.message(2, |out| {
                out.message(1, |out| {
                    out.text(1, SCOPE.0);
                    out.text(2, SCOPE.1);
                });
                for of_profile in of_resource.chunk_by(|a, b| sample(a).profile == sample(b).profile) {
                    let info = profile(sample(&of_profile[0]));
                    out.message(2, |out| write_profile(out, &mut tables, info, of_profile));
                }
            });
        });
    }
    out.message(2, |out| tables.write(out));
    out.finish()
}

fn write_resource(out: &mut Writer, resource: &Resource) {
    let mut pair = |key: &str, value: &str| {
        out.message(1, |out| {
            out.text(1, key);
            out.message(2, |out| out.text_or_empty(1, value));
        });
    };
    for (key, value) in [
        (Key::HostId, &resource.host_id),
        (Key::HostName, &resource.host_name),
        (Key::ExecutableName, &resource.executable_name),
        (Key::ExecutablePath, &resource.executable_path),
        (Key::ContainerId, &resource.container_id),
        (Key::ContainerName, &resource.container_name),
        (Key::PodName, &resource.pod_name),
        (Key::NamespaceName, &resource.namespace_name),
        (Key::ServiceName, &resource.service_name),
    ] {
        if !value.is_empty() {
            pair(key.name(), value);
        }
    }
    for (key, value) in &resource.others {
        pair(key, value);
    }
    if resource.pid != 0 {
        out.message(1, |out| {
            out.text(1, Key::Pid.name());
            out.message(2, |out| out.number_or_zero(3, u64::from(resource.pid)));
        });
    }
}

fn write_profile(out: &mut Writer, tables: &mut Tables<'_>, info: &ProfileInfo, samples: &[u32]) {
    let batch = tables.batch;
    let value_type = |out: &mut Writer, tables: &mut Tables<'_>, kind: &str, unit: &str| {
        let (kind, unit) = (tables.string(kind), tables.string(unit));
        out.number(1, u64::from(kind));
        out.number(2, u64::from(unit));
    };
    out.message(1, |out| value_type(out, tables, "samples", "count"));
    for at in samples {
        let sample = &batch.samples[*at as usize];
        out.message(2, |out| write_sample(out, tables, sample));
    }
    out.fixed64(3, info.start.0);
    out.number(4, info.duration_ns);
    out.message(5, |out| value_type(out, tables, "cpu", "nanoseconds"));
    out.number(6, info.period_ns);
}

fn write_sample(out: &mut Writer, tables: &mut Tables<'_>, sample: &Sample) {
    let batch = tables.batch;
    let stack = tables.stack(sample.stack);
    out.number(1, u64::from(stack));
    let mut attributes = [0u32; 3];
    if !sample.thread_name.is_empty() {
        attributes[0] = tables.text_attribute(Key::ThreadName, &sample.thread_name);
    }
    if sample.tid != 0 {
        attributes[1] = tables.attribute(Attribute::Number(Key::ThreadId, sample.tid));
    }
    if let Some(name) = &sample.executable_name {
        attributes[2] = tables.text_attribute(Key::ExecutableName, name);
    }
    out.packed(2, attributes.into_iter().filter(|at| *at != 0).map(u64::from));
    out.packed(4, sample.values.iter().map(|value| u64::from(*value)));
    out.packed_fixed64(5, batch.times_of(sample).iter().map(|time| time.0));
}

/// An entry of the attribute table. Texts are references into the string table until they are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Attribute {
    Text(Key, u32),
    Number(Key, u32),
}

/// The dictionary in the making. Every list starts with the none value, which nothing is written for.
struct Tables<'b> {
    batch: &'b Batch,
    strings: Numbered<Arc<str>>,
    attributes: Numbered<Attribute>,
    functions: Numbered<(u32, u32)>,
    mappings: Vec<u32>,
    locations: Vec<u32>,
    stacks: Vec<u32>,
    /// By index in the batch: index in the dictionary, 0 = not used so far.
    mapping_of: Vec<u32>,
    location_of: Vec<u32>,
    stack_of: Vec<u32>,
}

/// Distinct entries with their index, from 1.
struct Numbered<T> {
    entries: Vec<T>,
    known: HashMap<T, u32>,
}

impl<T: Clone + Eq + std::hash::Hash> Numbered<T> {
    fn new() -> Self {
        Self { entries: Vec::new(), known: HashMap::new() }
    }

    fn number(&mut self, entry: T) -> u32 {
        let entries = &mut self.entries;
        *self.known.entry(entry).or_insert_with_key(|new| {
            entries.push(new.clone());
            entries.len() as u32
        })
    }
}

impl<'b> Tables<'b> {
    fn new(batch: &'b Batch) -> Self {
        Self {
            batch,
            strings: Numbered::new(),
            attributes: Numbered::new(),
            functions: Numbered::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            stacks: Vec::new(),
            mapping_of: vec![0; batch.executables.len()],
            location_of: vec![0; batch.frames.len()],
            stack_of: vec![0; batch.stacks.len()],
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        // Look-ups by &str first: nearly all texts are known.
        match self.strings.known.get(text) {
            Some(at) => *at,
            None => self.strings.number(text.into()),
        }
    }

    fn attribute(&mut self, attribute: Attribute) -> u32 {
        self.attributes.number(attribute)
    }

    fn text_attribute(&mut self, key: Key, text: &str) -> u32 {
        let text = self.string(text);
        self.attribute(Attribute::Text(key, text))
    }

    fn stack(&mut self, at: u32) -> u32 {
        if self.batch.stack(at).is_empty() {
            return 0;
        }
        if self.stack_of[at as usize] == 0 {
            for frame in self.batch.stack(at) {
                self.location(*frame);
            }
            self.stacks.push(at);
            self.stack_of[at as usize] = self.stacks.len() as u32;
        }
        self.stack_of[at as usize]
    }

    fn location(&mut self, at: u32) {
        if self.location_of[at as usize] != 0 {
            return;
        }
        if let Some(executable) = self.batch.frames[at as usize].executable
            && self.mapping_of[executable as usize] == 0
        {
            self.mappings.push(executable);
            self.mapping_of[executable as usize] = self.mappings.len() as u32;
        }
        self.locations.push(at);
        self.location_of[at as usize] = self.locations.len() as u32;
    }

    fn write(mut self, out: &mut Writer) {
        self.write_mappings(out);
        self.write_locations(out);
        out.message(3, |_| {});
        for (name, file) in &self.functions.entries {
            out.message(3, |out| {
                out.number(1, u64::from(*name));
                out.number(3, u64::from(*file));
            });
        }
        out.message(4, |_| {});
        out.message(7, |_| {});
        for at in &self.stacks {
            let frames = self.batch.stack(*at).iter();
            out.message(7, |out| out.packed(1, frames.map(|f| u64::from(self.location_of[*f as usize]))));
        }
        out.message(6, |_| {});
        for at in 0..self.attributes.entries.len() {
            let attribute = self.attributes.entries[at];
            let (Attribute::Text(key, _) | Attribute::Number(key, _)) = attribute;
            let key = self.string(key.name());
            out.message(6, |out| {
                out.number(1, u64::from(key));
                out.message(2, |out| match attribute {
                    Attribute::Text(_, 0) => out.text_or_empty(1, ""),
                    Attribute::Text(_, at) => out.text_or_empty(1, &self.strings.entries[at as usize - 1]),
                    Attribute::Number(_, number) => out.number_or_zero(3, u64::from(number)),
                });
            });
        }
        // Last, because the tables above still add to it.
        out.text_or_empty(5, "");
        for text in &self.strings.entries {
            out.text_or_empty(5, text);
        }
    }

    fn write_mappings(&mut self, out: &mut Writer) {
        let batch = self.batch;
        out.message(1, |_| {});
        for at in 0..self.mappings.len() {
            let executable = &batch.executables[self.mappings[at] as usize];
            let name = self.string(&executable.name);
            let mut attributes = [0u32; 2];
            if let Some(id) = executable.file_id {
                attributes[0] = self.text_attribute(Key::FileId, &id.to_string());
            }
            if !executable.gnu_build_id.is_empty() {
                attributes[1] = self.text_attribute(Key::GnuBuildId, &executable.gnu_build_id);
            }
            out.message(1, |out| {
                out.number(4, u64::from(name));
                out.packed(5, attributes.into_iter().filter(|at| *at != 0).map(u64::from));
            });
        }
    }

    fn write_locations(&mut self, out: &mut Writer) {
        out.message(2, |_| {});
        for at in 0..self.locations.len() {
            let frame = &self.batch.frames[self.locations[at] as usize];
            out.message(2, |out| self.write_location(out, frame));
        }
    }

    fn write_location(&mut self, out: &mut Writer, frame: &Frame) {
        out.number(1, frame.executable.map_or(0, |e| u64::from(self.mapping_of[e as usize])));
        out.number(2, frame.address);
        for line in &frame.lines {
            let (name, file) = (self.string(&line.function), self.string(&line.file));
            let function = if (name, file) == (0, 0) { 0 } else { self.functions.number((name, file)) };
            out.message(3, |out| {
                out.number(1, u64::from(function));
                out.number(2, u64::from(line.line));
                out.number(3, u64::from(line.column));
            });
        }
        let kind = self.text_attribute(Key::FrameType, frame.kind.otlp_name());
        out.packed(4, [u64::from(kind)]);
    }
}
