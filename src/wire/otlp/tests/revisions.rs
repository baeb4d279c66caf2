//! The same profile in every revision. Field numbers are spelled out here once more, from the public `.proto` files,
//! so that a mistake in the layouts cannot hide.

use super::super::{decode, decode_experimental};
use super::{Spelled, spelled};
use crate::model::{
    Executable, FileId, Frame, FrameKind, ProfileInfo, Resource, SampleKind, SourceLine, UnixNanos,
};
use crate::wire::protobuf::Writer;

const FILE: &str = "600dcafe4a110000f2bf38c493f5fb92";
const TIMES: [u64; 3] = [1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 1_700_000_000_000_000_003];
const STRINGS: [&str; 16] = [
    "",
    "samples",
    "count",
    "cpu",
    "nanoseconds",
    "libfoo.so",
    "work",
    "app.py",
    "thread.name",
    "worker",
    "profile.frame.type",
    "native",
    "cpython",
    FILE,
    "process.executable.build_id.htlhash",
    "container.id",
];

fn string(text: &str) -> u64 {
    STRINGS.iter().position(|known| *known == text).unwrap() as u64
}

/// Attributes of the table, behind a none entry where the revision wants one.
const ATTRIBUTES: [(&str, &str); 5] = [
    ("profile.frame.type", "native"),
    ("profile.frame.type", "cpython"),
    ("process.executable.build_id.htlhash", FILE),
    ("thread.name", "worker"),
    ("container.id", "c1"),
];

/// What differs from one revision to the next.
#[derive(Clone, Copy)]
struct Revision {
    name: &'static str,
    /// Tables: mapping, location, function, string, attribute, stack.
    tables: [u32; 6],
    /// Attributes are `KeyValueAndUnit`, tables start with a none entry, samples name a stack.
    modern: bool,
    /// Profile: location_indices, time, duration, period_type, period.
    profile: [u32; 5],
    /// Sample: stack or start, length, values, attributes, times.
    sample: [u32; 5],
    /// Location: mapping, address, line, attributes.
    location: [u32; 4],
    /// Function: name, file. Mapping: file, attributes.
    function: [u32; 2],
    mapping: [u32; 2],
}

const V1_3: Revision = Revision {
    name: "1.3",
    tables: [3, 4, 5, 6, 16, 0],
    modern: false,
    profile: [15, 9, 10, 11, 12],
    sample: [7, 8, 2, 10, 13],
    location: [2, 3, 4, 7],
    function: [2, 4],
    mapping: [5, 12],
};
const V1_5: Revision = Revision {
    name: "1.5",
    tables: [3, 4, 6, 10, 7, 0],
    profile: [5, 11, 12, 13, 14],
    sample: [1, 2, 3, 4, 6],
    location: [1, 2, 3, 5],
    function: [1, 3],
    mapping: [4, 5],
    ..V1_3
};
const V1_6: Revision = Revision { name: "1.6", tables: [2, 3, 4, 6, 7, 0], profile: [3, 4, 5, 6, 7], ..V1_5 };
const V1_7: Revision = Revision { name: "1.7", tables: [1, 2, 3, 5, 6, 0], ..V1_6 };
const V1_9: Revision = Revision {
    name: "1.9",
    tables: [1, 2, 3, 5, 6, 7],
    modern: true,
    profile: [0, 3, 4, 5, 6],
    sample: [1, 0, 2, 3, 5],
    location: [1, 2, 3, 4],
    ..V1_7
};
const V1_11: Revision = Revision { name: "1.11", sample: [1, 0, 4, 2, 5], ..V1_9 };

impl Revision {
    /// Index of the attribute number `at`.
    fn attribute(self, at: u64) -> u64 {
        at + u64::from(self.modern)
    }

