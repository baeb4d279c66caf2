//! Samples over time and per group: terms and date histograms.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ask::Search;
use super::counts::{self, CpuTime};
use super::fields::Access;
use super::sampling::{self, Choice};
use super::{Inner, failure, paths};
use crate::model::{Dimension, Filter, Selection, TimeRange};
use crate::store::{Error, GroupCount, Result, Series, TimeGrid, Timeline};

/// Buckets of one question at most, as in the embedded store.
const MAX_BUCKETS: u32 = 100_000;
/// Buckets of one search: below what Elasticsearch allows unless somebody set `search.max_buckets`.
const BUCKETS: usize = 40_000;
/// Groups that each shard tells of: with at most as many, the largest groups are exact.
const SHARD_SIZE: usize = 20_000;
/// Nanoseconds in a millisecond, the unit of histograms.
const MS: u64 = 1_000_000;

/// Answers [`crate::store::Reader::timeline`].
pub(super) async fn timeline(
    inner: &Inner,
    selection: &Selection,
    grid: TimeGrid,
    group_by: Option<Dimension>,
    top: usize,
) -> Result<Timeline> {
    if grid.buckets > MAX_BUCKETS {
        let what = format!("{} buckets", grid.buckets);
        return Err(Error::TooMuch { what, limit: u64::from(MAX_BUCKETS) });
    }
    if grid.width_ns == 0 || !grid.width_ns.is_multiple_of(MS) || !grid.start.0.is_multiple_of(MS) {
        return Err(Error::Engine("timeline: expected buckets of whole milliseconds".into()));
    }
    let empty = || Series { samples: vec![0; grid.buckets as usize], ..Series::default() };
    let groups: Vec<Dimension> = group_by.into_iter().collect();
    let Some(choice) = sampling::choose(inner, selection, &groups).await? else {
        let series = if group_by.is_none() { vec![empty()] } else { Vec::new() };
        return Ok(Timeline { series, other: empty(), ..Timeline::default() });
    };
    let group = group_by.map(|dimension| choice.fields.dimension(dimension));
    let (totals, all, stacks) = tokio::try_join!(
        Totals::read(inner, &choice, group, top),
        histogram(inner, &choice, &choice.search, grid),
        counts::per_stack(inner, &choice),
    )?;
    let complete = paths::complete(inner, choice.generation, &stacks).await?;
    let covers_range = u128::from(grid.start.0) + u128::from(grid.width_ns) * u128::from(grid.buckets)
        >= u128::from(selection.range.to.0)
        && grid.start <= selection.range.from;
    let mut series = Vec::with_capacity(totals.groups.len());
    match group {
        None => series.push(Series { group: "".into(), total: totals.samples, samples: all.clone() }),
        Some(_) if grid.buckets == 1 && covers_range => {
            series.extend(totals.groups.iter().map(|(group, total)| Series {
                group: group.clone(),
                total: *total,
                samples: vec![*total],
            }));
        }
        Some(access) => series.extend(rows(inner, &choice, access, grid, &totals.groups).await?),
    }
    Ok(Timeline {
        other: rest(&series, totals.samples, &all),
        series,
        groups: totals.distinct,
        cpu_ns: totals.cpu.nanos(),
        complete,
        hosts: totals.hosts,
        precision: choice.precision(),
    })
}

/// Everything that is in no series.
fn rest(series: &[Series], total: u64, all: &[u64]) -> Series {
    let mut other = Series { group: "".into(), total, samples: all.to_vec() };
    for one in series {
        other.total = other.total.saturating_sub(one.total);
        for (rest, samples) in other.samples.iter_mut().zip(&one.samples) {
            *rest = rest.saturating_sub(*samples);
        }
    }
    other
}

/// What one search says about a whole selection.
struct Totals {
    samples: u64,
    /// Largest groups, largest first.
    groups: Vec<(Arc<str>, u64)>,
    distinct: u64,
    hosts: u64,
    cpu: CpuTime,
}

