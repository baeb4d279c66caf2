//! Certificates and keys as a configuration names them: a file, or the text itself. Nothing is opened here.

use std::fmt;
use std::path::PathBuf;

use figment::value::Value;

use super::super::fields::text;
use super::super::settings::Expected;
use super::super::{Secret, Settings};

/// What stands in messages in place of key material.
const REDACTED: &str = "PEM REDACTED";

/// Where a certificate or a key is. Never prints PEM text.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// In a file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Secret),
}

impl PemSource {
    /// Tells text from paths as the original programs do.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let inline = text.starts_with('-') || text.contains('\n') || text.contains("-----");
        if inline { Self::Inline(Secret::new(text.to_owned())) } else { Self::File(text.into()) }
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Inline(_) => f.write_str(REDACTED),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One source; `None` when nothing is said.
pub(super) fn one(settings: &Settings, key: &str) -> Option<PemSource> {
    let show = |v: &Option<PemSource>| v.as_ref().map_or_else(|| "not set".into(), ToString::to_string);
    settings.field(key, None, show, |value| {
        let text = text(value).ok_or_else(|| Expected::new("a path or PEM text"))?;
        Ok((!text.is_empty()).then(|| PemSource::new(&text)))
    })
}

/// A list, or one text: a PEM, or paths with commas.
pub(super) fn many(settings: &Settings, key: &str) -> Vec<PemSource> {
    let show = |v: &Vec<PemSource>| {
        format!("[{}]", v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let expected = || Expected::new("a list of paths or PEM texts");
    settings.field(key, Vec::new(), show, |value| match value {
        Value::Array(_, items) => {
            items.iter().map(|item| text(item).map(|t| PemSource::new(&t)).ok_or_else(expected)).collect()
        }
        Value::Dict(..) => Err(expected()),
        other => {
            let all = text(other).unwrap_or_default();
            match PemSource::new(&all) {
                inline @ PemSource::Inline(_) => Ok(vec![inline]),
                PemSource::File(_) => {
                    Ok(all.split(',').map(str::trim).filter(|t| !t.is_empty()).map(PemSource::new).collect())
                }
            }
        }
    })
}
