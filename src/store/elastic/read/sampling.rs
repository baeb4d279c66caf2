//! Which event stream answers a question, and what part of it is counted.
//!
//! All events are counted while they are few enough. Otherwise the coarsest down-sampled stream that still holds about
//! the wanted number answers, and where there is none, a random sample of the full stream. [`Choice::precision`] says
//! what was done, so that nobody takes an estimate for a count.

use serde_json::{Value, json};

use super::Inner;
use super::ask::Search;
use super::dsl::{self, Query};
use super::fields::{Access, EventFields};
use crate::model::{Dimension, Filter, Selection};
use crate::store::elastic::{Generation, LEVELS};
use crate::store::{Precision, Result};

/// Each level of the down-sampled streams holds one in five events of the level above.
const FACTOR: f64 = 5.0;
/// The level that is counted to find the right one.
const PROBE: u8 = 6;

/// A stream to ask and how its counts become counts of all events.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Search without aggregations.
    pub(super) search: Search,
    /// Generation of the stream.
    pub(super) generation: Generation,
    /// Names of its fields.
    pub(super) fields: EventFields,
    /// Stored events per event of the stream.
    pub(super) factor: f64,
    /// Part of the stream that is looked at.
    pub(super) probability: f64,
    /// Events of the stream that match.
    pub(super) hits: u64,
    /// Start of the sequence of random decisions.
    pub(super) seed: u32,
}

impl Choice {
    /// How far the counts can be trusted.
    pub(super) fn precision(&self) -> Precision {
        let factor = self.factor / self.probability;
        if factor > 1.0 { Precision::Sampled { factor } } else { Precision::Exact }
    }

    /// A count of the stream as a count of all events.
    pub(super) fn scale(&self, count: u64) -> u64 {
        if self.factor > 1.0 { (count as f64 * self.factor).round() as u64 } else { count }
    }

    /// Wraps aggregations into the sampler where one is needed. Elasticsearch scales the counts inside by itself.
    pub(super) fn wrap(&self, aggregations: Value) -> Value {
        if self.probability >= 1.0 {
            return aggregations;
        }
        let sampler = json!({ "probability": self.probability, "seed": self.seed });
        json!({ "sampled": { "random_sampler": sampler, "aggs": aggregations } })
    }

    /// Inverse of [`Choice::wrap`] on the answer.
    pub(super) fn unwrap<'v>(&self, answer: &'v Value) -> &'v Value {
        if self.probability >= 1.0 { answer } else { &answer["sampled"] }
    }
}

/// The level whose stream holds between 0.45 and 2.24 times `target` events, given that the sixth holds `hits` of
/// them; 0 is the full stream.
pub(super) fn level(target: u64, hits: u64) -> u8 {
    if hits == 0 {
        return 0;
    }
    let below = (FACTOR * target as f64 / hits as f64).ln() / FACTOR.ln();
    let level = f64::from(PROBE) - (below + 0.5).floor() + 1.0;
    if level < 1.0 { 0 } else { (level as u8).min(LEVELS) }
}

/// Part of a stream to look at so that about `target` events are counted. The sampler takes nothing between a half and 1.
pub(super) fn probability(target: u64, hits: u64) -> f64 {
    if hits <= target.saturating_mul(2) { 1.0 } else { target as f64 / hits as f64 }
}

/// The stream that answers a question; `None` when there is no event at all. `groups` are the fields that will be
/// counted by.
pub(super) async fn choose(
    inner: &Inner,
    selection: &Selection,
    groups: &[Dimension],
) -> Result<Option<Choice>> {
    let Some(full) = full_stream(inner, selection).await? else { return Ok(None) };
    let unmapped = !full.search.runtime.is_empty()
        || groups.iter().any(|group| matches!(full.fields.dimension(*group), Access::Unmapped(_)));
    // A filter on a field that is not mapped is as expensive to count as to answer: the range bounds both.
    let (hits, stacks) = if unmapped {
        let everything = Selection { range: selection.range, filter: Filter::All };
        let Query { query, runtime } = dsl::query(&everything, &full.fields);
        let search = Search { query, runtime, ..full.search.clone() };
        inner.ask.count(&search, distinct(&full.fields)).await?
    } else {
        inner.ask.count(&full.search, distinct(&full.fields)).await?
    };
    if hits == 0 {
        return Ok(None);
    }
    let limits = &inner.limits;
    let limit = if unmapped { limits.exact_unmapped_events } else { limits.exact_events };
    let stacks = stacks["stacks"]["value"].as_u64().unwrap_or(hits);
    if hits <= limit && stacks <= limits.exact_stacks {
        return Ok(Some(Choice { hits, ..full }));
    }
    let target = if unmapped { limits.target.min(limits.exact_unmapped_events) } else { limits.target };
    sampled(inner, full, hits, target.max(1)).await.map(Some)
}

