//! Query DSL to a selection, as far as the fields of events go: `term`, `terms`, `match`, `prefix`, `wildcard`, `exists`,
//! `bool`, `match_all`, `match_none`, and `range` over `@timestamp` where it holds for all. Anything else is refused by name.

use serde_json::{Map, Value};

use super::Failure;
use crate::model::{Dimension, Filter, Pattern, Selection, TimeRange, UnixNanos};
use crate::query::time;

/// Deepest nesting of `bool`.
const MAX_DEPTH: usize = 64;
/// Values of one `terms` at most, as in Elasticsearch.
const MAX_TERMS: usize = 65_536;
/// The one field of time.
const TIMESTAMP: &str = "@timestamp";

/// The samples that a query finds.
pub(super) fn selection(query: &Value, now: UnixNanos) -> Result<Selection, Failure> {
    let everything = TimeRange { from: UnixNanos(0), to: UnixNanos(u64::MAX) };
    let mut reading = Reading { range: everything, now, depth: 0 };
    let filter = reading.query(query, true)?;
    Ok(Selection { range: reading.range, filter })
}

struct Reading {
    range: TimeRange,
    now: UnixNanos,
    depth: usize,
}

fn unsupported(what: impl std::fmt::Display) -> Failure {
    Failure::Parse {
        kind: "illegal_argument_exception",
        reason: format!("{what} is not supported by the embedded store"),
    }
}

fn malformed(kind: &str, found: &Value) -> Failure {
    let found: String = found.to_string().chars().take(80).collect();
    Failure::parse(format!("[{kind}] query malformed, found {found}"))
}

/// The single entry of an object.
fn only<'v>(kind: &str, value: &'v Value) -> Result<(&'v str, &'v Value), Failure> {
    let object = value.as_object().filter(|object| object.len() == 1);
    let entry = object.and_then(|object| object.iter().next()).ok_or_else(|| malformed(kind, value))?;
    Ok((entry.0, entry.1))
}

fn dimension(kind: &str, field: &str) -> Result<Dimension, Failure> {
    let found = Dimension::ALL.into_iter().find(|dimension| dimension.field() == field);
    found.ok_or_else(|| unsupported(format!("[{kind}] on field [{field}]")))
}

fn text(kind: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(malformed(kind, other)),
    }
}

/// A value, or an object that holds it under one of some names beside settings that change nothing.
fn value(kind: &str, found: &Value, names: &[&str]) -> Result<String, Failure> {
    let Value::Object(object) = found else { return text(kind, found) };
    let mut wanted = None;
    for (name, value) in object {
        match name.as_str() {
            name if names.contains(&name) => wanted = Some(text(kind, value)?),
            "boost" | "_name" | "rewrite" => {}
            "case_insensitive" if *value == false => {}
            other => return Err(unsupported(format!("[{kind}] with [{other}]"))),
        }
    }
    wanted.ok_or_else(|| malformed(kind, found))
}