impl Totals {
    async fn read(inner: &Inner, choice: &Choice, group: Option<&Access>, top: usize) -> Result<Self> {
        let mut search = choice.search.clone();
        let mut asked = json!({ "all": { "filter": { "match_all": {} } } });
        let named = group.and_then(|access| {
            access.note(&mut search.runtime);
            access.name()
        });
        if let Some(field) = named {
            asked["groups"] = largest(field, top);
            asked["distinct"] =
                json!({ "cardinality": { "field": field, "missing": "", "precision_threshold": 40_000 } });
        }
        let (id, name) =
            (choice.fields.dimension(Dimension::HostId), choice.fields.dimension(Dimension::HostName));
        hosts(id.clone(), name, &mut asked, &mut search);
        let per_frequency = matches!(choice.fields.frequency, Access::Mapped(_));
        if let Access::Mapped(field) = &choice.fields.frequency {
            let missing = counts::DEFAULT_HZ;
            asked["hz"] = json!({ "terms": { "field": field, "missing": missing, "size": 1000 } });
        }
        let answer = inner.ask.aggregate(&search, choice.wrap(asked)).await?;
        let found = choice.unwrap(&answer);
        let samples = choice.scale(found["all"]["doc_count"].as_u64().unwrap_or(0));
        let groups = match (group, named) {
            (None, _) => Vec::new(),
            // A field that no event has: one group of everything.
            (Some(_), None) => vec![("".into(), samples)],
            (Some(_), Some(_)) => buckets(&found["groups"], choice),
        };
        let cpu = if per_frequency {
            let mut cpu = CpuTime::default();
            for bucket in found["hz"]["buckets"].as_array().into_iter().flatten() {
                cpu.add(&bucket["key"], choice.scale(bucket["doc_count"].as_u64().unwrap_or(0)));
            }
            cpu
        } else {
            counts::estimated_cpu_time(inner, choice, samples).await?
        };
        let distinct = found["distinct"]["value"].as_u64().unwrap_or(1).max(groups.len() as u64);
        Ok(Self { samples, groups, distinct, hosts: count_hosts(found), cpu })
    }
}

/// Terms aggregation for the largest groups; events without the field are the group without a name.
fn largest(field: &str, top: usize) -> Value {
    json!({ "terms": {
        "field": field, "missing": "", "size": top.max(1), "shard_size": SHARD_SIZE.max(top * 2),
    } })
}

fn buckets(terms: &Value, choice: &Choice) -> Vec<(Arc<str>, u64)> {
    let group = |bucket: &Value| {
        let samples = choice.scale(bucket["doc_count"].as_u64().unwrap_or(0));
        (counts::text(&bucket["key"]).into(), samples)
    };
    terms["buckets"].as_array().into_iter().flatten().map(group).collect()
}

/// Aggregations for the number of hosts: by their IDs, and by name where an event has no ID.
fn hosts(id: Access, name: &Access, asked: &mut Value, search: &mut Search) {
    let (Access::Mapped(id), Some(name_field)) = (id, name.name()) else { return };
    name.note(&mut search.runtime);
    let distinct = |field: &str| json!({ "cardinality": { "field": field, "missing": "", "precision_threshold": 40_000 } });
    let without = json!({ "bool": { "minimum_should_match": 1, "should": [
        { "bool": { "must_not": [{ "exists": { "field": id } }] } },
        { "term": { id.as_str(): { "value": "" } } },
    ] } });
    let with = json!({ "bool": { "must_not": [without] } });
    asked["with_id"] = json!({ "filter": with, "aggs": { "hosts": distinct(&id) } });
    asked["without_id"] = json!({ "filter": without, "aggs": { "hosts": distinct(name_field) } });
}

fn count_hosts(found: &Value) -> u64 {
    let of = |part: &Value| match part["doc_count"].as_u64() {
        Some(0) | None => 0,
        Some(_) => part["hosts"]["value"].as_u64().unwrap_or(0),
    };
    of(&found["with_id"]) + of(&found["without_id"])
}

/// Samples per bucket of everything that a search finds.
async fn histogram(inner: &Inner, choice: &Choice, search: &Search, grid: TimeGrid) -> Result<Vec<u64>> {
    let mut samples = vec![0; grid.buckets as usize];
    // In parts that stay below the limit of buckets.
    let per_part = BUCKETS as u32;
    for first in (0..grid.buckets).step_by(per_part as usize) {
        let part = part_of(grid, first, per_part.min(grid.buckets - first));
        let search = within(search, part);
        let answer = inner.ask.aggregate(&search, choice.wrap(json!({ "times": over_time(grid) }))).await?;
        fill(&mut samples, &choice.unwrap(&answer)["times"], grid, choice);
    }
    Ok(samples)
}

/// Some buckets of a grid as a range of time.
fn part_of(grid: TimeGrid, first: u32, buckets: u32) -> TimeRange {
    let at = |bucket: u32| {
        let nanos = u128::from(grid.start.0) + u128::from(grid.width_ns) * u128::from(bucket);
        crate::model::UnixNanos(nanos.try_into().unwrap_or(u64::MAX))
    };
    TimeRange { from: at(first), to: at(first + buckets) }
}

fn within(search: &Search, range: TimeRange) -> Search {
    let query = json!({ "bool": { "filter": [search.query, super::dsl::range(range)] } });
    Search { query, ..search.clone() }
}

