//! Size, extent and health of what a cluster holds.

use http::Method;
use serde_json::{Value, json};

use super::ask::Search;
use super::{Inner, failure, sampling};
use crate::model::{TimeRange, UnixNanos};
use crate::store::elastic::Generation;
use crate::store::{Result, StoreStatus};

/// Answers [`crate::store::Reader::status`].
pub(super) async fn status(inner: &Inner) -> Result<StoreStatus> {
    let mut status = StoreStatus { description: description(inner).await?, ..StoreStatus::default() };
    for (generation, _) in sampling::generations(inner).await? {
        status.is_set_up = true;
        let names = generation.names();
        let events = Search {
            index: names.events.to_owned(),
            query: json!({ "match_all": {} }),
            runtime: serde_json::Map::new(),
        };
        let ends = json!({
            "first": { "min": { "field": "@timestamp" } },
            "last": { "max": { "field": "@timestamp" } },
        });
        let (samples, found) = inner.ask.count(&events, ends).await?;
        status.samples += samples;
        let ms = |end: &str| found[end]["value"].as_f64().map(|ms| ms.max(0.0) as u64);
        if let (Some(first), Some(last)) = (ms("first"), ms("last")) {
            let (from, to) = (UnixNanos::from_millis(first), UnixNanos::from_millis(last + 1));
            let known = status.extent.unwrap_or(TimeRange { from, to });
            status.extent = Some(TimeRange { from: known.from.min(from), to: known.to.max(to) });
        }
        status.event_bytes += bytes(inner, &event_streams(generation)).await?;
        for (count, name) in [
            (&mut status.stacks, names.stacktraces),
            (&mut status.frames, names.stackframes),
            (&mut status.executables, names.executables),
        ] {
            let everything =
                Search { index: name.to_owned(), query: json!({ "match_all": {} }), ..events.clone() };
            *count += inner.ask.count(&everything, json!({})).await?.0;
            status.dictionary_bytes += bytes(inner, name).await?;
        }
        status.refusing = status.refusing.or(blocked(inner, names.events).await?);
    }
    Ok(status)
}

/// The streams of all levels.
fn event_streams(generation: Generation) -> String {
    match generation {
        Generation::Classic => "profiling-events-all,profiling-events-5pow*,-*.otel-*".into(),
        Generation::Otel => "profiling-events-*.otel-default".into(),
    }
}

async fn description(inner: &Inner) -> Result<String> {
    let place = inner.ask.place();
    match inner.ask.call(Method::GET, "/", None).await {
        Ok(about) => {
            let version = about["version"]["number"].as_str().unwrap_or("of unknown version");
            let cluster = about["cluster_name"].as_str().unwrap_or_default();
            Ok(format!("Elasticsearch {version} {place} {cluster}").trim_end().to_owned())
        }
        // Who may read samples need not be allowed to look at the cluster.
        Err(error) if failure::is_forbidden(&error) => Ok(format!("Elasticsearch {place}")),
        Err(error) => Err(failure::told(&error)),
    }
}

/// Bytes of all copies; 0 where this user may not know.
async fn bytes(inner: &Inner, names: &str) -> Result<u64> {
    let path = format!("/{names}/_stats/store?level=cluster&expand_wildcards=all&ignore_unavailable=true");
    permitted(inner, &path, |answer| answer["_all"]["total"]["store"]["size_in_bytes"].as_u64().unwrap_or(0))
        .await
}

/// Why nothing can be written, if an index is blocked.
async fn blocked(inner: &Inner, names: &str) -> Result<Option<String>> {
    let path = format!("/{names}/_settings/index.blocks.*?flat_settings=true&ignore_unavailable=true");
    permitted(inner, &path, |answer| {
        let is_set = |settings: &Value, key: &str| settings["settings"][key] == "true";
        answer.as_object()?.iter().find_map(|(index, settings)| {
            if is_set(settings, "index.blocks.read_only_allow_delete") {
                return Some(format!("{index} is read-only: a disk of the cluster is full (flood stage)"));
            }
            let write = is_set(settings, "index.blocks.write") || is_set(settings, "index.blocks.read_only");
            write.then(|| format!("{index} is blocked for writing"))
        })
    })
    .await
}

/// An answer, or nothing where this user may not ask.
async fn permitted<T: Default>(inner: &Inner, path: &str, read: impl FnOnce(&Value) -> T) -> Result<T> {
    match inner.ask.call(Method::GET, path, None).await {
        Ok(answer) => Ok(read(&answer)),
        Err(error) if failure::is_forbidden(&error) || failure::is_missing_index(&error) => Ok(T::default()),
        Err(error) => Err(failure::told(&error)),
    }
}
