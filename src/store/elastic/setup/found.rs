//! What a cluster holds of profiling data: policy, templates, names and mappings, read in a handful of calls.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value};

use super::super::generation::Place;
use super::super::{CallError, Client};

/// State of a cluster before a set-up.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// ILM policies of ours or Elastic's by name; `None` where there is no ILM.
    pub(super) policies: Option<Map<String, Value>>,
    /// Component templates by name.
    pub(super) components: BTreeMap<String, Value>,
    /// Index templates by name.
    pub(super) templates: BTreeMap<String, Value>,
    /// Names and what they stand for.
    pub(super) places: BTreeMap<String, Held>,
    /// Mappings by concrete index.
    pub(super) mappings: Map<String, Value>,
    /// Elastic's plugin creates and renews the first generation by itself.
    pub(super) plugin_on: bool,
}

/// What a name stands for, and where its documents go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) place: Place,
    /// Concrete index that is written to.
    pub(super) write_index: String,
}

impl Found {
    /// Asks the cluster.
    pub(super) async fn ask(client: &Client) -> Result<Self, CallError> {
        let get = async |path: &str| client.json(Method::GET, path, None).await;
        let templates = or_nothing(get("/_index_template/profiling-*").await)?;
        let components = or_nothing(get("/_component_template/profiling-*").await)?;
        let resolved =
            or_nothing(get("/_resolve/index/profiling-*,.profiling-*?expand_wildcards=all").await)?;
        let mappings = "/profiling-*,.profiling-*/_mapping?expand_wildcards=all&ignore_unavailable=true";
        let mappings = or_nothing(get(mappings).await)?;
        let settings =
            "/_cluster/settings?include_defaults=true&filter_path=*.xpack.profiling.templates.enabled";
        let settings = or_nothing(get(settings).await)?;
        Ok(Self {
            policies: policies(get("/_ilm/policy").await)?,
            components: by_name(&components["component_templates"], "component_template"),
            templates: by_name(&templates["index_templates"], "index_template"),
            places: places(&resolved),
            mappings: object(mappings),
            plugin_on: plugin_on(&settings),
        })
    }

    /// Mappings of the index that a name is written to.
    pub(super) fn mappings(&self, target: &str) -> Option<&Value> {
        self.mappings.get(&self.places.get(target)?.write_index).map(|index| &index["mappings"])
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// What is not there is nothing; a call that is not allowed remains an error.
fn or_nothing(answer: Result<Value, CallError>) -> Result<Value, CallError> {
    match answer {
        Err(CallError::Refused { status: 404, .. }) => Ok(Value::Null),
        other => other,
    }
}

/// A cluster without ILM does not know the path (400, 405), or says that it is gone (410).
fn policies(answer: Result<Value, CallError>) -> Result<Option<Map<String, Value>>, CallError> {
    match answer {
        Ok(Value::Object(policies)) => Ok(Some(policies)),
        Ok(_) | Err(CallError::Refused { status: 404, .. }) => Ok(Some(Map::new())),
        Err(CallError::Refused { status: 400 | 405 | 410, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn by_name(list: &Value, inner: &str) -> BTreeMap<String, Value> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(|entry| Some((entry["name"].as_str()?.to_owned(), entry[inner].clone()))).collect()
}

fn places(resolved: &Value) -> BTreeMap<String, Held> {
    let mut places = BTreeMap::new();
    let groups = [
        ("indices", Place::Index, ""),
        ("aliases", Place::Alias, "indices"),
        ("data_streams", Place::Stream, "backing_indices"),
    ];
    for (group, place, inner) in groups {
        for entry in resolved[group].as_array().into_iter().flatten() {
            let Some(name) = entry["name"].as_str() else { continue };
            // Generations are numbered with leading zeros, so the last in order is the one that is written to.
            let last = entry[inner].as_array().into_iter().flatten().filter_map(Value::as_str).max();
            let write_index = last.unwrap_or(name).to_owned();
            places.insert(name.to_owned(), Held { place, write_index });
        }
    }
    places
}

/// The cluster's own setting weighs more than the node's.
fn plugin_on(settings: &Value) -> bool {
    let of = |layer: &str| {
        settings[layer]["xpack"]["profiling"]["templates"]["enabled"].as_str().map(|v| v == "true")
    };
    ["transient", "persistent", "defaults"].into_iter().find_map(of).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_write_index_is_the_newest_one() {
        let resolved = json!({
            "indices": [{ "name": "profiling-plain" }],
            "aliases": [{ "name": "profiling-a", "indices": [".profiling-a-v001-000002", ".profiling-a-v001-000001"] }],
            "data_streams": [{ "name": "profiling-s", "backing_indices": [".ds-s-2026.01.01-000001"] }],
        });
        let places = places(&resolved);
        let held = |place, index: &str| Held { place, write_index: index.into() };
        assert_eq!(places["profiling-a"], held(Place::Alias, ".profiling-a-v001-000002"));
        assert_eq!(places["profiling-s"], held(Place::Stream, ".ds-s-2026.01.01-000001"));
        assert_eq!(places["profiling-plain"], held(Place::Index, "profiling-plain"));
    }

    #[test]
    fn the_switch_of_the_plugin_is_read_where_it_weighs_most() {
        let switch = |value: &str| json!({ "xpack": { "profiling": { "templates": { "enabled": value } } } });
        assert!(!plugin_on(&json!({})));
        assert!(plugin_on(&json!({ "persistent": switch("true"), "defaults": switch("false") })));
        assert!(!plugin_on(&json!({ "transient": switch("false"), "persistent": switch("true") })));
    }
}
