//! Writes a segment from rows in sort order, and sums them up on the way.

use std::cmp::Ordering;

use hashbrown::HashMap;

use super::super::dictionary::CompleteStacks;
use super::super::head::{Columns, Row};
use super::super::layout::{Layout, Part};
use super::super::parquet_file::{FileMeta, FileWriter, Values};
use super::meta::{Notes, Origin};
use super::{Block, COARSE_EVENTS, COARSE_MS, EVENTS, MINUTE_MS, MINUTES, Meta, TOTALS};
use crate::store::Result;

/// Rows of a row group at most.
const GROUP_ROWS: usize = 1_000_000;

/// A sums file is kept when it has at most one row for this many events: a row of sums costs three times an event.
const ROWS_PER_SUM: u64 = 3;

/// Segments with fewer events than this are read faster than a second file is opened.
const SUMS_FROM_ROWS: u64 = 4096;

/// A segment under construction. Blocks come in order of time, rows in sort order within a block.
#[derive(Debug)]
pub(crate) struct SegmentWriter<'a> {
    layout: &'a Layout,
    id: u64,
    unit_ms: u32,
    complete: &'a CompleteStacks,
    events: FileWriter,
    buffer: Columns,
    blocks: Vec<Block>,
    block: Option<Block>,
    rows: u64,
    totals: Totals,
    minutes: Minutes,
}

impl<'a> SegmentWriter<'a> {
    /// Starts a segment of about `rows` events, whose times are multiples of `unit_ms` milliseconds (1 or
    /// [`COARSE_MS`]).
    pub(crate) fn create(
        layout: &'a Layout,
        id: u64,
        rows: u64,
        unit_ms: u32,
        complete: &'a CompleteStacks,
    ) -> Result<Self> {
        let limit = if rows < SUMS_FROM_ROWS { 0 } else { (rows / ROWS_PER_SUM) as usize };
        let schema = if unit_ms == COARSE_MS { &COARSE_EVENTS } else { &EVENTS };
        Ok(Self {
            layout,
            id,
            unit_ms,
            complete,
            events: FileWriter::create(layout.segment(id, Part::Events), schema)?,
            buffer: Columns::default(),
            blocks: Vec::new(),
            block: None,
            rows: 0,
            totals: Totals::new(limit),
            minutes: Minutes::new(limit),
        })
    }

    /// Appends a row that does not sort before the one before in the same block.
    pub(crate) fn push(&mut self, row: Row) -> Result<()> {
        let first_group = self.events.groups();
        let block = self.block.get_or_insert(Block {
            min_ms: row.time_ms,
            max_ms: row.time_ms,
            first_group,
            groups: 0,
        });
        block.min_ms = block.min_ms.min(row.time_ms);
        block.max_ms = block.max_ms.max(row.time_ms);
        self.totals.add(&row);
        self.minutes.add(&row, self.complete);
        self.buffer.push(row);
        self.rows += 1;
        if self.buffer.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<()> {
        if self.buffer.len() == 0 {
            return Ok(());
        }
        let c = &self.buffer;
        let seconds: Vec<i32>;
        let times = if self.unit_ms == COARSE_MS {
            seconds = c.time_ms.iter().map(|ms| whole_second(*ms)).collect();
            Values::I32(&seconds)
        } else {
            Values::I64(&c.time_ms)
        };
        self.events.group(&[
            Values::I32(&c.resource),
            Values::I32(&c.stack),
            Values::I32(&c.thread),
            Values::I32(&c.tid),
            times,
            Values::I32(&c.pid),
        ])?;
        self.buffer.clear();
        if let Some(block) = &mut self.block {
            block.groups += 1;
        }
        Ok(())
    }

    /// Ends a block: the next row may sort anywhere.
    pub(crate) fn end_block(&mut self) -> Result<()> {
        self.write_group()?;
        self.totals.end_block();
        self.blocks.extend(self.block.take());
        Ok(())
    }

    /// Completes and publishes the files. The manifest does not know them yet.
    pub(crate) fn finish(mut self, origin: &Origin<'_>) -> Result<Meta> {
        let Origin { level, block_hours, published_ms, replaces } = *origin;
        let unit_ms = self.unit_ms;
        self.end_block()?;
        let blocks: Vec<String> = self
            .blocks
            .iter()
            .map(|b| format!("{},{},{},{}", b.min_ms, b.max_ms, b.first_group, b.groups))
            .collect();
        let replaces: Vec<_> = replaces.iter().map(u64::to_string).collect();
        self.events.note(Notes::LEVEL, level.number().to_string());
        self.events.note(Notes::UNIT_MS, unit_ms.to_string());
        self.events.note(Notes::BLOCK_HOURS, block_hours.to_string());
        self.events.note(Notes::BLOCKS, blocks.join(";"));
        self.events.note(Notes::REPLACES, replaces.join(";"));
        let totals = self.totals.publish(self.layout, self.id)?;
        let minutes = self.minutes.publish(self.layout, self.id)?;
        let events = self.events.publish()?;
        Ok(Meta {
            id: self.id,
            level,
            unit_ms,
            block_hours,
            published_ms,
            rows: self.rows,
            blocks: self.blocks,
            files: [Some(events), totals, minutes],
        })
    }
}

/// The second that a time lies in. Segments with times that do not fit never become coarse.
fn whole_second(time_ms: i64) -> i32 {
    u32::try_from(time_ms.div_euclid(i64::from(COARSE_MS)).max(0)).unwrap_or(u32::MAX) as i32
}

/// Samples of one resource, stack and thread name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Total {
    key: (u32, u32, u32),
    samples: u32,
}

