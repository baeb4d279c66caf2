//! Which files and row groups a question reads, and how they are read: in parallel, each batch weighted once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::core::Snapshot;
use super::super::head::Columns;
use super::super::layout::Part;
use super::super::segment::{Batch, Fields, GroupScan, MINUTE_MS, Segment};
use super::filter::RowFilter;
use crate::model::TimeRange;
use crate::store::Result;

/// Rows for which one more thread is worth its start.
const ROWS_PER_THREAD: usize = 500_000;

/// Half-open range of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// First millisecond inside.
    pub(super) from: i64,
    /// First millisecond behind.
    pub(super) to: i64,
}

impl Window {
    /// The stored times inside a range: times are rounded down to milliseconds, and so compared.
    pub(super) fn of(range: TimeRange) -> Self {
        let ms = |nanos: u64| nanos.div_ceil(1_000_000).min(i64::MAX as u64) as i64;
        Self { from: ms(range.from.0), to: ms(range.to.0) }
    }

    fn is_empty(self) -> bool {
        self.from >= self.to
    }

    fn covers(self, (min, max): (i64, i64)) -> bool {
        self.from <= min && max < self.to
    }

    fn meets(self, (min, max): (i64, i64)) -> bool {
        !self.is_empty() && min < self.to && self.from <= max
    }

    /// The whole minutes inside, and what is left at both ends.
    fn minutes(self) -> (Self, [Self; 2]) {
        let from = self.from.div_euclid(MINUTE_MS).saturating_add(i64::from(self.from % MINUTE_MS != 0));
        let from = from.saturating_mul(MINUTE_MS).min(self.to);
        let to = (self.to.div_euclid(MINUTE_MS) * MINUTE_MS).max(from);
        (Self { from, to }, [Self { from: self.from, to: from }, Self { from: to, to: self.to }])
    }
}

/// Where rows come from.
#[derive(Clone, Debug)]
enum Source {
    Head(Arc<Columns>),
    Group { segment: Arc<Segment>, part: Part, group: usize },
}

/// Rows that are read by one thread.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    source: Source,
    rows: usize,
    /// Only rows in one of these count; none = all rows count.
    windows: Vec<Window>,
}

/// What a question needs to know of each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Columns beside those of the filter.
    pub(super) fields: Fields,
    /// Columns that are needed from events only.
    pub(super) event_fields: Fields,
}

/// Chooses what to read.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    units: Vec<Unit>,
    window: Window,
    filter: &'a RowFilter,
    fields: Fields,
}

impl<'a> Plan<'a> {
    /// Plans to count samples per stack: sums of whole segments where they can answer, else events.
    pub(super) fn stacks(
        snapshot: &Snapshot,
        window: Window,
        filter: &'a RowFilter,
        fields: Fields,
    ) -> Result<Self> {
        let mut plan = Self::start(snapshot, window, filter, fields);
        for segment in &snapshot.segments {
            if !window.meets(segment.meta.extent()) {
                continue;
            }
            let sums = segment.meta.file(Part::Totals).is_some() && plan.sums_can_answer();
            if sums && window.covers(segment.meta.extent()) {
                plan.groups(segment, Part::Totals, None, &[])?;
            } else {
                plan.events(segment, &[window])?;
            }
        }
        Ok(plan)
    }

    /// Plans to count samples over time or per group: whole minutes from sums where they can answer.
    pub(super) fn times(
        snapshot: &Snapshot,
        window: Window,
        filter: &'a RowFilter,
        fields: Fields,
        grid_in_minutes: bool,
    ) -> Result<Self> {
        let mut plan = Self::start(snapshot, window, filter, fields);
        let (inner, ends) = window.minutes();
        for segment in &snapshot.segments {
            let extent = segment.meta.extent();
            if !window.meets(extent) {
                continue;
            }
            let sums = segment.meta.file(Part::Minutes).is_some() && plan.sums_can_answer();
            if sums && grid_in_minutes && inner.meets(extent) {
                let windows = if inner.covers(extent) { vec![] } else { vec![inner] };
                plan.groups(segment, Part::Minutes, None, &windows)?;
                plan.events(segment, &ends)?;
            } else {
                plan.events(segment, &[window])?;
            }
        }
        Ok(plan)
    }

    fn start(snapshot: &Snapshot, window: Window, filter: &'a RowFilter, fields: Fields) -> Self {
        let mut units = Vec::new();
        for columns in &snapshot.head {
            let Some(extent) = columns.extent() else { continue };
            if window.meets(extent) {
                let windows = if window.covers(extent) { vec![] } else { vec![window] };
                units.push(Unit { source: Source::Head(Arc::clone(columns)), rows: columns.len(), windows });
            }
        }
        Self { units, window, filter, fields: fields.with(filter.fields()).with(Fields::RESOURCE) }
    }

    /// Sums know resources and thread names, but no single threads and processes.
    fn sums_can_answer(&self) -> bool {
        !self.fields.has(Fields::TID) && !self.fields.has(Fields::PID)
    }

    /// Events of those blocks that meet one of the windows.
    fn events(&mut self, segment: &Arc<Segment>, windows: &[Window]) -> Result<()> {
        for block in &segment.meta.blocks {
            let extent = (block.min_ms, block.max_ms);
            let mine: Vec<_> = windows.iter().copied().filter(|w| w.meets(extent)).collect();
            if mine.is_empty() {
                continue;
            }
            let whole = mine.iter().any(|w| w.covers(extent));
            let groups = block.first_group..block.first_group + block.groups;
            self.groups(segment, Part::Events, Some(groups), if whole { &[] } else { &mine })?;
        }
        Ok(())
    }

