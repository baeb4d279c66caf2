//! What can go wrong in a store, as a caller needs to know it.

use std::path::PathBuf;

/// Outcome of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room on the disk. Goes away by itself when room is made.
    #[error("no space left for {path}")]
    DiskFull {
        /// Directory of the store.
        path: PathBuf,
    },
    /// Another process holds the store.
    #[error("{path} is in use by another everflame process{}", pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// Directory of the store.
        path: PathBuf,
        /// Who holds it, when known.
        pid: Option<u32>,
    },
    /// A file of the store is not what was written.
    #[error("{path} is damaged: {problem}")]
    Corrupt {
        /// Damaged file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// Written by a newer everflame.
    #[error("{path} has layout version {found}, this program reads up to {supported}")]
    Version {
        /// Directory of the store.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version readable.
        supported: u32,
    },
    /// The engine cannot be reached or cannot write now. Goes away when it is back or a person has mended it.
    #[error("{problem}")]
    Unavailable {
        /// What is wrong, with the place.
        problem: String,
        /// What a person can do about it.
        hint: Option<String>,
    },
    /// More work is queued than the store takes.
    #[error("store is busy: {waiting} batches wait")]
    Overloaded {
        /// Batches in the queue.
        waiting: usize,
    },
    /// The question asks for more than a limit allows.
    #[error("{what} is beyond the limit of {limit}")]
    TooMuch {
        /// What was asked for.
        what: String,
        /// Largest value allowed.
        limit: u64,
    },
    /// The system refused a file operation.
    #[error("{action} {path}: {source}")]
    Io {
        /// Verb in the present tense: "read", "write".
        action: &'static str,
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cluster that holds the data did not answer, or refused to.
    #[error("{message}")]
    Remote {
        /// Which kind of failure.
        kind: Remote,
        /// Who was asked and what came back.
        message: String,
        /// What a person can do about it.
        hint: Option<String>,
    },
    /// The engine failed in a way that has no better name.
    #[error("{0}")]
    Engine(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Overloaded { .. } | Self::Unavailable { .. } => true,
            Self::Remote { kind, .. } => {
                matches!(kind, Remote::Unreachable | Remote::Overloaded | Remote::Unhealthy)
            }
            _ => false,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DiskFull { .. } => {
                Some("free some space or lower the retention; writing resumes by itself".into())
            }
            Self::Unavailable { hint, .. } | Self::Remote { hint, .. } => hint.clone(),
            Self::InUse { .. } => Some("stop the other process or choose another --data-dir".into()),
            Self::Corrupt { .. } => {
                Some("start once with --repair (and the same --data-dir): it sets damaged files aside and keeps the rest".into())
            }
            Self::Version { .. } => Some("use a newer everflame or another --data-dir".into()),
            _ => None,
        }
    }
}

/// Kinds of failure of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Nobody answers.
    Unreachable,
    /// It wants to know who asks.
    NoLogin,
    /// This user or key may not do that.
    Forbidden,
    /// It has more to do than it can.
    Overloaded,
    /// A shard has no copy that answers, or an index is blocked.
    Unhealthy,
    /// The answer would have more buckets than the cluster allows.
    TooManyBuckets,
    /// Anything else that it did not accept.
    Refused,
}
