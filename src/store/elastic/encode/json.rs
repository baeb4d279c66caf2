//! JSON by hand: texts, numbers and times appended to a buffer.

use crate::model::UnixNanos;

const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;
/// `2026-11-21T12:33:54`
const SECOND_BYTES: usize = 19;

/// Text as it is, for what is known to need no escapes.
#[inline]
pub(super) fn push_raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Text without special characters, in quotes: identifiers and names of indices.
pub(super) fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_raw(out, text);
    out.push(b'"');
}

/// Any text, in quotes and escaped as RFC 8259 asks.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        push_raw(out, &text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => push_raw(out, "\\\""),
            b'\\' => push_raw(out, "\\\\"),
            b'\n' => push_raw(out, "\\n"),
            b'\r' => push_raw(out, "\\r"),
            b'\t' => push_raw(out, "\\t"),
            _ => {
                push_raw(out, "\\u00");
                out.extend([
                    b"0123456789abcdef"[usize::from(byte >> 4)],
                    b"0123456789abcdef"[usize::from(byte & 15)],
                ]);
            }
        }
    }
    push_raw(out, &text[plain..]);
    out.push(b'"');
}

/// `,"name":"value"`, unless the value is empty. The name needs no escapes.
pub(super) fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        push_field_or_empty(out, name, value);
    }
}

/// `,"name":"value"`. The name needs no escapes.
pub(super) fn push_field_or_empty(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    push_quoted(out, name);
    out.push(b':');
    push_text(out, value);
}

/// A whole number.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Times as RFC 3339 in UTC with up to nine digits of a second, trailing zeros left out. Most samples of a batch share
/// their second, which is written once.
#[derive(Debug)]
pub(super) struct Times {
    second: u64,
    text: [u8; SECOND_BYTES],
}

impl Default for Times {
    fn default() -> Self {
        Self { second: 0, text: second_text(0) }
    }
}

impl Times {
    /// Appends a time without quotes.
    #[inline]
    pub(super) fn push(&mut self, out: &mut Vec<u8>, time: UnixNanos) {
        let (second, mut fraction) = (time.0 / NANOS, (time.0 % NANOS) as u32);
        if second != self.second {
            *self = Self { second, text: second_text(second) };
        }
        out.extend_from_slice(&self.text);
        if fraction > 0 {
            let mut digits = *b".000000000";
            let mut last = 0;
            for at in (1..digits.len()).rev() {
                let digit = (fraction % 10) as u8;
                if last == 0 && digit != 0 {
                    last = at;
                }
                digits[at] += digit;
                fraction /= 10;
            }
            out.extend_from_slice(&digits[..=last]);
        }
        out.push(b'Z');
    }
}

/// Appends a time in quotes.
pub(super) fn push_time(out: &mut Vec<u8>, time: UnixNanos) {
    out.push(b'"');
    Times::default().push(out, time);
    out.push(b'"');
}

/// Years from 1970 to 2554 have four digits, so every time fits.
fn second_text(second: u64) -> [u8; SECOND_BYTES] {
    let (year, month, day) = date(second / DAY);
    let of_day = second % DAY;
    let mut text = *b"0000-00-00T00:00:00";
    for (at, number) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, of_day / 3600),
        (14, of_day / 60 % 60),
        (17, of_day % 60),
    ] {
        text[at] += (number / 10) as u8;
        text[at + 1] += (number % 10) as u8;
    }
    text
}

/// Year, month and day of the Gregorian calendar, days counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day ends a year and 400 years always have the same number of days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March to July and August to December each have 153 days, months of 31 and 30 in turn.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Epoch seconds of the Monday, 00:00 UTC, on or before `time`.
pub(super) fn week_start(time: UnixNanos) -> u64 {
    /// 1970-01-05 was a Monday.
    const FIRST_MONDAY: u64 = 4 * DAY;
    let second = time.0 / NANOS;
    second.saturating_sub(FIRST_MONDAY) / (7 * DAY) * (7 * DAY)
        + if second < FIRST_MONDAY { 0 } else { FIRST_MONDAY }
}

/// Whole epoch seconds.
pub(super) fn seconds(time: UnixNanos) -> u64 {
    time.0 / NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(nanos: u64) -> String {
        let mut out = Vec::new();
        push_time(&mut out, UnixNanos(nanos));
        String::from_utf8(out).unwrap().trim_matches('"').to_owned()
    }

    #[test]
    fn times_are_as_short_as_they_can_be() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (NANOS, "1970-01-01T00:00:01Z"),
            (42 * NANOS, "1970-01-01T00:00:42Z"),
            (4_294_967_295 * NANOS, "2106-02-07T06:28:15Z"),
            (4_294_967_296, "1970-01-01T00:00:04.294967296Z"),
            (1_700_508_027_000_000_000, "2023-11-20T19:20:27Z"),
            (1_700_508_027_123_456_700, "2023-11-20T19:20:27.1234567Z"),
            (951_782_400 * NANOS + 1, "2000-02-29T00:00:00.000000001Z"),
            (951_868_799 * NANOS + 900_000_000, "2000-02-29T23:59:59.9Z"),
            (4_107_542_400 * NANOS, "2100-03-01T00:00:00Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(time(nanos), expected);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..220_000 {
            assert_eq!(date(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn a_second_is_written_anew_when_it_changes() {
        let (mut times, mut out) = (Times::default(), Vec::new());
        for nanos in [1_500_000_000, 1_000_000_000, 60_000_000_000, 1_000_000_000] {
            times.push(&mut out, UnixNanos(nanos));
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:01.5Z1970-01-01T00:00:01Z1970-01-01T00:01:00Z1970-01-01T00:00:01Z"
        );
    }

    #[test]
    fn weeks_start_on_monday() {
        for (second, expected) in [
            (1_700_504_427, 1_700_438_400),
            (1_698_624_000, 1_698_624_000),
            (1_699_228_799, 1_698_624_000),
            (1_699_228_800, 1_699_228_800),
            (0, 0),
            (345_599, 0),
            (345_600, 345_600),
        ] {
            assert_eq!(week_start(UnixNanos(second * NANOS)), expected);
        }
    }

    #[test]
    fn texts_come_back_from_any_reader() {
        for text in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\n\r\t\u{7f}", "ünï©ode \u{2028}", "</script>"] {
            let mut out = Vec::new();
            push_text(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