    fn write_tables(self, out: &mut Writer) {
        let [mapping, location, function, string_table, attribute, stack] = self.tables;
        let first = u64::from(self.modern);
        if self.modern {
            for table in [mapping, location, function, attribute, stack] {
                out.message(table, |_| {});
            }
        }
        out.message(mapping, |out| {
            out.number(self.mapping[0], string("libfoo.so"));
            out.packed(self.mapping[1], [self.attribute(2)]);
        });
        // A native frame, and an interpreted one without a mapping.
        out.message(location, |out| {
            out.number_or_zero(self.location[0], first);
            out.number(self.location[1], 0x1234);
            out.packed(self.location[3], [self.attribute(0)]);
        });
        out.message(location, |out| {
            out.message(self.location[2], |out| {
                out.number(1, first);
                out.number(2, 42);
                out.number(3, 7);
            });
            out.packed(self.location[3], [self.attribute(1)]);
        });
        out.message(function, |out| {
            out.number(self.function[0], string("work"));
            out.number(self.function[1], string("app.py"));
        });
        for text in STRINGS {
            out.text_or_empty(string_table, text);
        }
        for (key, value) in ATTRIBUTES {
            out.message(attribute, |out| {
                if self.modern {
                    out.number(1, string(key));
                } else {
                    out.text(1, key);
                }
                out.message(2, |out| out.text(1, value));
            });
        }
        if self.modern {
            out.message(stack, |out| out.packed(1, [1, 2]));
        }
    }

    fn write_profile(self, out: &mut Writer, tables_inside: bool) {
        let [locations, time, duration, period_type, period] = self.profile;
        let value_type = |out: &mut Writer, kind, unit| {
            out.number(1, string(kind));
            out.number(2, string(unit));
        };
        out.message(1, |out| value_type(out, "samples", "count"));
        out.message(2, |out| self.write_sample(out));
        if tables_inside {
            self.write_tables(out);
        }
        if locations != 0 {
            // One location in front that no sample uses.
            out.packed(locations, [1, 0, 1]);
        }
        if self.modern {
            out.fixed64(time, TIMES[0]);
        } else {
            out.number(time, TIMES[0]);
        }
        out.number(duration, 5_000_000_000);
        out.message(period_type, |out| value_type(out, "cpu", "nanoseconds"));
        out.number(period, 50_000_000);
    }

    fn write_sample(self, out: &mut Writer) {
        let [stack_or_start, length, values, attributes, times] = self.sample;
        out.number(stack_or_start, 1);
        if self.modern {
            // Agents since 1.8 leave values out.
            out.packed(attributes, [self.attribute(3), self.attribute(4)]);
            out.packed_fixed64(times, TIMES.into_iter());
        } else {
            out.number(length, 2);
            out.packed(values, [1]);
            out.packed(attributes, [self.attribute(3), self.attribute(4)]);
            out.packed(times, TIMES);
        }
    }

    /// The request: resource with one host name, one scope, one profile.
    fn request(self) -> Vec<u8> {
        let mut out = Writer::default();
        let inside = self.tables[3] == V1_3.tables[3] && self.name == "1.3" || self.name == "1.5";
        out.message(1, |out| {
            out.message(1, |out| {
                out.message(1, |out| {
                    out.text(1, "host.name");
                    out.message(2, |out| out.text(1, "box"));
                });
            });
            out.message(2, |out| {
                out.message(2, |out| {
                    if self.name == "1.3" {
                        out.message(8, |out| self.write_profile(out, inside));
                    } else {
                        self.write_profile(out, inside);
                    }
                });
            });
        });
        match self.name {
            "1.6" => self.write_tables(&mut out),
            _ if inside => {}
            _ => out.message(2, |out| self.write_tables(out)),
        }
        out.finish()
    }
}

fn expected() -> Vec<Spelled> {
    let executable = Executable {
        file_id: Some(FileId::parse_hex(FILE).unwrap()),
        name: "libfoo.so".into(),
        gnu_build_id: "".into(),
    };
    let line = SourceLine { function: "work".into(), file: "app.py".into(), line: 42, column: 7 };
    let native = Frame { kind: FrameKind::NATIVE, executable: None, address: 0x1234, lines: Vec::new() };
    let python = Frame { kind: FrameKind::PYTHON, executable: None, address: 0, lines: vec![line] };
    vec![Spelled {
        // The agent of those days said the container per sample.
        resource: Resource { host_name: "box".into(), container_id: "c1".into(), ..Resource::default() },
        profile: ProfileInfo {
            resource: 0,
            kind: SampleKind::OnCpu,
            period_ns: 50_000_000,
            start: UnixNanos(TIMES[0]),
            duration_ns: 5_000_000_000,
        },
        thread: ("worker".into(), 0),
        executable: None,
        frames: vec![(native, Some(executable)), (python, None)],
        times: TIMES.map(|time| (UnixNanos(time), 1)).to_vec(),
    }]
}

