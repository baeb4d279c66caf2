//! The routes of `docs/api.md`: parameters in, one question to the store, an answer out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use crate::model::{Dimension, Selection, UnixNanos};
use crate::query::functions::Sort;
use crate::query::pipeline::{self, blocking};
use crate::query::{Cancel, Error, FunctionKey, selection, timeline};
use crate::store::{GroupCount, Reader as _, TimeGrid};

use super::dto::{
    FieldsDto, FlamegraphDto, FunctionListDto, HealthDto, Reasons, SandwichDto, StatusDto, TimelineDto,
    ValuesDto,
};
use super::encode::{self, Encoding};
use super::error::ApiError;
use super::params::Params;
use super::state::WebState;
use super::turn::Turn;

pub(super) type Answer = Result<Response, ApiError>;

/// Nodes of a flame graph when not said otherwise, and at most.
const NODES: (u32, u32) = (200_000, 2_000_000);
/// Groups looked through for values of a field under a filter.
const FILTERED_VALUES: usize = 10_000;

/// Parameters of each route, in the order of the document.
pub(super) mod known {
    pub(crate) const NONE: [&str; 0] = [];
    pub(crate) const VALUES: [&str; 6] = ["from", "to", "filter", "field", "prefix", "limit"];
    pub(crate) const TIMELINE: [&str; 6] = ["from", "to", "filter", "by", "buckets", "top"];
    pub(crate) const FLAMEGRAPH: [&str; 6] = ["from", "to", "filter", "by", "max_nodes", "focus"];
    pub(crate) const FUNCTIONS: [&str; 5] = ["from", "to", "filter", "limit", "sort"];
}

fn select(params: &Params, now: UnixNanos) -> Result<Selection, ApiError> {
    Ok(selection::parse(params.text("from"), params.text("to"), params.text("filter"), now)?)
}

/// `GET /live`: the process serves.
pub(super) async fn live() -> Response {
    axum::Json(HealthDto { status: "live", error: None }).into_response()
}

