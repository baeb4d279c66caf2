//! `docs/openapi.yaml` against the router: every route and parameter, and the shape of real answers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn document() -> Value {
    serde_yaml_ng::from_str(include_str!("../../../docs/openapi.yaml")).unwrap()
}

fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(address) => document.pointer(address.trim_start_matches('#')).expect(address),
        None => schema,
    }
}

#[test]
fn every_route_and_parameter_is_in_the_document() {
    let document = document();
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let profiling = profiling::ROUTES.iter().map(|(path, _)| *path);
    let served: BTreeSet<&str> =
        ROUTES.iter().map(|(path, _)| *path).chain(profiling).chain(["/live", "/ready"]).collect();
    assert_eq!(documented, served);
    for (path, known) in ROUTES {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> =
            parameters.iter().map(|p| resolve(&document, p)["name"].as_str().unwrap()).collect();
        assert_eq!(names, known, "{path}");
    }
    for (path, method) in profiling::ROUTES {
        let methods: Vec<&String> = document["paths"][path].as_object().unwrap().keys().collect();
        assert_eq!(methods, [method], "{path}");
    }
}

#[test]
fn every_route_is_in_the_page_of_the_contract() {
    let page = include_str!("../../../docs/api.md");
    for (path, parameters) in ROUTES {
        assert!(page.contains(path), "{path}");
        for parameter in parameters {
            assert!(
                page.contains(&format!("`{parameter}`")) || page.contains(&format!("{parameter}=")),
                "{parameter}"
            );
        }
    }
    assert!(profiling::ROUTES.iter().all(|(path, _)| page.contains(path)));
}

/// The part of JSON schema that the document uses; says where an answer differs.
fn differences(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice: &&Value| {
            let mut inner = Vec::new();
            differences(document, choice, value, place, &mut inner);
            inner.is_empty()
        };
        if choices.iter().filter(fits).count() != 1 {
            found.push(format!("{place}: fits none or several of the shapes"));
        }
        return;
    }
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    if !types.contains(&actual) {
        found.push(format!("{place}: expected {types:?}, found {actual}"));
        return;
    }
    if let Some(items) = value.as_array() {
        for (i, item) in items.iter().enumerate() {
            differences(document, &schema["items"], item, &format!("{place}[{i}]"), found);
        }
    }
    if let Some(fields) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(required) {
                found.push(format!("{place}.{required}: missing"));
            }
        }
        for (name, field) in fields {
            let inner = &schema["properties"][name];
            if inner.is_null() {
                found.push(format!("{place}.{name}: not in the document"));
            } else {
                differences(document, inner, field, &format!("{place}.{name}"), found);
            }
        }
    }
}

#[tokio::test]
async fn answers_have_the_documented_shape() {
    let document = document();
    let (_, list) = get_json("/api/v1/functions").await;
    let focus = format!("/api/v1/flamegraph?focus={}", list["functions"]["key"][0].as_str().unwrap());
    for uri in [
        "/api/v1/status",
        "/api/v1/fields",
        "/api/v1/values?field=process",
        "/api/v1/timeline?by=process",
        "/api/v1/flamegraph?max_nodes=4",
        &focus,
        "/api/v1/functions",
        "/_profiling/status",
        "/live",
        "/ready",
    ] {
        let (status, json) = get_json(uri).await;
        assert_eq!(status, StatusCode::OK, "{uri}");
        let path = uri.split('?').next().unwrap();
        let schema =
            &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let mut found = Vec::new();
        differences(&document, schema, &json, uri, &mut found);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
    let (_, error) = get_json("/api/v1/timeline?filter=x").await;
    let mut found = Vec::new();
    differences(&document, &document["components"]["schemas"]["Error"], &error, "error", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
