//! The router as the service that `net::Listener` takes.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use tower::{Service, ServiceExt, service_fn};

use super::{WebState, router};

/// All routes of the page as a service over hyper's bodies.
#[must_use]
pub fn service(
    state: WebState,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let router = router(state);
    service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { router.oneshot(request.map(Body::new)).await }
    })
}
