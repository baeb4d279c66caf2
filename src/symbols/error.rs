//! What can be wrong with an executable, always with the place.

use crate::model::UnknownReason;

/// Outcome of a reader of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an executable could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to read.
    #[error("{what} at file offset {offset:#x}: {source}")]
    Io {
        /// What was being read.
        what: &'static str,
        /// Where, in bytes from the start of the file.
        offset: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Directory, pipe, device: nothing with a size that stays.
    #[error("expected a regular file, found {found}")]
    NotRegular {
        /// Kind of file.
        found: &'static str,
    },
    /// A declared range does not lie inside what there is.
    #[error("{what}: expected {wanted} bytes at offset {offset:#x}, found an end at {end:#x}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        wanted: u64,
        /// Where the data ends, in bytes.
        end: u64,
    },
    /// Beyond a limit of ours.
    #[error("{what}: expected at most {limit}, found {found}")]
    TooLarge {
        /// What was measured, with its unit.
        what: &'static str,
        /// Measured or declared value.
        found: u64,
        /// Largest accepted value.
        limit: u64,
    },
    /// Well-formed perhaps, but not a kind that we read.
    #[error("{what}: expected {expected}, found {found:#x}")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Accepted values in words.
        expected: &'static str,
        /// Value found.
        found: u64,
    },
    /// Contradicts its format.
    #[error("{what} at offset {offset:#x}: {why}")]
    Malformed {
        /// Which structure.
        what: &'static str,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
}

impl Error {
    /// Whether a later attempt with the same file may succeed: the system failed, not the bytes.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

impl From<&Error> for UnknownReason {
    fn from(error: &Error) -> Self {
        if error.is_retryable() {
            Self::FileUnavailable(error.to_string())
        } else {
            Self::BadFile(error.to_string())
        }
    }
}
