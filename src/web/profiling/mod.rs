//! The profiling interface of Elasticsearch on either store: `POST /_profiling/{stacktraces,flamegraph,topn/functions}` and
//! `GET /_profiling/status`.
//!
//! Requests, messages and names are Elasticsearch's, so that what talks to its plugin can talk to this page. On a store
//! that does not speak query DSL the query is translated; what has no translation is refused by its name.

mod dsl;
mod dto;
mod failure;
mod request;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::WebState;
use super::encode::{self, Encoding};
use super::turn::Turn;
use crate::query::pipeline::blocking;
use crate::query::profiling::{Question, Scene, flamegraph, functions, stacktraces};
use crate::query::{self, Cancel};
use crate::store::{EventFilter, EventQuestion, ForeignEvents, Reader as _};
use dto::{FlamegraphDto, FunctionsDto, StackTracesDto, StatusDto};
pub(super) use failure::Failure;
use request::Request;

/// Addresses of the interface with their methods.
pub(super) const ROUTES: [(&str, &str); 4] = [
    ("/_profiling/status", "get"),
    ("/_profiling/stacktraces", "post"),
    ("/_profiling/flamegraph", "post"),
    ("/_profiling/topn/functions", "post"),
];

type Answer = Result<Response, Failure>;

/// `GET /_profiling/status`
pub(super) async fn status(State(state): State<WebState>, headers: HeaderMap) -> Answer {
    let store = state.reader().status().await.map_err(query::Error::from)?;
    Ok(encode::small(&StatusDto::new(&store), Encoding::accepted(&headers))?)
}

/// `POST /_profiling/stacktraces`
pub(super) async fn stack_traces(State(state): State<WebState>, headers: HeaderMap, body: Bytes) -> Answer {
    let (_, scene, cancel) = read(&state, &body).await?;
    reduce(&cancel, Encoding::accepted(&headers), move |_, write| {
        let found = stacktraces::collect(&scene);
        Ok(write(&StackTracesDto::new(&scene, &found)))
    })
    .await
}

/// `POST /_profiling/flamegraph`
pub(super) async fn flame_graph(State(state): State<WebState>, headers: HeaderMap, body: Bytes) -> Answer {
    let (_, scene, cancel) = read(&state, &body).await?;
    reduce(&cancel, Encoding::accepted(&headers), move |cancel, write| {
        let graph = flamegraph::draw(&scene, cancel)?;
        Ok(write(&FlamegraphDto::new(&scene, &graph)))
    })
    .await
}

/// `POST /_profiling/topn/functions`
pub(super) async fn top_functions(State(state): State<WebState>, headers: HeaderMap, body: Bytes) -> Answer {
    let (request, scene, cancel) = read(&state, &body).await?;
    reduce(&cancel, Encoding::accepted(&headers), move |cancel, write| {
        let found = functions::rank(&scene, cancel)?;
        Ok(write(&FunctionsDto::new(&scene, &found, &request)))
    })
    .await
}

/// Reads the request and what it asks for.
async fn read(state: &WebState, body: &[u8]) -> Result<(Request, Scene, Cancel), Failure> {
    let request = Request::parse(body)?;
    let turn = state.turn().await?;
    let question = question(&request, state, &turn)?;
    let cancel = Cancel::default();
    let scene = Scene::read(&turn, &question, &cancel).await?;
    Ok((request, scene, cancel))
}

fn question(request: &Request, state: &WebState, turn: &Turn) -> Result<Question, Failure> {
    let foreign = request.indices.as_ref().map(|indices| ForeignEvents {
        indices: indices.clone(),
        stack_field: request.stacktrace_ids_field.clone().unwrap_or_default(),
    });
    let query = request.query.clone().unwrap_or_else(|| serde_json::json!({ "match_all": {} }));
    let filter = if turn.speaks_query_dsl() {
        EventFilter::QueryDsl(query.to_string())
    } else {
        EventFilter::Selection(dsl::selection(&query, state.now())?)
    };
    Ok(Question {
        events: EventQuestion {
            filter,
            fields: request.fields().iter().map(|field| field.as_str().into()).collect(),
            sample_size: request.sample_size,
            seed: request.seed(),
            otel: request.is_otel,
            foreign,
            with_extent: false,
        },
        duration_s: request.requested_duration,
        prices: request.prices,
    })
}

/// A way to write one answer, handed to the reduction because the answer borrows from what it reduced.
type Write<'w> = &'w dyn Fn(&dyn erased::Answer) -> Result<Response, super::error::ApiError>;

async fn reduce(
    cancel: &Cancel,
    encoding: Encoding,
    work: impl FnOnce(&Cancel, Write<'_>) -> query::Result<Result<Response, super::error::ApiError>>
    + Send
    + 'static,
) -> Answer {
    let response = blocking(cancel, move |cancel| work(cancel, &|answer| answer.write(encoding))).await?;
    Ok(response?)
}

/// Answers without their type.
mod erased {
    use axum::response::Response;

    use crate::web::encode::{self, Encoding};
    use crate::web::error::ApiError;

    /// Anything that can be written as JSON.
    pub(super) trait Answer {
        fn write(&self, encoding: Encoding) -> Result<Response, ApiError>;
    }

    impl<T: serde::Serialize> Answer for T {
        fn write(&self, encoding: Encoding) -> Result<Response, ApiError> {
            encode::large(self, encoding)
        }
    }
}

/// Status of a request that is wrong.
const WRONG: StatusCode = StatusCode::BAD_REQUEST;
