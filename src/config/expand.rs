//! `${VAR}`, `${VAR:default}`, `${VAR:?text}` in string values. `$${` and `$}` are escapes for `${` and `}`.

/// What happened to one string.
pub(super) type Expansion = Result<String, ExpandError>;

/// A variable reference that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    /// `${VAR:?text}` and VAR is not set.
    #[error("{text}: environment variable {name} is not set")]
    Required {
        /// Variable.
        name: String,
        /// Text of the author.
        text: String,
    },
    /// `${` without `}`.
    #[error("expected \"}}\" after \"${{{0}\", found end of value")]
    Unclosed(String),
    /// `${}`.
    #[error("expected a variable name in \"${{}}\"")]
    Empty,
}

/// Expands all references in `text`. A variable that is not set and has no default is empty.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Expansion {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(after) = tail.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = tail.strip_prefix("$}") {
            out.push('}');
            rest = after;
        } else if let Some(after) = tail.strip_prefix("${") {
            let end = after.find('}').ok_or_else(|| ExpandError::Unclosed(after.to_owned()))?;
            out.push_str(&reference(&after[..end], &lookup)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = &tail[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn reference(inner: &str, lookup: impl Fn(&str) -> Option<String>) -> Expansion {
    let (name, fallback) = match inner.split_once(':') {
        Some((name, fallback)) => (name, Some(fallback)),
        None => (inner, None),
    };
    if name.is_empty() {
        return Err(ExpandError::Empty);
    }
    match (lookup(name), fallback) {
        (Some(value), _) => Ok(value),
        (None, Some(fallback)) => match fallback.strip_prefix('?') {
            Some(text) => Err(ExpandError::Required { name: name.to_owned(), text: text.to_owned() }),
            None => Ok(fallback.to_owned()),
        },
        (None, None) => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| (name == "SET").then(|| "a: [b, ${SET}]".to_owned());
        assert_eq!(expand(text, lookup).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn references_defaults_and_escapes() {
        check("plain $5 text", "plain $5 text");
        check("x${SET}y", "xa: [b, ${SET}]y");
        check("${UNSET}", "");
        check("${UNSET:default}", "default");
        check("${UNSET:a:b}", "a:b");
        check("${SET:default}", "a: [b, ${SET}]");
        check("$${SET$}", "${SET}");
        check("ends in $", "ends in $");
    }

    #[test]
    fn says_what_is_wrong() {
        let none = |_: &str| None;
        assert_eq!(
            expand("${TOKEN:?set the token}", none).unwrap_err().to_string(),
            "set the token: environment variable TOKEN is not set"
        );
        assert_eq!(
            expand("${OPEN", none).unwrap_err().to_string(),
            "expected \"}\" after \"${OPEN\", found end of value"
        );
        assert_eq!(expand("${}", none).unwrap_err(), ExpandError::Empty);
    }
}
