//! The protobuf encoding itself: fields in, fields out, over borrowed bytes.
//!
//! Knows no message. Reading never copies and never allocates; a text or a nested message is a slice of the input.
//! Writing appends to one buffer; the length of a nested message is filled in when it is complete.

/// Longest varint: 64 bits in groups of 7.
const MAX_VARINT_BYTES: usize = 10;

/// What is wrong with the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The bytes end inside a value.
    Truncated {
        /// Bytes that the value needs.
        needed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// A varint of more than 64 bits.
    Varint,
    /// Field number 0 or beyond the 29 bits of the format.
    FieldNumber(u64),
    /// Groups and the two unassigned wire types.
    WireType(u8),
}

/// Value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, nested message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl Value<'_> {
    /// Name of the wire type, for messages to people.
    pub(crate) fn wire_type(&self) -> &'static str {
        match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "8 fixed bytes",
            Self::Bytes(_) => "a length-delimited value",
            Self::Fixed32(_) => "4 fixed bytes",
        }
    }
}

/// Reads one message, field by field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Next field number and value; `None` at the end of the message.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(Malformed::FieldNumber(number));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Malformed::WireType(other as u8)),
        };
        Ok(Some((number as u32, value)))
    }

    /// Next number of a packed list; `None` at its end.
    #[inline]
    pub(crate) fn packed(&mut self) -> Result<Option<u64>, Malformed> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == MAX_VARINT_BYTES - 1 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        if self.rest.len() >= MAX_VARINT_BYTES {
            return Err(Malformed::Varint);
        }
        Err(Malformed::Truncated { needed: self.rest.len() as u64 + 1, left: self.rest.len() })
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        if length > self.rest.len() as u64 {
            return Err(Malformed::Truncated { needed: length, left: self.rest.len() });
        }
        let (taken, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Malformed::Truncated { needed: N as u64, left: self.rest.len() })?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Writes messages into one growing buffer. Zero and empty values are left out, as the format asks for.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// A number, unless it is 0.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.number_or_zero(field, value);
        }
    }

    /// A number, 0 included: for members of a `oneof`, where presence is the message.
    pub(crate) fn number_or_zero(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// 8 fixed bytes, unless all are 0.
    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.fixed64_or_zero(field, value);
        }
    }

    /// 8 fixed bytes, 0 included: for members of a `oneof`.
    pub(crate) fn fixed64_or_zero(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes, empty included: for members of a `oneof`.
    pub(crate) fn bytes_or_empty(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Text, unless it is empty.
    pub(crate) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.text_or_empty(field, text);
        }
    }

    /// Text, empty included: for entries of a table and members of a `oneof`.
    pub(crate) fn text_or_empty(&mut self, field: u32, text: &str) {
        self.bytes_or_empty(field, text.as_bytes());
    }

    /// A nested message, written by `body`.
    pub(crate) fn message(&mut self, field: u32, body: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | 2);
        let at = self.bytes.len();
        // One byte is kept for the length: enough for most messages. Longer ones are moved once.
        self.bytes.push(0);
        body(self);
        let length = self.bytes.len() - at - 1;
        if length < 0x80 {
            self.bytes[at] = length as u8;
            return;
        }
        let mut prefix = [0u8; MAX_VARINT_BYTES];
        let used = encode_varint(length as u64, &mut prefix);
        self.bytes.splice(at..=at, prefix[..used].iter().copied());
    }

    /// A packed list of numbers, unless it is empty.
    pub(crate) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() {
            self.message(field, |list| values.for_each(|value| list.varint(value)));
        }
    }

    /// A packed list of 8-byte numbers, unless it is empty.
    pub(crate) fn packed_fixed64(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        if values.len() == 0 {
            return;
        }
        self.varint(u64::from(field) << 3 | 2);
        self.varint(8 * values.len() as u64);
        self.bytes.reserve(8 * values.len());
        for value in values {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// One byte as it is, to build what no well-behaved sender writes.
    #[cfg(test)]
    pub(crate) fn raw(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.bytes.push(value as u8);
            return;
        }
        let mut buffer = [0u8; MAX_VARINT_BYTES];
        let used = encode_varint(value, &mut buffer);
        self.bytes.extend_from_slice(&buffer[..used]);
    }
}

fn encode_varint(mut value: u64, buffer: &mut [u8; MAX_VARINT_BYTES]) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        buffer[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    buffer[at] = value as u8;
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back() {
        for value in [1, 127, 128, 300, u64::from(u32::MAX), i64::MAX as u64, -1i64 as u64] {
            let mut writer = Writer::default();
            writer.number(5, value);
            writer.fixed64(6, value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.field(), Ok(Some((5, Value::Varint(value)))));
            assert_eq!(reader.field(), Ok(Some((6, Value::Fixed64(value)))));
            assert_eq!(reader.field(), Ok(None));
        }
    }

    #[test]
    fn nested_messages_of_every_length_come_back() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let text = "x".repeat(length);
            let mut writer = Writer::default();
            writer.message(1, |inner| inner.message(2, |innermost| innermost.text_or_empty(3, &text)));
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            for field in [1, 2] {
                let Ok(Some((number, Value::Bytes(inner)))) = reader.field() else { panic!("no message") };
                assert_eq!(number, field);
                reader = Reader::new(inner);
            }
            assert_eq!(reader.field(), Ok(Some((3, Value::Bytes(text.as_bytes())))));
        }
    }

    #[test]
    fn malformed_encodings_are_named() {
        for (bytes, expected) in [
            (&[0x08][..], Malformed::Truncated { needed: 1, left: 0 }),
            (&[0x08, 0x80][..], Malformed::Truncated { needed: 2, left: 1 }),
            (&[0x09, 1, 2][..], Malformed::Truncated { needed: 8, left: 2 }),
            (&[0x0a, 5, 1][..], Malformed::Truncated { needed: 5, left: 1 }),
            (&[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1][..], {
                Malformed::Truncated { needed: u64::MAX, left: 0 }
            }),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2][..], Malformed::Varint),
            (&[0x00, 1][..], Malformed::FieldNumber(0)),
            (&[0x0b][..], Malformed::WireType(3)),
            (&[0x0f][..], Malformed::WireType(7)),
        ] {
            assert_eq!(Reader::new(bytes).field(), Err(expected), "{bytes:02x?}");
        }
    }
}
