//! Documents by ID, in few large requests: stack traces, frames, executables.
//!
//! A name that stands for several indices (rolled over, or the backing indices of a data stream) cannot be asked for a
//! document by ID, so each concrete index is asked, newest first, for what the ones before it did not have. Users who
//! may read but not see settings get the same documents by a search over the name.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask::Ask;
use super::failure;
use crate::store::Result;
use crate::store::elastic::CallError;

/// How long the indices behind a name are remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Requests at the same time.
const AT_ONCE: usize = 4;
/// Results of one search at most, `index.max_result_window` where nobody changed it.
const SEARCHED: usize = 10_000;

/// How documents behind a name are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    /// By ID in each of these indices, newest first.
    Indices(Vec<String>),
    /// By a search, for the indices are not to be seen.
    Search,
}

/// The indices behind each name.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<String, (Instant, Route)>>);

impl Tables {
    /// Fetches documents of `name` in requests of `batch` IDs. `found` is called for each one, once per ID.
    pub(super) async fn fetch(
        &self,
        ask: &Ask,
        name: &str,
        ids: Vec<String>,
        batch: usize,
        mut found: impl FnMut(&str, &Value),
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        match self.route(ask, name).await? {
            Route::Search => {
                in_batches(ask, ids, batch.min(SEARCHED), name, by_search, &mut |id, source| {
                    found(id, source);
                })
                .await?;
            }
            Route::Indices(indices) => {
                let mut missing = ids;
                for index in indices {
                    let mut seen = HashSet::new();
                    in_batches(ask, missing.clone(), batch, &index, by_id, &mut |id, source| {
                        found(id, source);
                        seen.insert(id.to_owned());
                    })
                    .await?;
                    missing.retain(|id| !seen.contains(id));
                    if missing.is_empty() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn route(&self, ask: &Ask, name: &str) -> Result<Route> {
        let now = Instant::now();
        if let Some((since, route)) = self.0.lock().get(name)
            && now.duration_since(*since) < REMEMBERED
        {
            return Ok(route.clone());
        }
        let path = format!(
            "/{name}/_settings/index.creation_date,index.lifecycle.origination_date?flat_settings=true&ignore_unavailable=true&expand_wildcards=all"
        );
        let route = match ask.call(Method::GET, &path, None).await {
            Ok(answer) => Route::Indices(newest_first(&answer)),
            Err(error) if failure::is_missing_index(&error) => Route::Indices(Vec::new()),
            Err(error) if failure::is_forbidden(&error) => Route::Search,
            Err(error) => return Err(failure::told(&error)),
        };
        // Nothing there is not worth remembering: the first document makes an index.
        if route != Route::Indices(Vec::new()) {
            self.0.lock().insert(name.to_owned(), (now, route.clone()));
        }
        Ok(route)
    }
}

/// Concrete indices by their time, youngest first.
fn newest_first(settings: &Value) -> Vec<String> {
    let time = |settings: &Value| {
        let of = |key: &str| settings["settings"][key].as_str()?.parse::<u64>().ok();
        of("index.lifecycle.origination_date").or_else(|| of("index.creation_date")).unwrap_or(0)
    };
    let mut indices: Vec<(u64, String)> =
        settings.as_object().into_iter().flatten().map(|(name, s)| (time(s), name.clone())).collect();
    indices.sort_unstable_by(|a, b| b.cmp(a));
    indices.into_iter().map(|(_, name)| name).collect()
}

/// Path, body and place of the results of one request.
type Request = (String, Value, &'static str);

fn by_id(index: &str, ids: &[String]) -> Request {
    (format!("/{index}/_mget?realtime=false"), json!({ "ids": ids }), "/docs")
}

fn by_search(name: &str, ids: &[String]) -> Request {
    let body = json!({ "size": ids.len(), "query": { "ids": { "values": ids } } });
    (
        format!("/{name}/_search?ignore_unavailable=true&allow_partial_search_results=false"),
        body,
        "/hits/hits",
    )
}

/// Sends requests for parts of the IDs, some at a time. Ends with the first failure; what is under way is dropped.
async fn in_batches(
    ask: &Ask,
    ids: Vec<String>,
    batch: usize,
    index: &str,
    request: fn(&str, &[String]) -> Request,
    found: &mut impl FnMut(&str, &Value),
) -> Result<()> {
    let mut waiting = ids.chunks(batch.max(1)).map(|ids| request(index, ids)).collect::<Vec<_>>().into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((path, body, place)) = waiting.next()
        {
            let ask = ask.clone();
            running.spawn(async move {
                let answer = ask.call(Method::POST, &path, Some(&body)).await;
                (answer, place)
            });
        }
        let Some(done) = running.join_next().await else { return Ok(()) };
        let (answer, place) = match done {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(crate::store::Error::Engine("the process is stopping".into())),
        };
        match answer {
            Ok(answer) => hits(&answer, place, found)?,
            Err(error) if failure::is_missing_index(&error) => {}
            Err(error) => return Err(failure::told(&error)),
        }
    }
}

fn hits(answer: &Value, place: &str, found: &mut impl FnMut(&str, &Value)) -> Result<()> {
    let Some(hits) = answer.pointer(place).and_then(Value::as_array) else {
        return Err(failure::unexpected("documents", answer));
    };
    for hit in hits {
        if let Some(error) = hit.get("error").filter(|error| error["type"] != "index_not_found_exception") {
            return Err(failure::told(&CallError::Refused {
                host: "Elasticsearch".into(),
                status: 503,
                kind: error["type"].as_str().unwrap_or_default().to_owned(),
                reason: error["reason"].as_str().unwrap_or_default().to_owned(),
                retry_after: None,
            }));
        }
        if let (Some(id), Some(source)) = (hit["_id"].as_str(), hit.get("_source")) {
            found(id, source);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn younger_indices_come_first_by_the_time_that_counts() {
        let at = |date: &str| json!({ "settings": { "index.creation_date": date } });
        let settings = json!({
            ".a-000001": at("1000"),
            ".a-000003": at("3000"),
            ".a-000002": { "settings": { "index.creation_date": "9000", "index.lifecycle.origination_date": "2000" } },
        });
        assert_eq!(newest_first(&settings), [".a-000003", ".a-000002", ".a-000001"]);
        assert!(newest_first(&json!({})).is_empty());
    }

    #[test]
    fn a_shard_without_a_copy_is_a_failure_and_an_absent_document_is_none() {
        let mut seen = Vec::new();
        let answer = json!({ "docs": [
            { "_id": "a", "found": true, "_source": { "x": 1 } },
            { "_id": "b", "found": false },
            { "_id": "c", "error": { "type": "index_not_found_exception", "reason": "no such index" } },
        ] });
        hits(&answer, "/docs", &mut |id, _| seen.push(id.to_owned())).unwrap();
        assert_eq!(seen, ["a"]);
        let red = json!({ "docs": [{ "_id": "a", "error": { "type": "no_shard_available_action_exception", "reason": "" } }] });
        let error = hits(&red, "/docs", &mut |_, _| {}).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(hits(&json!({ "oops": 1 }), "/docs", &mut |_, _| {}).is_err());
    }
}
