//! `/metrics` as a service; `run` gives it a listener.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::Service;

use super::Metrics;

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// A JSON object.
    Json,
}

/// Answers GET of `/metrics`.
#[derive(Clone, Debug)]
pub struct Page {
    metrics: Metrics,
    format: Format,
}

impl Page {
    /// A page of these numbers.
    #[must_use]
    pub fn new(metrics: &Metrics, format: Format) -> Self {
        Self { metrics: metrics.clone(), format }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, kind, body) = match (method, path) {
            (_, path) if path != "/metrics" => {
                (StatusCode::NOT_FOUND, "text/plain", "expected /metrics\n".into())
            }
            (&Method::GET | &Method::HEAD, _) => match self.format {
                Format::Prometheus => {
                    (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.prometheus())
                }
                Format::Json => (StatusCode::OK, "application/json", self.metrics.json()),
            },
            _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "expected GET\n".into()),
        };
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        answer
    }
}

impl<B> Service<Request<B>> for Page {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_get_of_the_one_path_is_answered() {
        let page = Page::new(&Metrics::new(), Format::Json);
        for (method, path, expected) in [
            (Method::GET, "/metrics", 200),
            (Method::HEAD, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
        ] {
            assert_eq!(page.answer(&method, path).status().as_u16(), expected, "{method} {path}");
        }
    }
}
