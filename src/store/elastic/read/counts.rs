//! Samples per stack and group: composite aggregations, page by page, and the CPU time that they stand for.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ask::Search;
use super::fields::Access;
use super::sampling::{self, Choice};
use super::{Inner, documents, failure, paths};
use crate::model::{Dimension, Selection, StackId};
use crate::store::{Error, GroupedCount, Result, StackSet};

/// Buckets of the first page. Elasticsearch allows 65,536 in all unless somebody set `search.max_buckets`.
const PAGE: usize = 40_000;
/// Pages are not made smaller than this when the cluster allows little.
const SMALLEST_PAGE: usize = 500;
/// Distinct (group, stack) pairs of one answer: about 100 bytes each while counting.
const MAX_COUNTS: usize = 4_000_000;
/// Events looked at for their frequency where it is not mapped.
const FREQUENCY_SAMPLE: usize = 200;
/// Frequency of events that do not say theirs, in Hz: what agents used before events carried it.
pub(super) const DEFAULT_HZ: u64 = 19;

/// One source of a composite aggregation.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    /// Key in the buckets.
    pub(super) name: &'a str,
    /// Field.
    pub(super) access: &'a Access,
}

/// Visits every bucket of a composite aggregation with its key and its documents, scaled by the sampler only.
/// Sources that are in no event are left out of the keys.
pub(super) async fn each_bucket(
    inner: &Inner,
    choice: &Choice,
    sources: &[Source<'_>],
    mut visit: impl FnMut(&Value, u64) -> Result<()>,
) -> Result<()> {
    let mut search = choice.search.clone();
    let mut listed = Vec::new();
    for source in sources {
        source.access.note(&mut search.runtime);
        if let Some(field) = source.access.name() {
            let terms = json!({ "terms": { "field": field, "missing_bucket": true } });
            listed.push(json!({ source.name: terms }));
        }
    }
    let (mut size, mut after) = (PAGE, None);
    loop {
        let mut composite = json!({ "size": size, "sources": listed });
        if let Some(after) = &after {
            composite["after"] = Value::clone(after);
        }
        let aggregations = choice.wrap(json!({ "keys": { "composite": composite } }));
        let answer = match inner.ask.try_aggregate(&search, aggregations).await {
            Ok(answer) => answer,
            Err(error) if failure::is_missing_index(&error) => return Ok(()),
            Err(error) if failure::is_too_many_buckets(&error) && size > SMALLEST_PAGE => {
                size = (size / 2).max(SMALLEST_PAGE);
                continue;
            }
            Err(error) => return Err(failure::told(&error)),
        };
        let page = &choice.unwrap(&answer)["keys"];
        // A search over no shard at all has no aggregations.
        let Some(buckets) = page["buckets"].as_array() else { return Ok(()) };
        for bucket in buckets {
            let Some(count) = bucket["doc_count"].as_u64() else {
                return Err(failure::unexpected("a count of documents", bucket));
            };
            visit(&bucket["key"], count)?;
        }
        match page.get("after_key") {
            Some(key) if buckets.len() >= size => after = Some(key.clone()),
            _ => return Ok(()),
        }
    }
}

/// A value of a key as text; absent ones are empty.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// CPU time of samples by their frequency.
#[derive(Debug, Default)]
pub(super) struct CpuTime {
    samples: HashMap<u64, u64>,
}

impl CpuTime {
    /// Adds samples of one frequency in Hz; one that is absent or absurd is the default.
    pub(super) fn add(&mut self, hz: &Value, samples: u64) {
        let hz = hz.as_u64().or_else(|| hz.as_f64().map(|hz| hz as u64)).filter(|hz| *hz > 0);
        *self.samples.entry(hz.unwrap_or(DEFAULT_HZ)).or_default() += samples;
    }

    /// Nanoseconds: each sample stands for one period of its frequency.
    pub(super) fn nanos(&self) -> u64 {
        let nanos = |(hz, samples): (&u64, &u64)| u128::from(*samples) * 1_000_000_000 / u128::from(*hz);
        self.samples.iter().map(nanos).sum::<u128>().try_into().unwrap_or(u64::MAX)
    }
}

/// Spreads samples over the frequencies of some random events of the selection. Exact where all have one, which is the
/// rule; an estimate elsewhere.
pub(super) async fn estimated_cpu_time(inner: &Inner, choice: &Choice, samples: u64) -> Result<CpuTime> {
    let mut time = CpuTime::default();
    let random = json!({ "seed": choice.seed, "field": "_seq_no" });
    let query = json!({ "function_score": { "query": choice.search.query, "random_score": random } });
    let name = choice.fields.frequency.name().unwrap_or_default();
    let mut body = json!({ "size": FREQUENCY_SAMPLE, "query": query, "_source": [name] });
    if !choice.search.runtime.is_empty() {
        body["runtime_mappings"] = Value::Object(choice.search.runtime.clone());
    }
    let answer = inner.ask.search(&choice.search.index, &body).await.map_err(|e| failure::told(&e))?;
    let hits = answer["hits"]["hits"].as_array().map_or(&[][..], Vec::as_slice);
    if hits.is_empty() {
        time.add(&Value::Null, samples);
    }
    let mut given = 0;
    for (i, hit) in hits.iter().enumerate() {
        let upto = (u128::from(samples) * (i as u128 + 1) / hits.len() as u128) as u64;
        let hz = documents::field(&hit["_source"], name).unwrap_or(&Value::Null);
        time.add(hz, upto - given);
        given = upto;
    }
    Ok(time)
}

/// Numbers for values in the order in which they are first seen.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    pub(super) values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Numbers<T> {
    pub(super) fn number(&mut self, value: T) -> u32 {
        *self.numbers.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() as u32 - 1
        })
    }
}

