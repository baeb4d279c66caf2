//! Field types: what text each accepts, and the words for what it refuses.
//!
//! The receiving field decides the type of a value, never its looks: `"true"` from a variable is a bool where a bool
//! is wanted, and `123` is a text where a text is wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use figment::value::Value;

use super::settings::{Expected, Parsed, number_text};
use super::{Secret, Settings};

/// `host:port` with a port that may be 0 (any free one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// From parts.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("host:port")?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.chars().any(char::is_whitespace) {
            return Err("host:port".into());
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| "host:port with a port of 0 to 65535")?,
        })
    }
}

/// A number of bytes, written as `500M`, `1.5GB`, `200MiB` or plain bytes. Units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "G"), (20, "M"), (10, "K")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().map_err(|_| "a size such as 500M")?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err("a size such as 500M, with a unit of K, M, G or T".into()),
        };
        Ok(Self((number * (1u64 << shift) as f64) as u64))
    }
}

/// Reads `90s`, `1m30s`, `250ms`, `7d`, or plain seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit_at].parse().ok()?;
        let tail = &rest[unit_at..];
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let scale = match &tail[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
        rest = &tail[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// A duration as a person writes it.
pub(super) fn show_duration(duration: &Duration) -> String {
    let millis = duration.as_millis();
    for (unit_millis, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= unit_millis && millis.is_multiple_of(unit_millis) {
            return format!("{}{unit}", millis / unit_millis);
        }
    }
    format!("{millis}ms")
}

/// Text of any scalar.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, b) => Some(b.to_string()),
        Value::Num(..) => Some(number_text(value)),
        _ => None,
    }
}

fn parse_text<T>(what: &str, parse: impl Fn(&str) -> Option<T>) -> impl Fn(&Value) -> Parsed<T> {
    move |value| text(value).and_then(|text| parse(&text)).ok_or_else(|| Expected::new(what))
}

/// Typed reading of one key each. All note the key as known.
impl Settings {
    pub(super) fn text(&self, key: &str, default: &str) -> String {
        self.field(key, default.to_owned(), |v| format!("{v:?}"), parse_text("text", |t| Some(t.to_owned())))
    }

    pub(super) fn optional_text(&self, key: &str) -> Option<String> {
        let show = |v: &Option<String>| v.as_ref().map_or_else(|| "not set".into(), |v| format!("{v:?}"));
        self.field(key, None, show, parse_text("text", |t| Some((!t.is_empty()).then(|| t.to_owned()))))
    }

    /// An empty text counts as not set.
    pub(super) fn secret(&self, key: &str) -> Option<Secret> {
        let show = |v: &Option<Secret>| if v.is_some() { "[redacted]".into() } else { "not set".into() };
        let parse = parse_text("text", |t| Some((!t.is_empty()).then(|| Secret::new(t.to_owned()))));
        // The refused value must not be shown either, so nothing but a list or a section is refused.
        self.field(key, None, show, parse)
    }

