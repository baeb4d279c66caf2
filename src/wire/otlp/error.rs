//! What is wrong with a message: the path of the field, what was expected there and what was found.

use std::fmt;

use crate::wire::protobuf::Malformed;

/// Outcome of reading a message.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message that cannot be read: `resource_profiles[0].scope_profiles[0].profiles[0].samples[3].stack_index: expected
/// less than 17, found 99`.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    /// From the field outwards.
    path: Vec<Segment>,
    /// The path is complete; outer fields have nothing to add.
    rooted: bool,
    problem: Problem,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Field(&'static str),
    Entry(&'static str, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// The encoding itself is broken.
    Malformed(Malformed),
    /// Right field, wrong kind of value.
    WireType { expected: &'static str, found: &'static str },
    /// Points behind the end of a table.
    Index { length: usize, found: i64 },
    /// More of something than a limit allows.
    TooMany { limit: usize },
    /// The message as a whole is too large.
    Size { limit: usize, found: usize },
    /// Two lists that belong together have different lengths.
    Lengths { expected: usize, found: usize },
}

impl Error {
    #[cold]
    pub(super) fn new(problem: Problem) -> Self {
        Self(Box::new(Inner { path: Vec::new(), rooted: false, problem }))
    }

    /// Adds the field that the trouble lies in.
    #[cold]
    pub(super) fn at(mut self, field: &'static str) -> Self {
        if !self.0.rooted {
            self.0.path.push(Segment::Field(field));
        }
        self
    }

    /// Adds the entry of a repeated field that the trouble lies in.
    #[cold]
    pub(super) fn at_entry(mut self, field: &'static str, index: usize) -> Self {
        if !self.0.rooted {
            self.0.path.push(Segment::Entry(field, index));
        }
        self
    }

    /// Declares the path complete.
    #[cold]
    pub(super) fn rooted(mut self) -> Self {
        self.0.rooted = true;
        self
    }
}

impl From<Malformed> for Error {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        Self::new(Problem::Malformed(malformed))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.path.is_empty() {
            f.write_str("message")?;
        }
        for (at, segment) in self.0.path.iter().rev().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            match segment {
                Segment::Field(name) => write!(f, "{dot}{name}")?,
                Segment::Entry(name, index) => write!(f, "{dot}{name}[{index}]")?,
            }
        }
        write!(f, ": {}", self.0.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Malformed(Malformed::Truncated { needed, left }) => {
                write!(f, "expected {needed} bytes, found {left}")
            }
            Self::Malformed(Malformed::Varint) => {
                f.write_str("expected a number of at most 64 bits, found a longer one")
            }
            Self::Malformed(Malformed::FieldNumber(number)) => {
                write!(f, "expected a field number from 1 to 536870911, found {number}")
            }
            Self::Malformed(Malformed::WireType(found)) => {
                write!(f, "expected wire type 0, 1, 2 or 5, found {found}")
            }
            Self::WireType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Index { length, found } if found < 0 => {
                write!(f, "expected 0 or more and less than {length}, found {found}")
            }
            Self::Index { length, found } => write!(f, "expected less than {length}, found {found}"),
            Self::TooMany { limit } => write!(f, "expected at most {limit} entries, found more"),
            Self::Size { limit, found } => write!(f, "expected at most {limit} bytes, found {found}"),
            Self::Lengths { expected, found } => {
                write!(f, "expected {expected} entries as in timestamps_unix_nano, found {found}")
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
