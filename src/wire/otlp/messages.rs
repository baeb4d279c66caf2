//! The small messages around an export: its answer, and the status that explains a refusal.
//!
//! Shapes: `ExportProfilesServiceResponse` of OTLP, `google.rpc.Status` with `google.rpc.RetryInfo`.

use std::time::Duration;

use super::attributes::text;
use super::error::Result;
use super::fields::{bytes, number};
use crate::wire::protobuf::{Reader, Writer};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// What a receiver did not take of an export it accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Profiles left out.
    pub rejected_profiles: u64,
    /// Why, for people.
    pub message: String,
}

impl PartialSuccess {
    /// Writes the answer. Nothing rejected and nothing said is the empty message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        if *self != Self::default() {
            out.message(1, |out| {
                out.number(1, self.rejected_profiles);
                out.text(2, &self.message);
            });
        }
        out.finish()
    }

    /// The answer as JSON, numbers of 64 bits as text.
    pub(super) fn to_json(&self) -> String {
        if *self == Self::default() {
            return "{}".into();
        }
        let rejected = self.rejected_profiles.to_string();
        serde_json::json!({"partialSuccess": {"rejectedProfiles": rejected, "errorMessage": self.message}})
            .to_string()
    }

    /// Reads an answer.
    pub(super) fn decode(message: &[u8]) -> Result<Self> {
        let mut partial = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field != 1 {
                continue;
            }
            let mut reader = Reader::new(bytes(&value).map_err(|e| e.at("partial_success"))?);
            while let Some((field, value)) = reader.field()? {
                match field {
                    1 => partial.rejected_profiles = u64::try_from(number(&value)? as i64).unwrap_or(0),
                    2 => partial.message = text(bytes(&value)?).to_string(),
                    _ => {}
                }
            }
        }
        Ok(partial)
    }
}

/// Writes `google.rpc.Status`.
pub(super) fn encode_status(code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(1, code as u64);
    out.text(2, message);
    if let Some(delay) = retry_after {
        out.message(3, |any| {
            any.text(1, RETRY_INFO);
            any.message(2, |info| {
                info.message(1, |duration| {
                    duration.number(1, delay.as_secs());
                    duration.number(2, u64::from(delay.subsec_nanos()));
                });
            });
        });
    }
    out.finish()
}

/// Pause that a `google.rpc.Status` asks for, if it does.
pub(super) fn retry_after(status: &[u8]) -> Option<Duration> {
    let any = message(status, 3)?;
    if message(any, 1)? != RETRY_INFO.as_bytes() {
        return None;
    }
    let duration = message(message(any, 2)?, 1)?;
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(duration);
    while let Ok(Some((field, value))) = reader.field() {
        match field {
            1 => seconds = number(&value).ok()?,
            2 => nanos = number(&value).ok()?,
            _ => {}
        }
    }
    Some(Duration::new(seconds.min(3600), nanos.min(999_999_999) as u32))
}

/// First length-delimited field of that number.
fn message(holder: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut reader = Reader::new(holder);
    while let Ok(Some((field, value))) = reader.field() {
        if field == wanted {
            return bytes(&value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back() {
        let partial = PartialSuccess { rejected_profiles: 3, message: "sample_type: …".into() };
        assert_eq!(PartialSuccess::decode(&partial.encode()), Ok(partial));
        assert!(PartialSuccess::default().encode().is_empty());
        // The public exporter says it this way.
        assert_eq!(PartialSuccess::decode(&[0x0a, 0]), Ok(PartialSuccess::default()));
    }

    #[test]
    fn a_status_says_when_to_come_back() {
        let status = encode_status(8, "busy", Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(&status), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(&encode_status(3, "bad", None)), None);
        assert_eq!(retry_after(b"\xff\xff"), None);
    }
}
