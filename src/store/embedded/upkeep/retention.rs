//! Drops whole segments by age and by size. Samples of a segment share its fate: it goes when its last one is too old.

use std::sync::Arc;

use super::super::core::Core;
use super::super::segment::Segment;
use super::{Publish, UpkeepState, publish};
use crate::store::Result;

/// Drops what is beyond the limits of the settings, oldest first.
pub(super) fn drop_old(core: &Core, upkeep: &mut UpkeepState, now_ms: i64) -> Result<()> {
    let segments = core.state.read().segments.clone();
    let remove = beyond(&segments, core, now_ms);
    if remove.is_empty() {
        return Ok(());
    }
    tracing::info!(segments = remove.len(), "dropped samples beyond the retention");
    publish(core, upkeep, Publish { remove, ..Publish::default() })
}

fn beyond(segments: &[Arc<Segment>], core: &Core, now_ms: i64) -> Vec<u64> {
    let keep_ms = core.settings.retain_for.map(|d| d.as_millis() as i64);
    let mut bytes: u64 = segments.iter().map(|s| s.meta.bytes()).sum();
    let mut oldest: Vec<_> = segments.iter().collect();
    oldest.sort_by_key(|s| s.meta.extent().1);
    let mut remove = Vec::new();
    for segment in oldest {
        let old = keep_ms.is_some_and(|keep| segment.meta.extent().1.saturating_add(keep) < now_ms);
        let large = core.settings.retain_bytes.is_some_and(|limit| bytes > limit);
        if !old && !large {
            break;
        }
        bytes -= segment.meta.bytes();
        remove.push(segment.meta.id);
    }
    remove
}
