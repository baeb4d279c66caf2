//! What has to be done about each part: made, replaced, or left as it is. Pure: from what was found to a decision.
//!
//! The rule: nothing is changed that somebody else made. Elastic's templates stay whatever their version, a person's too;
//! ours are replaced by newer ones of ours only.

use serde_json::Value;

use super::super::generation::Place;
use super::compare::{self, Difference};
use super::found::Found;
use super::parts::{Part, PartKind};

/// Who made a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This program.
    Everflame,
    /// Elastic's plugin.
    Elastic,
    /// A person.
    Person,
}

/// How a part was found.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// As wanted.
    Present(Owner),
    /// There, kept, and different.
    Differs(Owner, Vec<Difference>),
    /// Not there.
    Missing,
    /// Made by an older everflame.
    Outdated,
    /// Not there, and not ours to make: Elastic's plugin is switched on.
    LeftToElastic,
    /// Something else is in its place, and has to be removed by a person.
    InTheWay(Place),
}

impl State {
    /// Whether a set-up does something about it.
    #[must_use]
    pub fn needs_change(&self) -> bool {
        matches!(self, Self::Missing | Self::Outdated)
    }

    /// Whether the cluster cannot be used before it has changed.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        matches!(self, Self::Missing | Self::LeftToElastic | Self::InTheWay(_))
    }
}

/// Decides about one part. `wanted` are the fields of the template that a stream or index is made from.
pub(super) fn judge(part: &Part, parts: &[Part], found: &Found) -> State {
    let state = match part.kind {
        PartKind::Policy => found.policies.as_ref().and_then(|all| all.get(&part.name)).map(|policy| {
            let version = policy["policy"]["_meta"]["version"].as_u64();
            let owner = owner(&policy["policy"]["_meta"]);
            told(owner, version, part, compare::policy(&part.body, policy))
        }),
        PartKind::Component => {
            found.components.get(&part.name).map(|template| judge_template(part, template))
        }
        PartKind::Template => found.templates.get(&part.name).map(|template| judge_template(part, template)),
        PartKind::Stream | PartKind::Index => judge_data(part, parts, found),
    };
    match state {
        Some(state) => state,
        None if found.plugin_on && !part.name.contains("otel") => State::LeftToElastic,
        None => State::Missing,
    }
}

fn owner(meta: &Value) -> Owner {
    if meta["managed_by"] == "everflame" {
        Owner::Everflame
    } else if meta["managed"] == true {
        Owner::Elastic
    } else {
        Owner::Person
    }
}

fn judge_template(part: &Part, found: &Value) -> State {
    let of_template = owner(&found["_meta"]);
    // Some of Elastic's templates say so in their mapping only.
    let of_mapping = owner(&found["template"]["mappings"]["_meta"]);
    let owner = if of_template == Owner::Person { of_mapping } else { of_template };
    told(owner, found["version"].as_u64(), part, compare::template(&part.body, found))
}

fn told(owner: Owner, version: Option<u64>, part: &Part, differences: Vec<Difference>) -> State {
    let wanted = match part.kind {
        PartKind::Policy => part.body["policy"]["_meta"]["version"].as_u64(),
        _ => part.body["version"].as_u64(),
    };
    if owner == Owner::Everflame && version < wanted {
        return State::Outdated;
    }
    if differences.is_empty() { State::Present(owner) } else { State::Differs(owner, differences) }
}

