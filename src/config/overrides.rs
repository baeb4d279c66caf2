//! `-E full.path=value`.

use super::{Problem, Problems};

/// One override from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Override {
    /// Full dotted path, section name included.
    pub(super) path: String,
    /// Text as given; the receiving field decides its type.
    pub(super) value: String,
    /// How the person wrote it: `-E` or the flag's name.
    pub(super) origin: String,
}

impl Override {
    /// Parses the text behind `-E`.
    pub(super) fn parse(text: &str) -> Result<Self, Problems> {
        let wrong = |message: String| Problem {
            origin: format!("-E {text}"),
            key: String::new(),
            message,
            hint: Some(
                "write -E full.path=value, for example -E pf-elastic-collector.host=0.0.0.0:8260".into(),
            ),
            warning: false,
        };
        let (path, value) =
            text.split_once('=').ok_or_else(|| wrong("expected path=value, found no \"=\"".into()))?;
        let path = path.trim();
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(wrong(format!("expected a dotted path before \"=\", found \"{path}\"")).into());
        }
        Ok(Self { path: path.to_owned(), value: value.to_owned(), origin: "-E".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_first_equals_sign() {
        let parsed = Override::parse("output.elasticsearch.api_key=a=b").unwrap();
        assert_eq!((parsed.path.as_str(), parsed.value.as_str()), ("output.elasticsearch.api_key", "a=b"));
    }

    #[test]
    fn refuses_what_has_no_path() {
        for text in ["verbose", "=x", "a..b=1", ".a=1"] {
            assert!(Override::parse(text).is_err(), "{text}");
        }
    }
}
