//! The agent's configuration file: one option per line as `key value`, `key: value` or `key=value`.

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlainEntry {
    /// Line number from 1.
    pub(super) line: usize,
    /// Option name without leading dashes.
    pub(super) key: String,
    /// Value without surrounding quotes; `true` for a bare key.
    pub(super) value: String,
}

/// Reads the file's text. Lines that start with `#` and blank lines say nothing.
pub(super) fn parse(text: &str) -> Vec<PlainEntry> {
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let end = line.find(|c: char| c.is_whitespace() || c == ':' || c == '=').unwrap_or(line.len());
            let (key, rest) = line.split_at(end);
            let rest = rest.trim_start();
            let rest = rest.strip_prefix([':', '=']).unwrap_or(rest).trim_start();
            Some(PlainEntry {
                line: index + 1,
                key: key.trim_start_matches('-').to_owned(),
                value: if rest.is_empty() { "true".into() } else { value(rest) },
            })
        })
        .collect()
}

/// The value without quotes and without a comment behind it.
fn value(text: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = text.strip_prefix(quote).and_then(|inner| inner.split_once(quote)) {
            return inner.to_owned();
        }
    }
    text.split(" #").next().unwrap_or(text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, key: &str, value: &str) {
        let entries = parse(line);
        assert_eq!((entries[0].key.as_str(), entries[0].value.as_str()), (key, value), "{line}");
    }

    #[test]
    fn takes_every_separator_that_people_write() {
        check("project-id 73", "project-id", "73");
        check("project-id: 73", "project-id", "73");
        check("project-id=73", "project-id", "73");
        check("tags \"a:b;c\" # why", "tags", "a:b;c");
        check("collection-agent collector:8260", "collection-agent", "collector:8260");
        check("collection-agent: \"collector:8260\"", "collection-agent", "collector:8260");
        check("disable-tls", "disable-tls", "true");
        check("secret-token abc#def", "secret-token", "abc#def");
    }

    #[test]
    fn comments_and_blanks_say_nothing_and_lines_are_counted() {
        assert_eq!(parse("# a\n\n  verbose true\n")[0].line, 3);
    }
}
