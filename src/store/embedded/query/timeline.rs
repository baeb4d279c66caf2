//! Samples over time and per group.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::core::Core;
use super::super::dictionary::CompleteStacks;
use super::super::segment::{Batch, Fields, MINUTE_MS};
use super::filter::RowFilter;
use super::group::{Grouping, Groups};
use super::plan::{Plan, Sink, Window};
use super::{PerResource, damaged};
use crate::model::{Dimension, Filter, Selection, TimeRange};
use crate::store::{Error, GroupCount, Precision, Result, Series, TimeGrid, Timeline};

/// Buckets of one question at most.
const MAX_BUCKETS: u32 = 100_000;
/// Buckets of all groups that are held in arrays; groups beyond share a map.
const MAX_CELLS: usize = 8 << 20;

/// Answers [`crate::store::Reader::timeline`].
pub(in super::super) fn timeline(
    core: &Core,
    selection: &Selection,
    grid: TimeGrid,
    group_by: Option<Dimension>,
    top: usize,
) -> Result<Timeline> {
    if grid.buckets > MAX_BUCKETS {
        let what = format!("{} buckets", grid.buckets);
        return Err(Error::TooMuch { what, limit: u64::from(MAX_BUCKETS) });
    }
    if grid.width_ns == 0 {
        return Err(Error::Engine("timeline: expected a bucket width above 0".into()));
    }
    let counter = count(core, selection, Some(grid), group_by)?;
    let Counted { groups, counter } = counter;
    let d = core.dictionaries.read();
    let mut totals: Vec<_> = counter.totals().collect();
    totals.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| groups.name(a.0).cmp(&groups.name(b.0))));
    let mut timeline = Timeline {
        groups: totals.len() as u64,
        cpu_ns: counter.per_resource.cpu_ns(d.resources.values()),
        complete: counter.complete,
        hosts: counter.per_resource.hosts(d.resources.values()),
        precision: Precision::Exact,
        other: Series { samples: vec![0; grid.buckets as usize], ..Series::default() },
        series: Vec::new(),
    };
    let mut place = HashMap::new();
    for (rank, (group, total)) in totals.into_iter().enumerate() {
        let index = if group_by.is_none() || rank < top { rank } else { usize::MAX };
        if index == usize::MAX {
            timeline.other.total += total;
        } else {
            let samples = vec![0; grid.buckets as usize];
            timeline.series.push(Series { group: groups.name(group), total, samples });
        }
        place.insert(group, index);
    }
    let Timeline { series, other, .. } = &mut timeline;
    counter.cells(|group, bucket, samples| {
        let index = place.get(&group).copied().unwrap_or(usize::MAX);
        let target = series.get_mut(index).map_or(&mut other.samples, |s| &mut s.samples);
        target[bucket] += samples;
    });
    if group_by.is_none() && timeline.series.is_empty() {
        let samples = vec![0; grid.buckets as usize];
        timeline.series.push(Series { samples, ..Series::default() });
    }
    Ok(timeline)
}

/// Answers [`crate::store::Reader::values`].
pub(in super::super) fn values(
    core: &Core,
    dimension: Dimension,
    prefix: &str,
    range: TimeRange,
    limit: usize,
) -> Result<Vec<GroupCount>> {
    let selection = Selection { range, filter: Filter::All };
    let Counted { groups, counter } = count(core, &selection, None, Some(dimension))?;
    let mut values: Vec<_> = counter
        .totals()
        .map(|(group, samples)| GroupCount { value: groups.name(group), samples })
        .filter(|count| count.value.starts_with(prefix))
        .collect();
    values.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.value.cmp(&b.value)));
    values.truncate(limit);
    Ok(values)
}

struct Counted {
    groups: Groups,
    counter: Counter,
}

fn count(
    core: &Core,
    selection: &Selection,
    grid: Option<TimeGrid>,
    group_by: Option<Dimension>,
) -> Result<Counted> {
    let snapshot = core.snapshot();
    let (filter, groups, complete, resources) = {
        let d = core.dictionaries.read();
        let complete = Arc::new(d.complete());
        (RowFilter::new(&selection.filter, &d), Groups::new(group_by, &d), complete, d.resources.len())
    };
    let (fields, event_fields) = match grid {
        Some(_) => (groups.fields().with(Fields::TIME), Fields::STACK),
        None => (groups.fields(), Fields::default()),
    };
    let minute_ns = MINUTE_MS as u64 * 1_000_000;
    let in_minutes =
        grid.is_none_or(|g| g.start.0.is_multiple_of(minute_ns) && g.width_ns.is_multiple_of(minute_ns));
    let plan = Plan::times(&snapshot, Window::of(selection.range), &filter, fields, in_minutes)?;
    let new = || Counter {
        grouping: groups.grouping.clone(),
        grid: grid.map(Grid::new),
        all_complete: Arc::clone(&complete),
        complete: 0,
        rows: HashMap::new(),
        counts: Vec::new(),
        cells: 0,
        more: HashMap::new(),
        per_resource: PerResource::new(resources),
        damaged: false,
    };
    let counter = plan.run(core.settings.threads, event_fields, new)?;
    if counter.damaged {
        return Err(damaged(core));
    }
    Ok(Counted { groups, counter })
}

/// Buckets in the units of stored times.
#[derive(Clone, Copy, Debug)]
struct Grid {
    start_ns: i128,
    width_ns: i128,
    /// Start and width where both are whole milliseconds, which they nearly always are.
    millis: Option<(i64, i64)>,
    buckets: usize,
}