impl Reading {
    /// One query; `for_all` says whether every sample has to fulfil it, so that a range may narrow the selection.
    fn query(&mut self, query: &Value, for_all: bool) -> Result<Filter, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Failure::parse(format!("query is nested deeper than {MAX_DEPTH} levels")));
        }
        let (kind, body) = only("query", query)?;
        let filter = match kind {
            "match_all" => Filter::All,
            "match_none" => Filter::Or(Vec::new()),
            "bool" => self.boolean(body, for_all)?,
            "range" => self.range(body, for_all)?,
            "exists" => {
                let field = body["field"].as_str().ok_or_else(|| malformed(kind, body))?;
                if field == TIMESTAMP { Filter::All } else { exists(dimension(kind, field)?) }
            }
            "terms" => terms(body)?,
            "term" | "match" | "match_phrase" | "prefix" | "wildcard" => matching(kind, body)?,
            other => return Err(unsupported(format!("query [{other}]"))),
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn boolean(&mut self, body: &Value, for_all: bool) -> Result<Filter, Failure> {
        let object = body.as_object().ok_or_else(|| malformed("bool", body))?;
        let (mut all, mut any, mut has_should) = (Vec::new(), Vec::new(), false);
        for (name, clauses) in object {
            let clauses = match clauses {
                Value::Array(clauses) => clauses.iter().collect(),
                Value::Object(_) => vec![clauses],
                _ if matches!(
                    name.as_str(),
                    "minimum_should_match" | "boost" | "adjust_pure_negative" | "_name"
                ) =>
                {
                    Vec::new()
                }
                other => return Err(malformed("bool", other)),
            };
            for clause in clauses {
                match name.as_str() {
                    "must" | "filter" => all.push(self.query(clause, for_all)?),
                    "must_not" => all.push(Filter::Not(Box::new(self.query(clause, false)?))),
                    "should" => {
                        has_should = true;
                        any.push(self.query(clause, false)?);
                    }
                    other => return Err(unsupported(format!("[bool] with [{other}]"))),
                }
            }
        }
        let wanted = match object.get("minimum_should_match") {
            None => u64::from(!object.contains_key("must") && !object.contains_key("filter")),
            Some(value) => value
                .as_u64()
                .or_else(|| value.as_str()?.parse().ok())
                .filter(|wanted| *wanted <= 1)
                .ok_or_else(|| unsupported(format!("[bool] with [minimum_should_match] of {value}")))?,
        };
        // Without a minimum, clauses that should hold only change the score, and there is none.
        if has_should && wanted == 1 {
            all.push(Filter::Or(any));
        }
        Ok(match all.len() {
            0 => Filter::All,
            1 => all.remove(0),
            _ => Filter::And(all),
        })
    }

    fn range(&mut self, body: &Value, for_all: bool) -> Result<Filter, Failure> {
        let (field, bounds) = only("range", body)?;
        if field != TIMESTAMP {
            return Err(unsupported(format!("[range] on field [{field}]")));
        }
        if !for_all {
            return Err(unsupported("[range] inside [should] or [must_not]"));
        }
        let bounds: &Map<String, Value> = bounds.as_object().ok_or_else(|| malformed("range", bounds))?;
        let format = bounds.get("format").and_then(Value::as_str).unwrap_or_default();
        for (name, bound) in bounds {
            let instant = || self.instant(bound, format);
            match name.as_str() {
                _ if bound.is_null() => {}
                "gte" | "from" => self.range.from = self.range.from.max(instant()?),
                "gt" => self.range.from = self.range.from.max(UnixNanos(instant()?.0.saturating_add(1))),
                "lt" => self.range.to = self.range.to.min(instant()?),
                "lte" | "to" => {
                    self.range.to = self.range.to.min(UnixNanos(instant()?.0.saturating_add(1)));
                }
                "format" | "boost" | "_name" | "relation" => {}
                other => return Err(unsupported(format!("[range] with [{other}]"))),
            }
        }
        Ok(Filter::All)
    }

    /// A time as Elasticsearch reads it: RFC 3339, seconds since 1970 as text, milliseconds as a number, or relative to now;
    /// a format that is said decides.
    fn instant(&self, value: &Value, format: &str) -> Result<UnixNanos, Failure> {
        let text = text("range", value)?;
        let refuse = || Failure::parse(format!("failed to parse date field [{text}] with format [{format}]"));
        if text.starts_with("now") {
            return time::instant("range", &text, self.now).map_err(|_| refuse());
        }
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.contains('-') {
            let in_millis = match format {
                "" => value.is_number(),
                format => format.contains("epoch_millis"),
            };
            let per_unit = if in_millis { 1e6 } else { 1e9 };
            if let Ok(whole) = text.parse::<u64>() {
                return whole.checked_mul(per_unit as u64).map(UnixNanos).ok_or_else(refuse);
            }
            return text.parse::<f64>().map(|n| UnixNanos((n * per_unit) as u64)).map_err(|_| refuse());
        }
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.clone() };
        let parsed = humantime::parse_rfc3339_weak(&full).map_err(|_| refuse())?;
        let since = parsed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(UnixNanos(since.as_nanos().try_into().unwrap_or(u64::MAX)))
    }
}

