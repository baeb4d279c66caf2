//! Under which names the fields of events can be counted, which depends on the version of the templates.
//!
//! Elastic's own templates of 8.x map neither `process.executable.name` nor `Stacktrace.sampling_frequency`, although
//! every event carries both. Such a field is read from the documents while searching (a runtime field): right, but slow.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::ask::Ask;
use crate::model::Dimension;
use crate::store::Result;
use crate::store::elastic::Generation;

/// How long names of fields are remembered: a set-up beside a running page shows within this time.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How a field is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Indexed or held in columns under this name.
    Mapped(String),
    /// In the documents only, under this name.
    Unmapped(String),
    /// In no event.
    Absent,
}

impl Access {
    /// Name to ask for.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Mapped(name) | Self::Unmapped(name) => Some(name),
            Self::Absent => None,
        }
    }

    /// Defines the field for one search where nothing else does.
    pub(super) fn note(&self, runtime: &mut Map<String, Value>) {
        if let Self::Unmapped(name) = self {
            runtime.insert(name.clone(), json!({ "type": "keyword" }));
        }
    }
}

/// Names of the fields of one event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventFields {
    /// Identity of the stack.
    pub(super) stack: Access,
    /// Samples per second that each event stands for.
    pub(super) frequency: Access,
    dimensions: [Access; Dimension::ALL.len()],
}

impl EventFields {
    /// How a dimension is reached.
    pub(super) fn dimension(&self, dimension: Dimension) -> &Access {
        let at = Dimension::ALL.iter().position(|d| *d == dimension).expect("ALL holds every dimension");
        &self.dimensions[at]
    }

    /// Events of which nothing is known.
    pub(super) fn none() -> Self {
        Self {
            stack: Access::Absent,
            frequency: Access::Absent,
            dimensions: Dimension::ALL.map(|_| Access::Absent),
        }
    }

    /// Fields as the newest templates have them.
    #[cfg(test)]
    pub(super) fn all_mapped() -> Self {
        let mapped = |name: &str| Access::Mapped(name.into());
        Self {
            stack: mapped("Stacktrace.id"),
            frequency: mapped("Stacktrace.sampling_frequency"),
            dimensions: Dimension::ALL.map(|d| match d {
                Dimension::Pid | Dimension::Tid => Access::Absent,
                other => mapped(other.field()),
            }),
        }
    }

    fn of(generation: Generation, mapped: &impl Fn(&str) -> bool) -> Self {
        let pick = |candidates: &[String], source: Option<&str>| {
            let found = candidates.iter().find(|name| mapped(name)).cloned();
            match (found, source) {
                (Some(name), _) => Access::Mapped(name),
                (None, Some(name)) => Access::Unmapped(name.into()),
                (None, None) => Access::Absent,
            }
        };
        let classic = generation == Generation::Classic;
        let own = |names: [&str; 2]| {
            let source = if classic { names[0] } else { names[1] };
            pick(&names.map(str::to_owned), Some(source))
        };
        Self {
            stack: own(["Stacktrace.id", "stacktrace.id"]),
            frequency: own(["Stacktrace.sampling_frequency", "sampling_frequency"]),
            dimensions: Dimension::ALL.map(|dimension| {
                let attribute = attribute(dimension);
                let nested = format!("resource.attributes.{attribute}");
                let candidates = [dimension.field().to_owned(), attribute.to_owned(), nested.clone()];
                let source = match dimension {
                    // Events do not carry numbers of processes and threads; where they do, they are mapped.
                    Dimension::Pid | Dimension::Tid => None,
                    _ if classic => Some(dimension.field()),
                    _ => Some(nested.as_str()),
                };
                pick(&candidates, source)
            }),
        }
    }
}

/// Name of a dimension as a resource attribute of the second generation.
fn attribute(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::ThreadName => "thread.name",
        Dimension::Pod => "k8s.pod.name",
        other => other.field(),
    }
}

/// Fields of the streams asked lately.
#[derive(Debug, Default)]
pub(super) struct FieldCache(Mutex<HashMap<String, (Instant, Option<EventFields>)>>);

impl FieldCache {
    /// Fields of a stream; `None` when it does not exist.
    pub(super) async fn of(
        &self,
        ask: &Ask,
        generation: Generation,
        stream: &str,
    ) -> Result<Option<EventFields>> {
        let now = Instant::now();
        if let Some((since, fields)) = self.0.lock().get(stream)
            && now.duration_since(*since) < REMEMBERED
        {
            return Ok(fields.clone());
        }
        let mut names: Vec<String> = ["Stacktrace.id", "stacktrace.id"].map(Into::into).into();
        names.extend(["Stacktrace.sampling_frequency", "sampling_frequency"].map(Into::into));
        for dimension in Dimension::ALL {
            let attribute = attribute(dimension);
            names.extend([
                dimension.field().into(),
                attribute.into(),
                format!("resource.attributes.{attribute}"),
            ]);
        }
        let path = format!(
            "/{stream}/_field_caps?ignore_unavailable=true&include_unmapped=true&fields={}",
            names.join(",")
        );
        let answer = ask.get(&path).await?.unwrap_or(Value::Null);
        let exists = answer["indices"].as_array().is_some_and(|indices| !indices.is_empty());
        let fields = exists.then(|| EventFields::of(generation, &|name| is_mapped(&answer["fields"][name])));
        // A stream that is not there may be made any moment, and asking for it costs next to nothing.
        if fields.is_some() {
            self.0.lock().insert(stream.to_owned(), (now, fields.clone()));
        }
        Ok(fields)
    }
}

/// Whether every index that knows the field can count it.
fn is_mapped(types: &Value) -> bool {
    let Some(types) = types.as_object().filter(|types| !types.is_empty()) else { return false };
    types.iter().all(|(kind, caps)| kind != "unmapped" && caps["aggregatable"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_under_the_names_of_either_generation() {
        let classic =
            |name: &str| ["Stacktrace.id", "host.id", "process.thread.name", "service.name"].contains(&name);
        let fields = EventFields::of(Generation::Classic, &classic);
        assert_eq!(fields.stack, Access::Mapped("Stacktrace.id".into()));
        assert_eq!(fields.frequency, Access::Unmapped("Stacktrace.sampling_frequency".into()));
        assert_eq!(*fields.dimension(Dimension::HostId), Access::Mapped("host.id".into()));
        assert_eq!(
            *fields.dimension(Dimension::Executable),
            Access::Unmapped("process.executable.name".into())
        );
        assert_eq!(*fields.dimension(Dimension::Pid), Access::Absent);

        let otel = |name: &str| ["stacktrace.id", "thread.name", "host.id"].contains(&name);
        let fields = EventFields::of(Generation::Otel, &otel);
        assert_eq!(fields.stack, Access::Mapped("stacktrace.id".into()));
        assert_eq!(*fields.dimension(Dimension::ThreadName), Access::Mapped("thread.name".into()));
        let nested = "resource.attributes.service.name".to_owned();
        assert_eq!(*fields.dimension(Dimension::Service), Access::Unmapped(nested));
    }

    #[test]
    fn a_field_that_an_older_index_does_not_map_is_read_from_the_documents() {
        let keyword = json!({ "keyword": { "aggregatable": true } });
        let mixed = json!({ "keyword": { "aggregatable": true }, "unmapped": { "aggregatable": false } });
        assert!(is_mapped(&keyword));
        assert!(!is_mapped(&mixed));
        assert!(!is_mapped(&Value::Null));
    }
}
