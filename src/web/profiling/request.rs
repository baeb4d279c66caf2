//! Bodies of requests: known keys with values of the right kind, then rules between them, all broken ones told together.

use serde_json::{Map, Value};

use super::Failure;
use crate::query::profiling::Prices;
use crate::query::profiling::identity::{self, Part};

/// Events that an estimate is made of when the request does not say.
const SAMPLE_SIZE: u64 = 20_000;
/// Indices and fields of one request at most.
const MAX_LIST: usize = 1000;

/// A request that keeps all rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) sample_size: u64,
    pub(super) query: Option<Value>,
    pub(super) requested_duration: Option<f64>,
    pub(super) limit: Option<usize>,
    pub(super) aggregation_fields: Option<Vec<String>>,
    pub(super) aggregation_field: Option<String>,
    pub(super) indices: Option<Vec<String>>,
    pub(super) stacktrace_ids_field: Option<String>,
    pub(super) is_otel: bool,
    pub(super) prices: Prices,
}

/// Values as they were said.
#[derive(Debug, Default)]
struct Said {
    numbers: Vec<(&'static str, f64)>,
    query: Option<Value>,
    texts: Vec<(&'static str, String)>,
    lists: Vec<(&'static str, Vec<String>)>,
}

const NUMBERS: [&str; 10] = [
    "sample_size",
    "requested_duration",
    "limit",
    "aws_cost_factor",
    "azure_cost_factor",
    "cost_per_core_hour",
    "co2_per_kwh",
    "datacenter_pue",
    "per_core_watt_x86",
    "per_core_watt_arm64",
];
/// Numbers that have to be whole.
const WHOLE: [&str; 2] = ["sample_size", "limit"];
const TEXTS: [&str; 3] = ["aggregation_field", "stacktrace_ids_field", "schema"];
const LISTS: [&str; 2] = ["aggregation_fields", "indices"];

impl Request {
    /// Reads and checks a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let mut said = Said::default();
        said.object(&only_object(body)?)?;
        said.check()
    }

    /// The further fields, in whichever way they were said.
    pub(super) fn fields(&self) -> &[String] {
        match (&self.aggregation_fields, &self.aggregation_field) {
            (Some(fields), _) => fields,
            (None, Some(field)) => std::slice::from_ref(field),
            (None, None) => &[],
        }
    }

    /// Start of all random decisions: requests that ask the same draw the same numbers.
    pub(super) fn seed(&self) -> u32 {
        let query = self.query.as_ref().map(Value::to_string).unwrap_or_default();
        let indices = self.indices.as_ref().map(|indices| indices.join(",")).unwrap_or_default();
        let parts = [
            Part::Text(&query),
            Part::Number(self.sample_size as i32),
            Part::Text(&indices),
            Part::Text(self.stacktrace_ids_field.as_deref().unwrap_or_default()),
        ];
        // Elasticsearch takes no negative start.
        identity::hash(&parts) as u32 & 0x7fff_ffff
    }
}

/// The object that the body consists of.
fn only_object(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let first = values.next().transpose().map_err(|error| Failure::Parse {
        kind: "x_content_parse_exception",
        reason: format!("[{}:{}] not JSON: {error}", error.line(), error.column()),
    })?;
    let rest = body.get(values.byte_offset()..).unwrap_or_default();
    match first {
        None => Err(Failure::parse("request body is required")),
        Some(Value::Object(object)) => match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => Ok(object),
            Some(byte) => Err(behind(token_of(*byte))),
        },
        Some(other) => Err(Failure::parse(format!("Expected [START_OBJECT] but found [{}]", token(&other)))),
    }
}

fn behind(token: &str) -> Failure {
    Failure::parse(format!("Unexpected token [{token}] found after the main object."))
}

/// Name of the first token of a value.
fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "VALUE_NULL",
        Value::Bool(_) => "VALUE_BOOLEAN",
        Value::Number(_) => "VALUE_NUMBER",
        Value::String(_) => "VALUE_STRING",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

/// Name of the token that begins with a byte.
fn token_of(byte: u8) -> &'static str {
    match byte {
        b'{' => "START_OBJECT",
        b'[' => "START_ARRAY",
        b'}' => "END_OBJECT",
        b']' => "END_ARRAY",
        b'"' => "VALUE_STRING",
        b't' | b'f' => "VALUE_BOOLEAN",
        b'n' => "VALUE_NULL",
        _ => "VALUE_NUMBER",
    }
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| *known == name)
}

