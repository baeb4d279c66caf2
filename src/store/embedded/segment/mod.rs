//! Immutable runs of samples: one Parquet file of events, and two of sums where these pay.
//!
//! A segment never changes; a merged one replaces it, and its files go when the last reader lets go of it.
//! Knows nothing of redb. Called by `upkeep` (writes) and `query` (reads).

mod meta;
mod read;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

pub(super) use meta::{Block, Level, Meta, Notes, Origin};
pub(super) use read::{Batch, Fields, GroupScan, RowStream};
pub(super) use write::SegmentWriter;

use super::layout::{Layout, Part};
use super::parquet_file::{self, Schema, corrupt};
use crate::store::Result;

/// Layout of the events of a segment. Sorted, within each block, by all columns from left to right.
pub(super) const EVENTS: Schema = Schema {
    message: "message events {
        required int32 resource (INTEGER(32,false));
        required int32 stack (INTEGER(32,false));
        required int32 thread (INTEGER(32,false));
        required int32 tid (INTEGER(32,false));
        required int64 time (TIMESTAMP(MILLIS,true));
        required int32 pid (INTEGER(32,false));
    }",
    deltas: &["stack", "time"],
};

/// Layout of the events of a segment whose times are whole seconds. Parquet has no timestamp in seconds, and differences
/// that are multiples of 1000 pack badly: the same column in milliseconds costs 0.7 bytes more per sample.
pub(super) const COARSE_EVENTS: Schema = Schema {
    message: "message events {
        required int32 resource (INTEGER(32,false));
        required int32 stack (INTEGER(32,false));
        required int32 thread (INTEGER(32,false));
        required int32 tid (INTEGER(32,false));
        required int32 second (INTEGER(32,false));
        required int32 pid (INTEGER(32,false));
    }",
    deltas: &["stack", "second"],
};

/// Unit of [`COARSE_EVENTS`] in milliseconds.
pub(super) const COARSE_MS: u32 = 1000;

/// Layout of the totals of a segment: samples over its whole time. Sorted from left to right.
pub(super) const TOTALS: Schema = Schema {
    message: "message totals {
        required int32 resource (INTEGER(32,false));
        required int32 stack (INTEGER(32,false));
        required int32 thread (INTEGER(32,false));
        required int32 samples (INTEGER(32,false));
    }",
    deltas: &["stack", "samples"],
};

/// Layout of the minutes of a segment. Sorted from left to right.
pub(super) const MINUTES: Schema = Schema {
    message: "message minutes {
        required int32 resource (INTEGER(32,false));
        required int32 thread (INTEGER(32,false));
        required int64 minute (TIMESTAMP(MILLIS,true));
        required int32 samples (INTEGER(32,false));
        required int32 complete (INTEGER(32,false));
    }",
    deltas: &["minute"],
};

/// One minute in milliseconds: the grain of [`MINUTES`].
pub(super) const MINUTE_MS: i64 = 60_000;

/// A segment that can be read.
#[derive(Debug)]
pub(super) struct Segment {
    /// What the manifest says.
    pub(super) meta: Meta,
    layout: Layout,
    footers: [OnceLock<Arc<ParquetMetaData>>; 3],
    obsolete: AtomicBool,
}

impl Segment {
    /// A segment as the manifest describes it.
    pub(super) fn new(layout: Layout, meta: Meta) -> Self {
        Self { meta, layout, footers: Default::default(), obsolete: AtomicBool::new(false) }
    }

    /// Lets the files go with the last reader.
    pub(super) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Path of one of its files.
    pub(super) fn path(&self, part: Part) -> PathBuf {
        self.layout.segment(self.meta.id, part)
    }

    /// Footer of one of its files, read once.
    fn footer(&self, part: Part) -> Result<&Arc<ParquetMetaData>> {
        let cell = &self.footers[part as usize];
        if let Some(footer) = cell.get() {
            return Ok(footer);
        }
        let path = self.path(part);
        let Some(file) = self.meta.file(part) else {
            return Err(corrupt(&path, "the manifest does not know this file".into()));
        };
        let footer = parquet_file::open_checked(&path, file)?;
        Ok(cell.get_or_init(|| Arc::new(footer)))
    }

    /// Rows of each row group of one of its files.
    pub(super) fn groups(&self, part: Part) -> Result<Vec<usize>> {
        Ok(self.footer(part)?.row_groups().iter().map(|g| g.num_rows().max(0) as usize).collect())
    }

    /// Smallest and largest resource number in a row group, as far as its statistics say.
    pub(super) fn resources(&self, part: Part, group: usize) -> Result<Option<(u32, u32)>> {
        let footer = self.footer(part)?;
        let statistics = footer.row_groups().get(group).and_then(|g| g.columns().first()?.statistics());
        Ok(match statistics {
            Some(Statistics::Int32(s)) => {
                s.min_opt().zip(s.max_opt()).map(|(min, max)| (*min as u32, *max as u32))
            }
            _ => None,
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            for part in Part::ALL {
                if self.meta.file(part).is_some() {
                    // What cannot be deleted now is swept at the next start: the manifest does not name it.
                    let _ = std::fs::remove_file(self.path(part));
                }
            }
        }
    }
}
