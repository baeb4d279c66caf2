//! What a cluster has to hold, as data: policy, templates, data streams and indices of each generation.
//!
//! The bodies are the JSON files of `store/elastic/templates`. Names, types and settings are those of Elastic's own templates,
//! so that its readers find what they look for; what is added or different has its reason in `docs/elasticsearch.md`.

use std::fmt;

use http::Method;
use serde_json::{Map, Value, json};

use super::super::generation::Version;
use super::super::{Generation, LEVELS};

/// Version of our templates of the first generation: that of Elastic's with the same content.
pub const CLASSIC_VERSION: u64 = 15;
/// Version of our templates of the second generation.
pub const OTEL_VERSION: u64 = 1;

/// Releases before it set the mode of the source in mappings, not in settings.
const SOURCE_SETTING: Version = Version { major: 8, minor: 18, patch: 0 };
/// First release with the index mode for logs, which packs events closer.
const LOGS_MODE: Version = Version { major: 8, minor: 17, patch: 0 };

/// Who deletes old data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Index lifecycle management: the policy `profiling-60-days`.
    Policy,
    /// The lifecycle of data streams, where there is no ILM.
    DataStream,
}

/// What decides how the parts look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Layout of documents.
    pub generation: Generation,
    /// Release of the cluster.
    pub version: Version,
    /// Who deletes old data.
    pub lifecycle: Lifecycle,
}

/// Kind of a part, in the order in which parts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartKind {
    /// ILM policy.
    Policy,
    /// Component template.
    Component,
    /// Index template.
    Template,
    /// Data stream.
    Stream,
    /// Index with its write alias.
    Index,
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Policy => "ILM policy",
            Self::Component => "component template",
            Self::Template => "index template",
            Self::Stream => "data stream",
            Self::Index => "index",
        })
    }
}

/// One thing that a cluster has to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Kind.
    pub kind: PartKind,
    /// Name; of an index the name of its first generation.
    pub name: String,
    /// Body of the call that makes it; null for data streams.
    pub body: Value,
    /// Name that is written to: the stream itself, or the alias of an index.
    pub target: Option<String>,
}

/// A request, for people and for the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// HTTP method.
    pub method: Method,
    /// Path with parameters.
    pub path: String,
    /// JSON body.
    pub body: Option<Value>,
}

impl Part {
    /// The call that makes it. `replace` allows an older one to be there.
    #[must_use]
    pub fn call(&self, replace: bool) -> Call {
        let create = if replace { "" } else { "?create=true" };
        let name = &self.name;
        let path = match self.kind {
            PartKind::Policy => format!("/_ilm/policy/{name}"),
            PartKind::Component => format!("/_component_template/{name}{create}"),
            PartKind::Template => format!("/_index_template/{name}{create}"),
            PartKind::Stream => format!("/_data_stream/{name}"),
            PartKind::Index => format!("/{name}"),
        };
        let body = (!self.body.is_null()).then(|| self.body.clone());
        Call { method: Method::PUT, path, body }
    }

    /// Whether old generations are replaced by new ones, so that a new template takes effect with a rollover.
    #[must_use]
    pub fn rolls_over(&self) -> bool {
        self.kind == PartKind::Stream || (self.kind == PartKind::Index && self.name.ends_with("-000001"))
    }

    /// Name of the index template that a stream or index is made from.
    #[must_use]
    pub fn template(&self) -> Option<String> {
        let target = self.target.as_deref()?;
        Some(match target.strip_suffix(".otel-default") {
            Some(name) => format!("{}-otel@template", base(name)),
            None => base(target).to_owned(),
        })
    }
}

/// `profiling-events` for all event streams, else the name.
fn base(name: &str) -> &str {
    if name.starts_with("profiling-events-") { "profiling-events" } else { name }
}

