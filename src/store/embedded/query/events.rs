//! Events told apart by everything that the profiling interface looks at, and what is known of hosts.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::codec::Bytes;
use super::super::core::Core;
use super::super::dictionary::ROOT;
use super::super::segment::{Batch, Fields};
use super::super::tables;
use super::damaged;
use super::filter::{RowFilter, resource_value};
use super::group::Groups;
use super::plan::{Plan, Sink, Window};
use super::stacks::{Counter, cut};
use crate::model::{Dimension, Selection, TimeRange, UnixNanos};
use crate::store::{Error, EventCount, EventFilter, EventKey, EventQuestion, EventSet, HostFacts, Result};

/// Facts of one host beyond which a stored value is malformed.
const MAX_FACTS: usize = 10_000;

/// Answers [`crate::store::Reader::events`].
pub(in super::super) fn events(core: &Core, question: &EventQuestion) -> Result<EventSet> {
    let selection = match &question.filter {
        EventFilter::Selection(selection) => selection,
        EventFilter::QueryDsl(_) => {
            return Err(Error::Engine("the embedded store takes no query DSL".into()));
        }
    };
    // Nothing but profiles is stored here.
    if question.foreign.is_some() {
        return Ok(EventSet::default());
    }
    let snapshot = core.snapshot();
    let (filter, groups, stacks, resources, threads) = {
        let d = core.dictionaries.read();
        let groups = Groups::resources_and_threads(&d).ok_or_else(|| Error::TooMuch {
            what: "resources and thread names".into(),
            limit: u64::from(u32::MAX),
        })?;
        let filter = RowFilter::new(&selection.filter, &d);
        (filter, groups, d.stacks.len(), d.resources.len(), d.threads.len().max(1) as u32)
    };
    let fields = Fields::STACK.with(groups.fields());
    let plan = Plan::stacks(&snapshot, Window::of(selection.range), &filter, fields)?;
    let new = || Counter::new(groups.grouping.clone(), stacks, resources);
    let mut counter = plan.run(core.settings.threads, Fields::default(), new)?;
    if counter.damaged {
        return Err(damaged(core));
    }
    counter.counts.order();
    let d = core.dictionaries.read();
    let (trie, used) = cut(&d, &counter.counts);
    let mut numbers = HashMap::with_capacity(counter.counts.touched.len());
    let mut ids = Vec::with_capacity(counter.counts.touched.len());
    for &stack in &counter.counts.touched {
        let leaf = d.stack_node.get(stack as usize).copied().unwrap_or(ROOT);
        numbers.insert(stack, ids.len() as u32);
        ids.push((d.stacks.values()[stack as usize], used.number(leaf)));
    }
    let dimensions = question.dimensions();
    let mut keys: HashMap<EventKey, u32> = HashMap::new();
    let mut of_group: HashMap<u32, u32> = HashMap::new();
    let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
    for (group, stack, events) in counter.counts.all() {
        let key = *of_group.entry(group).or_insert_with(|| {
            let resource = &d.resources.values()[(group / threads) as usize];
            let thread = d.threads.values().get((group % threads) as usize).cloned().unwrap_or_default();
            let value = |dimension: &Option<Dimension>| match dimension {
                Some(Dimension::ThreadName) => thread.clone(),
                Some(other) => resource_value(resource, *other).cloned().unwrap_or_default(),
                None => "".into(),
            };
            let key = EventKey {
                executable: resource.executable_name.clone(),
                thread: thread.clone(),
                host_id: resource.host_id.clone(),
                frequency_hz: resource.frequency_hz.max(1),
                fields: dimensions.iter().map(value).collect(),
            };
            let next = keys.len() as u32;
            *keys.entry(key).or_insert(next)
        });
        *counts.entry((key, numbers[&stack])).or_insert(0) += events;
    }
    let mut in_order: Vec<(EventKey, u32)> = keys.into_iter().collect();
    in_order.sort_unstable_by_key(|(_, number)| *number);
    let mut counts: Vec<EventCount> =
        counts.into_iter().map(|((key, stack), events)| EventCount { key, stack, events }).collect();
    counts.sort_unstable_by_key(|count| (count.key, count.stack));
    drop(d);
    Ok(EventSet {
        trie: Arc::new(trie),
        stacks: ids,
        keys: in_order.into_iter().map(|(key, _)| key).collect(),
        counts,
        extent: if question.with_extent { extent(core, selection)? } else { None },
        factor: 1.0,
        probability: 1.0,
        exact: true,
    })
}

/// First and last event of a selection.
fn extent(core: &Core, selection: &Selection) -> Result<Option<TimeRange>> {
    let snapshot = core.snapshot();
    let filter = RowFilter::new(&selection.filter, &core.dictionaries.read());
    let plan = Plan::times(&snapshot, Window::of(selection.range), &filter, Fields::TIME, false)?;
    let ends = plan.run(core.settings.threads, Fields::default(), Ends::default)?;
    let nanos = |ms: i64| UnixNanos::from_millis(ms.max(0) as u64);
    Ok(ends.0.map(|(first, last)| TimeRange { from: nanos(first), to: nanos(last.saturating_add(1)) }))
}

/// Smallest and largest time in milliseconds.
#[derive(Debug, Default)]
struct Ends(Option<(i64, i64)>);

impl Ends {
    fn put(&mut self, ms: i64) {
        let (first, last) = self.0.unwrap_or((ms, ms));
        self.0 = Some((first.min(ms), last.max(ms)));
    }
}

impl Sink for Ends {
    fn add(&mut self, batch: &Batch<'_>, weights: Option<&[i32]>) {
        let counts = |i: &usize| weights.is_none_or(|w| w[*i] != 0);
        (0..batch.len).filter(counts).for_each(|i| self.put(batch.time_ms[i]));
    }

    fn merge(&mut self, other: Self) {
        if let Some((first, last)) = other.0 {
            self.put(first);
            self.put(last);
        }
    }
}

/// Answers [`crate::store::Reader::hosts`].
pub(in super::super) fn hosts(core: &Core, ids: &[Arc<str>]) -> Result<Vec<HostFacts>> {
    let stored: Vec<(Arc<str>, Vec<u8>)> = core.database.read(|txn| {
        let table = txn.open_table(tables::HOSTS)?;
        let mut found = Vec::new();
        for id in ids {
            if let Some(value) = table.get(&**id)? {
                found.push((id.clone(), value.value().to_vec()));
            }
        }
        Ok(found)
    })?;
    stored
        .into_iter()
        .map(|(id, value)| {
            decode(&value).map(|facts| HostFacts { id: id.clone(), facts }).ok_or_else(|| Error::Corrupt {
                path: core.layout.database(),
                problem: format!("hosts: the entry of {id:?} is malformed"),
            })
        })
        .collect()
}

/// Inverse of what ingest writes.
fn decode(value: &[u8]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut bytes = Bytes(value);
    let mut facts = vec![("host.name".into(), bytes.text()?)];
    let count = bytes.count().filter(|count| *count <= MAX_FACTS)?;
    for _ in 0..count {
        facts.push((bytes.text()?, bytes.text()?));
    }
    Some(facts)
}
