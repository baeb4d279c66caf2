//! `ExportProfilesServiceRequest` to [`Batch`], from borrowed bytes, for every revision of [`super::revision`].
//!
//! Pure. Any bytes give a batch whose every index is valid, or an error that names the field. A profile that was read
//! but measures something else than CPU samples is left out and counted; the others still count.

use std::collections::HashMap;

use super::attributes::{Attribute, Key};
use super::dictionary::{Dictionary, Output};
use super::error::{Error, Problem, Result};
use super::fields::{bytes, each_number, each_time, number, room};
use super::limits::{
    MAX_ATTRIBUTES, MAX_ATTRIBUTES_OF_ONE, MAX_MESSAGE_BYTES, MAX_PROFILES, MAX_SAMPLES, MAX_STACK_FRAMES,
    MAX_TIMES,
};
use super::revision::{ABSENT, Layout, Tables, V1_3, detect};
use crate::model::{Batch, ProfileInfo, Resource, Sample, UnixNanos};
use crate::wire::protobuf::{Reader, Value};

/// Times up to here are taken as seconds (until the year 2106), as the documents' other writers do.
const LAST_SECOND: u64 = u32::MAX as u64;

/// What an export said.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Profiles that were understood.
    pub batch: Batch,
    /// Newest revision whose layout the message has: `1.11`.
    pub revision: &'static str,
    /// What was left out, and why.
    pub left_out: LeftOut,
}

/// Parts of a well-formed export that the model has no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Profiles of something else than samples (off-CPU time, events, allocations).
    pub profiles_of_other_type: u64,
    /// Profiles whose period is no CPU time.
    pub profiles_of_other_period: u64,
    /// Sample entries of all those profiles.
    pub samples: u64,
    /// Negative values, read as 0.
    pub negative_values: u64,
    /// File IDs that are no 32 hex digits; the frames get a synthetic one.
    pub unreadable_file_ids: u64,
    /// First profile left out, for the answer: which, what was expected, what was found.
    pub first: Option<String>,
}

impl LeftOut {
    /// Profiles left out for whatever reason.
    #[must_use]
    pub fn profiles(&self) -> u64 {
        self.profiles_of_other_type + self.profiles_of_other_period
    }
}

/// Reads an export of `opentelemetry.proto.collector.profiles.v1development` (1.4 to 1.11).
///
/// # Errors
/// Names the field that cannot be read.
pub fn decode(message: &[u8]) -> Result<Decoded> {
    check_size(message)?;
    decode_as(message, detect(message))
}

/// Reads an export of `opentelemetry.proto.collector.profiles.v1experimental` (1.3), whose messages cannot be told
/// from later ones by themselves.
///
/// # Errors
/// Names the field that cannot be read.
pub fn decode_experimental(message: &[u8]) -> Result<Decoded> {
    check_size(message)?;
    decode_as(message, &V1_3)
}

fn check_size(message: &[u8]) -> Result<()> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(Error::new(Problem::Size { limit: MAX_MESSAGE_BYTES, found: message.len() }));
    }
    Ok(())
}

fn decode_as(message: &[u8], layout: &'static Layout) -> Result<Decoded> {
    let mut resources = Vec::new();
    let mut holders = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => {
                room(resources.len(), MAX_PROFILES).map_err(|e| e.at("resource_profiles"))?;
                let at = resources.len();
                resources.push(bytes(&value).map_err(|e| e.at_entry("resource_profiles", at))?);
            }
            2 if layout.tables == Tables::Dictionary => {
                // A message field sent twice means the sum of both.
                room(holders.len(), 2).map_err(|e| e.at("dictionary"))?;
                holders.push(bytes(&value).map_err(|e| e.at("dictionary"))?);
            }
            _ => {}
        }
    }
    if layout.tables == Tables::Request {
        holders.push(message);
    }
    let mut decoder = Decoder { layout, ..Decoder::default() };
    let mut dictionary =
        Dictionary::read(layout, &holders, &mut decoder.output).map_err(|e| e.at("dictionary"))?;
    for (at, resource) in resources.into_iter().enumerate() {
        decoder
            .resource_profiles(resource, &mut dictionary)
            .map_err(|e| e.at_entry("resource_profiles", at))?;
    }
    Ok(decoder.finish())
}

