//! Where each revision of the profiles messages keeps its fields, and how a message shows which one it follows.
//!
//! A message does not name its revision, but fields that changed their number changed their wire type with it, so
//! the first profile or sample that says enough decides. What says too little is read as the newest revision, which
//! then differs in nothing that is used.
//!
//! | Revision | Tables | Sample | Other |
//! |---|---|---|---|
//! | 1.3 | in each profile, own numbers; package `v1experimental` | range of a list of locations | frame kind and file ID are fields |
//! | 1.4, 1.5 | in each profile | range of a list of locations | attributes: 1.4 inline, 1.5 by index |
//! | 1.6 | beside `resource_profiles` | as before | |
//! | 1.7 | in `dictionary` | as before | `attribute_units` |
//! | 1.8 | in `dictionary` | `stack_index` | entry 0 of each table is the none value |
//! | 1.9 | as before | as before | `comment_strindices` gone, later numbers moved down |
//! | 1.10, 1.11 | as before | values moved behind attributes | |
//!
//! Facts: tags v1.3.0 to v1.11.0 of open-telemetry/opentelemetry-proto.

use crate::wire::protobuf::{Reader, Value};

/// Samples asked for evidence. Agents of 1.8 and 1.9 show it in each of them.
const SAMPLES_ASKED: usize = 256;

/// Number of a field that the revision does not have. No field on the wire has it.
pub(super) const ABSENT: u32 = 0;

/// Who holds the dictionary tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    Profile,
    Request,
    Dictionary,
}

