//! The text of a question to a [`Selection`].

use crate::model::{Dimension, Filter, Selection, UnixNanos};

use super::{Error, Result, kql, time};

/// A selection from its three parameters; `None` is the default of each.
pub fn parse(
    from: Option<&str>,
    to: Option<&str>,
    filter: Option<&str>,
    now: UnixNanos,
) -> Result<Selection> {
    Ok(Selection { range: time::range(from, to, now)?, filter: filter.map_or(Ok(Filter::All), kql::parse)? })
}

/// A field or alias; `parameter` is the name shown in the error.
pub fn field(parameter: &'static str, name: &str) -> Result<Dimension> {
    Dimension::parse(name)
        .ok_or_else(|| Error::UnknownField { parameter, found: name.chars().take(64).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_a_range_and_a_filter() {
        let now = UnixNanos::from_millis(1_000_000);
        let all = parse(None, None, None, now).unwrap();
        assert_eq!(all.filter, Filter::All);
        assert_eq!(parse(Some("now-1m"), None, Some("pid: 7"), now).unwrap().range.nanos(), 60_000_000_000);
    }

    #[test]
    fn an_unknown_field_names_the_nearest() {
        let error = field("by", "thred").unwrap_err();
        assert_eq!(error.to_string(), "by: expected a field, found \"thred\"");
        assert_eq!(error.hint().unwrap(), "did you mean thread?");
    }
}