struct Decoder {
    layout: &'static Layout,
    output: Output,
    left_out: LeftOut,
    resources: HashMap<Resource, u32>,
    /// Profile variants for attributes of the process that were sent per sample (before 1.8), by profile and
    /// attribute indices.
    variants: HashMap<(u32, Vec<u32>), u32>,
    attributes: usize,
    scratch: Scratch,
}

/// Lists of the sample in hand, kept to save allocations.
#[derive(Default)]
struct Scratch {
    values: Vec<i64>,
    locations: Vec<u64>,
    of_resource: Vec<u32>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            layout: &super::revision::V1_11,
            output: Output::default(),
            left_out: LeftOut::default(),
            resources: HashMap::new(),
            variants: HashMap::new(),
            attributes: 0,
            scratch: Scratch::default(),
        }
    }
}

/// Fields of a profile that stand beside its samples.
#[derive(Default)]
struct Header<'a> {
    info: ProfileInfo,
    sample_type: (&'a [u8], &'a [u8]),
    period_type: (&'a [u8], &'a [u8]),
}

impl Decoder {
    fn finish(self) -> Decoded {
        let left_out = LeftOut { unreadable_file_ids: self.output.unreadable_file_ids, ..self.left_out };
        Decoded { batch: self.output.batch, revision: self.layout.revision, left_out }
    }