/// The coarsest stream that is fine enough, or a random part of the full one.
pub(super) async fn sampled(inner: &Inner, full: Choice, hits: u64, target: u64) -> Result<Choice> {
    let at = |level: u8| Search { index: full.generation.sampled_events(level), ..full.search.clone() };
    let (probe, _) = inner.ask.count(&at(PROBE), json!({})).await?;
    let level = level(target, probe);
    if level > 0 {
        let search = at(level);
        let (found, _) = inner.ask.count(&search, json!({})).await?;
        // Streams that nobody fills, or fills since yesterday only, are no base for an estimate: a stream with far fewer
        // events than the full one says is left alone.
        let expected = hits as f64 / FACTOR.powi(i32::from(level));
        if found as f64 >= expected * 0.5 {
            let factor = FACTOR.powi(i32::from(level));
            let probability = probability(target, found);
            return Ok(Choice { search, factor, probability, hits: found, ..full });
        }
    }
    Ok(Choice { probability: probability(target, hits), hits, ..full })
}

/// The full stream of the generation that was set, or of the one that holds more events of the selection.
pub(super) async fn full_stream(inner: &Inner, selection: &Selection) -> Result<Option<Choice>> {
    let mut best: Option<Choice> = None;
    for (generation, fields) in generations(inner).await? {
        let Query { query, runtime } = dsl::query(selection, &fields);
        let search = Search { index: generation.names().events.to_owned(), query, runtime };
        let candidate =
            Choice { search, generation, fields, factor: 1.0, probability: 1.0, hits: 0, seed: 1 };
        let Some(first) = best.take() else {
            best = Some(candidate);
            continue;
        };
        // Both are there, for example after an upgrade. Adding them up would count a double writer twice.
        let everything = Selection { range: selection.range, filter: Filter::All };
        let mut events = [0; 2];
        for (hits, choice) in events.iter_mut().zip([&first, &candidate]) {
            let Query { query, runtime } = dsl::query(&everything, &choice.fields);
            let search = Search { query, runtime, ..choice.search.clone() };
            *hits = inner.ask.count(&search, json!({})).await?.0;
        }
        best = Some(if events[1] > events[0] { candidate } else { first });
    }
    Ok(best)
}

/// Generations whose stream of all events exists, with its fields.
pub(super) async fn generations(inner: &Inner) -> Result<Vec<(Generation, EventFields)>> {
    let all = [Generation::Classic, Generation::Otel];
    let mut found = Vec::new();
    for generation in all.into_iter().filter(|g| inner.generation.is_none_or(|set| set == *g)) {
        let stream = generation.names().events;
        if let Some(fields) = inner.fields.of(&inner.ask, generation, stream).await? {
            found.push((generation, fields));
        }
    }
    Ok(found)
}

/// Aggregation for the number of distinct stacks.
fn distinct(fields: &EventFields) -> Value {
    match &fields.stack {
        Access::Mapped(name) => {
            json!({ "stacks": { "cardinality": { "field": name, "precision_threshold": 40_000 } } })
        }
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_holds_about_the_target() {
        for (hits, expected) in [
            (0, 0),
            (1, 0),
            (10, 1),
            (100, 3),
            (1_000, 4),
            (6_400, 5),
            (10_000, 6),
            (20_000, 6),
            (44_721, 6),
            (44_722, 7),
            (160_000, 7),
            (1_000_000, 8),
            (10_000_000, 10),
            (1_000_000_000, 11),
            (u64::MAX, 11),
        ] {
            assert_eq!(level(20_000, hits), expected, "{hits}");
        }
    }

    #[test]
    fn the_sampler_is_used_below_a_half_only() {
        assert!((probability(20_000, 40_000) - 1.0).abs() < f64::EPSILON);
        assert!((probability(20_000, 80_000) - 0.25).abs() < f64::EPSILON);
        assert!(probability(20_000, 40_001) < 0.5);
    }
}
