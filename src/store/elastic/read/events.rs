//! Events with everything by which the profiling interface tells them apart, and what is known of hosts.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ask::Search;
use super::counts::{self, DEFAULT_HZ, Numbers, Source};
use super::fields::{Access, EventFields};
use super::sampling::{self, Choice};
use super::{Inner, documents, dsl, failure, paths};
use crate::model::{Dimension, StackId, TimeRange, UnixNanos};
use crate::store::elastic::Generation;
use crate::store::{
    Error, EventCount, EventFilter, EventKey, EventQuestion, EventSet, ForeignEvents, HostFacts, Result,
};

/// Distinct stacks of foreign events at most.
const MAX_FOREIGN: usize = 40_000;
/// Facts of hosts that are asked for, by the names of their documents.
const FACTS: [&str; 13] = [
    "host.arch",
    "profiling.host.machine",
    "cloud.provider",
    "cloud.region",
    "host.type",
    "profiling.agent.config.present_cpu_cores",
    "ec2.placement.region",
    "ec2.instance_type",
    "gce.instance.zone",
    "azure.compute.location",
    "azure.compute.vmsize",
    "profiling.host.tags",
    "host.name",
];
/// A host may have told of itself this long before the first event or behind the last one: twice the time after which
/// senders repeat it.
const HOSTS_AROUND_NS: u64 = 6 * 3_600 * 1_000_000_000;

/// Answers [`crate::store::Reader::events`].
pub(super) async fn events(inner: &Inner, question: &EventQuestion) -> Result<EventSet> {
    if let Some(foreign) = &question.foreign {
        return foreign_events(inner, question, foreign).await;
    }
    let generation = if question.otel { Generation::Otel } else { Generation::Classic };
    let stream = generation.names().events;
    let Some(fields) = inner.fields.of(&inner.ask, generation, stream).await? else {
        return Ok(EventSet::default());
    };
    let (query, runtime) = query(&question.filter, &fields)?;
    let search = Search { index: stream.to_owned(), query, runtime };
    let full =
        Choice { search, generation, fields, factor: 1.0, probability: 1.0, hits: 0, seed: question.seed };
    let (hits, _) = inner.ask.count(&full.search, json!({})).await?;
    if hits == 0 {
        return Ok(EventSet::default());
    }
    let choice = sampling::sampled(inner, full, hits, question.sample_size).await?;
    read(inner, question, &choice).await
}

async fn read(inner: &Inner, question: &EventQuestion, choice: &Choice) -> Result<EventSet> {
    let ends = json!({ "first": { "min": { "field": "@timestamp" } }, "last": { "max": { "field": "@timestamp" } } });
    let extent = inner.ask.aggregate(&choice.search, ends).await?;
    let mut keys = Numbers::<EventKey>::default();
    let mut stacks = Numbers::<StackId>::default();
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    let dimension = |d: Dimension| choice.fields.dimension(d);
    let others: Vec<Access> = (question.fields.iter().zip(question.dimensions()))
        .map(|(name, known)| known.map_or_else(|| Access::Mapped(name.to_string()), |d| dimension(d).clone()))
        .collect();
    let names: Vec<String> = (0..others.len()).map(|i| format!("field{i}")).collect();
    let frequency = frequency(choice);
    let mut sources = vec![
        Source { name: "hz", access: &frequency },
        Source { name: "executable", access: dimension(Dimension::Executable) },
        Source { name: "thread", access: dimension(Dimension::ThreadName) },
        Source { name: "host", access: dimension(Dimension::HostId) },
        Source { name: "stack", access: &choice.fields.stack },
    ];
    sources.extend(names.iter().zip(&others).map(|(name, access)| Source { name, access }));
    let hz = if matches!(frequency, Access::Absent) { common_frequency(inner, choice).await? } else { None };
    counts::each_bucket(inner, choice, &sources, |key, found| {
        // An event without a stack is none for this interface.
        let Some(stack) = key["stack"].as_str() else { return Ok(()) };
        let own = key["hz"].as_u64().or(hz).filter(|hz| *hz > 0).unwrap_or(DEFAULT_HZ);
        let number = keys.number(EventKey {
            executable: counts::text(&key["executable"]).into(),
            thread: counts::text(&key["thread"]).into(),
            host_id: counts::text(&key["host"]).into(),
            frequency_hz: u32::try_from(own).unwrap_or(u32::MAX),
            fields: names.iter().map(|name| counts::text(&key[name.as_str()]).into()).collect(),
        });
        // The sampler scales by itself; the interface wants to decide about that.
        let events = (found as f64 * choice.probability).round().max(1.0) as u64;
        *counts.entry((number, stacks.number(documents::stack_id(stack)))).or_default() += events;
        counts::check_size(counts.len())
    })
    .await?;
    let (trie, leaves) = paths::trie(inner, choice.generation, &stacks.values).await?;
    Ok(EventSet {
        trie: Arc::new(trie),
        stacks: stacks.values.into_iter().zip(leaves).collect(),
        keys: keys.values,
        counts: in_order(counts),
        extent: range_of(&extent),
        factor: choice.factor,
        probability: choice.probability,
        exact: false,
    })
}

