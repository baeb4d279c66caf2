//! The tables that samples point into, and what of them has been turned into the batch so far.
//!
//! Tables are lists of slices of the message. An entry is read when something uses it, and then once: each distinct
//! location becomes one frame, each distinct stack one range. Only executables are taken whether used or not, because
//! they are worth knowing by themselves.

use std::collections::HashMap;
use std::sync::Arc;

use super::attributes::{AnyValue, Attribute, Key, Text, describe, text};
use super::error::{Error, Problem, Result};
use super::fields::{bytes, each_number, index, number, room};
use super::limits::{
    MAX_ATTRIBUTES_OF_ONE, MAX_FRAMES_IN_STACKS, MAX_LINES, MAX_LINES_IN_EXPORT, MAX_STACK_FRAMES,
    MAX_TABLE_ENTRIES,
};
use super::revision::Layout;
use crate::model::{Batch, Executable, FileId, Frame, FrameKind, Resource, SourceLine};
use crate::wire::protobuf::{Reader, Value};

/// Entry of a look-up list that has not been made yet. No list grows that long.
const UNMADE: u32 = u32::MAX;
/// Location that stands for no frame.
const NO_FRAME: u32 = u32::MAX - 1;

/// The batch in the making, with what is needed to keep its entries distinct.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) batch: Batch,
    executables: HashMap<Executable, u32>,
    lines: usize,
    /// File IDs that are no 32 hex digits.
    pub(super) unreadable_file_ids: u64,
}

impl Output {
    fn executable(&mut self, executable: Executable) -> u32 {
        let executables = &mut self.batch.executables;
        *self.executables.entry(executable).or_insert_with_key(|new| {
            executables.push(new.clone());
            executables.len() as u32 - 1
        })
    }
}

/// Dictionary of an export, or of one profile before 1.6.
#[derive(Debug)]
pub(super) struct Dictionary<'a> {
    layout: &'static Layout,
    pub(super) strings: Vec<&'a [u8]>,
    mappings: Vec<&'a [u8]>,
    locations: Vec<&'a [u8]>,
    functions: Vec<&'a [u8]>,
    stacks: Vec<&'a [u8]>,
    pub(super) attributes: Vec<Attribute<'a>>,
    /// By string: its text, once used.
    texts: Vec<Option<Arc<str>>>,
    /// By attribute: its name and the text of its value, once used.
    names: Vec<Option<Arc<str>>>,
    values: Vec<Option<Arc<str>>>,
    /// By mapping: index in [`Batch::executables`].
    executables: Vec<Option<u32>>,
    /// By location: index in [`Batch::frames`].
    frames: Vec<u32>,
    /// By stack: index in [`Batch::stacks`].
    made_stacks: Vec<u32>,
    /// List of the current profile that samples take ranges of.
    location_indices: Vec<u32>,
    /// By range of `location_indices`: index in [`Batch::stacks`].
    ranges: HashMap<(u64, u64), u32>,
}

