//! Samples that are in no segment yet: columns in memory, one blob per commit in redb.
//!
//! Pure. `ingest` adds, `upkeep::flush` takes, `query` reads.

use super::codec::{Bytes, put_i64, put_u64};

/// One sample. The order of the fields is the sort order of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Row {
    /// Resource number.
    pub(super) resource: u32,
    /// Stack number.
    pub(super) stack: u32,
    /// Thread name number.
    pub(super) thread: u32,
    /// Thread, 0 when unknown.
    pub(super) tid: u32,
    /// Milliseconds since 1970.
    pub(super) time_ms: i64,
    /// Process, 0 when unknown.
    pub(super) pid: u32,
}

/// Samples by column. Numbers are held as the `i32` that Parquet knows; casting back gives the `u32`.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// Resource numbers.
    pub(super) resource: Vec<i32>,
    /// Stack numbers.
    pub(super) stack: Vec<i32>,
    /// Thread name numbers.
    pub(super) thread: Vec<i32>,
    /// Threads.
    pub(super) tid: Vec<i32>,
    /// Milliseconds since 1970.
    pub(super) time_ms: Vec<i64>,
    /// Processes.
    pub(super) pid: Vec<i32>,
}

impl Columns {
    /// Appends a sample.
    pub(super) fn push(&mut self, row: Row) {
        self.resource.push(row.resource as i32);
        self.stack.push(row.stack as i32);
        self.thread.push(row.thread as i32);
        self.tid.push(row.tid as i32);
        self.time_ms.push(row.time_ms);
        self.pid.push(row.pid as i32);
    }

    /// One sample.
    pub(super) fn row(&self, i: usize) -> Row {
        Row {
            resource: self.resource[i] as u32,
            stack: self.stack[i] as u32,
            thread: self.thread[i] as u32,
            tid: self.tid[i] as u32,
            time_ms: self.time_ms[i],
            pid: self.pid[i] as u32,
        }
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.time_ms.len()
    }

    /// Forgets all samples, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.resource.clear();
        self.stack.clear();
        self.thread.clear();
        self.tid.clear();
        self.time_ms.clear();
        self.pid.clear();
    }

    /// Appends samples that follow one another on one thread and stack.
    pub(super) fn push_times(&mut self, first: Row, times_ms: impl Iterator<Item = i64>) {
        for time_ms in times_ms {
            self.push(Row { time_ms, ..first });
        }
    }

    /// Earliest and latest time, `None` when empty.
    pub(super) fn extent(&self) -> Option<(i64, i64)> {
        Some((*self.time_ms.iter().min()?, *self.time_ms.iter().max()?))
    }
}

/// Encodes the samples from row `from` on, runs of equal stack and thread together.
pub(super) fn encode(columns: &Columns, from: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity((columns.len() - from) * 6);
    let mut i = from;
    let mut previous_ms = 0;
    while i < columns.len() {
        let row = columns.row(i);
        let mut end = i + 1;
        while end < columns.len() && (Row { time_ms: row.time_ms, ..columns.row(end) }) == row {
            end += 1;
        }
        for number in [row.resource, row.stack, row.thread, row.tid, row.pid, (end - i) as u32] {
            put_u64(&mut out, u64::from(number));
        }
        for time_ms in &columns.time_ms[i..end] {
            put_i64(&mut out, time_ms.wrapping_sub(previous_ms));
            previous_ms = *time_ms;
        }
        i = end;
    }
    out
}

/// Inverse of [`encode`]; `None` when malformed.
pub(super) fn decode(blob: &[u8], columns: &mut Columns) -> Option<()> {
    let mut bytes = Bytes(blob);
    let mut previous_ms = 0i64;
    while !bytes.is_empty() {
        let mut row = Row {
            resource: bytes.u32()?,
            stack: bytes.u32()?,
            thread: bytes.u32()?,
            tid: bytes.u32()?,
            pid: bytes.u32()?,
            time_ms: 0,
        };
        for _ in 0..bytes.count()? {
            previous_ms = previous_ms.wrapping_add(bytes.i64()?);
            row.time_ms = previous_ms;
            columns.push(row);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn samples_come_back(rows in proptest::collection::vec(
            (0u32..4, 0u32..5, 0u32..3, any::<u32>(), any::<i64>(), 0u32..3), 0..60)) {
            let mut columns = Columns::default();
            for (resource, stack, thread, tid, time_ms, pid) in rows {
                columns.push_times(Row { resource, stack, thread, tid, time_ms: 0, pid }, [time_ms, 5].into_iter());
            }
            let mut back = Columns::default();
            prop_assert!(decode(&encode(&columns, 0), &mut back).is_some());
            prop_assert_eq!(back.len(), columns.len());
            prop_assert!((0..back.len()).all(|i| back.row(i) == columns.row(i)));
        }

        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let _ = decode(&garbage, &mut Columns::default());
        }
    }
}