/// `GET /ready`: the store answers.
pub(super) async fn ready(State(state): State<WebState>) -> Response {
    match state.reader().status().await {
        Ok(_) => axum::Json(HealthDto { status: "ready", error: None }).into_response(),
        Err(error) => {
            let body = HealthDto { status: "not ready", error: Some(error.to_string()) };
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

/// `GET /api/v1/openapi.yaml`: this interface for programs.
pub(super) async fn openapi() -> Response {
    let mut response = Response::new(include_str!("../../docs/openapi.yaml").into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    response
}

/// `GET /api/v1/status`
pub(super) async fn status(State(state): State<WebState>, uri: Uri, headers: HeaderMap) -> Answer {
    Params::read(&uri, &known::NONE)?;
    let store = state.reader().status().await?;
    let (agent, collector) = (state.roles().agent(), state.roles().collector());
    let answer = StatusDto::new(state.now(), state.started(), store, agent, collector);
    encode::small(&answer, Encoding::accepted(&headers))
}

/// `GET /api/v1/fields`
pub(super) async fn fields(uri: Uri, headers: HeaderMap) -> Answer {
    Params::read(&uri, &known::NONE)?;
    encode::small(&FieldsDto::new(), Encoding::accepted(&headers))
}

/// `GET /api/v1/values`
pub(super) async fn values(State(state): State<WebState>, uri: Uri, headers: HeaderMap) -> Answer {
    let params = Params::read(&uri, &known::VALUES)?;
    let Some(name) = params.text("field") else {
        return Err(ApiError::BadParameter {
            message: "field: expected a field, found nothing".into(),
            hint: Some("write field=process".into()),
        });
    };
    let dimension = selection::field("field", name)?;
    let prefix = params.text("prefix").unwrap_or_default();
    let limit = params.number("limit", 1..=1000, 20)? as usize;
    let selection = select(&params, state.now())?;
    let turn = state.turn().await?;
    let values = if params.text("filter").is_none() {
        turn.values(dimension, prefix, selection.range, limit).await?
    } else {
        filtered_values(&turn, &selection, dimension, prefix, limit).await?
    };
    encode::small(&ValuesDto::new(values), Encoding::accepted(&headers))
}

/// Values under a filter are the groups of a timeline of one bucket.
async fn filtered_values(
    turn: &Turn,
    selection: &Selection,
    dimension: Dimension,
    prefix: &str,
    limit: usize,
) -> Result<Vec<GroupCount>, ApiError> {
    let grid: TimeGrid = timeline::grid(selection.range, 1);
    let groups = turn.timeline(selection, grid, Some(dimension), FILTERED_VALUES).await?;
    let matching = groups.series.into_iter().filter(|series| series.group.starts_with(prefix));
    Ok(matching.take(limit).map(|series| GroupCount { value: series.group, samples: series.total }).collect())
}

/// `GET /api/v1/timeline`
pub(super) async fn samples_over_time(State(state): State<WebState>, uri: Uri, headers: HeaderMap) -> Answer {
    let params = Params::read(&uri, &known::TIMELINE)?;
    let by = params.by(None)?;
    let buckets = params.number("buckets", 1..=2000, 240)?;
    let top = params.number("top", 1..=100, 10)?;
    let selection = select(&params, state.now())?;
    let grid = timeline::grid(selection.range, buckets);
    let turn = state.turn().await?;
    let answer = turn.timeline(&selection, grid, by, top as usize).await?;
    encode::small(&TimelineDto::new(selection.range, grid, answer), Encoding::accepted(&headers))
}

/// `GET /api/v1/flamegraph`
pub(super) async fn flamegraph(State(state): State<WebState>, uri: Uri, headers: HeaderMap) -> Answer {
    let params = Params::read(&uri, &known::FLAMEGRAPH)?;
    let by = params.by(Some(Dimension::Executable))?;
    let max_nodes = params.number("max_nodes", 1..=NODES.1, NODES.0)? as usize;
    let focus = params.text("focus").map(key).transpose()?;
    let selection = select(&params, state.now())?;
    let (range, encoding) = (selection.range, Encoding::accepted(&headers));
    let turn = state.turn().await?;
    let cancel = Cancel::default();
    let Some(key) = focus else {
        let answer = pipeline::flamegraph(&turn, &selection, by, max_nodes, &cancel).await?;
        return write(&cancel, move || {
            encode::large(&FlamegraphDto::new(range, &answer, &Reasons::new(&answer.names)), encoding)
        })
        .await;
    };
    let answer = pipeline::sandwich(&turn, &selection, by, key, max_nodes, &cancel).await?;
    write(&cancel, move || {
        encode::large(&SandwichDto::new(range, &answer, &Reasons::new(&answer.names)), encoding)
    })
    .await
}

/// `GET /api/v1/functions`
pub(super) async fn functions(State(state): State<WebState>, uri: Uri, headers: HeaderMap) -> Answer {
    let params = Params::read(&uri, &known::FUNCTIONS)?;
    let sort = params.choice("sort", &[("self", Sort::Own), ("total", Sort::Total)])?;
    let limit = params.number("limit", 1..=1_000_000, 1000)? as usize;
    let selection = select(&params, state.now())?;
    let (range, encoding) = (selection.range, Encoding::accepted(&headers));
    let turn = state.turn().await?;
    let cancel = Cancel::default();
    let answer = pipeline::functions(&turn, &selection, sort, limit, &cancel).await?;
    write(&cancel, move || {
        encode::large(&FunctionListDto::new(range, &answer, &Reasons::new(&answer.names)), encoding)
    })
    .await
}

/// Encodes on the blocking pool.
async fn write(cancel: &Cancel, encode: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    blocking(cancel, move |_| Ok(encode())).await?
}

fn key(text: &str) -> Result<FunctionKey, ApiError> {
    FunctionKey::parse(text)
        .ok_or_else(|| Error::NoSuchFunction { key: text.chars().take(40).collect() }.into())
}

/// Everything else: a file, a page, or a mistake.
pub(super) async fn other(method: Method, uri: Uri, headers: HeaderMap) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::WrongMethod { method: method.to_string(), expected: "GET" });
    }
    let path = uri.path();
    if path == "/api" || path.starts_with("/api/") {
        let near = crate::query::nearest::nearest(path, super::ROUTES.iter().map(|(path, _)| *path));
        let hint = near.map(|near| format!("did you mean {near}?"));
        return Err(ApiError::NotFound { path: path.chars().take(80).collect(), hint });
    }
    super::assets::serve(&uri, &headers)
}

/// A known address, asked in another way than it answers.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let is_post = |(path, method): &(&str, &str)| *path == uri.path() && *method == "post";
    let expected = if super::profiling::ROUTES.iter().any(is_post) { "POST" } else { "GET" };
    ApiError::WrongMethod { method: method.to_string(), expected }
}