impl Said {
    fn object(&mut self, object: &Map<String, Value>) -> Result<(), Failure> {
        for (name, value) in object {
            match value {
                Value::Null => {}
                Value::Object(_) if name == "query" => self.query = Some(value.clone()),
                // Objects that are not known are not skipped: what they hold is read as if it stood outside, and their
                // end is taken for the end of the body.
                Value::Object(inner) => {
                    self.object(inner)?;
                    return Err(behind("END_OBJECT"));
                }
                Value::Array(values) => {
                    let Some(known) = known(&LISTS, name) else {
                        return Err(Failure::parse(format!("Unexpected token START_ARRAY in [{name}].")));
                    };
                    self.lists.push((known, texts(known, values)?));
                }
                scalar => self.scalar(name, scalar)?,
            }
        }
        Ok(())
    }

    fn scalar(&mut self, name: &str, value: &Value) -> Result<(), Failure> {
        let unknown = || Failure::parse(format!("Unknown key for a {} in [{name}].", token(value)));
        if let Some(known) = known(&NUMBERS, name) {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            let number = number.filter(|n| n.is_finite()).ok_or_else(unknown)?;
            let number = if WHOLE.contains(&known) { number.trunc() } else { number };
            self.numbers.push((known, number));
            return Ok(());
        }
        let known = known(&TEXTS, name).ok_or_else(unknown)?;
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.texts.push((known, text));
        Ok(())
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.numbers.iter().rev().find(|(found, _)| *found == name).map(|(_, number)| *number)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.texts.iter().rev().find(|(found, _)| *found == name).map(|(_, text)| text.clone())
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        self.lists.iter().rev().find(|(found, _)| *found == name).map(|(_, list)| list.clone())
    }

    /// Rules between values.
    fn check(self) -> Result<Request, Failure> {
        let mut problems = Vec::new();
        let indices = self.list("indices").filter(|indices| !indices.is_empty());
        let field = self.text("stacktrace_ids_field").filter(|field| !field.is_empty());
        for name in indices.iter().flatten().filter(|name| !is_index(name)) {
            problems.push(format!("[indices] must hold names of indices, got: [{name}]"));
        }
        if indices.is_some() && field.is_none() {
            problems.push("[stacktrace_ids_field] is mandatory".into());
        }
        if indices.is_none() && field.is_some() {
            problems.push("[stacktrace_ids_field] must not be set".into());
        }
        let (fields, one) = (self.list("aggregation_fields"), self.text("aggregation_field"));
        if let Some(fields) = &fields {
            if one.is_some() {
                problems
                    .push("[aggregation_field] must not be set when [aggregation_fields] is also set".into());
            }
            if !(1..=2).contains(&fields.len()) {
                problems.push(format!(
                    "[aggregation_fields] must contain either one or two elements but contains [{}] elements.",
                    fields.len()
                ));
            }
        }
        if one.as_ref().is_some_and(|field| field.trim().is_empty()) {
            problems.push("[aggregation_field] must be non-empty".into());
        }
        for name in NUMBERS {
            if let Some(number) = self.number(name).filter(|number| *number <= 0.0) {
                problems.push(format!("[{name}] must be greater than 0, got: {number}"));
            }
        }
        if !problems.is_empty() {
            return Err(Failure::Validation(problems));
        }
        let usual = Prices::default();
        let or = |name: &str, usual: f64| self.number(name).unwrap_or(usual);
        Ok(Request {
            sample_size: self.number("sample_size").map_or(SAMPLE_SIZE, |n| n as u64),
            query: self.query.clone(),
            requested_duration: self.number("requested_duration"),
            limit: self.number("limit").map(|n| n as usize),
            aggregation_fields: fields,
            aggregation_field: one,
            indices,
            stacktrace_ids_field: field,
            is_otel: self.text("schema").is_some_and(|schema| schema == "otel"),
            prices: Prices {
                aws_cost_factor: or("aws_cost_factor", usual.aws_cost_factor),
                azure_cost_factor: or("azure_cost_factor", usual.azure_cost_factor),
                cost_per_core_hour: or("cost_per_core_hour", usual.cost_per_core_hour),
                co2_per_kwh: or("co2_per_kwh", usual.co2_per_kwh),
                datacenter_pue: or("datacenter_pue", usual.datacenter_pue),
                per_core_watt_x86: or("per_core_watt_x86", usual.per_core_watt_x86),
                per_core_watt_arm64: or("per_core_watt_arm64", usual.per_core_watt_arm64),
            },
        })
    }
}

/// Names and patterns of indices become part of an address, so nothing else may stand there.
fn is_index(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '+' | ':');
    !name.is_empty()
        && name.len() <= 255
        && name.chars().all(fits)
        && !name.starts_with('_')
        && !name.trim_matches('.').is_empty()
}

