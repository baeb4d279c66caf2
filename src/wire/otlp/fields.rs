//! Small readers shared by all messages: one value of the expected kind, or an error that names what came instead.

use super::error::{Error, Problem, Result};
use crate::wire::protobuf::{Reader, Value};

/// Any number. `int32` and `int64` travel as 64-bit two's complement.
#[inline]
pub(super) fn number(value: &Value<'_>) -> Result<u64> {
    match value {
        Value::Varint(number) | Value::Fixed64(number) => Ok(*number),
        Value::Fixed32(number) => Ok(u64::from(*number)),
        Value::Bytes(_) => Err(wrong("a number", value)),
    }
}

/// Text, bytes or a nested message.
#[inline]
pub(super) fn bytes<'a>(value: &Value<'a>) -> Result<&'a [u8]> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong("a length-delimited value", value)),
    }
}

/// A reference into a table of `length` entries.
#[inline]
pub(super) fn index(number: u64, length: usize) -> Result<usize> {
    if number < length as u64 {
        Ok(number as usize)
    } else {
        Err(Error::new(Problem::Index { length, found: number as i64 }))
    }
}

/// Each number of a repeated field: packed, or one per field as some old encoders write it.
#[inline]
pub(super) fn each_number(value: &Value<'_>, mut take: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let Value::Bytes(packed) = value else { return take(number(value)?) };
    let mut list = Reader::new(packed);
    while let Some(number) = list.packed()? {
        take(number)?;
    }
    Ok(())
}

/// Each time stamp of a repeated field: `fixed64` since 1.8, `uint64` before.
#[inline]
pub(super) fn each_time(
    value: &Value<'_>,
    fixed: bool,
    mut take: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let Value::Bytes(packed) = value else { return take(number(value)?) };
    if !fixed {
        return each_number(value, take);
    }
    let (times, rest) = packed.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Error::new(Problem::Malformed(crate::wire::protobuf::Malformed::Truncated {
            needed: 8,
            left: rest.len(),
        })));
    }
    times.iter().try_for_each(|time| take(u64::from_le_bytes(*time)))
}

/// Refuses the entry beyond `limit`.
#[inline]
pub(super) fn room(used: usize, limit: usize) -> Result<()> {
    if used < limit { Ok(()) } else { Err(Error::new(Problem::TooMany { limit })) }
}

#[cold]
fn wrong(expected: &'static str, found: &Value<'_>) -> Error {
    Error::new(Problem::WireType { expected, found: found.wire_type() })
}
