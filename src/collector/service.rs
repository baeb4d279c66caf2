//! The collector's port: exports, `/live` and `/ready`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::config::Config;
use super::ingest::Ingest;
use super::otlp::Exports;
use crate::net::{self, Listener, Shutdown};
use crate::store::Reader;
use crate::wire::otlp::{Answer, AnswerBody, Server};

/// Time for the store to say how it is.
const READY_TIME: Duration = Duration::from_secs(5);

/// A collector whose port is open but not served yet.
#[derive(Debug)]
pub struct Collector {
    listener: Listener,
    service: Service,
}

#[derive(Clone)]
struct Service {
    exports: Server<Exports>,
    store: Option<Arc<dyn Reader>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("exports", &self.exports).finish_non_exhaustive()
    }
}

impl Collector {
    /// Opens the port. `store`, when given, is asked for `/ready`.
    ///
    /// # Errors
    /// When the system refuses the address.
    pub async fn bind(
        config: &Config,
        ingest: Arc<Ingest>,
        store: Option<Arc<dyn Reader>>,
    ) -> Result<Self, net::Error> {
        let listener = Listener::bind(&config.listen.to_string(), config.limits).await?;
        let exports = Server::new(Arc::new(Exports { ingest, token: config.token.clone() }));
        Ok(Self { listener, service: Service { exports, store } })
    }

    /// Address that was bound, with the real port.
    #[must_use]
    pub fn address(&self) -> &net::Address {
        self.listener.address()
    }

    /// Serves until `shutdown` is called and running exports have ended.
    pub async fn serve(self, shutdown: Shutdown) {
        let service = self.service;
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.call(request).await) }
        });
        self.listener.serve(service, shutdown).await;
    }
}

impl Service {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        if Server::<Exports>::wants(&request) {
            return self.exports.call(request).await;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/live") => text(StatusCode::OK, "live"),
            (&Method::GET | &Method::HEAD, "/ready") => match self.ready().await {
                Ok(()) => text(StatusCode::OK, "ready"),
                Err(reason) => {
                    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, &reason);
                    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
                    answer
                }
            },
            (_, "/live" | "/ready") => text(StatusCode::METHOD_NOT_ALLOWED, "expected GET"),
            _ => text(StatusCode::NOT_FOUND, "expected /v1development/profiles, /live or /ready"),
        }
    }

    /// Why exports could not be written now.
    async fn ready(&self) -> Result<(), String> {
        let Some(store) = &self.store else { return Ok(()) };
        match timeout(READY_TIME, store.status()).await {
            Err(_) => Err(format!("the store has not answered within {READY_TIME:?}")),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(status)) => status.refusing.map_or(Ok(()), Err),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(AnswerBody::new(Full::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