fn texts(name: &str, values: &[Value]) -> Result<Vec<String>, Failure> {
    if values.len() > MAX_LIST {
        return Err(Failure::parse(format!("[{name}] holds more than {MAX_LIST} values")));
    }
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => {
            Err(Failure::parse(format!("Expected [VALUE_STRING] but found [{}] in [{name}].", token(other))))
        }
    };
    values.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        Request::parse(body.as_bytes()).expect_err(body).to_string()
    }

    #[test]
    fn an_empty_object_is_a_request_for_everything() {
        let request = Request::parse(b"{}").unwrap();
        assert_eq!((request.sample_size, request.limit, request.prices), (20_000, None, Prices::default()));
        assert!(request.fields().is_empty() && request.query.is_none() && !request.is_otel);
        let full = br#"{"sample_size": 7, "query": {"match_all": {}}, "requested_duration": 60.5, "limit": 3,
            "aggregation_fields": ["service.name", "host.id"], "schema": "otel", "co2_per_kwh": 0.5}"#;
        let request = Request::parse(full).unwrap();
        assert_eq!((request.sample_size, request.limit, request.is_otel), (7, Some(3), true));
        assert_eq!((request.requested_duration, request.prices.co2_per_kwh), (Some(60.5), 0.5));
        assert_eq!(request.fields(), ["service.name", "host.id"]);
        let legacy = Request::parse(br#"{"aggregation_field": "service.name"}"#).unwrap();
        assert_eq!(legacy.fields(), ["service.name"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_as_elsewhere() {
        for (body, expected) in [
            (r#"{"foo": 1}"#, "Unknown key for a VALUE_NUMBER in [foo]."),
            (r#"{"foo": "x"}"#, "Unknown key for a VALUE_STRING in [foo]."),
            (r#"{"foo": true}"#, "Unknown key for a VALUE_BOOLEAN in [foo]."),
            (r#"{"foo": [1]}"#, "Unexpected token START_ARRAY in [foo]."),
            (r#"{"indices": ["a", 1]}"#, "Expected [VALUE_STRING] but found [VALUE_NUMBER] in [indices]."),
            ("[]", "Expected [START_OBJECT] but found [START_ARRAY]"),
            ("7", "Expected [START_OBJECT] but found [VALUE_NUMBER]"),
            ("{} {}", "Unexpected token [START_OBJECT] found after the main object."),
            (r#"{"foo": {}}"#, "Unexpected token [END_OBJECT] found after the main object."),
            (r#"{"foo": {"bar": 1}}"#, "Unknown key for a VALUE_NUMBER in [bar]."),
            ("", "request body is required"),
        ] {
            assert_eq!(message(body), expected, "{body}");
        }
        assert!(message("{").contains("not JSON"), "{}", message("{"));
    }

    #[test]
    fn broken_rules_are_told_together() {
        assert_eq!(
            message(r#"{"sample_size": 0, "indices": ["a"], "aggregation_field": " "}"#),
            "Validation Failed: 1: [stacktrace_ids_field] is mandatory;2: [aggregation_field] must be non-empty;\
             3: [sample_size] must be greater than 0, got: 0;"
        );
        for (body, expected) in [
            (r#"{"stacktrace_ids_field": "x"}"#, "[stacktrace_ids_field] must not be set"),
            (
                r#"{"aggregation_fields": ["a"], "aggregation_field": "b"}"#,
                "[aggregation_field] must not be set when [aggregation_fields] is also set",
            ),
            (
                r#"{"aggregation_fields": ["a", "b", "c"]}"#,
                "[aggregation_fields] must contain either one or two elements but contains [3] elements.",
            ),
            (
                r#"{"indices": ["a/_doc/1?x="], "stacktrace_ids_field": "f"}"#,
                "[indices] must hold names of indices, got: [a/_doc/1?x=]",
            ),
            (r#"{"limit": -1}"#, "[limit] must be greater than 0, got: -1"),
            (r#"{"datacenter_pue": 0.0}"#, "[datacenter_pue] must be greater than 0, got: 0"),
        ] {
            assert_eq!(message(body), format!("Validation Failed: 1: {expected};"), "{body}");
        }
    }

    #[test]
    fn nothing_but_names_of_indices_gets_into_an_address() {
        for name in ["traces-apm*", "logs-x.y_z", "remote:traces-*", "-traces-old*"] {
            assert!(is_index(name), "{name}");
        }
        for name in
            ["", "a/b", "..", ".", "_all/_doc", "a?b", "a#b", "a b", "a%2fb", "a\\b", "a\nb", "_cluster"]
        {
            assert!(!is_index(name), "{name:?}");
        }
    }

    #[test]
    fn equal_requests_start_equal_sequences() {
        let seed = |body: &str| Request::parse(body.as_bytes()).unwrap().seed();
        assert_eq!(seed(r#"{"sample_size": 5}"#), seed(r#"{"sample_size": 5, "limit": 9}"#));
        assert_ne!(seed(r#"{"sample_size": 5}"#), seed(r#"{"sample_size": 6}"#));
    }
}
