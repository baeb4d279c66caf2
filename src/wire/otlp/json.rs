//! OTLP as JSON: the same messages with names instead of numbers, turned into the binary form that [`super::decode()`]
//! reads.
//!
//! Read as a stream, so that no tree is held; what comes out is never larger than what went in. Names may be in either
//! spelling (`stackIndex`, `stack_index`), 64-bit numbers may be texts, `null` is as good as nothing, unknown names are
//! skipped: the JSON mapping of protobuf asks for all of that. Revision 1.11, the only one that speaks JSON in the field.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::wire::protobuf::Writer;

/// A message: its fields by name and number.
struct Message(&'static [(&'static str, u32, Kind)]);

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Bool,
    Double,
    Fixed,
    /// base64
    Bytes,
    One(&'static Message),
    Many(&'static Message),
    Texts,
    Numbers,
    FixedNumbers,
}

use Kind::{Bool, Bytes, Double, Fixed, FixedNumbers, Many, Number, Numbers, One, Text, Texts};

static REQUEST: Message =
    Message(&[("resource_profiles", 1, Many(&RESOURCE_PROFILES)), ("dictionary", 2, One(&DICTIONARY))]);
static DICTIONARY: Message = Message(&[
    ("mapping_table", 1, Many(&MAPPING)),
    ("location_table", 2, Many(&LOCATION)),
    ("function_table", 3, Many(&FUNCTION)),
    ("string_table", 5, Texts),
    ("attribute_table", 6, Many(&KEY_VALUE_AND_UNIT)),
    ("stack_table", 7, Many(&STACK)),
]);
static RESOURCE_PROFILES: Message =
    Message(&[("resource", 1, One(&RESOURCE)), ("scope_profiles", 2, Many(&SCOPE_PROFILES))]);
static RESOURCE: Message = Message(&[("attributes", 1, Many(&KEY_VALUE))]);
static SCOPE_PROFILES: Message = Message(&[("scope", 1, One(&SCOPE)), ("profiles", 2, Many(&PROFILE))]);
static SCOPE: Message =
    Message(&[("name", 1, Text), ("version", 2, Text), ("attributes", 3, Many(&KEY_VALUE))]);
static KEY_VALUE: Message =
    Message(&[("key", 1, Text), ("value", 2, One(&ANY_VALUE)), ("key_strindex", 3, Number)]);
static ANY_VALUE: Message = Message(&[
    ("string_value", 1, Text),
    ("bool_value", 2, Bool),
    ("int_value", 3, Number),
    ("double_value", 4, Double),
    ("array_value", 5, One(&ARRAY)),
    ("kvlist_value", 6, One(&KEY_VALUES)),
    ("bytes_value", 7, Bytes),
    ("string_value_strindex", 8, Number),
]);
static ARRAY: Message = Message(&[("values", 1, Many(&ANY_VALUE))]);
static KEY_VALUES: Message = Message(&[("values", 1, Many(&KEY_VALUE))]);
static PROFILE: Message = Message(&[
    ("sample_type", 1, One(&VALUE_TYPE)),
    ("samples", 2, Many(&SAMPLE)),
    ("time_unix_nano", 3, Fixed),
    ("duration_nano", 4, Number),
    ("period_type", 5, One(&VALUE_TYPE)),
    ("period", 6, Number),
    ("attribute_indices", 11, Numbers),
]);
static VALUE_TYPE: Message = Message(&[("type_strindex", 1, Number), ("unit_strindex", 2, Number)]);
static SAMPLE: Message = Message(&[
    ("stack_index", 1, Number),
    ("attribute_indices", 2, Numbers),
    ("values", 4, Numbers),
    ("timestamps_unix_nano", 5, FixedNumbers),
]);
static STACK: Message = Message(&[("location_indices", 1, Numbers)]);
static LOCATION: Message = Message(&[
    ("mapping_index", 1, Number),
    ("address", 2, Number),
    ("lines", 3, Many(&LINE)),
    ("attribute_indices", 4, Numbers),
]);
static LINE: Message = Message(&[("function_index", 1, Number), ("line", 2, Number), ("column", 3, Number)]);
static FUNCTION: Message = Message(&[
    ("name_strindex", 1, Number),
    ("system_name_strindex", 2, Number),
    ("filename_strindex", 3, Number),
    ("start_line", 4, Number),
]);
static MAPPING: Message = Message(&[
    ("memory_start", 1, Number),
    ("memory_limit", 2, Number),
    ("file_offset", 3, Number),
    ("filename_strindex", 4, Number),
    ("attribute_indices", 5, Numbers),
]);
static KEY_VALUE_AND_UNIT: Message =
    Message(&[("key_strindex", 1, Number), ("value", 2, One(&ANY_VALUE)), ("unit_strindex", 3, Number)]);

/// The binary form of an export in JSON.
///
/// # Errors
/// Says where the text is no JSON, or a value is not of its field's kind.
pub(super) fn to_protobuf(json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Writer::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    Body { message: &REQUEST, out: &mut out }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(out.finish())
}

/// Whether a name is that of a field, in either spelling.
fn is_name(found: &str, field: &str) -> bool {
    if found == field {
        return true;
    }
    let mut found = found.bytes();
    let mut field = field.bytes();
    while let Some(letter) = field.next() {
        let expected =
            if letter == b'_' { field.next().map(|l| l.to_ascii_uppercase()) } else { Some(letter) };
        if found.next() != expected {
            return false;
        }
    }
    found.next().is_none()
}

/// Fields of one message, written without its tag.
struct Body<'w> {
    message: &'static Message,
    out: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.message.0.iter().find(|(field, ..)| is_name(&name, field)) {
                Some((_, number, kind)) => {
                    map.next_value_seed(Field { number: *number, kind: *kind, out: self.out })?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// One field with its tag; for lists, each entry with its tag.
struct Field<'w> {
    number: u32,
    kind: Kind,
    out: &'w mut Writer,
}

impl Field<'_> {
    fn wrong<E: serde::de::Error>(&self, found: serde::de::Unexpected<'_>) -> E {
        E::invalid_type(found, self)
    }

    fn number<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match self.kind {
            Number => self.out.number_or_zero(self.number, value),
            Fixed => self.out.fixed64(self.number, value),
            Double => self.out.fixed64_or_zero(self.number, (value as f64).to_bits()),
            _ => return Err(self.wrong(serde::de::Unexpected::Unsigned(value))),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Self { number, kind, out } = self;
        match kind {
            One(message) => {
                let mut outcome = Ok(());
                out.message(number, |out| outcome = Body { message, out }.deserialize(reader));
                outcome
            }
            _ => reader.deserialize_any(Self { number, kind, out }),
        }
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Text => "a string",
            Number | Fixed => "a whole number of 64 bits",
            Bool => "true or false",
            Double => "a number",
            Bytes => "bytes in base64",
            One(_) => "an object",
            Many(_) => "a list of objects",
            Texts => "a list of strings",
            Numbers | FixedNumbers => "a list of whole numbers of 64 bits",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let Bool = self.kind else { return Err(self.wrong(serde::de::Unexpected::Bool(value))) };
        self.out.number_or_zero(self.number, u64::from(value));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        if let Double = self.kind {
            self.out.fixed64_or_zero(self.number, (value as f64).to_bits());
            return Ok(());
        }
        self.number(value as u64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Double => {
                self.out.fixed64_or_zero(self.number, value.to_bits());
                Ok(())
            }
            // 1e3 is a whole number, too.
            Number | Fixed if value.fract() == 0.0 && value.abs() < 9.2e18 => {
                self.number(value as i64 as u64)
            }
            _ => Err(self.wrong(serde::de::Unexpected::Float(value))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match self.kind {
            Text => self.out.text_or_empty(self.number, value),
            Number | Fixed => {
                let Some(number) = whole(value) else {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(value), &self));
                };
                return self.number(number);
            }
            Double => {
                let Ok(number) = value.parse::<f64>() else {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(value), &self));
                };
                self.out.fixed64_or_zero(self.number, number.to_bits());
            }
            Bytes => {
                use base64::Engine as _;
                let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(value) else {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(value), &self));
                };
                self.out.bytes_or_empty(self.number, &bytes);
            }
            _ => return Err(self.wrong(serde::de::Unexpected::Str(value))),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { number, kind, out } = self;
        let entry = match kind {
            Many(message) => One(message),
            Texts => Text,
            Numbers | FixedNumbers => {
                let mut numbers = Vec::new();
                while let Some(Whole(number)) = list.next_element()? {
                    numbers.push(number);
                }
                if let Numbers = kind {
                    out.packed(number, numbers);
                } else {
                    out.packed_fixed64(number, numbers.into_iter());
                }
                return Ok(());
            }
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &Self { number, kind, out })),
        };
        while list.next_element_seed(Field { number, kind: entry, out: &mut *out })?.is_some() {}
        Ok(())
    }
}