/// The frequency where it can be counted; elsewhere it is looked up once instead of in every document.
fn frequency(choice: &Choice) -> Access {
    match &choice.fields.frequency {
        mapped @ Access::Mapped(_) => mapped.clone(),
        _ => Access::Absent,
    }
}

/// Frequency of one of the events.
async fn common_frequency(inner: &Inner, choice: &Choice) -> Result<Option<u64>> {
    let name = choice.fields.frequency.name().unwrap_or_default();
    let mut body = json!({ "size": 1, "query": choice.search.query, "_source": [name] });
    if !choice.search.runtime.is_empty() {
        body["runtime_mappings"] = Value::Object(choice.search.runtime.clone());
    }
    let answer = inner.ask.search(&choice.search.index, &body).await.map_err(|e| failure::told(&e))?;
    Ok(documents::field(&answer["hits"]["hits"][0]["_source"], name).and_then(Value::as_u64))
}

fn in_order(counts: HashMap<(u32, u32), u64>) -> Vec<EventCount> {
    let mut counts: Vec<EventCount> =
        counts.into_iter().map(|((key, stack), events)| EventCount { key, stack, events }).collect();
    counts.sort_unstable_by_key(|count| (count.key, count.stack));
    counts
}

fn range_of(extent: &Value) -> Option<TimeRange> {
    let ms = |end: &str| extent[end]["value"].as_f64().map(|ms| ms.max(0.0) as u64);
    let (first, last) = (ms("first")?, ms("last")?);
    Some(TimeRange { from: UnixNanos::from_millis(first), to: UnixNanos::from_millis(last + 1) })
}

fn query(filter: &EventFilter, fields: &EventFields) -> Result<(Value, Map<String, Value>)> {
    match filter {
        EventFilter::Selection(selection) => {
            let dsl::Query { query, runtime } = dsl::query(selection, fields);
            Ok((query, runtime))
        }
        EventFilter::QueryDsl(text) => {
            let query = serde_json::from_str(text)
                .map_err(|error| Error::Engine(format!("query: not JSON: {error}")))?;
            // The person who wrote the query may name a field that the templates of this version do not map.
            let mut runtime = Map::new();
            for dimension in Dimension::ALL.into_iter().filter(|d| text.contains(d.field())) {
                let access = fields.dimension(dimension);
                if access.name() == Some(dimension.field()) {
                    access.note(&mut runtime);
                }
            }
            Ok((query, runtime))
        }
    }
}

