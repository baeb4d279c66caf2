//! Reads segments: column batches for queries, rows for merges.

use std::path::PathBuf;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::file::statistics::Statistics;

use super::super::head::{Columns, Row};
use super::super::layout::Part;
use super::super::parquet_file::{self, corrupt};
use super::{COARSE_MS, Segment};
use crate::store::Result;

/// Rows decoded at once by queries: the measured optimum of the low-level reader.
const QUERY_BATCH: usize = 65_536;
/// Rows decoded at once by merges, which hold many files open.
const MERGE_BATCH: usize = 16_384;

/// A set of columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(u8);

impl Fields {
    /// Resource number.
    pub(crate) const RESOURCE: Self = Self(1);
    /// Stack number.
    pub(crate) const STACK: Self = Self(2);
    /// Thread name number.
    pub(crate) const THREAD: Self = Self(4);
    /// Thread.
    pub(crate) const TID: Self = Self(8);
    /// Time in milliseconds since 1970.
    pub(crate) const TIME: Self = Self(16);
    /// Process.
    pub(crate) const PID: Self = Self(32);
    /// Number of samples (sums only).
    pub(crate) const SAMPLES: Self = Self(64);
    /// Number of complete samples (minutes only).
    pub(crate) const COMPLETE: Self = Self(128);

    /// Both sets.
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Columns of a file in the order of its schema.
    fn of(part: Part) -> &'static [Self] {
        match part {
            Part::Events => &[Self::RESOURCE, Self::STACK, Self::THREAD, Self::TID, Self::TIME, Self::PID],
            Part::Totals => &[Self::RESOURCE, Self::STACK, Self::THREAD, Self::SAMPLES],
            Part::Minutes => &[Self::RESOURCE, Self::THREAD, Self::TIME, Self::SAMPLES, Self::COMPLETE],
        }
    }
}

/// Some rows, by column; columns that were not asked for are empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch<'a> {
    /// Rows.
    pub(crate) len: usize,
    /// Resource numbers.
    pub(crate) resource: &'a [i32],
    /// Stack numbers.
    pub(crate) stack: &'a [i32],
    /// Thread name numbers.
    pub(crate) thread: &'a [i32],
    /// Threads.
    pub(crate) tid: &'a [i32],
    /// Milliseconds since 1970; of minutes their start.
    pub(crate) time_ms: &'a [i64],
    /// Processes.
    pub(crate) pid: &'a [i32],
    /// Samples a row stands for; empty = one each.
    pub(crate) samples: &'a [i32],
    /// Complete ones among them (minutes only).
    pub(crate) complete: &'a [i32],
}

impl<'a> Batch<'a> {
    /// The samples of the head.
    pub(crate) fn of(columns: &'a Columns) -> Self {
        Self {
            len: columns.len(),
            resource: &columns.resource,
            stack: &columns.stack,
            thread: &columns.thread,
            tid: &columns.tid,
            time_ms: &columns.time_ms,
            pid: &columns.pid,
            samples: &[],
            complete: &[],
        }
    }
}

/// One column of a row group, decoded batch by batch.
enum Source {
    I32(Box<ColumnReaderImpl<Int32Type>>, Vec<i32>),
    I64(Box<ColumnReaderImpl<Int64Type>>, Vec<i64>),
    /// Times in whole seconds, and the same in milliseconds.
    Seconds(Box<ColumnReaderImpl<Int32Type>>, Vec<i32>, Vec<i64>),
    /// Statistics say that all values are equal.
    Constant(i32, Vec<i32>),
}

/// Reads some columns of one row group.
pub(crate) struct GroupScan {
    path: PathBuf,
    sources: Vec<(Fields, Source)>,
    left: usize,
    batch: usize,
}

