//! Where a template or a mapping differs from the wanted one. Pure.
//!
//! Elasticsearch gives numbers of settings back as text, nests dotted names and drops defaults; both sides are brought
//! into one form first: dotted path to text.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Dotted path, `settings.codec` or `host.id`.
    pub path: String,
    /// Wanted.
    pub expected: Option<String>,
    /// There.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(f, "{}: expected {}, found {}", self.path, text(&self.expected), text(&self.found))
    }
}

type Flat = BTreeMap<String, String>;

/// Fields of a mapping by dotted name, each with its type and what is not a default, `keyword, index false`.
pub(super) fn fields(mappings: &Value) -> Flat {
    let mut fields = Flat::new();
    collect_fields(&mappings["properties"], "", &mut fields);
    fields
}

fn collect_fields(properties: &Value, path: &str, fields: &mut Flat) {
    for (name, field) in properties.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(kind) = field["type"].as_str().filter(|kind| *kind != "object") {
            let mut text = kind.to_owned();
            for (key, value) in field.as_object().into_iter().flatten() {
                let default = match key.as_str() {
                    "type" | "properties" | "meta" => true,
                    "doc_values" if kind == "binary" => plain(value) == "false",
                    "index" | "doc_values" | "dynamic" => plain(value) == "true",
                    "store" | "ignore_malformed" => plain(value) == "false",
                    _ => false,
                };
                if !default {
                    text = format!("{text}, {key} {}", plain(value));
                }
            }
            fields.insert(path.clone(), text);
        }
        collect_fields(&field["properties"], &path, fields);
    }
}

/// Settings without the prefix `index`, by dotted name.
fn settings(template: &Value) -> Flat {
    let mut flat = Flat::new();
    flatten(&template["settings"], "", &mut flat);
    let strip = |path: String| path.strip_prefix("index.").map_or(path.clone(), str::to_owned);
    flat.into_iter().map(|(path, value)| (strip(path), value.to_lowercase())).collect()
}

fn flatten(value: &Value, path: &str, flat: &mut Flat) {
    let Some(object) = value.as_object() else {
        if !value.is_null() {
            flat.insert(path.to_owned(), plain(value));
        }
        return;
    };
    for (key, value) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        flatten(value, &path, flat);
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// What is wanted and not so in `found`. What is there beyond it is the owner's affair.
fn missing(prefix: &str, wanted: &Flat, found: &Flat) -> Vec<Difference> {
    let differing = wanted.iter().filter(|(path, value)| found.get(*path) != Some(value));
    differing
        .map(|(path, value)| Difference {
            path: format!("{prefix}{path}"),
            expected: Some(value.clone()),
            found: found.get(path).cloned(),
        })
        .collect()
}

/// Differences of a component or index template in settings, fields and, of index templates, what it applies to.
pub(super) fn template(wanted: &Value, found: &Value) -> Vec<Difference> {
    let (inner, there) = (&wanted["template"], &found["template"]);
    let mut all = missing("settings.", &settings(inner), &settings(there));
    all.extend(missing("", &fields(&inner["mappings"]), &fields(&there["mappings"])));
    let mut rest = (Flat::new(), Flat::new());
    for key in ["index_patterns", "composed_of", "priority"] {
        flatten(&wanted[key], key, &mut rest.0);
        flatten(&found[key], key, &mut rest.1);
    }
    for (part, dynamic) in [(&mut rest.0, inner), (&mut rest.1, there)] {
        flatten(&dynamic["mappings"]["dynamic"], "dynamic", part);
        flatten(&dynamic["lifecycle"]["data_retention"], "lifecycle.data_retention", part);
    }
    if wanted["data_stream"].is_object() != found["data_stream"].is_object() {
        let show = |template: &Value| Some(template["data_stream"].is_object().to_string());
        all.push(Difference { path: "data_stream".into(), expected: show(wanted), found: show(found) });
    }
    all.extend(missing("", &rest.0, &rest.1));
    all
}

/// Differences of a lifecycle policy.
pub(super) fn policy(wanted: &Value, found: &Value) -> Vec<Difference> {
    let (mut a, mut b) = (Flat::new(), Flat::new());
    flatten(&wanted["policy"]["phases"], "", &mut a);
    flatten(&found["policy"]["phases"], "", &mut b);
    missing("", &a, &b)
}

/// Fields of an index whose type differs from the template's: what is written may be refused or not be found.
pub(super) fn index(wanted: &Value, found: &Value) -> Vec<Difference> {
    let (wanted, found) = (fields(wanted), fields(found));
    let mut differences = missing("", &wanted, &found);
    differences.retain(|difference| difference.found.is_some());
    differences
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spelling_is_no_difference() {
        let wanted = json!({ "template": {
            "settings": { "index": { "number_of_shards": 4, "codec": "best_compression" } },
            "mappings": { "dynamic": false, "properties": {
                "host.id": { "type": "keyword" },
                "a.b": { "type": "keyword", "index": false, "store": false },
            } },
        } });
        let found = json!({ "template": {
            "settings": { "index": { "number_of_shards": "4" , "codec": "best_compression", "hidden": "true" } },
            "mappings": { "dynamic": "false", "properties": {
                "host": { "properties": { "id": { "type": "keyword", "index": true } } },
                "a": { "properties": { "b": { "type": "keyword", "index": false } } },
                "more": { "type": "text" },
            } },
        } });
        assert_eq!(template(&wanted, &found), []);
    }

    #[test]
    fn what_matters_is_told() {
        let wanted = json!({ "index_patterns": ["a*"], "priority": 100, "data_stream": {}, "template": {
            "settings": { "index": { "number_of_shards": 4 } },
            "mappings": { "properties": { "host.id": { "type": "keyword" }, "n": { "type": "long" } } },
        } });
        let found = json!({ "index_patterns": ["a*"], "priority": 10, "template": {
            "settings": { "index": { "number_of_shards": "1" } },
            "mappings": { "properties": { "host.id": { "type": "text" } } },
        } });
        let told: Vec<String> = template(&wanted, &found).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "settings.number_of_shards: expected 4, found 1",
                "host.id: expected keyword, found text",
                "n: expected long, found nothing",
                "data_stream: expected true, found false",
                "priority: expected 100, found 10",
            ]
        );
        let mapping = |template: &Value| template["template"]["mappings"].clone();
        let told: Vec<String> =
            index(&mapping(&wanted), &mapping(&found)).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["host.id: expected keyword, found text"]);
    }
}