/// Field numbers of one revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Newest revision with this layout.
    pub(super) revision: &'static str,
    pub(super) tables: Tables,
    /// Entry 0 of the tables of mappings, locations and stacks means "none".
    pub(super) zero_is_none: bool,
    /// Attributes of the table name their key by an index (`KeyValueAndUnit`) instead of a text (`KeyValue`).
    pub(super) key_is_index: bool,
    /// Profiles are wrapped in a `ProfileContainer`.
    pub(super) container: bool,
    pub(super) table: TableFields,
    pub(super) profile: ProfileFields,
    pub(super) sample: SampleFields,
    pub(super) mapping: MappingFields,
    pub(super) location: LocationFields,
    pub(super) function: FunctionFields,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableFields {
    pub(super) mapping: u32,
    pub(super) location: u32,
    pub(super) function: u32,
    pub(super) string: u32,
    pub(super) attribute: u32,
    pub(super) stack: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProfileFields {
    pub(super) sample_type: u32,
    pub(super) samples: u32,
    /// List that samples take ranges of.
    pub(super) location_indices: u32,
    pub(super) time: u32,
    pub(super) duration: u32,
    pub(super) period_type: u32,
    pub(super) period: u32,
    /// Inline `KeyValue`s.
    pub(super) attributes: u32,
    pub(super) attribute_indices: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct SampleFields {
    pub(super) stack: u32,
    pub(super) start: u32,
    pub(super) length: u32,
    /// Locations listed in the sample itself.
    pub(super) locations: u32,
    pub(super) values: u32,
    pub(super) attributes: u32,
    pub(super) times: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct MappingFields {
    pub(super) file: u32,
    pub(super) attributes: u32,
    /// File ID in hex, where it was no attribute yet.
    pub(super) build_id: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct LocationFields {
    pub(super) mapping: u32,
    pub(super) address: u32,
    pub(super) lines: u32,
    pub(super) attributes: u32,
    /// Frame kind as a text, where it was no attribute yet.
    pub(super) kind: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct FunctionFields {
    pub(super) name: u32,
    pub(super) file: u32,
}

const MAPPING: MappingFields = MappingFields { file: 4, attributes: 5, build_id: ABSENT };
const FUNCTION: FunctionFields = FunctionFields { name: 1, file: 3 };
const SAMPLE_WITH_RANGE: SampleFields = SampleFields {
    stack: ABSENT,
    start: 1,
    length: 2,
    locations: ABSENT,
    values: 3,
    attributes: 4,
    times: 6,
};
const SAMPLE_VALUES_FIRST: SampleFields = SampleFields {
    stack: 1,
    start: ABSENT,
    length: ABSENT,
    locations: ABSENT,
    values: 2,
    attributes: 3,
    times: 5,
};
const LOCATION_WITH_FOLDED: LocationFields =
    LocationFields { mapping: 1, address: 2, lines: 3, attributes: 5, kind: ABSENT };
const LOCATION: LocationFields =
    LocationFields { mapping: 1, address: 2, lines: 3, attributes: 4, kind: ABSENT };
const DICTIONARY: TableFields =
    TableFields { mapping: 1, location: 2, function: 3, string: 5, attribute: 6, stack: 7 };

pub(super) static V1_3: Layout = Layout {
    revision: "1.3",
    tables: Tables::Profile,
    zero_is_none: false,
    key_is_index: false,
    container: true,
    table: TableFields { mapping: 3, location: 4, function: 5, string: 6, attribute: 16, stack: ABSENT },
    profile: ProfileFields {
        sample_type: 1,
        samples: 2,
        location_indices: 15,
        time: 9,
        duration: 10,
        period_type: 11,
        period: 12,
        attributes: ABSENT,
        attribute_indices: ABSENT,
    },
    sample: SampleFields {
        stack: ABSENT,
        start: 7,
        length: 8,
        locations: 1,
        values: 2,
        attributes: 10,
        times: 13,
    },
    mapping: MappingFields { file: 5, attributes: 12, build_id: 6 },
    location: LocationFields { mapping: 2, address: 3, lines: 4, attributes: 7, kind: 6 },
    function: FunctionFields { name: 2, file: 4 },
};

pub(super) static V1_5: Layout = Layout {
    revision: "1.5",
    tables: Tables::Profile,
    zero_is_none: false,
    key_is_index: false,
    container: false,
    table: TableFields { mapping: 3, location: 4, function: 6, string: 10, attribute: 7, stack: ABSENT },
    profile: ProfileFields {
        sample_type: 1,
        samples: 2,
        location_indices: 5,
        time: 11,
        duration: 12,
        period_type: 13,
        period: 14,
        attributes: 18,
        attribute_indices: 22,
    },
    sample: SAMPLE_WITH_RANGE,
    mapping: MAPPING,
    location: LOCATION_WITH_FOLDED,
    function: FUNCTION,
};

const PROFILE_WITH_LOCATIONS: ProfileFields = ProfileFields {
    sample_type: 1,
    samples: 2,
    location_indices: 3,
    time: 4,
    duration: 5,
    period_type: 6,
    period: 7,
    attributes: ABSENT,
    attribute_indices: 14,
};

pub(super) static V1_6: Layout = Layout {
    revision: "1.6",
    tables: Tables::Request,
    zero_is_none: false,
    key_is_index: false,
    container: false,
    table: TableFields { mapping: 2, location: 3, function: 4, string: 6, attribute: 7, stack: ABSENT },
    profile: PROFILE_WITH_LOCATIONS,
    sample: SAMPLE_WITH_RANGE,
    mapping: MAPPING,
    location: LOCATION_WITH_FOLDED,
    function: FUNCTION,
};

pub(super) static V1_7: Layout = Layout {
    revision: "1.7",
    tables: Tables::Dictionary,
    zero_is_none: false,
    key_is_index: false,
    container: false,
    table: TableFields { stack: ABSENT, ..DICTIONARY },
    profile: PROFILE_WITH_LOCATIONS,
    sample: SAMPLE_WITH_RANGE,
    mapping: MAPPING,
    location: LOCATION_WITH_FOLDED,
    function: FUNCTION,
};

const PROFILE: ProfileFields = ProfileFields {
    sample_type: 1,
    samples: 2,
    location_indices: ABSENT,
    time: 3,
    duration: 4,
    period_type: 5,
    period: 6,
    attributes: ABSENT,
    attribute_indices: 11,
};

pub(super) static V1_8: Layout = Layout {
    revision: "1.8",
    tables: Tables::Dictionary,
    zero_is_none: true,
    key_is_index: true,
    container: false,
    table: DICTIONARY,
    profile: ProfileFields { attribute_indices: 12, ..PROFILE },
    sample: SAMPLE_VALUES_FIRST,
    mapping: MAPPING,
    location: LOCATION,
    function: FUNCTION,
};

pub(super) static V1_9: Layout = Layout {
    revision: "1.9",
    tables: Tables::Dictionary,
    zero_is_none: true,
    key_is_index: true,
    container: false,
    table: DICTIONARY,
    profile: PROFILE,
    sample: SAMPLE_VALUES_FIRST,
    mapping: MAPPING,
    location: LOCATION,
    function: FUNCTION,
};

pub(super) static V1_11: Layout = Layout {
    revision: "1.11",
    tables: Tables::Dictionary,
    zero_is_none: true,
    key_is_index: true,
    container: false,
    table: DICTIONARY,
    profile: PROFILE,
    sample: SampleFields {
        stack: 1,
        start: ABSENT,
        length: ABSENT,
        locations: ABSENT,
        values: 4,
        attributes: 2,
        times: 5,
    },
    mapping: MAPPING,
    location: LOCATION,
    function: FUNCTION,
};

/// Finds the layout of a `v1development` request by the first thing in it that only one revision can have written.
///
/// Never fails: what cannot be read here is read again, and complained about, by the decoder.
pub(super) fn detect(request: &[u8]) -> &'static Layout {
    let mut evidence = Evidence::default();
    let mut dictionary = None;
    for (number, value) in fields(request) {
        match (number, value) {
            (2, Value::Bytes(bytes)) => dictionary = Some(bytes),
            (3..=8, Value::Bytes(_)) => return &V1_6,
            _ => {}
        }
    }
    if let Some(dictionary) = dictionary {
        evidence.dictionary(dictionary);
    }
    let profiles = fields(request)
        .filter_map(nested(1))
        .flat_map(|resource| fields(resource).filter_map(nested(2)))
        .flat_map(|scope| fields(scope).filter_map(nested(2)));
    for profile in profiles {
        evidence.profile(profile, dictionary.is_some());
        if let Some(layout) = evidence.verdict() {
            return layout;
        }
        if evidence.asked == SAMPLES_ASKED {
            break;
        }
    }
    evidence.settle(dictionary.is_some())
}

/// What the message has shown so far. `None`: nothing either way.
#[derive(Default)]
struct Evidence {
    /// Tables stand in the profile.
    tables_in_profile: bool,
    /// Samples name a stack (1.8 on) or a range of locations (before).
    stacks: Option<bool>,
    /// Values come behind attributes (1.10 on).
    values_last: Option<bool>,
    /// `comment_strindices` still takes a number (1.8).
    comments: bool,
    /// Samples looked at.
    asked: usize,
}

impl Evidence {
    fn dictionary(&mut self, dictionary: &[u8]) {
        for (number, value) in fields(dictionary) {
            let Value::Bytes(entry) = value else { continue };
            let first = fields(entry).find(|(number, _)| *number == 1).map(|(_, value)| value);
            match (number, first) {
                // Key by index or key as text; stack as packed list or unit as a number.
                (6, Some(Value::Varint(_))) | (7, Some(Value::Bytes(_))) => self.stacks = Some(true),
                (6, Some(Value::Bytes(_))) | (7, Some(Value::Varint(_))) => self.stacks = Some(false),
                _ => continue,
            }
            return;
        }
    }

    fn profile(&mut self, profile: &[u8], has_dictionary: bool) {
        for (number, value) in fields(profile) {
            match (number, value) {
                (4 | 10, Value::Bytes(_)) if !has_dictionary => self.tables_in_profile = true,
                (3, Value::Fixed64(_)) => self.stacks = Some(true),
                (3, Value::Bytes(_)) if has_dictionary && self.stacks.is_none() => self.stacks = Some(false),
                (8 | 12, Value::Bytes(_)) | (9, Value::Varint(_)) => self.comments = true,
                (2, Value::Bytes(sample)) if self.values_last.is_none() && self.asked < SAMPLES_ASKED => {
                    self.sample(sample);
                }
                _ => {}
            }
        }
    }

    fn sample(&mut self, sample: &[u8]) {
        self.asked += 1;
        for (number, value) in fields(sample) {
            match (number, value) {
                (2, Value::Varint(_)) | (6, _) if self.stacks.is_none() => self.stacks = Some(false),
                (3, Value::Varint(_)) | (4, Value::Bytes(_)) => self.values_last = Some(true),
                (3, Value::Bytes(_)) | (4, Value::Varint(_)) => self.values_last = Some(false),
                _ => {}
            }
        }
    }

    fn verdict(&self) -> Option<&'static Layout> {
        match self {
            Self { tables_in_profile: true, .. } => Some(&V1_5),
            Self { stacks: Some(false), .. } => Some(&V1_7),
            Self { stacks: Some(true), values_last: Some(true), .. } => Some(&V1_11),
            Self { stacks: Some(true), values_last: Some(false), comments, .. } => {
                Some(if *comments { &V1_8 } else { &V1_9 })
            }
            _ => None,
        }
    }

    fn settle(&self, has_dictionary: bool) -> &'static Layout {
        match self {
            Self { stacks: Some(false), .. } if !has_dictionary => &V1_5,
            Self { values_last: Some(false), comments, .. } if has_dictionary => {
                if *comments {
                    &V1_8
                } else {
                    &V1_9
                }
            }
            _ => &V1_11,
        }
    }
}

/// Fields up to the first one that cannot be read.
fn fields(message: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || reader.field().ok().flatten())
}

fn nested<'a>(wanted: u32) -> impl Fn((u32, Value<'a>)) -> Option<&'a [u8]> {
    move |(number, value)| match value {
        Value::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    }
}
