//! Calls of the reader: searches that are whole or fail, missing indices as empty answers.

use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};

use super::failure;
use crate::store::Result;
use crate::store::elastic::{CallError, Client};

/// Parameters of every search: a part of the shards is no answer, a stream that is not there has no samples.
const WHOLE: &str = "allow_partial_search_results=false&ignore_unavailable=true&request_cache=true";

/// The calls that questions are made of.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    client: Arc<Client>,
}

/// A search over an event stream without its aggregations.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// Data stream, index or alias.
    pub(super) index: String,
    /// Query in query DSL.
    pub(super) query: Value,
    /// Fields that are read from the documents because nothing indexes them.
    pub(super) runtime: Map<String, Value>,
}

impl Search {
    fn body(&self, aggregations: &Value) -> Value {
        let mut body =
            json!({ "size": 0, "track_total_hits": false, "query": self.query, "aggs": aggregations });
        if !self.runtime.is_empty() {
            body["runtime_mappings"] = Value::Object(self.runtime.clone());
        }
        body
    }
}

impl Ask {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// Where the cluster is, for people.
    pub(super) fn place(&self) -> String {
        self.client.address()
    }

    /// The failed call as it came, for callers that know what to do about some failures.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        self.client.json(method, path, body).await
    }

    /// GET; `None` when what was asked for does not exist.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.call(Method::GET, path, None).await {
            Ok(answer) => Ok(Some(answer)),
            Err(CallError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(failure::told(&error)),
        }
    }

    /// Any search body over an index.
    pub(super) async fn search(&self, index: &str, body: &Value) -> Result<Value, CallError> {
        let cached = if body["size"] == 0 { WHOLE } else { WHOLE.trim_end_matches("&request_cache=true") };
        self.call(Method::POST, &format!("/{index}/_search?{cached}"), Some(body)).await
    }

    /// Aggregations of a search; [`CallError`] for those who can ask for less.
    pub(super) async fn try_aggregate(
        &self,
        search: &Search,
        aggregations: Value,
    ) -> Result<Value, CallError> {
        let mut answer = self.search(&search.index, &search.body(&aggregations)).await?;
        Ok(answer["aggregations"].take())
    }

    /// Aggregations of a search; `Null` where the stream does not exist.
    pub(super) async fn aggregate(&self, search: &Search, aggregations: Value) -> Result<Value> {
        match self.try_aggregate(search, aggregations).await {
            Ok(found) => Ok(found),
            Err(error) if failure::is_missing_index(&error) => Ok(Value::Null),
            Err(error) => Err(failure::told(&error)),
        }
    }

    /// Exact number of documents that match, with further aggregations.
    pub(super) async fn count(&self, search: &Search, aggregations: Value) -> Result<(u64, Value)> {
        let mut body = search.body(&aggregations);
        body["track_total_hits"] = Value::Bool(true);
        match self.search(&search.index, &body).await {
            Ok(mut answer) => {
                let hits = answer["hits"]["total"]["value"].as_u64();
                let hits = hits.ok_or_else(|| failure::unexpected("a number of hits", &answer["hits"]))?;
                Ok((hits, answer["aggregations"].take()))
            }
            Err(error) if failure::is_missing_index(&error) => Ok((0, Value::Null)),
            Err(error) => Err(failure::told(&error)),
        }
    }
}