#[test]
fn every_revision_says_the_same() {
    for revision in [V1_5, V1_6, V1_7, V1_9, V1_11] {
        let decoded =
            decode(&revision.request()).unwrap_or_else(|error| panic!("{}: {error}", revision.name));
        assert_eq!(decoded.revision, revision.name);
        assert_eq!(spelled(&decoded.batch), expected(), "{}", revision.name);
    }
}

#[test]
fn the_experimental_package_says_the_same() {
    let decoded = decode_experimental(&V1_3.request()).unwrap();
    assert_eq!(decoded.revision, "1.3");
    let mut found = spelled(&decoded.batch);
    // 1.3 cannot say that a frame has no mapping: index 0 is the first one.
    assert_eq!(found[0].frames[1].1, expected()[0].frames[0].1);
    found[0].frames[1].1 = None;
    assert_eq!(found, expected());
}

#[test]
fn revision_1_8_is_told_by_its_comments() {
    // As 1.9, with profile attributes at 12 instead of 11 and the profile ID at 8 instead of 7.
    let mut profile = Writer::default();
    V1_9.write_profile(&mut profile, false);
    profile.packed(7, [1]);
    profile.text(8, "0123456789abcdef");
    profile.packed(12, [V1_9.attribute(4)]);
    let profile = profile.finish();
    let mut out = Writer::default();
    out.message(1, |out| {
        out.message(2, |out| out.message(2, |out| profile.iter().for_each(|byte| out.raw(*byte))));
    });
    out.message(2, |out| V1_9.write_tables(out));
    let decoded = decode(&out.finish()).unwrap();
    assert_eq!(decoded.revision, "1.8");
    assert_eq!(&*decoded.batch.resources[0].container_id, "c1");
}

#[test]
fn other_kinds_of_profiles_are_left_out_and_the_rest_is_taken() {
    let profile = |out: &mut Writer, kind: &str, period: &str| {
        out.message(1, |out| {
            out.number(1, string(kind));
            out.number(2, string("count"));
        });
        out.message(2, |out| V1_11.write_sample(out));
        out.fixed64(3, 1);
        out.message(5, |out| {
            out.number(1, string(period));
            out.number(2, string("nanoseconds"));
        });
    };
    let mut out = Writer::default();
    out.message(1, |out| {
        out.message(2, |out| {
            out.message(2, |out| profile(out, "cpu", "cpu"));
            out.message(2, |out| profile(out, "samples", "cpu"));
            out.message(2, |out| profile(out, "samples", "worker"));
        });
    });
    out.message(2, |out| V1_11.write_tables(out));
    let decoded = decode(&out.finish()).unwrap();
    assert_eq!(decoded.batch.samples.len(), 1);
    let left_out = decoded.left_out;
    assert_eq!(
        (left_out.profiles_of_other_type, left_out.profiles_of_other_period, left_out.samples),
        (1, 1, 2)
    );
    assert_eq!(left_out.first.as_deref(), Some("sample_type: expected samples/count, found cpu/count"));
}

#[test]
fn values_without_times_count_at_the_start_of_the_window() {
    let mut out = Writer::default();
    out.message(1, |out| {
        out.message(2, |out| {
            out.message(2, |out| {
                V1_11.write_profile(out, false);
                out.message(2, |out| {
                    out.number(1, 1);
                    out.packed(2, [V1_11.attribute(3)]);
                    out.packed(4, [3]);
                });
            });
        });
    });
    out.message(2, |out| V1_11.write_tables(out));
    let batch = decode(&out.finish()).unwrap().batch;
    let sample = &batch.samples[1];
    assert_eq!((batch.times_of(sample), &sample.values[..]), (&[UnixNanos(TIMES[0])][..], &[3][..]));
    assert_eq!(batch.sample_count(), 6);
}