fn over_time(grid: TimeGrid) -> Value {
    let (width, start) = (grid.width_ns / MS, grid.start.0 / MS);
    json!({ "date_histogram": {
        "field": "@timestamp", "fixed_interval": format!("{width}ms"), "offset": format!("+{}ms", start % width),
        "min_doc_count": 1,
    } })
}

fn fill(samples: &mut [u64], histogram: &Value, grid: TimeGrid, choice: &Choice) {
    for bucket in histogram["buckets"].as_array().into_iter().flatten() {
        let (Some(ms), Some(count)) = (bucket["key"].as_i64(), bucket["doc_count"].as_u64()) else {
            continue;
        };
        let since = i128::from(ms) - i128::from(grid.start.0 / MS);
        let at = usize::try_from(since / i128::from(grid.width_ns / MS));
        if since >= 0
            && let Some(cell) = at.ok().and_then(|at| samples.get_mut(at))
        {
            *cell += choice.scale(count);
        }
    }
}

/// Series of the largest groups, some groups a search.
async fn rows(
    inner: &Inner,
    choice: &Choice,
    access: &Access,
    grid: TimeGrid,
    groups: &[(Arc<str>, u64)],
) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = groups
        .iter()
        .map(|(group, total)| Series {
            group: group.clone(),
            total: *total,
            samples: vec![0; grid.buckets as usize],
        })
        .collect();
    let Some(field) = access.name() else {
        if let Some(only) = series.first_mut() {
            only.samples = histogram(inner, choice, &choice.search, grid).await?;
        }
        return Ok(series);
    };
    let place: HashMap<Arc<str>, usize> =
        groups.iter().enumerate().map(|(at, (group, _))| (group.clone(), at)).collect();
    let mut search = choice.search.clone();
    access.note(&mut search.runtime);
    let mut per_search = (BUCKETS / (grid.buckets as usize + 1)).max(1);
    let mut at = 0;
    while at < groups.len() {
        let some: Vec<&str> =
            groups[at..groups.len().min(at + per_search)].iter().map(|(group, _)| &**group).collect();
        let terms = json!({ "field": field, "missing": "", "include": some, "size": some.len() });
        let asked = json!({ "groups": { "terms": terms, "aggs": { "times": over_time(grid) } } });
        let answer = match inner.ask.try_aggregate(&search, choice.wrap(asked)).await {
            Ok(answer) => answer,
            Err(error) if failure::is_too_many_buckets(&error) && per_search > 1 => {
                per_search /= 2;
                continue;
            }
            Err(error) => return Err(failure::told(&error)),
        };
        for bucket in choice.unwrap(&answer)["groups"]["buckets"].as_array().into_iter().flatten() {
            if let Some(row) = place.get(counts::text(&bucket["key"]).as_str()) {
                fill(&mut series[*row].samples, &bucket["times"], grid, choice);
            }
        }
        at += some.len();
    }
    Ok(series)
}

/// Answers [`crate::store::Reader::values`].
pub(super) async fn values(
    inner: &Inner,
    dimension: Dimension,
    prefix: &str,
    range: TimeRange,
    limit: usize,
) -> Result<Vec<GroupCount>> {
    let selection = Selection { range, filter: Filter::All };
    let Some(choice) = sampling::choose(inner, &selection, &[dimension]).await? else {
        return Ok(Vec::new());
    };
    let access = choice.fields.dimension(dimension);
    let Some(field) = access.name() else {
        let all = GroupCount { value: "".into(), samples: choice.scale(choice.hits) };
        return Ok(if prefix.is_empty() && limit > 0 { vec![all] } else { Vec::new() });
    };
    let condition = if prefix.is_empty() {
        json!({ "match_all": {} })
    } else {
        json!({ "prefix": { field: { "value": prefix } } })
    };
    let search = counts::narrowed(&choice.search, &condition, access);
    let asked = choice.wrap(json!({ "groups": largest(field, limit) }));
    let answer = inner.ask.aggregate(&search, asked).await?;
    let groups = buckets(&choice.unwrap(&answer)["groups"], &choice);
    Ok(groups.into_iter().map(|(value, samples)| GroupCount { value, samples }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;

    #[test]
    fn the_rest_is_what_no_series_has() {
        let one = Series { group: "a".into(), total: 5, samples: vec![2, 3] };
        let other = rest(&[one], 9, &[4, 5]);
        assert_eq!((other.total, other.samples), (4, vec![2, 2]));
    }

    #[test]
    fn buckets_begin_where_the_grid_begins() {
        let grid = TimeGrid { start: UnixNanos(1_007 * MS), width_ns: 500 * MS, buckets: 2 };
        assert_eq!(over_time(grid)["date_histogram"]["offset"], "+7ms");
        let part = part_of(grid, 1, 1);
        assert_eq!((part.from, part.to), (UnixNanos(1_507 * MS), UnixNanos(2_007 * MS)));
    }
}