/// Documents hold three of the fields always, as empty text where nothing is known; the others only where there is one.
fn exists(dimension: Dimension) -> Filter {
    match dimension {
        Dimension::HostId | Dimension::Executable | Dimension::ThreadName => Filter::All,
        other => Filter::Not(Box::new(Filter::Match(other, Pattern::exact("")))),
    }
}

fn terms(body: &Value) -> Result<Filter, Failure> {
    let object = body.as_object().ok_or_else(|| malformed("terms", body))?;
    let mut fields = object.iter().filter(|(name, _)| !matches!(name.as_str(), "boost" | "_name"));
    let (Some((field, values)), None) = (fields.next(), fields.next()) else {
        return Err(malformed("terms", body));
    };
    let dimension = dimension("terms", field)?;
    let values = values.as_array().filter(|values| values.len() <= MAX_TERMS);
    let values = values.ok_or_else(|| malformed("terms", body))?;
    let one = |value: &Value| Ok(Filter::Match(dimension, Pattern::exact(&text("terms", value)?)));
    values.iter().map(one).collect::<Result<_, Failure>>().map(Filter::Or)
}

fn matching(kind: &str, body: &Value) -> Result<Filter, Failure> {
    let (field, found) = only(kind, body)?;
    let dimension = dimension(kind, field)?;
    let pattern = match kind {
        "term" => Pattern::exact(&value(kind, found, &["value"])?),
        "match" | "match_phrase" => Pattern::exact(&value(kind, found, &["query"])?),
        "prefix" => Pattern { pieces: vec![value(kind, found, &["value"])?.into(), "".into()] },
        _ => wildcard(&value(kind, found, &["value", "wildcard"])?)?,
    };
    // An absent field matches no text, not even the empty one.
    let filter = Filter::Match(dimension, pattern);
    Ok(filter)
}