impl Grid {
    fn new(grid: TimeGrid) -> Self {
        let whole = grid.start.0.is_multiple_of(1_000_000) && grid.width_ns.is_multiple_of(1_000_000);
        Self {
            start_ns: i128::from(grid.start.0),
            width_ns: i128::from(grid.width_ns),
            millis: whole.then_some(((grid.start.0 / 1_000_000) as i64, (grid.width_ns / 1_000_000) as i64)),
            buckets: grid.buckets as usize,
        }
    }

    /// Bucket of a time, `None` outside.
    #[inline]
    fn bucket(&self, time_ms: i64) -> Option<usize> {
        let bucket = if let Some((start, width)) = self.millis {
            let since = time_ms.checked_sub(start).filter(|s| *s >= 0)?;
            (since as u64 / width as u64) as usize
        } else {
            let since = i128::from(time_ms) * 1_000_000 - self.start_ns;
            if since < 0 {
                return None;
            }
            usize::try_from(since / self.width_ns).ok()?
        };
        (bucket < self.buckets).then_some(bucket)
    }
}

/// Samples of one group.
#[derive(Debug)]
struct Counts {
    group: u32,
    total: u64,
    /// Empty when the arrays are used up.
    buckets: Vec<u64>,
}

struct Counter {
    grouping: Grouping,
    grid: Option<Grid>,
    all_complete: Arc<CompleteStacks>,
    complete: u64,
    /// Place of each group in `counts`.
    rows: HashMap<u32, usize>,
    counts: Vec<Counts>,
    cells: usize,
    more: HashMap<(u32, u32), u64>,
    per_resource: PerResource,
    damaged: bool,
}

impl Counter {
    fn totals(&self) -> impl Iterator<Item = (u32, u64)> {
        self.counts.iter().filter(|c| c.total > 0).map(|c| (c.group, c.total))
    }

    fn cells(&self, mut each: impl FnMut(u32, usize, u64)) {
        for counts in &self.counts {
            for (bucket, samples) in counts.buckets.iter().enumerate().filter(|(_, s)| **s > 0) {
                each(counts.group, bucket, *samples);
            }
        }
        for ((group, bucket), samples) in &self.more {
            each(*group, *bucket as usize, *samples);
        }
    }

    /// Place of a group, made on first use.
    fn place(&mut self, group: u32) -> usize {
        let (counts, cells) = (&mut self.counts, &mut self.cells);
        let buckets = self.grid.map_or(0, |g| g.buckets);
        *self.rows.entry(group).or_insert_with(|| {
            let fits = *cells + buckets <= MAX_CELLS;
            *cells += if fits { buckets } else { 0 };
            counts.push(Counts { group, total: 0, buckets: vec![0; if fits { buckets } else { 0 }] });
            counts.len() - 1
        })
    }

    fn put(&mut self, place: usize, bucket: usize, samples: u64) {
        let counts = &mut self.counts[place];
        if let Some(cell) = counts.buckets.get_mut(bucket) {
            *cell += samples;
        } else {
            *self.more.entry((counts.group, bucket as u32)).or_insert(0) += samples;
        }
    }

    /// Counts the rows `from..to`, which share resource and group.
    fn add_run(
        &mut self,
        batch: &Batch<'_>,
        weights: Option<&[i32]>,
        run: std::ops::Range<usize>,
        place: usize,
    ) -> u64 {
        let weight = |i: usize| weights.map_or(1, |w| w[i] as u64);
        let Some(grid) = self.grid else {
            return run.map(weight).sum();
        };
        let mut total = 0;
        let mut stack = (u32::MAX, false);
        for i in run {
            let samples = weight(i);
            if samples == 0 {
                continue;
            }
            total += samples;
            if batch.complete.is_empty() {
                let number = batch.stack[i] as u32;
                if stack.0 != number {
                    stack = (number, self.all_complete.contains(number));
                }
                self.complete += u64::from(stack.1) * samples;
            } else {
                self.complete += batch.complete[i] as u64;
            }
            if let Some(bucket) = grid.bucket(batch.time_ms[i]) {
                self.put(place, bucket, samples);
            }
        }
        total
    }
}

impl Sink for Counter {
    fn add(&mut self, batch: &Batch<'_>, weights: Option<&[i32]>) {
        let column = self.grouping.column(batch);
        let value = |i: usize| column.get(i).copied().unwrap_or(0);
        let resource = &batch.resource[..batch.len];
        let mut i = 0;
        while i < batch.len {
            let (r, v) = (resource[i], value(i));
            let mut end = i + 1;
            while end < batch.len && resource[end] == r && value(end) == v {
                end += 1;
            }
            let group = self.grouping.group(r, v);
            let place = self.place(group);
            let samples = self.add_run(batch, weights, i..end, place);
            self.counts[place].total += samples;
            self.damaged |= samples > 0 && !self.per_resource.add(r, samples);
            i = end;
        }
    }

    fn merge(&mut self, other: Self) {
        for (group, total) in other.totals() {
            let place = self.place(group);
            self.counts[place].total += total;
        }
        other.cells(|group, bucket, samples| {
            let place = self.place(group);
            self.put(place, bucket, samples);
        });
        self.complete += other.complete;
        self.per_resource.merge(&other.per_resource);
        self.damaged |= other.damaged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;

    #[test]
    fn buckets_are_half_open_and_bounded() {
        let grid =
            Grid::new(TimeGrid { start: UnixNanos::from_millis(1000), width_ns: 500_000_000, buckets: 2 });
        assert_eq!(
            [999, 1000, 1499, 1500, 1999, 2000].map(|t| grid.bucket(t)),
            [None, Some(0), Some(0), Some(1), Some(1), None]
        );
        let odd = Grid::new(TimeGrid { start: UnixNanos(999_999_999), width_ns: 1_500_001, buckets: 1000 });
        assert_eq!(odd.bucket(999), None);
        assert_eq!(odd.bucket(1001), Some(0));
        assert_eq!(odd.bucket(1002), Some(1));
    }
}
