//! Attributes: which of them the model has a place for, and the text form of all others.
//!
//! The same attribute comes in many shapes: key as text or as index, value as text, as index, as number, as list.

use std::fmt::Write as _;
use std::sync::Arc;

use super::error::Result;
use super::fields::{bytes, index, number};
use super::limits::{MAX_TEXT_BYTES, MAX_VALUE_DEPTH};
use crate::model::Resource;
use crate::wire::protobuf::{Reader, Value};

/// Keys that mean something to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    HostId,
    HostName,
    Pid,
    ExecutableName,
    ExecutablePath,
    ContainerId,
    ContainerName,
    PodName,
    NamespaceName,
    ServiceName,
    ThreadName,
    ThreadId,
    FrameType,
    FileId,
    GnuBuildId,
    Other,
}

/// Keys by their text, both ways.
const KEYS: [(Key, &str); 15] = [
    (Key::HostId, "host.id"),
    (Key::HostName, "host.name"),
    (Key::Pid, "process.pid"),
    (Key::ExecutableName, "process.executable.name"),
    (Key::ExecutablePath, "process.executable.path"),
    (Key::ContainerId, "container.id"),
    (Key::ContainerName, "container.name"),
    (Key::PodName, "k8s.pod.name"),
    (Key::NamespaceName, "k8s.namespace.name"),
    (Key::ServiceName, "service.name"),
    (Key::ThreadName, "thread.name"),
    (Key::ThreadId, "thread.id"),
    (Key::FrameType, "profile.frame.type"),
    (Key::FileId, "process.executable.build_id.htlhash"),
    (Key::GnuBuildId, "process.executable.build_id.gnu"),
];

impl Key {
    fn of(text: &[u8]) -> Self {
        KEYS.iter().find(|(_, name)| name.as_bytes() == text).map_or(Self::Other, |(key, _)| *key)
    }

    /// Text on the wire; empty for [`Key::Other`].
    pub(super) fn name(self) -> &'static str {
        KEYS.iter().find(|(key, _)| *key == self).map_or("", |(_, name)| name)
    }

    /// Whether the key describes the sampled process rather than one sample.
    pub(super) fn is_of_resource(self) -> bool {
        !matches!(
            self,
            Self::ThreadName
                | Self::ThreadId
                | Self::FrameType
                | Self::FileId
                | Self::GnuBuildId
                | Self::Other
        )
    }
}

/// An attribute, still borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) key: Key,
    pub(super) name: Text<'a>,
    pub(super) value: AnyValue<'a>,
}

impl Default for Attribute<'_> {
    fn default() -> Self {
        Self { key: Key::Other, name: Text::Inline(b""), value: AnyValue::None }
    }
}

/// A text of the message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    /// Where it is used.
    Inline(&'a [u8]),
    /// Checked index in the string table. Kept as such: many attributes may share one long text.
    Entry(usize),
}

impl<'a> Text<'a> {
    pub(super) fn bytes(self, strings: &[&'a [u8]]) -> &'a [u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Entry(at) => strings[at],
        }
    }
}

/// Value of an attribute, still borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnyValue<'a> {
    None,
    Text(Text<'a>),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// `ArrayValue`
    Array(&'a [u8]),
    /// `KeyValueList`
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

impl<'a> Attribute<'a> {
    /// Reads `KeyValue`: key as text (1) or index (3), value (2).
    pub(super) fn key_value(message: &'a [u8], strings: &[&'a [u8]]) -> Result<Self> {
        let mut attribute = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => attribute.name = Text::Inline(bytes(&value).map_err(|e| e.at("key"))?),
                2 => attribute.value = any_value(&value, strings).map_err(|e| e.at("value"))?,
                3 => {
                    let at = number(&value).and_then(|n| index(n, strings.len()));
                    attribute.name = Text::Entry(at.map_err(|e| e.at("key_strindex"))?);
                }
                _ => {}
            }
        }
        attribute.key = Key::of(attribute.name.bytes(strings));
        Ok(attribute)
    }

    /// Reads `KeyValueAndUnit`: key by index (1), value (2).
    pub(super) fn key_value_and_unit(message: &'a [u8], strings: &[&'a [u8]]) -> Result<Self> {
        let mut attribute = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => {
                    let at = number(&value).and_then(|n| index(n, strings.len()));
                    attribute.name = Text::Entry(at.map_err(|e| e.at("key_strindex"))?);
                }
                2 => attribute.value = any_value(&value, strings).map_err(|e| e.at("value"))?,
                _ => {}
            }
        }
        attribute.key = Key::of(attribute.name.bytes(strings));
        Ok(attribute)
    }
}

