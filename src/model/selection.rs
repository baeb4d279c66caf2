//! Which samples a question is about: a time range and a filter tree.
//!
//! The text form (KQL) is parsed in `query`; stores turn the tree into a predicate or into query DSL.

use std::sync::Arc;

use super::TimeRange;

/// A property of samples that can be filtered and grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// `host.id`
    HostId,
    /// `host.name`
    HostName,
    /// `process.executable.name`
    Executable,
    /// `process.thread.name`
    ThreadName,
    /// `process.pid`
    Pid,
    /// `thread.id`
    Tid,
    /// `container.id`
    ContainerId,
    /// `container.name`
    ContainerName,
    /// `orchestrator.resource.name`
    Pod,
    /// `k8s.namespace.name`
    Namespace,
    /// `service.name`
    Service,
}

impl Dimension {
    /// All of them, in the order shown to people.
    pub const ALL: [Self; 11] = [
        Self::Executable,
        Self::ThreadName,
        Self::Pid,
        Self::Tid,
        Self::HostName,
        Self::HostId,
        Self::ContainerName,
        Self::ContainerId,
        Self::Pod,
        Self::Namespace,
        Self::Service,
    ];

    /// Field name in documents and in filters.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::HostId => "host.id",
            Self::HostName => "host.name",
            Self::Executable => "process.executable.name",
            Self::ThreadName => "process.thread.name",
            Self::Pid => "process.pid",
            Self::Tid => "thread.id",
            Self::ContainerId => "container.id",
            Self::ContainerName => "container.name",
            Self::Pod => "orchestrator.resource.name",
            Self::Namespace => "k8s.namespace.name",
            Self::Service => "service.name",
        }
    }

    /// Short names that a person may type instead of [`Dimension::field`].
    #[must_use]
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::HostName => &["host"],
            Self::Executable => &["process", "executable", "exe"],
            Self::ThreadName => &["thread", "thread.name"],
            Self::Pid => &["pid"],
            Self::Tid => &["tid"],
            Self::HostId | Self::ContainerId => &[],
            Self::ContainerName => &["container"],
            Self::Pod => &["pod", "deployment", "k8s.pod.name"],
            Self::Namespace => &["namespace"],
            Self::Service => &["service"],
        }
    }

    /// Finds a dimension by field name or alias.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.field() == name || d.aliases().contains(&name))
    }
}

/// Text with `*` for any run of characters. Case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Literal pieces between the stars: one piece = exact match.
    pub pieces: Vec<Arc<str>>,
}

impl Pattern {
    /// Exactly this text.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self { pieces: vec![text.into()] }
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_none_or(|only| &**only == text);
        };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for piece in middle {
            let Some(at) = rest.find(&**piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(&**last)
    }
}

/// Which samples count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Every sample.
    All,
    /// The dimension's value matches the pattern (absent values are empty text).
    Match(Dimension, Pattern),
    /// Every part holds.
    And(Vec<Filter>),
    /// At least one part holds.
    Or(Vec<Filter>),
    /// The part does not hold.
    Not(Box<Filter>),
}

impl Filter {
    /// Evaluates the tree over a sample's values.
    pub fn accepts<'v>(&self, value: &impl Fn(Dimension) -> &'v str) -> bool {
        match self {
            Self::All => true,
            Self::Match(dimension, pattern) => pattern.matches(value(*dimension)),
            Self::And(parts) => parts.iter().all(|p| p.accepts(value)),
            Self::Or(parts) => parts.iter().any(|p| p.accepts(value)),
            Self::Not(part) => !part.accepts(value),
        }
    }

    /// Whether the tree asks about `dimension`.
    #[must_use]
    pub fn mentions(&self, dimension: Dimension) -> bool {
        match self {
            Self::All => false,
            Self::Match(d, _) => *d == dimension,
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|p| p.mentions(dimension)),
            Self::Not(part) => part.mentions(dimension),
        }
    }
}

/// A time range and a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// When.
    pub range: TimeRange,
    /// Which.
    pub filter: Filter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern { pieces: text.split('*').map(Into::into).collect() }
    }

    #[test]
    fn stars_match_any_run() {
        for (text, value, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*bc*d", "aXbcYd", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
            ("*b*", "abc", true),
        ] {
            assert_eq!(pattern(text).matches(value), expected, "{text} on {value}");
        }
    }

    #[test]
    fn every_field_and_alias_parses_to_one_dimension() {
        let mut seen = std::collections::HashSet::new();
        for dimension in Dimension::ALL {
            for name in dimension.aliases().iter().copied().chain([dimension.field()]) {
                assert!(seen.insert(name), "{name} is named twice");
                assert_eq!(Dimension::parse(name), Some(dimension));
            }
        }
    }
}
