//! Young segments → hours → days, and days whose times have become coarse.
//!
//! Inputs are sorted, so a merge streams: memory is a few thousand rows per input plus one row group and the sums.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::super::core::Core;
use super::super::head::Row;
use super::super::segment::{COARSE_MS, Level, Origin, RowStream, Segment, SegmentWriter};
use super::{DAY_MS, HOUR_MS, Publish, UpkeepState, export, publish};
use crate::store::Result;

/// Inputs of one merge at most: each holds a decoder per column.
const MAX_INPUTS: usize = 64;
/// Samples of one segment at most, unless a single input is larger.
const MAX_ROWS: u64 = 64_000_000;
/// Samples of one block at which it is made shorter: what a cut range has to read twice.
const BLOCK_ROWS: u64 = 4_000_000;
/// Time after the end of an hour in which late samples are expected.
const GRACE_MS: i64 = 10 * 60_000;
/// Late pieces of a day that already is one file wait this long for one another.
const LATE_MS: i64 = HOUR_MS;

/// One merge to do.
#[derive(Debug)]
struct Job {
    inputs: Vec<Arc<Segment>>,
    level: Level,
    unit_ms: u32,
}

/// Does the next merge that is due. `false` when there is none.
pub(super) fn merge_one(core: &Core, upkeep: &mut UpkeepState, now_ms: i64) -> Result<bool> {
    let segments = core.state.read().segments.clone();
    let Some(job) = next_job(core, &segments, now_ms) else { return Ok(false) };
    let block_hours = match job.level {
        Level::Day => day_block_hours(&job.inputs),
        _ => 1,
    };
    let rows = job.inputs.iter().map(|s| s.meta.rows).sum();
    let complete = core.dictionaries.read().complete();
    let mut writer = SegmentWriter::create(&core.layout, upkeep.file(), rows, job.unit_ms, &complete)?;
    for blocks in by_time(&job.inputs, block_hours) {
        merge_block(&blocks, job.unit_ms, &mut writer)?;
        writer.end_block()?;
    }
    let replaces: Vec<u64> = job.inputs.iter().map(|s| s.meta.id).collect();
    let meta = writer.finish(&Origin {
        level: job.level,
        block_hours,
        published_ms: now_ms,
        replaces: &replaces,
    })?;
    tracing::debug!(
        inputs = job.inputs.len(),
        rows,
        bytes = meta.bytes(),
        level = ?job.level,
        "merged segments"
    );
    let mut exports = export::plan_logs(core, upkeep)?;
    export::plan_names(core, upkeep, &mut exports)?;
    let step = Publish { add: vec![meta], remove: replaces, head_upto: None, exports };
    publish(core, upkeep, step)?;
    Ok(true)
}

/// UTC hour or day that a segment lies in, `None` when it spans more.
fn period(segment: &Segment, length_ms: i64) -> Option<i64> {
    let (min, max) = segment.meta.extent();
    (min.div_euclid(length_ms) == max.div_euclid(length_ms)).then(|| min.div_euclid(length_ms))
}

fn next_job(core: &Core, segments: &[Arc<Segment>], now_ms: i64) -> Option<Job> {
    let due = |period: i64, length_ms: i64, after_ms: i64| (period + 1) * length_ms + after_ms <= now_ms;
    let day_after_ms = core.settings.day_after.as_millis() as i64;

    let mut days: BTreeMap<i64, Vec<Arc<Segment>>> = BTreeMap::new();
    for segment in segments {
        if let Some(day) = period(segment, DAY_MS).filter(|day| due(*day, DAY_MS, day_after_ms)) {
            days.entry(day).or_default().push(Arc::clone(segment));
        }
    }
    for inputs in days.values() {
        let late = inputs.iter().any(|s| s.meta.level == Level::Day);
        let newest_ms = inputs.iter().map(|s| s.meta.published_ms).max().unwrap_or(0);
        if inputs.iter().all(|s| s.meta.level == Level::Day) || late && newest_ms + LATE_MS > now_ms {
            continue;
        }
        if let Some(inputs) = affordable(inputs) {
            let unit_ms = inputs.iter().map(|s| s.meta.unit_ms).max().unwrap_or(1);
            return Some(Job { inputs, level: Level::Day, unit_ms });
        }
    }
    let mut hours: BTreeMap<i64, Vec<Arc<Segment>>> = BTreeMap::new();
    for segment in segments.iter().filter(|s| s.meta.level == Level::Young) {
        if let Some(hour) = period(segment, HOUR_MS).filter(|hour| due(*hour, HOUR_MS, GRACE_MS)) {
            hours.entry(hour).or_default().push(Arc::clone(segment));
        }
    }
    for inputs in hours.values() {
        if let Some(inputs) = affordable(inputs) {
            return Some(Job { inputs, level: Level::Hour, unit_ms: 1 });
        }
    }
    let coarse_ms = core.settings.coarse_after?.as_millis() as i64;
    segments
        .iter()
        .find(|s| {
            s.meta.level == Level::Day
                && s.meta.unit_ms < COARSE_MS
                && fits_seconds(s)
                && s.meta.extent().1.saturating_add(coarse_ms) <= now_ms
        })
        .map(|s| Job { inputs: vec![Arc::clone(s)], level: Level::Day, unit_ms: COARSE_MS })
}

