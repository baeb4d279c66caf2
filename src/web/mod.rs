//! The page and the query API: routes, answers as JSON, embedded files.
//!
//! Knows no engine (only [`crate::store::Reader`]) and no socket: `run` gives [`router`] a listener. Every request
//! passes the guard and, where one is set, the token; heavy queries wait for one of a few turns, and their reduction
//! stops when the client goes away. `docs/api.md` and `docs/openapi.yaml` are the contract.

mod assets;
mod dto;
mod encode;
mod error;
mod params;
mod profiling;
mod rim;
mod roles;
mod routes;
mod service;
mod state;
mod token;
mod turn;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

pub use roles::{AgentStatus, CollectorStatus, Counter, PageOnly, RoleStatus};
pub use service::service;
pub use state::{Clock, Parts, WebState};
pub use token::AccessToken;

/// Addresses of the API with the parameters that each takes.
const ROUTES: [(&str, &[&str]); 7] = [
    ("/api/v1/openapi.yaml", &routes::known::NONE),
    ("/api/v1/status", &routes::known::NONE),
    ("/api/v1/fields", &routes::known::NONE),
    ("/api/v1/values", &routes::known::VALUES),
    ("/api/v1/timeline", &routes::known::TIMELINE),
    ("/api/v1/flamegraph", &routes::known::FLAMEGRAPH),
    ("/api/v1/functions", &routes::known::FUNCTIONS),
];

/// All routes of the page.
pub fn router(state: WebState) -> Router {
    let [openapi, status, fields, values, timeline, flamegraph, functions] = ROUTES.map(|(path, _)| path);
    let [profiling_status, stack_traces, flame_graph, top_functions] =
        profiling::ROUTES.map(|(path, _)| path);
    Router::new()
        .route(openapi, get(routes::openapi))
        .route(status, get(routes::status))
        .route(fields, get(routes::fields))
        .route(values, get(routes::values))
        .route(timeline, get(routes::samples_over_time))
        .route(flamegraph, get(routes::flamegraph))
        .route(functions, get(routes::functions))
        .route(profiling_status, get(profiling::status))
        .route(stack_traces, post(profiling::stack_traces))
        .route(flame_graph, post(profiling::flame_graph))
        .route(top_functions, post(profiling::top_functions))
        .fallback(routes::other)
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(from_fn_with_state(state.clone(), rim::want_token))
        .layer(from_fn_with_state(state.clone(), rim::guard))
        // Added behind the guard: whoever watches the process asks by any name and without a token.
        .route("/live", get(routes::live))
        .route("/ready", get(routes::ready))
        .layer(from_fn(rim::add_headers))
        .with_state(state)
}

#[cfg(test)]
mod tests;
