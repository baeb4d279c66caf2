//! Merged layers, read key by key. Reading notes what is known, what was wrong and where each value came from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use figment::Figment;
use figment::value::{Empty, Value};

use super::problem::nearest;
use super::{Problem, Problems};

/// One resolved value, for `--check` and start-up logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Value as shown; secrets are redacted.
    pub shown: String,
    /// Layer that it came from.
    pub origin: String,
}

/// Merged layers.
#[derive(Debug)]
pub struct Settings {
    figment: Figment,
    notes: RefCell<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    known: BTreeMap<String, Resolved>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What a field makes of a value: the typed value, or what was expected.
pub(super) type Parsed<T> = Result<T, Expected>;

/// What a field expected instead of what it found.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Completes "expected …".
    pub(super) what: String,
    /// What to write instead.
    pub(super) hint: Option<String>,
    /// `what` is the message as it is documented, and needs no more words.
    pub(super) whole: bool,
}

impl Expected {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, whole: false }
    }

    /// A message that stands for itself.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { what: message.into(), hint: None, whole: true }
    }
}

impl Settings {
    pub(super) fn new(figment: Figment, problems: Vec<Problem>) -> Self {
        Self { figment, notes: RefCell::new(Notes { problems, ..Notes::default() }) }
    }

    /// Reads one key. Absent and null give `default`; a value that `parse` refuses is noted and gives `default` too.
    pub(super) fn field<T>(
        &self,
        key: &str,
        default: T,
        show: impl Fn(&T) -> String,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> T {
        let found = self
            .figment
            .find_value(key)
            .ok()
            .filter(|value| !matches!(value, Value::Empty(_, Empty::None | Empty::Unit)));
        let (value, origin) = match found {
            None => (default, "default".to_owned()),
            Some(found) => match parse(&found) {
                Ok(value) => (value, self.origin(key)),
                Err(expected) => {
                    let message = if expected.whole {
                        expected.what
                    } else {
                        format!("expected {}, found {}", expected.what, describe(&found))
                    };
                    self.problem(key, message, expected.hint);
                    (default, self.origin(key))
                }
            },
        };
        self.notes.borrow_mut().known.insert(key.to_owned(), Resolved { shown: show(&value), origin });
        value
    }

    /// Whether any layer says something at or below `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.figment.find_value(key).is_ok_and(|value| !matches!(value, Value::Empty(..)))
    }

    /// Notes keys that are read and checked but have no effect in this version, where a layer sets them.
    pub(super) fn without_effect(&self, keys: &[String]) {
        for key in keys.iter().filter(|key| self.has(key)) {
            self.warn(key, "has no effect yet", None);
        }
    }

    /// Notes something about `key` that a person should know.
    pub(super) fn warn(&self, key: &str, message: &str, hint: Option<&str>) {
        let warning = Problem {
            origin: self.origin(key),
            key: key.to_owned(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            warning: true,
        };
        self.notes.borrow_mut().warnings.push(warning);
    }

    /// What was said of keys that are used nevertheless, or not at all.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        self.notes.borrow().warnings.clone()
    }

    /// Notes a mistake at `key`.
    pub(super) fn problem(&self, key: &str, message: String, hint: Option<String>) {
        let origin = self.origin(key);
        self.notes.borrow_mut().problems.push(Problem {
            origin,
            key: key.to_owned(),
            message,
            hint,
            warning: false,
        });
    }

    /// All mistakes noted so far.
    ///
    /// # Errors
    /// When there is at least one.
    pub fn finish(&self) -> Result<(), Problems> {
        let problems = self.notes.borrow().problems.clone();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Keys that nobody asked for, each with the nearest known name. Sections of other roles are left alone.
    #[must_use]
    pub fn unknown_keys(&self, foreign_sections: &[&str]) -> Vec<Problem> {
        let notes = self.notes.borrow();
        let mut unknown = Vec::new();
        let Ok(root) = self.figment.extract::<figment::value::Dict>() else { return unknown };
        for (section, value) in &root {
            if foreign_sections.contains(&section.as_str()) {
                continue;
            }
            leaves(section, value, &mut |key| {
                if notes.known.contains_key(key) {
                    return;
                }
                // A key below a known one is part of its value.
                if notes
                    .known
                    .keys()
                    .any(|known| key.strip_prefix(known.as_str()).is_some_and(|r| r.starts_with('.')))
                {
                    return;
                }
                let hint = nearest(key, notes.known.keys().map(String::as_str))
                    .map(|near| format!("did you mean {near}?"));
                unknown.push(Problem {
                    origin: self.origin(key),
                    key: key.to_owned(),
                    message: "unknown key".into(),
                    hint,
                    warning: true,
                });
            });
        }
        unknown
    }

    /// Every key read so far with its value and origin.
    #[must_use]
    pub fn resolved(&self) -> BTreeMap<String, Resolved> {
        self.notes.borrow().known.clone()
    }

    fn origin(&self, key: &str) -> String {
        // A key that no layer holds is blamed on the layer of its nearest parent.
        let mut path = key;
        loop {
            if let Some(metadata) = self.figment.find_metadata(path) {
                return metadata.name.to_string();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return "default".into(),
            }
        }
    }
}

/// Prints the resolved result, one key a line, with the origin of each value.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resolved = self.resolved();
        let width =
            resolved.iter().map(|(key, value)| key.len() + 2 + value.shown.len()).filter(|w| *w < 80).max();
        for (key, value) in resolved {
            let text = format!("{key}: {}", value.shown);
            writeln!(f, "{text:<width$}  # {}", value.origin, width = width.unwrap_or(0))?;
        }
        Ok(())
    }
}

fn leaves(path: &str, value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Dict(_, dict) => {
            for (key, value) in dict {
                leaves(&format!("{path}.{key}"), value, found);
            }
        }
        Value::Empty(..) => {}
        _ => found(path),
    }
}

/// A value as a person would name it in a message.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("\"{text}\""),
        Value::Char(_, c) => format!("\"{c}\""),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(..) => number_text(value),
        Value::Array(_, items) => format!("a list of {}", items.len()),
        Value::Dict(..) => "a section".into(),
        Value::Empty(..) => "nothing".into(),
    }
}

/// Digits of a numeric value as written.
pub(super) fn number_text(value: &Value) -> String {
    match value {
        Value::Num(_, n) => match (n.to_i128(), n.to_u128(), n.to_f64()) {
            (Some(n), _, _) => n.to_string(),
            (_, Some(n), _) => n.to_string(),
            (_, _, Some(n)) => n.to_string(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}