/// Sums over the whole segment, given up once they would not pay.
#[derive(Debug)]
struct Totals {
    limit: usize,
    done: Vec<Total>,
    block: Vec<Total>,
}

impl Totals {
    fn new(limit: usize) -> Self {
        Self { limit, done: Vec::new(), block: Vec::new() }
    }

    fn add(&mut self, row: &Row) {
        if self.limit == 0 {
            return;
        }
        let key = (row.resource, row.stack, row.thread);
        match self.block.last_mut() {
            Some(last) if last.key == key => last.samples += 1,
            _ => {
                self.block.push(Total { key, samples: 1 });
                if self.block.len() > self.limit {
                    self.give_up();
                }
            }
        }
    }

    fn give_up(&mut self) {
        *self = Self::new(0);
    }

    fn end_block(&mut self) {
        let (a, b) = (std::mem::take(&mut self.done), std::mem::take(&mut self.block));
        if a.is_empty() || b.is_empty() {
            self.done = if a.is_empty() { b } else { a };
            return;
        }
        let mut merged = Vec::with_capacity(a.len() + b.len());
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            match x.key.cmp(&y.key) {
                Ordering::Less => merged.extend(a.next()),
                Ordering::Greater => merged.extend(b.next()),
                Ordering::Equal => {
                    merged.push(Total { key: x.key, samples: x.samples + y.samples });
                    a.next();
                    b.next();
                }
            }
        }
        merged.extend(a);
        merged.extend(b);
        self.done = merged;
        if self.done.len() > self.limit {
            self.give_up();
        }
    }

    fn publish(self, layout: &Layout, id: u64) -> Result<Option<FileMeta>> {
        if self.limit == 0 {
            return Ok(None);
        }
        let mut file = FileWriter::create(layout.segment(id, Part::Totals), &TOTALS)?;
        for rows in self.done.chunks(GROUP_ROWS) {
            let column = |value: fn(&Total) -> u32| rows.iter().map(|t| value(t) as i32).collect::<Vec<_>>();
            file.group(&[
                Values::I32(&column(|t| t.key.0)),
                Values::I32(&column(|t| t.key.1)),
                Values::I32(&column(|t| t.key.2)),
                Values::I32(&column(|t| t.samples)),
            ])?;
        }
        file.publish().map(Some)
    }
}

/// Sums per minute, given up once they would not pay.
#[derive(Debug)]
struct Minutes {
    limit: usize,
    sums: HashMap<(u32, u32, i64), (u32, u32)>,
}

impl Minutes {
    fn new(limit: usize) -> Self {
        Self { limit, sums: HashMap::new() }
    }

    fn add(&mut self, row: &Row, complete: &CompleteStacks) {
        if self.limit == 0 {
            return;
        }
        let minute = row.time_ms.div_euclid(MINUTE_MS);
        let sum = self.sums.entry((row.resource, row.thread, minute)).or_default();
        sum.0 += 1;
        sum.1 += u32::from(complete.contains(row.stack));
        if self.sums.len() > self.limit {
            *self = Self::new(0);
        }
    }

    fn publish(self, layout: &Layout, id: u64) -> Result<Option<FileMeta>> {
        if self.limit == 0 {
            return Ok(None);
        }
        let mut sums: Vec<_> = self.sums.into_iter().collect();
        sums.sort_unstable();
        let mut file = FileWriter::create(layout.segment(id, Part::Minutes), &MINUTES)?;
        for rows in sums.chunks(GROUP_ROWS) {
            let resource: Vec<i32> = rows.iter().map(|(k, _)| k.0 as i32).collect();
            let thread: Vec<i32> = rows.iter().map(|(k, _)| k.1 as i32).collect();
            let minute: Vec<i64> = rows.iter().map(|(k, _)| k.2 * MINUTE_MS).collect();
            let samples: Vec<i32> = rows.iter().map(|(_, s)| s.0 as i32).collect();
            let complete: Vec<i32> = rows.iter().map(|(_, s)| s.1 as i32).collect();
            file.group(&[
                Values::I32(&resource),
                Values::I32(&thread),
                Values::I64(&minute),
                Values::I32(&samples),
                Values::I32(&complete),
            ])?;
        }
        file.publish().map(Some)
    }
}