impl std::fmt::Debug for GroupScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupScan")
            .field("path", &self.path)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl GroupScan {
    /// Opens a row group for a query.
    pub(crate) fn open(segment: &Segment, part: Part, group: usize, fields: Fields) -> Result<Self> {
        Self::with_batch(segment, part, group, fields, QUERY_BATCH)
    }

    fn with_batch(segment: &Segment, part: Part, group: usize, fields: Fields, batch: usize) -> Result<Self> {
        let path = segment.path(part);
        let footer = segment.footer(part)?;
        let hashes = segment.meta.file(part).map(|f| f.hashes.as_slice());
        let Some(row_group) = footer.row_groups().get(group) else {
            return Err(corrupt(&path, format!("no row group {group}")));
        };
        let mut sources = Vec::new();
        for (i, field) in Fields::of(part).iter().enumerate() {
            if !fields.has(*field) {
                continue;
            }
            let statistics = row_group.columns().get(i).and_then(|c| c.statistics());
            let constant = match statistics {
                _ if *field == Fields::TIME => None,
                Some(Statistics::Int32(s)) => s.min_opt().filter(|min| Some(*min) == s.max_opt()),
                _ => None,
            };
            let source = if let Some(value) = constant {
                Source::Constant(*value, Vec::new())
            } else {
                match parquet_file::column(&path, footer, hashes, group, i)? {
                    ColumnReader::Int32ColumnReader(reader) if *field == Fields::TIME => {
                        Source::Seconds(Box::new(reader), Vec::new(), Vec::new())
                    }
                    ColumnReader::Int32ColumnReader(reader) => Source::I32(Box::new(reader), Vec::new()),
                    ColumnReader::Int64ColumnReader(reader) => Source::I64(Box::new(reader), Vec::new()),
                    _ => return Err(corrupt(&path, format!("column {i} is neither int32 nor int64"))),
                }
            };
            sources.push((*field, source));
        }
        Ok(Self { path, sources, left: row_group.num_rows().max(0) as usize, batch })
    }

    /// The next rows; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Batch<'_>>> {
        let len = self.left.min(self.batch);
        if len == 0 {
            return Ok(None);
        }
        for (_, source) in &mut self.sources {
            match source {
                Source::I32(reader, values) => fill(&self.path, reader, values, len)?,
                Source::I64(reader, values) => fill(&self.path, reader, values, len)?,
                Source::Seconds(reader, seconds, values) => {
                    fill(&self.path, reader, seconds, len)?;
                    values.clear();
                    values.extend(seconds.iter().map(|s| i64::from(*s as u32) * i64::from(COARSE_MS)));
                }
                Source::Constant(value, values) => values.resize(len, *value),
            }
        }
        self.left -= len;
        let mut batch = Batch { len, ..Batch::default() };
        for (field, source) in &self.sources {
            match (source, *field) {
                (Source::I64(_, values) | Source::Seconds(_, _, values), _) => batch.time_ms = values,
                (Source::I32(_, values) | Source::Constant(_, values), field) => match field {
                    Fields::RESOURCE => batch.resource = values,
                    Fields::STACK => batch.stack = values,
                    Fields::THREAD => batch.thread = values,
                    Fields::TID => batch.tid = values,
                    Fields::PID => batch.pid = values,
                    Fields::SAMPLES => batch.samples = values,
                    _ => batch.complete = values,
                },
            }
        }
        Ok(Some(batch))
    }
}

/// Decodes exactly `len` values.
fn fill<T: DataType>(
    path: &std::path::Path,
    reader: &mut ColumnReaderImpl<T>,
    values: &mut Vec<T::T>,
    len: usize,
) -> Result<()> {
    values.clear();
    parquet_file::read_exactly(path, reader, values, len)
}

/// The rows of one block in sort order.
#[derive(Debug)]
pub(crate) struct RowStream<'a> {
    segment: &'a Segment,
    groups: std::ops::Range<usize>,
    scan: Option<GroupScan>,
    rows: Columns,
    at: usize,
}

impl<'a> RowStream<'a> {
    /// All rows of the given row groups.
    pub(crate) fn new(segment: &'a Segment, groups: std::ops::Range<usize>) -> Self {
        Self { segment, groups, scan: None, rows: Columns::default(), at: 0 }
    }

    /// The next row; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row>> {
        while self.at == self.rows.len() {
            if !self.refill()? {
                return Ok(None);
            }
        }
        self.at += 1;
        Ok(Some(self.rows.row(self.at - 1)))
    }

    fn refill(&mut self) -> Result<bool> {
        loop {
            if self.scan.is_none() {
                let Some(group) = self.groups.next() else { return Ok(false) };
                let all = Fields::of(Part::Events).iter().fold(Fields::default(), |all, f| all.with(*f));
                self.scan = Some(GroupScan::with_batch(self.segment, Part::Events, group, all, MERGE_BATCH)?);
            }
            let Some(scan) = &mut self.scan else { return Ok(false) };
            if let Some(batch) = scan.next()? {
                self.rows.clear();
                self.rows.resource.extend_from_slice(batch.resource);
                self.rows.stack.extend_from_slice(batch.stack);
                self.rows.thread.extend_from_slice(batch.thread);
                self.rows.tid.extend_from_slice(batch.tid);
                self.rows.time_ms.extend_from_slice(batch.time_ms);
                self.rows.pid.extend_from_slice(batch.pid);
                self.at = 0;
                return Ok(true);
            }
            self.scan = None;
        }
    }
}