/// A stream or index that is there: of the right kind, with fields of the right types, not of an older version.
fn judge_data(part: &Part, parts: &[Part], found: &Found) -> Option<State> {
    let target = part.target.as_deref()?;
    let held = found.places.get(target)?;
    let fits = match part.kind {
        PartKind::Stream => held.place == Place::Stream,
        // Newer clusters hold look-up tables in data streams of the same names.
        _ => held.place != Place::Index,
    };
    if !fits {
        return Some(State::InTheWay(held.place));
    }
    let template = part.template().and_then(|name| found.templates.get(&name));
    let owner = template.map_or(Owner::Everflame, |template| owner(&template["_meta"]));
    let Some(mappings) = found.mappings(target) else { return Some(State::Present(owner)) };
    let wanted = mappings_of(part, parts);
    let version = |mappings: &Value, key: &str| mappings["_meta"][key].as_u64();
    let older = |key: &str| version(mappings, key) < version(&wanted, key);
    if owner == Owner::Everflame
        && part.rolls_over()
        && (older("index-version") || older("index-template-version"))
    {
        return Some(State::Outdated);
    }
    let mut differences = compare::index(&wanted, mappings);
    for key in ["index-template-version", "index-version"] {
        // Elastic's status page takes an index without them for damaged.
        if version(mappings, key).is_none() {
            let expected = version(&wanted, key).map(|version| version.to_string());
            differences.push(Difference { path: format!("_meta.{key}"), expected, found: None });
        }
    }
    Some(if differences.is_empty() { State::Present(owner) } else { State::Differs(owner, differences) })
}

/// Mappings that the templates of a set-up give to a stream or index.
fn mappings_of(part: &Part, parts: &[Part]) -> Value {
    let find = |kind: PartKind, name: &str| parts.iter().find(|part| part.kind == kind && part.name == name);
    let Some(template) = part.template().and_then(|name| find(PartKind::Template, &name)) else {
        return Value::Null;
    };
    let inline = &template.body["template"]["mappings"];
    if inline.is_object() {
        return inline.clone();
    }
    let composed = template.body["composed_of"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut mappings = composed.filter_map(|name| {
        let mappings = &find(PartKind::Component, name)?.body["template"]["mappings"];
        mappings.is_object().then(|| mappings.clone())
    });
    mappings.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::super::Generation;
    use super::super::super::generation::Version;
    use super::super::found::Held;
    use super::super::parts::{Layout, Lifecycle, parts};
    use super::*;

    fn classic() -> Vec<Part> {
        let version = Version { major: 8, minor: 19, patch: 0 };
        parts(&Layout { generation: Generation::Classic, version, lifecycle: Lifecycle::Policy })
    }

    fn component(all: &[Part], change: impl FnOnce(&mut Value)) -> State {
        let part = all.iter().find(|part| part.name == "profiling-hosts").unwrap();
        let mut body = part.body.clone();
        change(&mut body);
        let components = BTreeMap::from([(part.name.clone(), body)]);
        judge(part, all, &Found { components, ..Found::default() })
    }

    #[test]
    fn only_older_templates_of_ours_are_replaced() {
        let all = classic();
        assert_eq!(component(&all, |_| {}), State::Present(Owner::Everflame));
        assert_eq!(component(&all, |body| body["version"] = json!(14)), State::Outdated);
        assert_eq!(component(&all, |body| body["version"] = json!(99)), State::Present(Owner::Everflame));
        let elastic = |body: &mut Value| {
            body["version"] = json!(4);
            body["_meta"] = Value::Null;
        };
        assert_eq!(component(&all, elastic), State::Present(Owner::Elastic));
        let person = |body: &mut Value| {
            elastic(body);
            body["template"]["mappings"]["_meta"] = json!({});
            body["template"]["settings"]["index"]["refresh_interval"] = json!("1s");
        };
        let State::Differs(Owner::Person, differences) = component(&all, person) else {
            panic!("kept and told")
        };
        assert_eq!(differences[0].to_string(), "settings.refresh_interval: expected 10s, found 1s");
    }

    #[test]
    fn a_plain_index_in_place_of_an_alias_is_in_the_way() {
        let all = classic();
        let part = all.iter().find(|part| part.target.as_deref() == Some("profiling-stacktraces")).unwrap();
        let held = Held { place: Place::Index, write_index: "profiling-stacktraces".into() };
        let places = BTreeMap::from([("profiling-stacktraces".to_owned(), held)]);
        assert_eq!(judge(part, &all, &Found { places, ..Found::default() }), State::InTheWay(Place::Index));
    }

    #[test]
    fn what_elastic_will_make_is_left_to_it() {
        let all = classic();
        let found = Found { plugin_on: true, ..Found::default() };
        assert!(all.iter().all(|part| judge(part, &all, &found) == State::LeftToElastic));
    }
}
