//! Parameters of a request: known names only, each at most once, numbers inside their limits.

use std::ops::RangeInclusive;

use axum::extract::Query;
use http::Uri;

use crate::model::Dimension;
use crate::query::{nearest::nearest, selection};

use super::error::ApiError;

/// Parameters of one request, checked against the names its route knows.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query part of `uri`; `known` are the names that the route takes.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
            ApiError::BadParameter { message: format!("parameters are not readable: {error}"), hint: None }
        })?;
        for (i, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(unknown(name, known));
            }
            if pairs[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::BadParameter {
                    message: format!("{name}: expected once, found more than once"),
                    hint: None,
                });
            }
        }
        Ok(Self(pairs))
    }

    /// Text of a parameter; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// A number within `range`, or `default`.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(number),
            _ => Err(ApiError::BadParameter {
                message: format!(
                    "{name}: expected a number from {} to {}, found {:?}",
                    range.start(),
                    range.end(),
                    short(text)
                ),
                hint: None,
            }),
        }
    }

    /// A field to group by; `none` and an absent one without default are no field.
    pub(super) fn by(&self, default: Option<Dimension>) -> Result<Option<Dimension>, ApiError> {
        match self.text("by") {
            None => Ok(default),
            Some("none") => Ok(None),
            Some(name) => Ok(Some(selection::field("by", name)?)),
        }
    }

    /// One of a few words; the first is the default.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, ApiError> {
        let Some(text) = self.text(name) else { return Ok(choices[0].1) };
        choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            ApiError::BadParameter {
                message: format!("{name}: expected {}, found {:?}", words.join(" or "), short(text)),
                hint: None,
            }
        })
    }
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "this address takes no parameters".into(),
        None => format!("known here: {}", known.join(", ")),
    };
    ApiError::BadParameter { message: format!("unknown parameter {:?}", short(name)), hint: Some(hint) }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Params, ApiError> {
        Params::read(&format!("/x?{query}").parse().unwrap(), &["from", "to", "limit", "by", "sort"])
    }

    fn message(result: Result<impl std::fmt::Debug, ApiError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn values_are_decoded_and_empty_ones_absent() {
        let params = read("from=now-15m&to=&by=host%20x+y").unwrap();
        assert_eq!(params.text("from"), Some("now-15m"));
        assert_eq!((params.text("to"), params.text("by")), (None, Some("host x y")));
        assert_eq!(params.number("limit", 1..=9, 5).unwrap(), 5);
        assert_eq!(read("by=none").unwrap().by(Some(Dimension::Pid)).unwrap(), None);
        assert_eq!(read("by=host").unwrap().by(None).unwrap(), Some(Dimension::HostName));
    }

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        assert_eq!(message(read("limt=5")), "unknown parameter \"limt\"");
        assert_eq!(message(read("from=1&from=2")), "from: expected once, found more than once");
        for bad in ["0", "10", "-1", "+5", "5x", "1e1", "99999999999"] {
            let params = Params(vec![("limit".into(), bad.into())]);
            assert_eq!(
                message(params.number("limit", 1..=9, 5)),
                format!("limit: expected a number from 1 to 9, found {bad:?}")
            );
        }
        let choices = [("self", 1), ("total", 2)];
        assert_eq!(
            message(read("sort=name").unwrap().choice("sort", &choices)),
            "sort: expected self or total, found \"name\""
        );
        let ApiError::BadParameter { hint, .. } = read("limt=5").unwrap_err() else { panic!() };
        assert_eq!(hint.as_deref(), Some("did you mean limit?"));
    }
}