/// `*` for any run of characters, `\` for the next character itself; `?` has no counterpart here.
fn wildcard(text: &str) -> Result<Pattern, Failure> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => pieces.push(std::mem::take(&mut piece).into()),
            '?' => return Err(unsupported("[wildcard] with [?]")),
            '\\' => piece.extend(chars.next()),
            other => piece.push(other),
        }
    }
    pieces.push(piece.into());
    Ok(Pattern { pieces })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixNanos = UnixNanos::from_millis(1_763_734_000_000);

    #[allow(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
    fn read(query: Value) -> Selection {
        selection(&query, NOW).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers make it on the spot")]
    fn refused(query: Value) -> String {
        selection(&query, NOW).expect_err(&query.to_string()).to_string()
    }

    fn is(text: &str) -> Filter {
        Filter::Match(Dimension::Executable, Pattern { pieces: text.split('*').map(Into::into).collect() })
    }

    #[test]
    fn what_kibana_asks_is_understood() {
        let selection = read(json!({ "bool": {
            "filter": [
                { "range": { "@timestamp": { "gte": "1698624000", "lt": 1_698_624_060, "format": "epoch_second" } } },
                { "bool": { "should": [{ "match": { "process.executable.name": "a" } }], "minimum_should_match": 1 } },
            ],
            "must": [], "must_not": [{ "term": { "process.executable.name": { "value": "b" } } }], "should": [],
        } }));
        assert_eq!(selection.range.from, UnixNanos(1_698_624_000_000_000_000));
        assert_eq!(selection.range.nanos(), 60_000_000_000);
        let expected =
            Filter::And(vec![Filter::All, Filter::Or(vec![is("a")]), Filter::Not(Box::new(is("b")))]);
        assert_eq!(selection.filter, expected);
    }

    #[test]
    fn every_kind_has_its_filter() {
        let field = "process.executable.name";
        for (query, expected) in [
            (json!({ "match_all": {} }), Filter::All),
            (json!({ "match_none": {} }), Filter::Or(vec![])),
            (json!({ "term": { field: "a" } }), is("a")),
            (json!({ "terms": { field: ["a", "b"], "boost": 1.0 } }), Filter::Or(vec![is("a"), is("b")])),
            (json!({ "match": { field: { "query": "a" } } }), is("a")),
            (json!({ "prefix": { field: "a" } }), is("a*")),
            (json!({ "wildcard": { field: { "value": "a*b" } } }), is("a*b")),
            (json!({ "exists": { "field": field } }), Filter::All),
            (
                json!({ "exists": { "field": "host.name" } }),
                Filter::Not(Box::new(Filter::Match(Dimension::HostName, Pattern::exact("")))),
            ),
            (json!({ "bool": {} }), Filter::All),
            (json!({ "bool": { "should": { "term": { field: "a" } } } }), Filter::Or(vec![is("a")])),
            // Beside a filter it only changes the score.
            (
                json!({ "bool": { "filter": [{ "term": { field: "a" } }], "should": [{ "term": { field: "b" } }] } }),
                is("a"),
            ),
        ] {
            assert_eq!(read(query.clone()).filter, expected, "{query}");
        }
        let literal = read(json!({ "wildcard": { field: "a\\*" } }));
        assert_eq!(literal.filter, Filter::Match(Dimension::Executable, Pattern::exact("a*")));
    }

    #[test]
    fn times_are_read_in_every_form() {
        let from = |gte: Value, format: &str| {
            read(json!({ "range": { "@timestamp": { "gte": gte, "format": format } } })).range.from.0
        };
        assert_eq!(from(json!(1700), ""), 1_700_000_000);
        assert_eq!(from(json!("1700"), ""), 1_700_000_000_000);
        assert_eq!(from(json!(1700), "epoch_second"), 1_700_000_000_000);
        assert_eq!(from(json!("1700"), "epoch_millis"), 1_700_000_000);
        assert_eq!(from(json!("1970-01-01T00:00:01.000000005Z"), ""), 1_000_000_005);
        assert_eq!(from(json!("1970-01-02"), ""), 86_400_000_000_000);
        assert_eq!(from(json!("now-1m"), ""), NOW.0 - 60_000_000_000);
        let both = read(json!({ "range": { "@timestamp": { "gt": 1, "lte": 2 } } }));
        assert_eq!((both.range.from.0, both.range.to.0), (1_000_001, 2_000_001));
        assert!(refused(json!({ "range": { "@timestamp": { "gte": "soon" } } })).contains("soon"));
    }

    #[test]
    fn what_has_no_translation_is_named() {
        for (query, named) in [
            (json!({ "query_string": { "query": "a" } }), "[query_string]"),
            (json!({ "term": { "tags": "a" } }), "[term] on field [tags]"),
            (json!({ "range": { "host.id": { "gte": 1 } } }), "[range] on field [host.id]"),
            (
                json!({ "bool": { "must_not": { "range": { "@timestamp": { "gte": 1 } } } } }),
                "[range] inside [should] or [must_not]",
            ),
            (json!({ "wildcard": { "host.id": "a?" } }), "[wildcard] with [?]"),
            (
                json!({ "term": { "host.id": { "value": "a", "case_insensitive": true } } }),
                "[case_insensitive]",
            ),
            (json!({ "bool": { "should": [], "minimum_should_match": 2 } }), "[minimum_should_match]"),
        ] {
            let message = refused(query.clone());
            assert!(message.contains(named) && message.contains("not supported"), "{query}: {message}");
        }
        for query in [json!({}), json!({ "a": 1, "b": 2 }), json!({ "bool": 7 }), json!({ "term": "x" })] {
            refused(query);
        }
        let mut deep = json!({ "match_all": {} });
        for _ in 0..=MAX_DEPTH {
            deep = json!({ "bool": { "filter": [deep] } });
        }
        assert!(refused(deep).contains("deeper"));
    }
}