fn any_value<'a>(value: &Value<'a>, strings: &[&'a [u8]]) -> Result<AnyValue<'a>> {
    let mut found = AnyValue::None;
    let mut reader = Reader::new(bytes(value)?);
    while let Some((field, value)) = reader.field()? {
        found = match field {
            1 => AnyValue::Text(Text::Inline(bytes(&value).map_err(|e| e.at("string_value"))?)),
            2 => AnyValue::Bool(number(&value).map_err(|e| e.at("bool_value"))? != 0),
            3 => AnyValue::Int(number(&value).map_err(|e| e.at("int_value"))? as i64),
            4 => AnyValue::Double(f64::from_bits(number(&value).map_err(|e| e.at("double_value"))?)),
            5 => AnyValue::Array(bytes(&value).map_err(|e| e.at("array_value"))?),
            6 => AnyValue::Map(bytes(&value).map_err(|e| e.at("kvlist_value"))?),
            7 => AnyValue::Bytes(bytes(&value).map_err(|e| e.at("bytes_value"))?),
            8 => {
                let at = number(&value).and_then(|n| index(n, strings.len()));
                AnyValue::Text(Text::Entry(at.map_err(|e| e.at("string_value_strindex"))?))
            }
            _ => continue,
        };
    }
    Ok(found)
}

impl AnyValue<'_> {
    /// Text form: text as it is, numbers in decimal, bytes in hex, lists as JSON.
    pub(super) fn to_text(self, strings: &[&[u8]]) -> Arc<str> {
        match self {
            Self::Text(found) => text(found.bytes(strings)),
            Self::None => Arc::default(),
            _ => {
                let mut out = String::new();
                self.write(&mut out, strings, 0);
                text(out.as_bytes())
            }
        }
    }

    /// Number, also when it was sent as text.
    pub(super) fn to_u32(self, strings: &[&[u8]]) -> u32 {
        match self {
            Self::Int(number) => u32::try_from(number).unwrap_or(0),
            Self::Text(text) => {
                let text = std::str::from_utf8(text.bytes(strings));
                text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn write(self, out: &mut String, strings: &[&[u8]], depth: usize) {
        if depth > MAX_VALUE_DEPTH || out.len() > MAX_TEXT_BYTES {
            out.push('…');
            return;
        }
        // Writing to a String cannot fail.
        let _ = match self {
            Self::None => write!(out, "null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Double(value) => write!(out, "{value}"),
            Self::Text(text) => {
                let bytes = text.bytes(strings);
                write!(out, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_BYTES)]))
            }
            Self::Bytes(bytes) => {
                bytes.iter().take(MAX_TEXT_BYTES / 2).try_for_each(|b| write!(out, "{b:02x}"))
            }
            Self::Array(list) => {
                out.push('[');
                write_list(out, list, |out, entry| {
                    let value = any_value(&Value::Bytes(entry), strings).unwrap_or(AnyValue::None);
                    value.write(out, strings, depth + 1);
                });
                write!(out, "]")
            }
            Self::Map(list) => {
                out.push('{');
                write_list(out, list, |out, entry| {
                    let entry = Attribute::key_value(entry, strings).unwrap_or_default();
                    let name = entry.name.bytes(strings);
                    let _ = write!(
                        out,
                        "{:?}:",
                        String::from_utf8_lossy(&name[..name.len().min(MAX_TEXT_BYTES)])
                    );
                    entry.value.write(out, strings, depth + 1);
                });
                write!(out, "}}")
            }
        };
    }
}

fn write_list(out: &mut String, list: &[u8], mut entry: impl FnMut(&mut String, &[u8])) {
    let mut reader = Reader::new(list);
    let mut first = true;
    while let Ok(Some((field, value))) = reader.field() {
        let (1, Value::Bytes(bytes)) = (field, value) else { continue };
        if out.len() > MAX_TEXT_BYTES {
            break;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        entry(out, bytes);
    }
}

/// Text of bytes that should be UTF-8 (thread names often are not), cut at [`MAX_TEXT_BYTES`].
pub(super) fn text(bytes: &[u8]) -> Arc<str> {
    let cut = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    match std::str::from_utf8(cut) {
        Ok(text) => text.into(),
        // The cut went through a character.
        Err(error) if cut.len() < bytes.len() && error.error_len().is_none() => {
            String::from_utf8_lossy(&cut[..error.valid_up_to()]).into()
        }
        Err(_) => String::from_utf8_lossy(cut).into(),
    }
}

/// Puts an attribute where the model has a place for it; later ones win.
pub(super) fn describe(resource: &mut Resource, key: Key, value: Arc<str>, name: impl FnOnce() -> Arc<str>) {
    let place = match key {
        Key::HostId => &mut resource.host_id,
        Key::HostName => &mut resource.host_name,
        Key::ExecutableName => &mut resource.executable_name,
        Key::ExecutablePath => &mut resource.executable_path,
        Key::ContainerId => &mut resource.container_id,
        Key::ContainerName => &mut resource.container_name,
        Key::PodName => &mut resource.pod_name,
        Key::NamespaceName => &mut resource.namespace_name,
        Key::ServiceName => &mut resource.service_name,
        Key::Pid => {
            resource.pid = value.parse().unwrap_or(0);
            return;
        }
        _ => {
            let name = name();
            if name.is_empty() {
                return;
            }
            match resource.others.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => resource.others.push((name, value)),
            }
            return;
        }
    };
    *place = value;
}