/// A question is refused before its counts fill the memory.
pub(super) fn check_size(counts: usize) -> Result<()> {
    if counts < MAX_COUNTS {
        return Ok(());
    }
    Err(Error::TooMuch { what: "distinct stacks in this range".into(), limit: MAX_COUNTS as u64 })
}

/// Answers [`crate::store::Reader::stacks`].
pub(super) async fn stacks(
    inner: &Inner,
    selection: &Selection,
    group_by: Option<Dimension>,
) -> Result<StackSet> {
    let groups: Vec<Dimension> = group_by.into_iter().collect();
    let Some(choice) = sampling::choose(inner, selection, &groups).await? else {
        return Ok(StackSet { groups: vec!["".into()], trie: Arc::new(empty()), ..StackSet::default() });
    };
    let (mut names, mut stacks) = (Numbers::<Arc<str>>::default(), Numbers::<StackId>::default());
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    let mut cpu = CpuTime::default();
    let per_bucket = matches!(choice.fields.frequency, Access::Mapped(_));
    let group = group_by.map(|dimension| choice.fields.dimension(dimension));
    let mut sources = vec![Source { name: "stack", access: &choice.fields.stack }];
    sources.extend(group.map(|access| Source { name: "group", access }));
    if per_bucket {
        sources.push(Source { name: "hz", access: &choice.fields.frequency });
    }
    let mut total = 0;
    each_bucket(inner, &choice, &sources, |key, samples| {
        let samples = choice.scale(samples);
        let group = names.number(text(&key["group"]).into());
        let stack = stacks.number(documents::stack_id(key["stack"].as_str().unwrap_or_default()));
        *counts.entry((group, stack)).or_default() += samples;
        if per_bucket {
            cpu.add(&key["hz"], samples);
        }
        total += samples;
        check_size(counts.len())
    })
    .await?;
    if !per_bucket {
        cpu = estimated_cpu_time(inner, &choice, total).await?;
    }
    let (trie, leaves) = paths::trie(inner, choice.generation, &stacks.values).await?;
    if names.values.is_empty() {
        names.values.push("".into());
    }
    Ok(StackSet {
        trie: Arc::new(trie),
        groups: names.values,
        counts: at_nodes(&counts, &leaves),
        cpu_ns: cpu.nanos(),
        precision: choice.precision(),
    })
}

/// Counts by node instead of by stack: stacks without a document share the root.
fn at_nodes(counts: &HashMap<(u32, u32), u64>, leaves: &[u32]) -> Vec<GroupedCount> {
    let mut merged: HashMap<(u32, u32), u64> = HashMap::with_capacity(counts.len());
    for ((group, stack), samples) in counts {
        *merged.entry((*group, leaves[*stack as usize])).or_default() += samples;
    }
    let mut counts: Vec<GroupedCount> =
        merged.into_iter().map(|((group, node), samples)| GroupedCount { group, node, samples }).collect();
    counts.sort_unstable_by_key(|count| (count.group, count.node));
    counts
}

/// A tree of nothing but its root.
pub(super) fn empty() -> crate::store::StackTrie {
    crate::store::StackTrie { parent: vec![0], frame: vec![0], frames: Vec::new() }
}

/// Samples per stack of a whole selection.
pub(super) async fn per_stack(inner: &Inner, choice: &Choice) -> Result<HashMap<StackId, u64>> {
    let mut counts = HashMap::new();
    let sources = [Source { name: "stack", access: &choice.fields.stack }];
    each_bucket(inner, choice, &sources, |key, samples| {
        let stack = documents::stack_id(key["stack"].as_str().unwrap_or_default());
        *counts.entry(stack).or_default() += choice.scale(samples);
        check_size(counts.len())
    })
    .await?;
    Ok(counts)
}

/// Search of a choice with one more condition.
pub(super) fn narrowed(search: &Search, condition: &Value, access: &Access) -> Search {
    let mut runtime: Map<String, Value> = search.runtime.clone();
    access.note(&mut runtime);
    let query = json!({ "bool": { "filter": [search.query, condition] } });
    Search { index: search.index.clone(), query, runtime }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_one_period_a_sample() {
        let mut time = CpuTime::default();
        time.add(&json!(20), 40);
        time.add(&json!(100), 10);
        assert_eq!(time.nanos(), 2_100_000_000);
        let mut unsaid = CpuTime::default();
        unsaid.add(&Value::Null, 19);
        unsaid.add(&json!(0), 19);
        assert_eq!(unsaid.nanos(), 2_000_000_000);
    }

    #[test]
    fn stacks_without_a_document_are_one_count_at_the_root() {
        let counts = HashMap::from([((0, 0), 3), ((0, 1), 4), ((1, 1), 5), ((0, 2), 6)]);
        let seen: Vec<_> =
            at_nodes(&counts, &[0, 0, 7]).iter().map(|c| (c.group, c.node, c.samples)).collect();
        assert_eq!(seen, [(0, 0, 7), (0, 7, 6), (1, 0, 5)]);
    }
}
