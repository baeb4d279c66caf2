//! The router as clients see it, over a reader that answers from memory.

mod contract;
mod memory;
mod page;
mod rim;
mod routes;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::model::UnixNanos;
use crate::net::HostGuard;
use memory::{MemoryReader, OneAgent};

/// 2025-11-21 14:06:40 UTC.
const NOW: UnixNanos = UnixNanos::from_millis(1_763_734_000_000);

fn parts(reader: MemoryReader) -> Parts {
    Parts {
        reader: Arc::new(reader),
        roles: Arc::new(OneAgent),
        clock: Arc::new(|| NOW),
        guard: HostGuard::default(),
        token: None,
        max_queries: 2,
    }
}

async fn send(parts: Parts, request: Request<Body>) -> Response {
    router(WebState::new(parts)).oneshot(request).await.unwrap()
}

fn request(uri: &str) -> Request<Body> {
    Request::get(uri).header(header::HOST, "localhost:8250").body(Body::empty()).unwrap()
}

async fn body(response: Response) -> (StatusCode, HeaderMap, Vec<u8>) {
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

/// Status and JSON of one address over the scene made by hand.
async fn get_json(uri: &str) -> (StatusCode, serde_json::Value) {
    let (status, headers, bytes) = body(send(parts(MemoryReader::scene()), request(uri)).await).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{uri}");
    (status, serde_json::from_slice(&bytes).unwrap())
}
