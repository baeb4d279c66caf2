//! Times as people write them in a URL. The clock is an argument.

use crate::model::{TimeRange, UnixNanos};

use super::{Error, Result};

/// Range looked at when none is given, in nanoseconds: 15 minutes.
pub const DEFAULT_RANGE_NS: u64 = 15 * 60 * 1_000_000_000;

/// Units of relative times with their length in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 7 * 86_400 * 1_000_000_000),
];

/// Milliseconds since 1970, or `now`, `now-15m`, `now+5s`. Relative times before 1970 are 1970.
pub fn instant(parameter: &'static str, text: &str, now: UnixNanos) -> Result<UnixNanos> {
    parse(text, now).ok_or_else(|| Error::Time { parameter, found: text.chars().take(64).collect() })
}

fn parse(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    let Some(offset) = text.strip_prefix("now") else {
        return number(text)?.checked_mul(1_000_000).map(UnixNanos);
    };
    if offset.is_empty() {
        return Some(now);
    }
    let (forward, amount) = match offset.as_bytes().first()? {
        b'+' => (true, &offset[1..]),
        b'-' => (false, &offset[1..]),
        _ => return None,
    };
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = amount.split_at(digits);
    let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let amount = number(amount)?;
    if forward {
        now.0.checked_add(amount.checked_mul(*unit_ns)?).map(UnixNanos)
    } else {
        Some(UnixNanos(now.0.saturating_sub(amount.saturating_mul(*unit_ns))))
    }
}

/// Decimal digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `[from, to)`; `to` defaults to now, `from` to 15 minutes before `to`.
pub fn range(from: Option<&str>, to: Option<&str>, now: UnixNanos) -> Result<TimeRange> {
    let to = to.map_or(Ok(now), |text| instant("to", text, now))?;
    let from = match from {
        Some(text) => instant("from", text, now)?,
        None => UnixNanos(to.0.saturating_sub(DEFAULT_RANGE_NS)),
    };
    if from >= to {
        return Err(Error::EmptyRange { from: from.millis(), to: to.millis() });
    }
    Ok(TimeRange { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos::from_millis(1_763_734_000_000);

    #[test]
    fn reads_milliseconds_and_relative_times() {
        for (text, millis) in [
            ("1763730000000", 1_763_730_000_000),
            ("now", 1_763_734_000_000),
            ("now-15m", 1_763_733_100_000),
            ("now-2h", 1_763_726_800_000),
            ("now-7d", 1_763_129_200_000),
            ("now-1w", 1_763_129_200_000),
            ("now+250ms", 1_763_734_000_250),
            ("now-99999w", 0),
            ("0", 0),
        ] {
            assert_eq!(instant("from", text, NOW).unwrap(), UnixNanos::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for text in [
            "",
            "now-",
            "now-m",
            "now-15",
            "now15m",
            "now-15x",
            "now--1m",
            "-5",
            "+5",
            "1e9",
            " now",
            "yesterday",
            "99999999999999999999",
            "now+99999999999w",
            "now-é",
        ] {
            let error = instant("from", text, NOW).unwrap_err();
            assert!(matches!(error, Error::Time { .. }), "{text}: {error}");
        }
        assert_eq!(
            instant("to", "later", NOW).unwrap_err().to_string(),
            "to: expected milliseconds since 1970 or a time like now-15m, found \"later\""
        );
    }

    #[test]
    fn the_default_range_is_the_last_15_minutes_before_its_end() {
        let last = range(None, None, NOW).unwrap();
        assert_eq!((last.to, last.nanos()), (NOW, DEFAULT_RANGE_NS));
        let earlier = range(None, Some("now-1h"), NOW).unwrap();
        assert_eq!(earlier.nanos(), DEFAULT_RANGE_NS);
        assert!(matches!(range(Some("5"), Some("5"), NOW), Err(Error::EmptyRange { .. })));
        assert!(matches!(range(Some("now"), Some("now-1m"), NOW), Err(Error::EmptyRange { .. })));
    }
}