macro_rules! templates {
    ($folder:literal: $($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../templates/", $folder, "/", $name, ".json")))),*]
    };
}

const POLICY: &str = include_str!("../templates/classic/policy.json");
const CLASSIC_COMPONENTS: [(&str, &str); 9] = templates!("classic/component":
    "profiling-ilm", "profiling-hot-tier", "profiling-events", "profiling-metrics", "profiling-hosts",
    "profiling-stacktraces", "profiling-stackframes", "profiling-executables", "profiling-symbols",
);
const CLASSIC_TEMPLATES: [(&str, &str); 11] = templates!("classic/index":
    "profiling-events", "profiling-metrics", "profiling-hosts", "profiling-stacktraces", "profiling-stackframes",
    "profiling-executables", "profiling-symbols-global", "profiling-symbols-private", "profiling-returnpads-private",
    "profiling-sq-executables", "profiling-sq-leafframes",
);
const OTEL_COMPONENTS: [(&str, &str); 5] = templates!("otel/component":
    "profiling-events-otel@mappings", "profiling-stacktraces-otel@mappings", "profiling-stackframes-otel@mappings",
    "profiling-executables-otel@mappings", "profiling-hosts-otel@mappings",
);
const OTEL_TEMPLATES: [(&str, &str); 5] = templates!("otel/index":
    "profiling-events-otel@template", "profiling-stacktraces-otel@template", "profiling-stackframes-otel@template",
    "profiling-executables-otel@template", "profiling-hosts-otel@template",
);

/// Look-up tables that roll over, and tables that do not, by the alias that is written to.
const ROLLED: [&str; 4] =
    ["profiling-stacktraces", "profiling-stackframes", "profiling-executables", "profiling-symbols-global"];
const FIXED: [&str; 4] = [
    "profiling-symbols-private",
    "profiling-returnpads-private",
    "profiling-sq-executables",
    "profiling-sq-leafframes",
];

/// Everything that a cluster of this layout has to hold, in the order of making.
#[must_use]
pub fn parts(layout: &Layout) -> Vec<Part> {
    let mut parts = Vec::new();
    let names = layout.generation.names();
    let (components, templates, mut streams): (&[_], &[_], Vec<String>) = match layout.generation {
        Generation::Classic => (&CLASSIC_COMPONENTS, &CLASSIC_TEMPLATES, vec![names.events.into()]),
        Generation::Otel => (&OTEL_COMPONENTS, &OTEL_TEMPLATES, vec![names.events.into()]),
    };
    match layout.generation {
        Generation::Classic => {
            streams.extend((1..=LEVELS).map(|level| layout.generation.sampled_events(level)));
            streams.extend(["profiling-metrics".into(), names.hosts.into()]);
        }
        Generation::Otel => {
            streams.extend(
                [names.stacktraces, names.stackframes, names.executables, names.hosts].map(Into::into),
            );
        }
    }
    if layout.generation == Generation::Classic && layout.lifecycle == Lifecycle::Policy {
        let (name, body) = ("profiling-60-days".to_owned(), parsed(POLICY));
        parts.push(Part { kind: PartKind::Policy, name, body, target: None });
    }
    for (kind, files) in [(PartKind::Component, components), (PartKind::Template, templates)] {
        parts.extend(files.iter().map(|(name, text)| {
            let body = adapt(parsed(text), name, *layout);
            Part { kind, name: (*name).to_owned(), body, target: None }
        }));
    }
    parts.extend(streams.into_iter().map(|name| Part {
        kind: PartKind::Stream,
        target: Some(name.clone()),
        name,
        body: Value::Null,
    }));
    if layout.generation == Generation::Classic {
        let first =
            ROLLED.iter().map(|alias| (alias, "-000001")).chain(FIXED.iter().map(|alias| (alias, "")));
        parts.extend(first.map(|(&alias, generation)| Part {
            kind: PartKind::Index,
            name: format!(".{alias}-v001{generation}"),
            body: json!({ "aliases": { alias: { "is_write_index": true } } }),
            target: Some(alias.to_owned()),
        }));
    }
    parts
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("a unit test reads every embedded template")
}

/// Fits a template to what the release and its lifecycle know.
fn adapt(mut body: Value, name: &str, layout: Layout) -> Value {
    if layout.version < LOGS_MODE
        && let Some(index) = settings(&mut body)
    {
        index.remove("mode");
    }
    if layout.version < SOURCE_SETTING {
        let mode = settings(&mut body).and_then(|index| index.remove("mapping"));
        if let Some(mode) = mode.as_ref().map(|mapping| &mapping["source"]["mode"]) {
            body["template"]["mappings"]["_source"] = json!({ "mode": mode });
        }
    }
    if layout.lifecycle == Lifecycle::DataStream && layout.generation == Generation::Classic {
        // What is named after the policy carries the other lifecycle; the settings of ILM are unknown there.
        if let Some(index) = settings(&mut body) {
            index.remove("lifecycle");
        }
        if name == "profiling-ilm" {
            body["template"] = json!({ "settings": {} });
        }
        if body["data_stream"].is_object() {
            body["template"]["lifecycle"] = json!({ "data_retention": "60d" });
        }
    }
    body
}

/// `template.settings.index`, where there is one.
fn settings(body: &mut Value) -> Option<&mut Map<String, Value>> {
    body.get_mut("template")?.get_mut("settings")?.get_mut("index")?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(generation: Generation, minor: u16, lifecycle: Lifecycle) -> Layout {
        Layout { generation, version: Version { major: 8, minor, patch: 0 }, lifecycle }
    }

    fn count(parts: &[Part], kind: PartKind) -> usize {
        parts.iter().filter(|part| part.kind == kind).count()
    }

    #[test]
    fn every_part_of_both_generations_is_there() {
        let classic = parts(&layout(Generation::Classic, 19, Lifecycle::Policy));
        let kinds =
            [PartKind::Policy, PartKind::Component, PartKind::Template, PartKind::Stream, PartKind::Index];
        assert_eq!(kinds.map(|kind| count(&classic, kind)), [1, 9, 11, 14, 8]);
        let otel = parts(&layout(Generation::Otel, 19, Lifecycle::Policy));
        assert_eq!(kinds.map(|kind| count(&otel, kind)), [0, 5, 5, 5, 0]);
        for part in classic.iter().chain(&otel).filter(|part| part.target.is_some()) {
            let template = part.template().unwrap();
            let known = classic.iter().chain(&otel);
            assert!(known.filter(|p| p.kind == PartKind::Template).any(|p| p.name == template), "{template}");
        }
    }

    /// The rule by which Elastic's status page calls a cluster set up.
    #[test]
    fn versions_are_where_elastic_looks_for_them() {
        for (generation, version) in
            [(Generation::Classic, CLASSIC_VERSION), (Generation::Otel, OTEL_VERSION)]
        {
            for part in parts(&layout(generation, 19, Lifecycle::Policy)) {
                let body = &part.body;
                if matches!(part.kind, PartKind::Component | PartKind::Template) {
                    assert_eq!(body["version"], version, "{}", part.name);
                    assert_eq!(body["_meta"]["managed_by"], "everflame", "{}", part.name);
                }
                let mappings = &body["template"]["mappings"];
                if mappings.is_object() {
                    assert_eq!(mappings["_meta"]["index-template-version"], version, "{}", part.name);
                    assert!(mappings["_meta"]["index-version"].is_u64(), "{}", part.name);
                    assert_eq!(mappings["_meta"]["managed"], true, "{}", part.name);
                }
            }
        }
    }

    fn events(layout: Layout) -> Value {
        let of = |part: &Part| part.kind == PartKind::Component && part.name == "profiling-events";
        parts(&layout).into_iter().find(of).expect("a template of events").body["template"].clone()
    }

    #[test]
    fn older_releases_get_what_they_know() {
        let newest = events(layout(Generation::Classic, 18, Lifecycle::Policy));
        assert_eq!(newest["settings"]["index"]["mode"], "logsdb");
        assert_eq!(newest["settings"]["index"]["mapping"]["source"]["mode"], "synthetic");
        let middle = events(layout(Generation::Classic, 17, Lifecycle::Policy));
        assert_eq!(middle["settings"]["index"]["mode"], "logsdb");
        assert_eq!(middle["mappings"]["_source"]["mode"], "synthetic");
        let oldest = events(layout(Generation::Classic, 12, Lifecycle::Policy));
        assert_eq!(oldest["settings"]["index"]["mode"], Value::Null);
        assert_eq!(oldest["settings"]["index"]["mapping"], Value::Null);
        assert_eq!(oldest["mappings"]["_source"]["mode"], "synthetic");
    }

    #[test]
    fn without_ilm_nothing_speaks_of_it() {
        let parts = parts(&layout(Generation::Classic, 19, Lifecycle::DataStream));
        assert_eq!(count(&parts, PartKind::Policy), 0);
        for part in &parts {
            let text = part.body["template"]["settings"].to_string();
            assert!(!text.contains("lifecycle"), "{}: {text}", part.name);
            if part.body["data_stream"].is_object() {
                assert_eq!(part.body["template"]["lifecycle"]["data_retention"], "60d", "{}", part.name);
            }
        }
    }
}
