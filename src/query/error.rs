//! What can go wrong between a question and its answer, as the person who asked needs to know it.

use crate::store;

use super::kql::KqlError;

/// Outcome of a query.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not KQL.
    #[error("filter: {0}")]
    Filter(#[from] KqlError),
    /// A time is not understood.
    #[error("{parameter}: expected milliseconds since 1970 or a time like now-15m, found {found:?}")]
    Time {
        /// Name of the parameter.
        parameter: &'static str,
        /// What was written.
        found: String,
    },
    /// The range is empty or runs backwards.
    #[error("from: expected a time before \"to\" ({to} ms), found {from} ms")]
    EmptyRange {
        /// Start in milliseconds since 1970.
        from: u64,
        /// End in milliseconds since 1970.
        to: u64,
    },
    /// Not a field that can be filtered or grouped by.
    #[error("{parameter}: expected a field, found {found:?}")]
    UnknownField {
        /// Name of the parameter.
        parameter: &'static str,
        /// What was written.
        found: String,
    },
    /// The function does not occur in the selection.
    #[error("focus: no function with key {key:?} in this range")]
    NoSuchFunction {
        /// Key asked for.
        key: String,
    },
    /// A store answered with a tree that is none.
    #[error("the store answered with a broken stack tree: {problem}")]
    BrokenTrie {
        /// What was expected and what was found.
        problem: String,
    },
    /// Nobody waits for the answer any more.
    #[error("query was cancelled")]
    Cancelled,
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Filter(error) => error.hint.clone(),
            Self::Time { .. } => Some("units are s, m, h, d and w: now-15m, now-2h, now-7d".into()),
            Self::EmptyRange { .. } => Some("swap the two ends".into()),
            Self::UnknownField { found, .. } => super::nearest::field(found)
                .map(|name| format!("did you mean {name}?"))
                .or_else(|| Some("GET /api/v1/fields lists all fields".into())),
            Self::NoSuchFunction { .. } => {
                Some("take a key from /api/v1/functions with the same range and filter".into())
            }
            Self::Store(error) => error.hint(),
            Self::BrokenTrie { .. } | Self::Cancelled => None,
        }
    }

    /// 0-based character in the filter, where the filter is at fault.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        if let Self::Filter(error) = self { Some(error.position) } else { None }
    }
}
