//! How far the queue has been emptied, kept in a small file beside the segments.
//!
//! Written now and then, and without a sync: a position that is too old repeats documents that Elasticsearch knows to
//! be there already.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE: &str = "position";

/// A place between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Byte in its file.
    pub(super) offset: u64,
}

impl Position {
    /// The place last written; the very beginning when there is none that can be read.
    pub(super) fn load(folder: &Path) -> Self {
        let read = || {
            let text = fs::read_to_string(folder.join(FILE)).ok()?;
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            Some(Self { segment: numbers.next()?.ok()?, offset: numbers.next()?.ok()? })
        };
        read().unwrap_or_default()
    }

    /// Replaces the place in one step.
    pub(super) fn store(self, folder: &Path) -> io::Result<()> {
        let beside = folder.join("position.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        writeln!(file, "{} {}", self.segment, self.offset)?;
        fs::rename(beside, folder.join(FILE))
    }
}
