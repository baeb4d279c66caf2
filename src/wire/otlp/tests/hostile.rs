//! Any bytes at all: a batch whose indices are valid, or an error. Never a panic, never much memory.

use proptest::prelude::*;

use super::super::limits::{MAX_MESSAGE_BYTES, MAX_STACK_FRAMES};
use super::super::{decode, decode_experimental};
use super::captures;
use crate::wire::protobuf::Writer;

/// Decodes in both packages and checks what came out.
fn survive(bytes: &[u8]) -> bool {
    let results = [decode(bytes), decode_experimental(bytes)];
    for decoded in results.iter().flatten() {
        assert!(decoded.batch.check());
    }
    results[0].is_ok()
}

/// Pseudo-random numbers, the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

#[test]
fn a_message_cut_at_any_byte_is_survived() {
    let captures = captures();
    let (_, smallest) = &captures[0];
    for end in 0..smallest.len() {
        survive(&smallest[..end]);
    }
    for (path, bytes) in &captures[1..] {
        assert!(survive(bytes), "{}", path.display());
        for end in (0..bytes.len()).step_by(bytes.len() / 100) {
            survive(&bytes[..end]);
        }
    }
}

#[test]
fn changed_bytes_are_survived() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (_, bytes) in captures() {
        for _ in 0..150 {
            let mut changed = bytes.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(changed.len());
                match random.below(4) {
                    0 => changed[at] ^= 1 << random.below(8),
                    1 => changed[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
                    2 => drop(changed.remove(at)),
                    _ => changed.insert(at, random.below(256) as u8),
                }
            }
            survive(&changed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    /// Random content inside the right frames reaches deeper than random bytes.
    #[test]
    fn random_messages_are_survived(
        dictionary in proptest::collection::vec((1u32..9, proptest::collection::vec(any::<u8>(), 0..12)), 0..40),
        profile in proptest::collection::vec((1u32..16, proptest::collection::vec(any::<u8>(), 0..12)), 0..40),
    ) {
        let mut out = Writer::default();
        let raw = |out: &mut Writer, fields: &[(u32, Vec<u8>)]| {
            for (number, bytes) in fields {
                out.message(*number, |out| bytes.iter().for_each(|byte| out.raw(*byte)));
            }
        };
        out.message(1, |out| out.message(2, |out| out.message(2, |out| raw(out, &profile))));
        out.message(2, |out| raw(out, &dictionary));
        survive(&out.finish());
    }
}

/// A request with one profile of CPU samples: strings "", "samples", "count", "cpu", "nanoseconds".
fn request(dictionary: impl FnOnce(&mut Writer), samples: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.message(1, |out| {
        out.message(2, |out| {
            out.message(2, |out| {
                out.message(1, |out| {
                    out.number(1, 1);
                    out.number(2, 2);
                });
                samples(out);
                out.fixed64(3, 1);
                out.message(5, |out| {
                    out.number(1, 3);
                    out.number(2, 4);
                });
            });
        });
    });
    out.message(2, |out| {
        for text in ["", "samples", "count", "cpu", "nanoseconds"] {
            out.text_or_empty(5, text);
        }
        dictionary(out);
    });
    out.finish()
}

fn error(dictionary: impl FnOnce(&mut Writer), samples: impl FnOnce(&mut Writer)) -> String {
    decode(&request(dictionary, samples)).unwrap_err().to_string()
}

const SAMPLES: &str = "resource_profiles[0].scope_profiles[0].profiles[0].samples";

#[test]
fn errors_name_the_field() {
    let sample = |out: &mut Writer, stack: u64| out.message(2, |out| out.number(1, stack));
    let stacks = |out: &mut Writer| (0..17).for_each(|_| out.message(7, |_| {}));
    let found = error(stacks, |out| {
        (0..3).for_each(|_| sample(out, 0));
        sample(out, 99);
    });
    assert_eq!(found, format!("{SAMPLES}[3].stack_index: expected less than 17, found 99"));

    let found = error(stacks, |out| sample(out, -1i64 as u64));
    assert_eq!(found, format!("{SAMPLES}[0].stack_index: expected 0 or more and less than 17, found -1"));

    let found = error(|out| out.message(7, |out| out.packed(1, [1])), |out| sample(out, 0));
    assert_eq!(found, "dictionary.stack_table[0].location_indices[0]: expected less than 0, found 1");

    let found = error(
        |out| {
            out.message(2, |_| {});
            out.message(2, |out| out.message(3, |out| out.number(1, 5)));
            out.message(7, |out| out.packed(1, [1]));
        },
        |out| sample(out, 0),
    );
    // The function table is empty, but 5 is not "none".
    assert_eq!(found, "dictionary.location_table[1].lines[0].function_index: expected less than 0, found 5");

    let found = error(|_| {}, |out| out.message(2, |out| out.packed(2, [7])));
    assert_eq!(found, format!("{SAMPLES}[0].attribute_indices: expected less than 0, found 7"));

    let found = error(|out| out.message(6, |out| out.number(1, 5)), |_| {});
    assert_eq!(found, "dictionary.attribute_table[0].key_strindex: expected less than 5, found 5");

    let found = error(
        |_| {},
        |out| {
            out.message(2, |out| {
                out.packed(2, [0]);
                out.packed(4, [1, 2, 3]);
                out.packed_fixed64(5, [1, 2].into_iter());
            });
        },
    );
    assert_eq!(found, format!("{SAMPLES}[0].values: expected 2 entries as in timestamps_unix_nano, found 3"));

    let found = decode(&[0x0a, 5, 1]).unwrap_err().to_string();
    assert_eq!(found, "message: expected 5 bytes, found 1");
    let found = decode(&[0x08, 5]).unwrap_err().to_string();
    assert_eq!(found, "resource_profiles[0]: expected a length-delimited value, found a varint");
}

#[test]
fn limits_are_named() {
    let found = decode(&vec![0; MAX_MESSAGE_BYTES + 1]).unwrap_err().to_string();
    assert_eq!(found, "message: expected at most 33554432 bytes, found 33554433");

    let found = error(
        |out| {
            (0..2).for_each(|_| out.message(2, |_| {}));
            out.message(7, |out| out.packed(1, std::iter::repeat_n(1, MAX_STACK_FRAMES + 1)));
        },
        |out| out.message(2, |_| {}),
    );
    assert_eq!(found, "dictionary.stack_table[0]: expected at most 8192 entries, found more");

    // 3 MB of empty entries must not become a table of 1.5 million.
    let found = error(|out| (0..1_500_000).for_each(|_| out.message(2, |_| {})), |_| {});
    assert_eq!(found, "dictionary.location_table: expected at most 1048576 entries, found more");
}

#[test]
fn lists_inside_lists_end() {
    let mut value = Writer::default();
    value.text_or_empty(1, "deep");
    let mut value = value.finish();
    for _ in 0..10_000 {
        let mut outer = Writer::default();
        outer.message(5, |out| out.message(1, |out| value.iter().for_each(|byte| out.raw(*byte))));
        value = outer.finish();
    }
    let mut request = request(|_| {}, |_| {});
    let mut resource = Writer::default();
    resource.message(1, |out| {
        out.message(1, |out| {
            out.message(1, |out| {
                out.text(1, "nested");
                out.message(2, |out| value.iter().for_each(|byte| out.raw(*byte)));
            });
        });
        out.message(2, |out| out.message(2, |_| {}));
    });
    request.extend(resource.finish());
    survive(&request);
}