    fn resource_profiles<'a>(&mut self, message: &'a [u8], dictionary: &mut Dictionary<'a>) -> Result<()> {
        let mut resource = Resource::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == 1 {
                let described = bytes(&value).and_then(|m| self.key_values(m, 1, &mut resource, dictionary));
                described.map_err(|e| e.at("resource"))?;
            }
        }
        let mut reader = Reader::new(message);
        let mut at = 0;
        while let Some((field, value)) = reader.field()? {
            if field == 2 {
                bytes(&value)
                    .and_then(|m| self.scope_profiles(m, &resource, dictionary))
                    .map_err(|e| e.at_entry("scope_profiles", at))?;
                at += 1;
            }
        }
        Ok(())
    }

    fn scope_profiles<'a>(
        &mut self,
        message: &'a [u8],
        resource: &Resource,
        dictionary: &mut Dictionary<'a>,
    ) -> Result<()> {
        let mut with_scope = None;
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == 1 {
                let resource = with_scope.get_or_insert_with(|| resource.clone());
                let described = bytes(&value).and_then(|m| self.key_values(m, 3, resource, dictionary));
                described.map_err(|e| e.at("scope"))?;
            }
        }
        let resource = with_scope.as_ref().unwrap_or(resource);
        let mut reader = Reader::new(message);
        let mut at = 0;
        while let Some((field, value)) = reader.field()? {
            if field == 2 {
                bytes(&value)
                    .and_then(|m| self.profile_or_container(m, resource, dictionary))
                    .map_err(|e| e.at_entry("profiles", at))?;
                at += 1;
            }
        }
        Ok(())
    }

    fn profile_or_container<'a>(
        &mut self,
        message: &'a [u8],
        resource: &Resource,
        dictionary: &mut Dictionary<'a>,
    ) -> Result<()> {
        if !self.layout.container {
            return self.profile(message, resource, dictionary);
        }
        let mut resource = resource.clone();
        self.key_values(message, 4, &mut resource, dictionary)?;
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == 8 {
                bytes(&value)
                    .and_then(|m| self.profile(m, &resource, dictionary))
                    .map_err(|e| e.at("profile"))?;
            }
        }
        Ok(())
    }

    /// Merges each `KeyValue` in field `wanted` of `message` into `resource`.
    fn key_values<'a>(
        &mut self,
        message: &'a [u8],
        wanted: u32,
        resource: &mut Resource,
        dictionary: &mut Dictionary<'a>,
    ) -> Result<()> {
        let mut reader = Reader::new(message);
        let mut at = 0;
        while let Some((field, value)) = reader.field()? {
            if field != wanted {
                continue;
            }
            self.count_attribute(at).map_err(|e| e.at("attributes"))?;
            let attribute = bytes(&value).and_then(|m| Attribute::key_value(m, &dictionary.strings));
            dictionary.describe(resource, attribute.map_err(|e| e.at_entry("attributes", at))?);
            at += 1;
        }
        Ok(())
    }

    fn count_attribute(&mut self, of_one: usize) -> Result<()> {
        room(of_one, MAX_ATTRIBUTES_OF_ONE)?;
        room(self.attributes, MAX_ATTRIBUTES)?;
        self.attributes += 1;
        Ok(())
    }

    fn profile<'a>(
        &mut self,
        message: &'a [u8],
        resource: &Resource,
        shared: &mut Dictionary<'a>,
    ) -> Result<()> {
        room(self.output.batch.profiles.len(), MAX_PROFILES)?;
        let mut own;
        let dictionary = if self.layout.tables == Tables::Profile {
            own = Dictionary::read(self.layout, &[message], &mut self.output)?;
            &mut own
        } else {
            shared
        };
        dictionary.start_profile();
        let mut resource = std::borrow::Cow::Borrowed(resource);
        let header = self.header(message, &mut resource, dictionary)?;
        if let Some(why) = self.refuse(&header) {
            let fields = Reader::new(message);
            self.left_out.samples += count(fields, self.layout.profile.samples)?;
            self.left_out.first.get_or_insert(why);
            return Ok(());
        }
        let batch = &mut self.output.batch;
        let at = intern(&mut self.resources, &mut batch.resources, resource.into_owned());
        batch.profiles.push(ProfileInfo { resource: at, ..header.info });
        let profile = batch.profiles.len() as u32 - 1;
        let mut reader = Reader::new(message);
        let mut at = 0;
        while let Some((field, value)) = reader.field()? {
            if field == self.layout.profile.samples {
                bytes(&value)
                    .and_then(|m| self.sample(m, profile, dictionary))
                    .map_err(|e| e.at_entry("samples", at))?;
                at += 1;
            }
        }
        Ok(())
    }

    fn header<'a>(
        &mut self,
        message: &'a [u8],
        resource: &mut std::borrow::Cow<'_, Resource>,
        dictionary: &mut Dictionary<'a>,
    ) -> Result<Header<'a>> {
        let fields = &self.layout.profile;
        let mut header = Header::default();
        let mut types = 0;
        let mut reader = Reader::new(message);
        let mut count = 0;
        while let Some((field, value)) = reader.field()? {
            if field == fields.samples {
            } else if field == fields.sample_type {
                let found = value_type(&value, dictionary).map_err(|e| e.at("sample_type"))?;
                // Before 1.8 there may be several; the one we know wins over the first.
                if types == 0 || same(found, "samples", "count") {
                    header.sample_type = found;
                }
                types += 1;
            } else if field == fields.period_type {
                header.period_type = value_type(&value, dictionary).map_err(|e| e.at("period_type"))?;
            } else if field == fields.time {
                header.info.start = time(number(&value).map_err(|e| e.at("time_unix_nano"))?);
            } else if field == fields.duration {
                header.info.duration_ns = number(&value).map_err(|e| e.at("duration_nano"))?;
            } else if field == fields.period {
                let period = number(&value).map_err(|e| e.at("period"))? as i64;
                header.info.period_ns = u64::try_from(period).unwrap_or(0);
            } else if field == fields.location_indices {
                dictionary.add_location_indices(&value).map_err(|e| e.at("location_indices"))?;
            } else if field == fields.attributes {
                let attribute = bytes(&value).and_then(|m| Attribute::key_value(m, &dictionary.strings));
                let attribute = attribute.map_err(|e| e.at_entry("attributes", count))?;
                self.count_attribute(count).map_err(|e| e.at("attributes"))?;
                dictionary.describe(resource.to_mut(), attribute);
                count += 1;
            } else if field == fields.attribute_indices {
                each_number(&value, |number| {
                    self.count_attribute(count)?;
                    count += 1;
                    if let Some(at) = dictionary.attribute_index(number)? {
                        dictionary.describe_by_entry(resource.to_mut(), at);
                    }
                    Ok(())
                })
                .map_err(|e| e.at("attribute_indices"))?;
            }
        }
        Ok(header)
    }

    /// Why a profile has no place in the model, if so.
    fn refuse(&mut self, header: &Header<'_>) -> Option<String> {
        let said = |(kind, unit): (&[u8], &[u8])| {
            format!("{}/{}", String::from_utf8_lossy(short(kind)), String::from_utf8_lossy(short(unit)))
        };
        if !same(header.sample_type, "samples", "count") {
            self.left_out.profiles_of_other_type += 1;
            return Some(format!("sample_type: expected samples/count, found {}", said(header.sample_type)));
        }
        if !same(header.period_type, "cpu", "nanoseconds") {
            self.left_out.profiles_of_other_period += 1;
            return Some(format!(
                "period_type: expected cpu/nanoseconds, found {}",
                said(header.period_type)
            ));
        }
        None
    }

    fn sample<'a>(&mut self, message: &'a [u8], profile: u32, dictionary: &mut Dictionary<'a>) -> Result<()> {
        room(self.output.batch.samples.len(), MAX_SAMPLES)?;
        let fields = &self.layout.sample;
        let (mut stack, mut start, mut length) = (0, 0, 0);
        let mut sample = Sample { profile, ..Sample::default() };
        let mut executable = None;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let first_time = self.output.batch.times.len();
        let mut attributes = 0;
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == fields.stack {
                stack = number(&value).map_err(|e| e.at("stack_index"))?;
            } else if field == fields.attributes {
                each_number(&value, |number| {
                    room(attributes, MAX_ATTRIBUTES_OF_ONE)?;
                    attributes += 1;
                    let Some(at) = dictionary.attribute_index(number)? else { return Ok(()) };
                    match dictionary.attributes[at].key {
                        Key::ThreadName => sample.thread_name = dictionary.value_text(at),
                        Key::ThreadId => {
                            sample.tid = dictionary.attributes[at].value.to_u32(&dictionary.strings);
                        }
                        Key::ExecutableName => executable = Some(at),
                        key if key.is_of_resource() => scratch.of_resource.push(at as u32),
                        _ => {}
                    }
                    Ok(())
                })
                .map_err(|e| e.at("attribute_indices"))?;
            } else if field == fields.times {
                let times = &mut self.output.batch.times;
                each_time(&value, fields.stack != ABSENT, |stamp| {
                    room(times.len(), MAX_TIMES)?;
                    times.push(time(stamp));
                    Ok(())
                })
                .map_err(|e| e.at("timestamps_unix_nano"))?;
            } else if field == fields.values {
                each_number(&value, |number| {
                    room(scratch.values.len(), MAX_TIMES)?;
                    scratch.values.push(number as i64);
                    Ok(())
                })
                .map_err(|e| e.at("values"))?;
            } else if field == fields.start {
                start = number(&value).map_err(|e| e.at("locations_start_index"))?;
            } else if field == fields.length {
                length = number(&value).map_err(|e| e.at("locations_length"))?;
            } else if field == fields.locations {
                each_number(&value, |number| {
                    room(scratch.locations.len(), MAX_STACK_FRAMES)?;
                    scratch.locations.push(number);
                    Ok(())
                })
                .map_err(|e| e.at("location_index"))?;
            }
        }
        sample.stack = if fields.stack != ABSENT {
            dictionary.stack(stack, &mut self.output)?
        } else if scratch.locations.is_empty() {
            dictionary.range(start, length, &mut self.output)?
        } else {
            dictionary.listed(&scratch.locations, &mut self.output)?
        };
        sample.values = self.repeats(&scratch.values, first_time, profile)?;
        sample.times = first_time as u32..self.output.batch.times.len() as u32;
        if !scratch.of_resource.is_empty() {
            scratch.of_resource.extend(executable.map(|at| at as u32));
            sample.profile = self.variant(profile, &scratch.of_resource, dictionary)?;
        } else if let Some(at) = executable {
            sample.executable_name = Some(dictionary.value_text(at));
        }
        self.output.batch.samples.push(sample);
        self.scratch = scratch;
        Ok(())
    }

    /// Repeats per time stamp; empty when each counts once. Adds the profile's start for values without a time.
    fn repeats(&mut self, values: &[i64], first_time: usize, profile: u32) -> Result<Vec<u32>> {
        let times = self.output.batch.times.len() - first_time;
        let negative = &mut self.left_out.negative_values;
        let mut repeat = |value: i64| {
            *negative += u64::from(value < 0);
            value.clamp(0, i64::from(u32::MAX)) as u32
        };
        if values.is_empty() {
            return Ok(Vec::new());
        }
        if times == 0 {
            // An aggregate: so many samples somewhere in the window.
            let start = self.output.batch.profiles[profile as usize].start;
            if start == UnixNanos::default() {
                return Ok(Vec::new());
            }
            self.output.batch.times.push(start);
            let sum = values.iter().fold(0u32, |sum, value| sum.saturating_add(repeat(*value)));
            return Ok(if sum == 1 { Vec::new() } else { vec![sum] });
        }
        if values.len() != times {
            // Before 1.8 there was one value per sample type, however many times.
            if self.layout.sample.stack == ABSENT {
                return Ok(Vec::new());
            }
            return Err(Error::new(Problem::Lengths { expected: times, found: values.len() }).at("values"));
        }
        if values.iter().all(|value| *value == 1) {
            return Ok(Vec::new());
        }
        Ok(values.iter().map(|value| repeat(*value)).collect())
    }

    /// The profile with the attributes of one sample added to its resource.
    fn variant(&mut self, profile: u32, attributes: &[u32], dictionary: &mut Dictionary<'_>) -> Result<u32> {
        let key = (profile, attributes.to_vec());
        if let Some(at) = self.variants.get(&key) {
            return Ok(*at);
        }
        let batch = &mut self.output.batch;
        room(batch.profiles.len(), MAX_PROFILES)?;
        let info = batch.profiles[profile as usize];
        let mut resource = batch.resources[info.resource as usize].clone();
        for at in attributes {
            dictionary.describe_by_entry(&mut resource, *at as usize);
        }
        let resource = intern(&mut self.resources, &mut batch.resources, resource);
        batch.profiles.push(ProfileInfo { resource, ..info });
        let at = batch.profiles.len() as u32 - 1;
        self.variants.insert(key, at);
        Ok(at)
    }
}

