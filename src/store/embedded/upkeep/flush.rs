//! Head → young segments, one per UTC hour.

use std::collections::BTreeMap;

use super::super::core::Core;
use super::super::head::Row;
use super::super::segment::{Level, Origin, SegmentWriter};
use super::{HOUR_MS, Publish, UpkeepState, export, publish};
use crate::store::Result;

/// Segments of one flush at most. Samples with wilder times share the first one, which then covers more than an hour.
const MAX_HOURS: usize = 48;

/// Flushes the head when it is old or large enough, or when told to.
pub(super) fn flush_due(core: &Core, upkeep: &mut UpkeepState, now_ms: i64, flush_now: bool) -> Result<()> {
    let (chunks, upto) = {
        let mut state = core.state.write();
        let Some(last) = state.head.last() else { return Ok(()) };
        let upto = last.last_sequence;
        let oldest_ms = state.head.first().map_or(now_ms, |chunk| chunk.committed_ms);
        let old = now_ms.saturating_sub(oldest_ms) >= core.settings.head_age.as_millis() as i64;
        if !(flush_now || old || state.head_rows() >= core.settings.head_rows) {
            return Ok(());
        }
        state.sealed = Some(upto);
        (state.head.iter().map(|chunk| std::sync::Arc::clone(&chunk.columns)).collect::<Vec<_>>(), upto)
    };
    let mut hours: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    for columns in &chunks {
        for i in 0..columns.len() {
            let row = columns.row(i);
            hours.entry(row.time_ms.div_euclid(HOUR_MS)).or_default().push(row);
        }
    }
    drop(chunks);
    gather_wild(&mut hours);

    let complete = core.dictionaries.read().complete();
    let mut step = Publish { head_upto: Some(upto), ..Publish::default() };
    let origin = Origin { level: Level::Young, block_hours: 1, published_ms: now_ms, replaces: &[] };
    for (_, mut rows) in hours {
        rows.sort_unstable();
        let mut writer = SegmentWriter::create(&core.layout, upkeep.file(), rows.len() as u64, 1, &complete)?;
        for row in rows {
            writer.push(row)?;
        }
        step.add.push(writer.finish(&origin)?);
    }
    step.exports = export::plan_logs(core, upkeep)?;
    if export::never_named(upkeep) {
        export::plan_names(core, upkeep, &mut step.exports)?;
    }
    publish(core, upkeep, step)
}

/// Moves the earliest hours together until few enough are left: nobody gets a thousand files from one strange batch.
fn gather_wild(hours: &mut BTreeMap<i64, Vec<Row>>) {
    while hours.len() > MAX_HOURS {
        let Some((_, mut rows)) = hours.pop_first() else { return };
        if let Some(mut next) = hours.first_entry() {
            rows.append(next.get_mut());
            *next.get_mut() = rows;
        }
    }
}
