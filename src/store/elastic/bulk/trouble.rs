//! Why documents are not stored yet.

use super::super::generation::Problem;
use super::super::{CallError, Cause};
use crate::store;

/// Why documents are not stored yet, and may be later.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The request as a whole failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The cluster cannot be written to as it is: not set up, too old, a key without privileges.
    #[error("{problem}")]
    Cluster {
        /// What is wrong.
        problem: String,
        /// What a person can do about it.
        hint: Option<String>,
    },
    /// Items were put off.
    #[error("items of a bulk request were put off ({status} {kind}): {reason}")]
    Items {
        /// Status of the first of them.
        status: u16,
        /// Its `error.type`.
        kind: String,
        /// Its reason.
        reason: String,
    },
    /// An answer that fits no request.
    #[error("answer to a bulk request: {0}")]
    Answer(String),
    /// This process is about to end.
    #[error("the collector is stopping")]
    Stopping,
}

impl Trouble {
    /// What it means, where an answer says so.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Call(error) => error.cause(),
            Self::Items { status, kind, .. } => Some(Cause::of(*status, kind)),
            Self::Cluster { .. } | Self::Answer(_) | Self::Stopping => None,
        }
    }

    /// What a person can do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Call(error) => error.hint(),
            Self::Items { reason, .. } => self.cause().and_then(|cause| cause.hint(reason)),
            Self::Cluster { hint, .. } => hint.clone(),
            Self::Answer(_) | Self::Stopping => None,
        }
    }

    /// Whether a person who was told of the one need not be told of the other. The words differ from call to call.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let class = |trouble: &Self| match trouble {
            Self::Call(CallError::Unreachable(_)) => (1, None),
            Self::Call(CallError::Tls { .. }) => (2, None),
            Self::Call(CallError::NotElasticsearch { .. }) => (3, None),
            Self::Call(CallError::TooOld { .. }) => (4, None),
            Self::Call(CallError::Refused { .. }) | Self::Items { .. } => (5, trouble.cause()),
            Self::Call(CallError::Answer { .. }) | Self::Answer(_) => (6, None),
            Self::Stopping => (7, None),
            Self::Cluster { .. } => (8, None),
        };
        match (self, other) {
            (Self::Cluster { problem, .. }, Self::Cluster { problem: other, .. }) => problem == other,
            _ => class(self) == class(other),
        }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        let hint = problem.hint();
        match problem {
            Problem::Call(error) => Self::Call(error),
            problem => Self::Cluster { problem: problem.to_string(), hint },
        }
    }
}

impl From<Trouble> for store::Error {
    fn from(trouble: Trouble) -> Self {
        let hint = trouble.hint();
        Self::Unavailable { problem: trouble.to_string(), hint }
    }
}