impl Scratch {
    fn clear(&mut self) {
        self.values.clear();
        self.locations.clear();
        self.of_resource.clear();
    }
}

fn intern(known: &mut HashMap<Resource, u32>, resources: &mut Vec<Resource>, resource: Resource) -> u32 {
    if let Some(at) = known.get(&resource) {
        return *at;
    }
    resources.push(resource.clone());
    let at = resources.len() as u32 - 1;
    known.insert(resource, at);
    at
}

fn value_type<'a>(value: &Value<'a>, dictionary: &Dictionary<'a>) -> Result<(&'a [u8], &'a [u8])> {
    let (mut kind, mut unit): (&[u8], &[u8]) = (b"", b"");
    let mut reader = Reader::new(bytes(value)?);
    while let Some((field, value)) = reader.field()? {
        let (name, place) = match field {
            1 => ("type_strindex", &mut kind),
            2 => ("unit_strindex", &mut unit),
            _ => continue,
        };
        *place = number(&value).and_then(|n| dictionary.string(n)).map_err(|e| e.at(name))?;
    }
    Ok((kind, unit))
}

fn same((kind, unit): (&[u8], &[u8]), expected_kind: &str, expected_unit: &str) -> bool {
    kind.eq_ignore_ascii_case(expected_kind.as_bytes()) && unit.eq_ignore_ascii_case(expected_unit.as_bytes())
}

/// As much of a stranger's text as a message shows.
fn short(text: &[u8]) -> &[u8] {
    &text[..text.len().min(64)]
}

fn time(stamp: u64) -> UnixNanos {
    UnixNanos(if stamp <= LAST_SECOND { stamp * 1_000_000_000 } else { stamp })
}

fn count(mut message: Reader<'_>, wanted: u32) -> Result<u64> {
    let mut count = 0;
    while let Some((field, _)) = message.field()? {
        count += u64::from(field == wanted);
    }
    Ok(count)
}