/// A whole number, signed or not, as protobuf holds it.
fn whole(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|number| number as u64))
}

/// An entry of a list of numbers.
struct Whole(u64);

impl<'de> serde::Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct AnyWhole;
        impl Visitor<'_> for AnyWhole {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 64 bits")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value as u64))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Whole, E> {
                whole(value)
                    .map(Whole)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
            }
        }
        reader.deserialize_any(AnyWhole)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::decode;
    use super::*;

    fn capture(name: &str) -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/otlp/collector-json/");
        std::fs::read(format!("{path}{name}")).unwrap()
    }

    #[test]
    fn what_a_collector_writes_as_json_says_the_same_as_the_binary_form() {
        let packed = capture("file-exporter-001.json.gz");
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut json).unwrap();
        let binary = to_protobuf(&json).unwrap();
        assert!(binary.len() < json.len());
        let expected = decode(&capture("request-001.otlp.pb")).unwrap();
        let found = decode(&binary).unwrap();
        assert!(expected.batch.sample_count() > 400);
        assert_eq!((found.batch, found.revision), (expected.batch, expected.revision));
    }

    #[test]
    fn values_may_be_spelled_in_every_way_that_the_mapping_allows() {
        let read = |json: &str| to_protobuf(json.as_bytes()).unwrap();
        let resource = |attribute: &str| {
            let json = format!(r#"{{"resourceProfiles":[{{"resource":{{"attributes":[{attribute}]}}}}]}}"#);
            read(&json)
        };
        let plain = resource(r#"{"key":"a","value":{"intValue":"-7"}}"#);
        assert_eq!(
            resource(r#" {"value":{"int_value":-7}, "key":"a", "none":[{"x":1}], "keyStrindex":null}"#).len(),
            plain.len()
        );
        assert_eq!(resource(r#"{"key":"a","value":{"intValue":-7.0}}"#), plain);
        for (json, expected) in [
            (r#"{"key":"","value":{"boolValue":true}}"#, &[16, 1][..]),
            (r#"{"key":"","value":{"doubleValue":1}}"#, &[33, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            (r#"{"key":"","value":{"doubleValue":"-Infinity"}}"#, &[33, 0, 0, 0, 0, 0, 0, 0xf0, 0xff]),
            (r#"{"key":"","value":{"bytesValue":"AQI="}}"#, &[58, 2, 1, 2]),
            (r#"{"key":"","value":{"arrayValue":{"values":[{"intValue":0}]}}}"#, &[42, 4, 10, 2, 24, 0]),
        ] {
            assert!(resource(json).ends_with(expected), "{json}: {:?}", resource(json));
        }
        assert_eq!(read("{}"), b"");
        assert_eq!(
            read(r#"{"dictionary":{"stackTable":[{},{"locationIndices":["1",2]}]}}"#),
            [18, 8, 58, 0, 58, 4, 10, 2, 1, 2]
        );
    }

    #[test]
    fn what_is_no_export_is_refused_by_place() {
        for (json, expected) in [
            ("", "EOF while parsing a value"),
            ("[]", "invalid type: sequence, expected an object"),
            ("{} x", "trailing characters"),
            (r#"{"resourceProfiles":7}"#, "invalid type: integer `7`, expected a list of objects"),
            (
                r#"{"dictionary":{"stackTable":[{"locationIndices":["x"]}]}}"#,
                "invalid value: string \"x\", expected a whole number of 64 bits",
            ),
        ] {
            let error = to_protobuf(json.as_bytes()).unwrap_err().to_string();
            let (what, place) = error.split_once(" at line ").unwrap();
            assert_eq!(what, expected);
            assert!(place.starts_with("1 column "), "{error}");
        }
        // Nesting without end.
        let deep = format!(
            r#"{{"resourceProfiles":[{{"resource":{{"attributes":[{{"value":{}"#,
            r#"{"arrayValue":{"values":["#.repeat(10_000)
        );
        assert!(
            to_protobuf(deep.as_bytes()).unwrap_err().to_string().starts_with("recursion limit exceeded")
        );
    }
}
