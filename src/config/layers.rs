//! Layers of one configuration: files, environment, overrides, each with its name.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Empty, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{AgentSection, Override, Problem, Settings, expand, plain};

/// Environment variables as data, so that resolving is a function of its arguments.
pub type Environment = BTreeMap<String, String>;

/// Layers in rising order of weight.
#[derive(Debug)]
pub struct Layers {
    figment: Figment,
    environment: Environment,
    problems: Vec<Problem>,
}

/// One layer.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

impl Layers {
    /// No layer yet; `environment` answers `${VAR}`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { figment: Figment::new(), environment, problems: Vec::new() }
    }

    /// Adds a YAML file that must exist.
    #[must_use]
    pub fn yaml_file(self, path: &Path) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => self.yaml(&path.display().to_string(), &text),
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// Adds YAML text; `origin` names it in messages.
    #[must_use]
    pub fn yaml(mut self, origin: &str, text: &str) -> Self {
        match serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text) {
            Ok(serde_yaml_ng::Value::Null) => self,
            Ok(serde_yaml_ng::Value::Mapping(mapping)) => {
                let dict = self.yaml_mapping(origin, "", mapping);
                self.push(origin, dict);
                self
            }
            Ok(_) => {
                self.problem(
                    origin,
                    "",
                    "expected a mapping of sections at the top, found something else",
                    None,
                );
                self
            }
            Err(error) => {
                self.problem(origin, "", &format!("not valid YAML: {error}"), None);
                self
            }
        }
    }

    /// Adds the agent's key-value file below `section`. A missing file is no mistake unless it was `named`.
    #[must_use]
    pub fn plain_file(self, path: &Path, section: &str, named: bool) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => self.plain(&path.display().to_string(), section, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => self,
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// Adds key-value text below `section`.
    #[must_use]
    pub fn plain(mut self, origin: &str, section: &str, text: &str) -> Self {
        for entry in plain::parse(text) {
            let mut dict = Dict::new();
            dict.insert(AgentSection::canonical(&entry.key).to_owned(), Value::from(entry.value));
            let layer = Dict::from([(section.to_owned(), Value::Dict(Tag::Default, dict))]);
            self.push(&format!("{origin}:{}", entry.line), layer);
        }
        self
    }

    /// Adds environment variables that start with `prefix` below `section`: `PREFIX_SECRET_TOKEN` is `secret-token`.
    #[must_use]
    pub fn variables(mut self, prefix: &str, section: &str) -> Self {
        let found: Vec<(String, String)> = self
            .environment
            .iter()
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(prefix)?.strip_prefix('_')?;
                (key != "CONFIG").then(|| (name.clone(), value.clone()))
            })
            .collect();
        for (name, value) in found {
            let key = name[prefix.len() + 1..].to_ascii_lowercase().replace('_', "-");
            let key = AgentSection::canonical(&key);
            self.set(&format!("environment variable {name}"), &format!("{section}.{key}"), &value);
        }
        self
    }

    /// Adds texts given with `-E`.
    #[must_use]
    pub fn overrides<'t>(mut self, texts: impl IntoIterator<Item = &'t str>) -> Self {
        for text in texts {
            match Override::parse(text) {
                Ok(given) => self.set(&given.origin, &given.path, &given.value),
                Err(problems) => self.problems.extend(problems.0),
            }
        }
        self
    }

    /// Adds a named flag's value at `path`.
    #[must_use]
    pub fn flag(mut self, flag: &str, path: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.set(flag, path, &value.to_string());
        }
        self
    }

    /// The merged layers, ready to be read. Mistakes of the layers are reported together with those of the sections.
    #[must_use]
    pub fn settings(self) -> Settings {
        Settings::new(self.figment, self.problems)
    }

    fn set(&mut self, origin: &str, path: &str, text: &str) {
        let text = match expand::expand(text, |name| self.environment.get(name).cloned()) {
            Ok(text) => text,
            Err(error) => return self.problem(origin, path, &error.to_string(), None),
        };
        let value = structured(&text).unwrap_or_else(|| Value::from(text));
        let dict = path
            .rsplit('.')
            .fold(value, |inner, key| Value::Dict(Tag::Default, Dict::from([(key.to_owned(), inner)])));
        if let Value::Dict(_, dict) = dict {
            self.push(origin, dict);
        }
    }

    fn push(&mut self, origin: &str, dict: Dict) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(Layer { name: origin.to_owned(), dict });
    }

    /// Turns a YAML mapping into a dictionary: dotted keys become nested, string values are expanded.
    fn yaml_mapping(&mut self, origin: &str, path: &str, mapping: serde_yaml_ng::Mapping) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in mapping {
            let key = match key {
                serde_yaml_ng::Value::String(key) => key,
                other => serde_yaml_ng::to_string(&other).unwrap_or_default().trim().to_owned(),
            };
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let value = self.yaml_value(origin, &full, value);
            let nested = key
                .rsplit('.')
                .fold(value, |inner, key| Value::Dict(Tag::Default, Dict::from([(key.to_owned(), inner)])));
            if let Value::Dict(_, nested) = nested {
                merge(&mut dict, nested);
            }
        }
        dict
    }

    fn yaml_value(&mut self, origin: &str, path: &str, value: serde_yaml_ng::Value) -> Value {
        use serde_yaml_ng::Value as Yaml;
        match value {
            Yaml::Null => Value::Empty(Tag::Default, Empty::None),
            Yaml::Bool(value) => Value::from(value),
            Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => Value::from(value),
                (_, Some(value), _) => Value::from(value),
                (_, _, value) => Value::from(value.unwrap_or_default()),
            },
            Yaml::String(text) => match expand::expand(&text, |name| self.environment.get(name).cloned()) {
                Ok(text) => Value::from(text),
                Err(error) => {
                    self.problem(origin, path, &error.to_string(), None);
                    Value::from(text)
                }
            },
            Yaml::Sequence(items) => Value::Array(
                Tag::Default,
                items.into_iter().map(|item| self.yaml_value(origin, path, item)).collect(),
            ),
            Yaml::Mapping(mapping) => Value::Dict(Tag::Default, self.yaml_mapping(origin, path, mapping)),
            Yaml::Tagged(tagged) => self.yaml_value(origin, path, tagged.value),
        }
    }

    fn unreadable(mut self, path: &Path, error: &std::io::Error) -> Self {
        let hint = (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| "name another file with -c, or create this one".to_owned());
        self.problem(&path.display().to_string(), "", &format!("cannot read: {error}"), hint);
        self
    }

    fn problem(&mut self, origin: &str, key: &str, message: &str, hint: Option<String>) {
        self.problems.push(Problem {
            origin: origin.to_owned(),
            key: key.to_owned(),
            message: message.to_owned(),
            hint,
            warning: false,
        });
    }
}

/// Lists and mappings given on the command line; everything else stays text for the receiving field.
fn structured(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).ok()?;
    Value::serialize(value).ok()
}

/// Merges `from` into `into`, deeply.
fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, old)), Value::Dict(_, new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