/// Events of other indices: stacks by a field that may hold several of them.
async fn foreign_events(
    inner: &Inner,
    question: &EventQuestion,
    foreign: &ForeignEvents,
) -> Result<EventSet> {
    // They become part of an address; whoever asks has checked them, and nothing but a name gets through here.
    if let Some(name) = foreign
        .indices
        .iter()
        .find(|name| name.contains(['/', '?', '#', '%', '\\']) || name.contains(char::is_whitespace))
    {
        return Err(Error::Engine(format!("expected the name of an index, found {name:?}")));
    }
    let generation = if question.otel { Generation::Otel } else { Generation::Classic };
    let none = EventFields::none();
    let (query, runtime) = query(&question.filter, &none)?;
    let search = Search { index: foreign.indices.join(","), query, runtime };
    let (hits, extent) = inner
        .ask
        .count(&search, json!({ "first": { "min": { "field": "@timestamp" } }, "last": { "max": { "field": "@timestamp" } } }))
        .await?;
    if hits == 0 {
        return Ok(EventSet::default());
    }
    let probability = sampling::probability(question.sample_size, hits);
    let choice =
        Choice { search, generation, fields: none, factor: 1.0, probability, hits, seed: question.seed };
    let terms = json!({ "stacks": { "terms": { "field": foreign.stack_field, "size": MAX_FOREIGN } } });
    let answer = inner.ask.aggregate(&choice.search, choice.wrap(terms)).await?;
    let mut stacks = Numbers::<StackId>::default();
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    for bucket in choice.unwrap(&answer)["stacks"]["buckets"].as_array().into_iter().flatten() {
        let (Some(stack), Some(count)) = (bucket["key"].as_str(), bucket["doc_count"].as_u64()) else {
            continue;
        };
        let events = (count as f64 * probability).round().max(1.0) as u64;
        *counts.entry((0, stacks.number(documents::stack_id(stack)))).or_default() += events;
    }
    let (trie, leaves) = paths::trie(inner, generation, &stacks.values).await?;
    Ok(EventSet {
        trie: Arc::new(trie),
        stacks: stacks.values.into_iter().zip(leaves).collect(),
        keys: vec![EventKey { frequency_hz: DEFAULT_HZ as u32, ..EventKey::default() }],
        counts: in_order(counts),
        extent: range_of(&extent),
        factor: 1.0,
        probability,
        exact: false,
    })
}

/// Answers [`crate::store::Reader::hosts`].
pub(super) async fn hosts(inner: &Inner, ids: &[Arc<str>], range: TimeRange) -> Result<Vec<HostFacts>> {
    let mut ids: Vec<&str> = ids.iter().map(|id| &**id).filter(|id| !id.is_empty()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut found: Vec<HostFacts> = Vec::new();
    let window = TimeRange {
        from: UnixNanos(range.from.0.saturating_sub(HOSTS_AROUND_NS)),
        to: UnixNanos(range.to.0.saturating_add(HOSTS_AROUND_NS)),
    };
    for generation in [Generation::Classic, Generation::Otel] {
        // Hosts are few: some thousands fit one search, and each is asked for by its newest document.
        for some in ids.chunks(1000) {
            let field = "host.id";
            let query =
                json!({ "bool": { "filter": [dsl_range_seconds(window), { "terms": { field: some } }] } });
            let newest = json!([{ "@timestamp": { "order": "desc", "unmapped_type": "date" } }]);
            // A host repeats itself every few hours: some documents each are enough to see the newest of all.
            let size = (some.len() * 8).min(10_000);
            let body = json!({ "size": size, "query": query, "sort": newest });
            let answer = match inner.ask.search(generation.names().hosts, &body).await {
                Ok(answer) => answer,
                Err(error) if failure::is_missing_index(&error) => continue,
                Err(error) => return Err(failure::told(&error)),
            };
            for hit in answer["hits"]["hits"].as_array().into_iter().flatten() {
                let source = &hit["_source"];
                let Some(id) = documents::host_fact(source, field) else { continue };
                if found.iter().any(|host| *host.id == *id) {
                    continue;
                }
                let facts = FACTS
                    .into_iter()
                    .filter_map(|name| Some((name.into(), documents::host_fact(source, name)?.into())));
                found.push(HostFacts { id: id.into(), facts: facts.collect() });
            }
        }
    }
    Ok(found)
}

/// Times of hosts are whole seconds.
fn dsl_range_seconds(range: TimeRange) -> Value {
    let (from, to) = (range.from.0 / 1_000_000_000, range.to.0.div_ceil(1_000_000_000));
    json!({ "range": { "@timestamp": { "gte": from, "lt": to, "format": "epoch_second" } } })
}