    fn groups(
        &mut self,
        segment: &Arc<Segment>,
        part: Part,
        groups: Option<std::ops::Range<usize>>,
        windows: &[Window],
    ) -> Result<()> {
        let rows = segment.groups(part)?;
        let prune = !self.filter.accepts_all();
        for group in groups.unwrap_or(0..rows.len()) {
            let hopeless = prune
                && segment
                    .resources(part, group)?
                    .is_some_and(|(first, last)| !self.filter.may_accept(first, last));
            if !hopeless {
                self.units.push(Unit {
                    source: Source::Group { segment: Arc::clone(segment), part, group },
                    rows: rows.get(group).copied().unwrap_or(0),
                    windows: windows.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Reads everything on at most `threads` threads. `needs` adds columns that only events have to deliver.
    pub(super) fn run<S: Sink>(
        mut self,
        threads: usize,
        event_fields: Fields,
        new: impl Fn() -> S + Sync,
    ) -> Result<S> {
        debug_assert!(!self.window.is_empty() || self.units.is_empty());
        let rows: usize = self.units.iter().map(|u| u.rows).sum();
        let threads = threads.min(rows / ROWS_PER_THREAD + 1).min(self.units.len()).max(1);
        // Large pieces first, so that the threads end together.
        self.units.sort_by_key(|u| std::cmp::Reverse(u.rows));
        let needs = Needs { fields: self.fields, event_fields };
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || -> Result<S> {
            let mut sink = new();
            let mut worker = Worker { filter: self.filter.clone(), weights: Vec::new() };
            while !stop.load(Ordering::Relaxed) {
                let Some(unit) = self.units.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                if let Err(error) = worker.read(unit, needs, &mut sink) {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(sink)
        };
        if threads == 1 {
            return work();
        }
        let outcome = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| join(&outcome, work()));
            }
            join(&outcome, work());
        });
        outcome.into_inner().unwrap_or_else(|| Ok(new()))
    }
}

/// Merges the outcome of one thread; the first error wins.
fn join<S: Sink>(all: &Mutex<Option<Result<S>>>, mine: Result<S>) {
    let mut all = all.lock();
    *all = Some(match (all.take(), mine) {
        (None, mine) => mine,
        (Some(Ok(mut sum)), Ok(mine)) => {
            sum.merge(mine);
            Ok(sum)
        }
        (Some(Err(error)), _) | (_, Err(error)) => Err(error),
    });
}

/// Counts rows.
pub(super) trait Sink: Send {
    /// Takes rows with their weights; no weights = every row is one sample.
    fn add(&mut self, batch: &Batch<'_>, weights: Option<&[i32]>);

    /// Takes what another thread has counted.
    fn merge(&mut self, other: Self);
}

/// State of one reading thread.
struct Worker {
    filter: RowFilter,
    weights: Vec<i32>,
}

impl Worker {
    fn read<S: Sink>(&mut self, unit: &Unit, needs: Needs, sink: &mut S) -> Result<()> {
        match &unit.source {
            Source::Head(columns) => self.count(&Batch::of(columns), &unit.windows, sink),
            Source::Group { segment, part, group } => {
                let mut fields = needs.fields;
                match part {
                    Part::Events => fields = fields.with(needs.event_fields),
                    Part::Totals => fields = fields.with(Fields::SAMPLES),
                    Part::Minutes => {
                        fields = fields.with(Fields::SAMPLES).with(Fields::COMPLETE).with(Fields::TIME);
                    }
                }
                if !unit.windows.is_empty() {
                    fields = fields.with(Fields::TIME);
                }
                let mut scan = GroupScan::open(segment, *part, *group, fields)?;
                while let Some(batch) = scan.next()? {
                    self.count(&batch, &unit.windows, sink);
                }
            }
        }
        Ok(())
    }

    fn count<S: Sink>(&mut self, batch: &Batch<'_>, windows: &[Window], sink: &mut S) {
        let filtered = !self.filter.accepts_all();
        if windows.is_empty() && !filtered {
            sink.add(batch, (!batch.samples.is_empty()).then_some(batch.samples));
            return;
        }
        self.weights.clear();
        if batch.samples.is_empty() {
            self.weights.resize(batch.len, 1);
        } else {
            self.weights.extend_from_slice(batch.samples);
        }
        if !windows.is_empty() {
            for (weight, time) in self.weights.iter_mut().zip(batch.time_ms) {
                let inside = windows.iter().any(|w| w.from <= *time && *time < w.to);
                *weight *= i32::from(inside);
            }
        }
        if filtered {
            self.filter.apply(batch, &mut self.weights);
        }
        sink.add(batch, Some(&self.weights));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;

    #[test]
    fn minutes_and_ends_cover_a_window_once() {
        for (from, to) in [(0, 60_000), (1, 60_000), (1, 59_999), (59_999, 180_001), (60_000, 60_000), (5, 3)]
        {
            let window = Window { from, to };
            let (inner, ends) = window.minutes();
            assert!(inner.from % MINUTE_MS == 0 || inner.is_empty(), "{inner:?}");
            let length = |w: &Window| (w.to - w.from).max(0);
            let sum: i64 = [inner, ends[0], ends[1]].iter().map(length).sum();
            assert_eq!(sum, length(&window), "{window:?} → {inner:?} {ends:?}");
        }
    }

    #[test]
    fn window_ends_round_up_to_stored_times() {
        let range = TimeRange { from: UnixNanos(1_000_001), to: UnixNanos(3_000_000) };
        assert_eq!(Window::of(range), Window { from: 2, to: 3 });
    }
}
