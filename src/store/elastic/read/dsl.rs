//! Selections as query DSL: the second target of the filter language (the first is the predicate of the embedded store).

use serde_json::{Map, Value, json};

use super::fields::{Access, EventFields};
use crate::model::{Filter, Pattern, Selection, TimeRange, UnixNanos};

/// Last instant that `date_nanos` can hold: 2262-04-11T23:47:16.854775807Z.
const LAST: u64 = i64::MAX as u64;

/// A query and the fields that it reads from the documents.
#[derive(Debug)]
pub(super) struct Query {
    /// Query DSL.
    pub(super) query: Value,
    /// Runtime fields by name.
    pub(super) runtime: Map<String, Value>,
}

/// Query of a selection.
pub(super) fn query(selection: &Selection, fields: &EventFields) -> Query {
    let mut runtime = Map::new();
    let mut filters = vec![range(selection.range)];
    if selection.filter != Filter::All {
        filters.push(clause(&selection.filter, fields, &mut runtime));
    }
    Query { query: json!({ "bool": { "filter": filters } }), runtime }
}

/// Events of a time range.
pub(super) fn range(range: TimeRange) -> Value {
    json!({ "range": { "@timestamp": {
        "gte": instant(range.from), "lt": instant(range.to), "format": "strict_date_optional_time_nanos",
    } } })
}

/// RFC 3339 with nine digits, as all versions of the mapping read it.
fn instant(time: UnixNanos) -> String {
    let nanos = time.0.min(LAST);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    format!("{}.{nanos:09}Z", text.trim_end_matches('Z'))
}

fn clause(filter: &Filter, fields: &EventFields, runtime: &mut Map<String, Value>) -> Value {
    let mut all =
        |parts: &[Filter]| -> Vec<Value> { parts.iter().map(|part| clause(part, fields, runtime)).collect() };
    match filter {
        Filter::All => json!({ "match_all": {} }),
        Filter::And(parts) => json!({ "bool": { "filter": all(parts) } }),
        Filter::Or(parts) if parts.is_empty() => json!({ "match_none": {} }),
        Filter::Or(parts) => json!({ "bool": { "should": all(parts), "minimum_should_match": 1 } }),
        Filter::Not(part) => json!({ "bool": { "must_not": [clause(part, fields, runtime)] } }),
        Filter::Match(dimension, pattern) => {
            let access = fields.dimension(*dimension);
            access.note(runtime);
            value(access, pattern)
        }
    }
}

/// A value that matches a pattern; an absent value is empty text.
fn value(access: &Access, pattern: &Pattern) -> Value {
    let everything = json!({ "match_all": {} });
    let Some(field) = access.name() else {
        return if pattern.matches("") { everything } else { json!({ "match_none": {} }) };
    };
    let at = |query: &str, value: String| json!({ query: { field: { "value": value } } });
    match pattern.pieces.as_slice() {
        pieces if pieces.len() != 1 && pieces.iter().all(|piece| piece.is_empty()) => everything,
        [only] if only.is_empty() => json!({ "bool": { "minimum_should_match": 1, "should": [
            { "bool": { "must_not": [{ "exists": { "field": field } }] } },
            at("term", String::new()),
        ] } }),
        [only] => at("term", only.to_string()),
        [start, end] if end.is_empty() => at("prefix", start.to_string()),
        pieces => at("wildcard", pieces.iter().map(|piece| literal(piece)).collect::<Vec<_>>().join("*")),
    }
}

/// Text that a wildcard query takes literally.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dimension;

    #[allow(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
    fn check(filter: &Filter, expected: Value) {
        let fields = EventFields::all_mapped();
        let range = TimeRange { from: UnixNanos(0), to: UnixNanos(u64::MAX) };
        let Query { query, runtime } = query(&Selection { range, filter: filter.clone() }, &fields);
        assert!(runtime.is_empty());
        assert_eq!(query["bool"]["filter"][1], expected);
    }

    fn pattern(text: &str) -> Pattern {
        Pattern { pieces: text.split('*').map(Into::into).collect() }
    }

    fn is(text: &str) -> Filter {
        Filter::Match(Dimension::Executable, pattern(text))
    }

    #[test]
    fn patterns_become_the_cheapest_query() {
        let field = "process.executable.name";
        check(&is("nginx"), json!({ "term": { field: { "value": "nginx" } } }));
        check(&is("ng*"), json!({ "prefix": { field: { "value": "ng" } } }));
        check(&is("*x"), json!({ "wildcard": { field: { "value": "*x" } } }));
        check(&is("a?*b"), json!({ "wildcard": { field: { "value": "a\\?*b" } } }));
        check(&is("*"), json!({ "match_all": {} }));
        check(
            &is(""),
            json!({ "bool": { "minimum_should_match": 1, "should": [
                { "bool": { "must_not": [{ "exists": { "field": field } }] } },
                { "term": { field: { "value": "" } } },
            ] } }),
        );
        // A field that no event has is empty in all of them.
        check(&Filter::Match(Dimension::Pid, pattern("7")), json!({ "match_none": {} }));
        check(&Filter::Match(Dimension::Pid, pattern("")), json!({ "match_all": {} }));
    }

    #[test]
    fn trees_keep_their_shape() {
        let term = |text: &str| json!({ "term": { "process.executable.name": { "value": text } } });
        check(
            &Filter::And(vec![is("a"), Filter::Not(Box::new(Filter::Or(vec![is("b"), is("c")])))]),
            json!({ "bool": { "filter": [
                term("a"),
                { "bool": { "must_not": [{ "bool": { "should": [term("b"), term("c")], "minimum_should_match": 1 } }] } },
            ] } }),
        );
        check(&Filter::Or(vec![]), json!({ "match_none": {} }));
    }

    #[test]
    fn times_have_nine_digits_and_end_where_the_type_ends() {
        assert_eq!(instant(UnixNanos(1_700_508_027_123_456_700)), "2023-11-20T19:20:27.123456700Z");
        assert_eq!(instant(UnixNanos(u64::MAX)), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(instant(UnixNanos(0)), "1970-01-01T00:00:00.000000000Z");
    }
}