impl<'a> Dictionary<'a> {
    /// Reads the tables of `holder`: a dictionary, a request or a profile, as the layout says.
    pub(super) fn read(layout: &'static Layout, holder: &[&'a [u8]], output: &mut Output) -> Result<Self> {
        let mut dictionary = Self {
            layout,
            strings: Vec::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            functions: Vec::new(),
            stacks: Vec::new(),
            attributes: Vec::new(),
            texts: Vec::new(),
            names: Vec::new(),
            values: Vec::new(),
            executables: Vec::new(),
            frames: Vec::new(),
            made_stacks: Vec::new(),
            location_indices: Vec::new(),
            ranges: HashMap::new(),
        };
        let mut attributes = Vec::new();
        for part in holder {
            dictionary.read_tables(part, &mut attributes)?;
        }
        dictionary.attributes.reserve(attributes.len());
        for (at, message) in attributes.into_iter().enumerate() {
            let attribute = if layout.key_is_index {
                Attribute::key_value_and_unit(message, &dictionary.strings)
            } else {
                Attribute::key_value(message, &dictionary.strings)
            };
            dictionary.attributes.push(attribute.map_err(|e| e.at_entry("attribute_table", at))?);
        }
        dictionary.texts = vec![None; dictionary.strings.len()];
        dictionary.names = vec![None; dictionary.attributes.len()];
        dictionary.values = vec![None; dictionary.attributes.len()];
        dictionary.frames = vec![UNMADE; dictionary.locations.len()];
        dictionary.made_stacks = vec![UNMADE; dictionary.stacks.len()];
        for (at, message) in std::mem::take(&mut dictionary.mappings).into_iter().enumerate() {
            let executable = if at == 0 && layout.zero_is_none {
                None
            } else {
                dictionary.mapping(message, output).map_err(|e| e.at_entry("mapping_table", at))?
            };
            dictionary.executables.push(executable);
        }
        Ok(dictionary)
    }

    fn read_tables(&mut self, holder: &'a [u8], attributes: &mut Vec<&'a [u8]>) -> Result<()> {
        let fields = &self.layout.table;
        let mut reader = Reader::new(holder);
        while let Some((field, value)) = reader.field()? {
            let (name, table) = match field {
                f if f == fields.string => ("string_table", &mut self.strings),
                f if f == fields.location => ("location_table", &mut self.locations),
                f if f == fields.stack => ("stack_table", &mut self.stacks),
                f if f == fields.attribute => ("attribute_table", &mut *attributes),
                f if f == fields.function => ("function_table", &mut self.functions),
                f if f == fields.mapping => ("mapping_table", &mut self.mappings),
                _ => continue,
            };
            let at = table.len();
            room(at, MAX_TABLE_ENTRIES).map_err(|e| e.at(name))?;
            table.push(bytes(&value).map_err(|e| e.at_entry(name, at))?);
        }
        Ok(())
    }

    /// Text of a string by its index. Index 0 of an absent table is the empty text.
    fn text(&mut self, number: u64) -> Result<Arc<str>> {
        if number == 0 && self.strings.is_empty() {
            return Ok(Arc::default());
        }
        let at = index(number, self.strings.len())?;
        Ok(self.entry_text(at))
    }

    /// Text of a string by its checked index. One text, however many use it.
    fn entry_text(&mut self, at: usize) -> Arc<str> {
        self.texts[at].get_or_insert_with(|| text(self.strings[at])).clone()
    }

    fn any_text(&mut self, found: Text<'a>) -> Arc<str> {
        match found {
            Text::Inline(bytes) => text(bytes),
            Text::Entry(at) => self.entry_text(at),
        }
    }

    /// Merges an attribute that stands in the message itself into `resource`.
    pub(super) fn describe(&mut self, resource: &mut Resource, attribute: Attribute<'a>) {
        let value = match attribute.value {
            AnyValue::Text(text) => self.any_text(text),
            value => value.to_text(&self.strings),
        };
        describe(resource, attribute.key, value, || self.any_text(attribute.name));
    }

    /// Merges an entry of the attribute table into `resource`. `at` is a checked index.
    pub(super) fn describe_by_entry(&mut self, resource: &mut Resource, at: usize) {
        let Attribute { key, name, .. } = self.attributes[at];
        let value = self.value_text(at);
        describe(resource, key, value, || {
            if self.names[at].is_none() {
                self.names[at] = Some(self.any_text(name));
            }
            self.names[at].clone().unwrap_or_default()
        });
    }

    /// Bytes of a string by its index.
    pub(super) fn string(&self, number: u64) -> Result<&'a [u8]> {
        if number == 0 && self.strings.is_empty() {
            return Ok(b"");
        }
        Ok(self.strings[index(number, self.strings.len())?])
    }

    /// Text of an attribute's value. `at` is a checked index.
    pub(super) fn value_text(&mut self, at: usize) -> Arc<str> {
        if let Some(known) = &self.values[at] {
            return known.clone();
        }
        let value = match self.attributes[at].value {
            AnyValue::Text(text) => self.any_text(text),
            value => value.to_text(&self.strings),
        };
        self.values[at] = Some(value.clone());
        value
    }

    /// Checks a reference to an attribute. Index 0 of an absent table is no attribute.
    #[inline]
    pub(super) fn attribute_index(&self, number: u64) -> Result<Option<usize>> {
        if number == 0 && self.attributes.is_empty() {
            return Ok(None);
        }
        index(number, self.attributes.len()).map(Some)
    }

    /// Calls `take` with the checked index of each attribute that a field refers to.
    fn each_attribute(&self, value: &Value<'_>, mut take: impl FnMut(usize)) -> Result<()> {
        let mut count = 0;
        each_number(value, |number| {
            room(count, MAX_ATTRIBUTES_OF_ONE)?;
            count += 1;
            if let Some(at) = self.attribute_index(number)? {
                take(at);
            }
            Ok(())
        })
        .map_err(|e| e.at("attribute_indices"))
    }

    fn mapping(&mut self, message: &'a [u8], output: &mut Output) -> Result<Option<u32>> {
        let fields = &self.layout.mapping;
        let mut executable = Executable::default();
        let mut file_id: &[u8] = b"";
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == fields.file {
                let name = number(&value).and_then(|n| self.text(n));
                executable.name = name.map_err(|e| e.at("filename_strindex"))?;
            } else if field == fields.build_id {
                let id = number(&value).and_then(|n| self.string(n));
                file_id = id.map_err(|e| e.at("build_id"))?;
            } else if field == fields.attributes {
                let mut build_id = None;
                self.each_attribute(&value, |at| {
                    match (self.attributes[at].key, self.attributes[at].value) {
                        (Key::FileId, AnyValue::Text(text)) => file_id = text.bytes(&self.strings),
                        (Key::GnuBuildId, _) => build_id = Some(at),
                        _ => {}
                    }
                })?;
                if let Some(at) = build_id {
                    executable.gnu_build_id = self.value_text(at);
                }
            }
        }
        if !file_id.is_empty() {
            match std::str::from_utf8(file_id).ok().and_then(|id| FileId::parse_hex(id).ok()) {
                Some(id) if id.is_zero() => {}
                Some(id) => executable.file_id = Some(id),
                None => output.unreadable_file_ids += 1,
            }
        }
        Ok((executable != Executable::default()).then(|| output.executable(executable)))
    }

    /// Starts a profile whose samples take ranges of a list of locations.
    pub(super) fn start_profile(&mut self) {
        self.location_indices.clear();
        self.ranges.clear();
    }

    /// Adds to the list of the current profile.
    pub(super) fn add_location_indices(&mut self, value: &Value<'_>) -> Result<()> {
        let (list, locations) = (&mut self.location_indices, self.locations.len());
        each_number(value, |number| {
            room(list.len(), MAX_FRAMES_IN_STACKS)?;
            list.push(index(number, locations)? as u32);
            Ok(())
        })
    }

    /// Stack of the batch for entry `number` of the stack table.
    #[inline]
    pub(super) fn stack(&mut self, number: u64, output: &mut Output) -> Result<u32> {
        if number == 0 && self.stacks.is_empty() {
            return self.range(0, 0, output);
        }
        let at = index(number, self.stacks.len()).map_err(|e| e.at("stack_index"))?;
        if self.made_stacks[at] == UNMADE {
            let made = self.make_stack(at, output);
            self.made_stacks[at] =
                made.map_err(|e| e.at_entry("stack_table", at).at("dictionary").rooted())?;
        }
        Ok(self.made_stacks[at])
    }

    fn make_stack(&mut self, at: usize, output: &mut Output) -> Result<u32> {
        let message = self.stacks[at];
        let start = output.batch.stack_frames.len();
        let mut reader = Reader::new(message);
        let mut seen = 0;
        while let Some((field, value)) = reader.field()? {
            if field != 1 {
                continue;
            }
            each_number(&value, |number| {
                let location =
                    index(number, self.locations.len()).map_err(|e| e.at_entry("location_indices", seen))?;
                seen += 1;
                self.push_frame(location, start, output)
            })?;
        }
        Ok(finish_stack(start, output))
    }

    /// Stack of the batch for a range of the profile's list of locations (before 1.8).
    pub(super) fn range(&mut self, start: u64, length: u64, output: &mut Output) -> Result<u32> {
        if let Some(stack) = self.ranges.get(&(start, length)) {
            return Ok(*stack);
        }
        // 1.3: without a list, ranges are of the table itself.
        let direct = self.layout.container && self.location_indices.is_empty();
        let available = if direct { self.locations.len() } else { self.location_indices.len() };
        let end = start.saturating_add(length);
        if length > 0 && end > available as u64 {
            let problem = Problem::Index { length: available, found: end as i64 - 1 };
            return Err(Error::new(problem).at("locations_length"));
        }
        let first = output.batch.stack_frames.len();
        for at in start..end {
            let location = if direct { at as usize } else { self.location_indices[at as usize] as usize };
            self.push_frame(location, first, output)?;
        }
        let stack = finish_stack(first, output);
        self.ranges.insert((start, length), stack);
        Ok(stack)
    }

    /// Stack of the batch for locations listed in the sample (1.3).
    pub(super) fn listed(&mut self, locations: &[u64], output: &mut Output) -> Result<u32> {
        let first = output.batch.stack_frames.len();
        for (at, number) in locations.iter().enumerate() {
            let location =
                index(*number, self.locations.len()).map_err(|e| e.at_entry("location_index", at))?;
            self.push_frame(location, first, output)?;
        }
        Ok(finish_stack(first, output))
    }

    #[inline]
    fn push_frame(&mut self, location: usize, start: usize, output: &mut Output) -> Result<()> {
        room(output.batch.stack_frames.len() - start, MAX_STACK_FRAMES)?;
        room(output.batch.stack_frames.len(), MAX_FRAMES_IN_STACKS)?;
        let mut frame = self.frames[location];
        if frame == UNMADE {
            let made = self.make_frame(location, output);
            frame = made.map_err(|e| e.at_entry("location_table", location).at("dictionary").rooted())?;
            self.frames[location] = frame;
        }
        if frame != NO_FRAME {
            output.batch.stack_frames.push(frame);
        }
        Ok(())
    }

    fn make_frame(&mut self, location: usize, output: &mut Output) -> Result<u32> {
        if location == 0 && self.layout.zero_is_none {
            return Ok(NO_FRAME);
        }
        let fields = &self.layout.location;
        let mut frame = Frame::default();
        let mut kind = None;
        // 1.3 has no presence: an absent index is index 0.
        let mut mapping = (self.layout.container && !self.executables.is_empty()).then_some(0);
        let mut reader = Reader::new(self.locations[location]);
        while let Some((field, value)) = reader.field()? {
            if field == fields.mapping {
                let at = number(&value).map_err(|e| e.at("mapping_index"))?;
                mapping = (at != 0 || !self.executables.is_empty()).then_some(at);
            } else if field == fields.address {
                frame.address = number(&value).map_err(|e| e.at("address"))?;
            } else if field == fields.lines {
                let at = frame.lines.len();
                room(at, MAX_LINES)
                    .and_then(|()| room(output.lines, MAX_LINES_IN_EXPORT))
                    .map_err(|e| e.at("lines"))?;
                let line = bytes(&value).and_then(|message| self.line(message));
                frame.lines.push(line.map_err(|e| e.at_entry("lines", at))?);
                output.lines += 1;
            } else if field == fields.kind {
                let name = number(&value).and_then(|n| self.string(n)).map_err(|e| e.at("type_index"))?;
                kind = Some(name);
            } else if field == fields.attributes {
                self.each_attribute(&value, |at| {
                    let Attribute { key, value, .. } = self.attributes[at];
                    if let (Key::FrameType, AnyValue::Text(name)) = (key, value) {
                        kind = Some(name.bytes(&self.strings));
                    }
                })?;
            }
        }
        if let Some(at) = mapping {
            let at = index(at, self.executables.len()).map_err(|e| e.at("mapping_index"))?;
            frame.executable = self.executables[at];
        }
        frame.kind = match kind {
            Some(name) => std::str::from_utf8(name).map_or(FrameKind::UNKNOWN, FrameKind::from_otlp_name),
            // Not every sender says it; an address in an executable is native code.
            None if frame.executable.is_some() && frame.address != 0 => FrameKind::NATIVE,
            None => FrameKind::UNKNOWN,
        };
        output.batch.frames.push(frame);
        Ok(output.batch.frames.len() as u32 - 1)
    }

    fn line(&mut self, message: &'a [u8]) -> Result<SourceLine> {
        let mut line = SourceLine::default();
        let mut function = 0;
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => function = number(&value).map_err(|e| e.at("function_index"))?,
                2 => line.line = clamp(number(&value).map_err(|e| e.at("line"))?),
                3 => line.column = clamp(number(&value).map_err(|e| e.at("column"))?),
                _ => {}
            }
        }
        if function == 0 && self.functions.is_empty() {
            return Ok(line);
        }
        let at = index(function, self.functions.len()).map_err(|e| e.at("function_index"))?;
        let fields = &self.layout.function;
        let mut reader = Reader::new(self.functions[at]);
        let outer = |e: Error| e.at_entry("function_table", at).at("dictionary").rooted();
        while let Some((field, value)) = reader.field().map_err(|e| outer(e.into()))? {
            if field == fields.name {
                let name = number(&value).and_then(|n| self.text(n));
                line.function = name.map_err(|e| outer(e.at("name_strindex")))?;
            } else if field == fields.file {
                let name = number(&value).and_then(|n| self.text(n));
                line.file = name.map_err(|e| outer(e.at("filename_strindex")))?;
            }
        }
        Ok(line)
    }
}

fn finish_stack(start: usize, output: &mut Output) -> u32 {
    output.batch.stacks.push(start as u32..output.batch.stack_frames.len() as u32);
    output.batch.stacks.len() as u32 - 1
}

/// Lines and columns are `int64` on the wire; negative ones say nothing.
fn clamp(number: u64) -> u32 {
    (number as i64).clamp(0, i64::from(u32::MAX)) as u32
}