/// Whether all times can be told in seconds of 32 bits, which end in 2106.
fn fits_seconds(segment: &Segment) -> bool {
    let (min, max) = segment.meta.extent();
    let fits = |ms: i64| u32::try_from(ms.div_euclid(i64::from(COARSE_MS))).is_ok();
    fits(min) && fits(max)
}

/// As many inputs as one merge may take, smallest first; `None` when nothing would be gained.
fn affordable(inputs: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
    let mut sorted = inputs.to_vec();
    sorted.sort_by_key(|s| (s.meta.rows, s.meta.id));
    let mut rows = 0;
    let taken: Vec<_> = sorted
        .into_iter()
        .take(MAX_INPUTS)
        .take_while(|s| {
            rows += s.meta.rows;
            rows <= MAX_ROWS
        })
        .collect();
    let lone_day = taken.len() == 1 && taken[0].meta.level == Level::Day;
    // A single hour or young segment is worth a merge too: it gets its level and its blocks, once.
    (!taken.is_empty() && !lone_day).then_some(taken)
}

/// Six hours, or less when that is too many samples, but never less than a block of an input.
fn day_block_hours(inputs: &[Arc<Segment>]) -> u32 {
    let rows: u64 = inputs.iter().map(|s| s.meta.rows).sum();
    let least = inputs.iter().map(|s| s.meta.block_hours).max().unwrap_or(1);
    [6, 3, 2, 1].into_iter().find(|h| rows * u64::from(*h) / 24 <= BLOCK_ROWS).unwrap_or(1).max(least)
}

/// Row groups of the inputs by output block.
fn by_time(inputs: &[Arc<Segment>], block_hours: u32) -> Vec<Vec<(&Segment, std::ops::Range<usize>)>> {
    let length_ms = i64::from(block_hours) * HOUR_MS;
    let mut blocks: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for segment in inputs {
        for block in &segment.meta.blocks {
            blocks
                .entry(block.min_ms.div_euclid(length_ms))
                .or_default()
                .push((&**segment, block.first_group..block.first_group + block.groups));
        }
    }
    blocks.into_values().collect()
}

fn merge_block(
    inputs: &[(&Segment, std::ops::Range<usize>)],
    unit_ms: u32,
    writer: &mut SegmentWriter<'_>,
) -> Result<()> {
    let unit_ms = i64::from(unit_ms.max(1));
    let coarse = |row: Row| Row { time_ms: row.time_ms.div_euclid(unit_ms) * unit_ms, ..row };
    let mut streams: Vec<_> =
        inputs.iter().map(|(segment, groups)| RowStream::new(segment, groups.clone())).collect();
    let mut heap = BinaryHeap::with_capacity(streams.len());
    for (i, stream) in streams.iter_mut().enumerate() {
        heap.extend(stream.next()?.map(|row| Reverse((coarse(row), i))));
    }
    while let Some(mut smallest) = heap.peek_mut() {
        let Reverse((row, i)) = *smallest;
        writer.push(row)?;
        match streams[i].next()? {
            Some(next) => *smallest = Reverse((coarse(next), i)),
            None => drop(std::collections::binary_heap::PeekMut::pop(smallest)),
        }
    }
    Ok(())
}