    /// A section of any names with one text each, none of which is shown.
    pub(super) fn secrets(&self, key: &str) -> BTreeMap<String, Secret> {
        let show = |v: &BTreeMap<String, Secret>| match v.keys().cloned().collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => "none".to_owned(),
            names => format!("{names} [redacted]"),
        };
        self.field(key, BTreeMap::new(), show, |value| {
            let expected = || Expected::new("a section of names with one text each");
            let Value::Dict(_, entries) = value else { return Err(expected()) };
            let pair = |(name, value): (&String, &Value)| {
                Ok((name.clone(), Secret::new(text(value).ok_or_else(expected)?)))
            };
            entries.iter().map(pair).collect()
        })
    }

    pub(super) fn bool(&self, key: &str, default: bool) -> bool {
        self.field(key, default, bool::to_string, |value| {
            parse_text("true or false", |t| match t.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(true),
                "false" | "no" | "off" | "0" => Some(false),
                _ => None,
            })(value)
        })
    }

    pub(super) fn number(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let what = match (*range.start(), *range.end()) {
            (low, u64::MAX) => format!("a whole number of at least {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        self.field(
            key,
            default,
            u64::to_string,
            parse_text(&what, |t| t.parse().ok().filter(|n| range.contains(n))),
        )
    }

    pub(super) fn fraction(&self, key: &str, default: f64) -> f64 {
        let parse =
            parse_text("a number from 0 to 1", |t| t.parse().ok().filter(|n| (0.0..=1.0).contains(n)));
        self.field(key, default, f64::to_string, parse)
    }

    /// More than 0 and at most 100; 0 and an empty text count as not set.
    pub(super) fn percent(&self, key: &str) -> Option<f64> {
        let show = |v: &Option<f64>| v.map_or_else(|| "not set".into(), |v| v.to_string());
        let parse = parse_text("a percentage from 0 to 100", |t| {
            let number: f64 = if t.is_empty() { 0.0 } else { t.trim_end_matches('%').parse().ok()? };
            (0.0..=100.0).contains(&number).then_some((number > 0.0).then_some(number))
        });
        self.field(key, None, show, parse)
    }

    pub(super) fn duration(&self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let what = if *range.end() == Duration::MAX {
            format!("a duration such as 5s, at least {}", show_duration(range.start()))
        } else {
            format!("a duration from {} to {}", show_duration(range.start()), show_duration(range.end()))
        };
        let parse = parse_text(&what, |t| parse_duration(t).filter(|d| range.contains(d)));
        self.field(key, default, show_duration, parse)
    }

    pub(super) fn size(&self, key: &str, default: Option<ByteSize>) -> Option<ByteSize> {
        let show = |v: &Option<ByteSize>| v.map_or_else(|| "not set".into(), |v| v.to_string());
        self.field(key, default, show, |value| {
            let text = text(value).ok_or_else(|| Expected::new("a size such as 500M"))?;
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(Expected::new)
        })
    }

    pub(super) fn host_port(&self, key: &str, default: HostPort) -> HostPort {
        self.field(key, default, HostPort::to_string, |value| {
            parse_host_port(&text(value).unwrap_or_default())
        })
    }

    pub(super) fn optional_host_port(&self, key: &str) -> Option<HostPort> {
        let show = |v: &Option<HostPort>| v.as_ref().map_or_else(|| "off".into(), HostPort::to_string);
        self.field(key, None, show, |value| match text(value).unwrap_or_default().as_str() {
            "" => Ok(None),
            text => parse_host_port(text).map(Some),
        })
    }

    /// A list, or one text with commas.
    pub(super) fn list(&self, key: &str, default: &[&str]) -> Vec<String> {
        let default = default.iter().map(|t| (*t).to_owned()).collect();
        self.field(
            key,
            default,
            |v: &Vec<String>| format!("[{}]", v.join(", ")),
            |value| match value {
                Value::Array(_, items) => items
                    .iter()
                    .map(|item| text(item).ok_or_else(|| Expected::new("a list of texts")))
                    .collect(),
                Value::Dict(..) => Err(Expected::new("a list of texts")),
                other => Ok(text(other)
                    .unwrap_or_default()
                    .split(',')
                    .map(|t| t.trim().to_owned())
                    .filter(|t| !t.is_empty())
                    .collect()),
            },
        )
    }

    /// One of a few words.
    pub(super) fn word<T: Copy + PartialEq>(&self, key: &str, default: T, words: &[(&'static str, T)]) -> T {
        let what = format!("one of {}", words.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", "));
        let show = |v: &T| words.iter().find(|(_, t)| t == v).map_or("", |(w, _)| *w).to_owned();
        let parse = parse_text(&what, |t| words.iter().find(|(w, _)| *w == t).map(|(_, v)| *v));
        self.field(key, default, show, parse)
    }
}

fn parse_host_port(text: &str) -> Parsed<HostPort> {
    text.parse().map_err(|what: String| {
        let hint = text.parse::<u16>().ok().map(|port| format!("write 0.0.0.0:{port}"));
        Expected { hint, ..Expected::new(what) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for (text, millis) in
            [("5s", 5_000), ("1m30s", 90_000), ("250ms", 250), ("7d", 604_800_000), ("5", 5_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5x", "5 s", "-1s", "1e400"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(show_duration(&Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(&Duration::from_hours(2)), "2h");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("500M", 500 << 20), ("200MB", 200 << 20), ("1.5G", 3 << 29), ("17", 17), ("2kib", 2048)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert!("5X".parse::<ByteSize>().is_err());
        assert_eq!(ByteSize(500 << 20).to_string(), "500M");
    }

    #[test]
    fn host_and_port() {
        assert_eq!("[::1]:80".parse(), Ok(HostPort::new("::1", 80)));
        assert_eq!(HostPort::new("::1", 80).to_string(), "[::1]:80");
        for text in ["8260", ":8260", "host:", "host:99999", "a b:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        assert!(HostPort::new("127.0.0.9", 1).is_loopback());
        assert!(!HostPort::new("0.0.0.0", 1).is_loopback());
    }
}
