//! The collector's port: exports, `/live` and `/ready`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::config::Config;
use super::ingest::Ingest;
use super::otlp::{Exports, Told};
use crate::config::CollectorSection;
use crate::net::tls::TlsError;
use crate::net::{self, Listener, Shutdown};
use crate::store::Health;
use crate::telemetry::{Counter, Histogram, Metric, Metrics};
use crate::wire::otlp::{Answer, AnswerBody, HTTP_EXPORT_PATH, Server, grpc_code};

/// Time for the store to say how it is.
const READY_TIME: Duration = Duration::from_secs(5);

/// Why a collector cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused the address.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A certificate or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Net(error) => error.hint(),
            Self::Tls(error) => error.hint(),
        }
    }
}

/// A collector whose port is open but not served yet.
#[derive(Debug)]
pub struct Collector {
    listener: Listener,
    service: Service,
}

#[derive(Clone)]
struct Service {
    exports: Server<Exports>,
    health: Option<Arc<dyn Health>>,
    metrics: Metrics,
    started: Counter,
    handling: Histogram,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("exports", &self.exports).finish_non_exhaustive()
    }
}

impl Collector {
    /// Opens the port. `health`, when given, is asked for `/ready`.
    ///
    /// # Errors
    /// When the system refuses the address, or TLS cannot be served as configured.
    pub async fn bind(
        config: &Config,
        ingest: Arc<Ingest>,
        health: Option<Arc<dyn Health>>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let mut listener = Listener::bind(&config.listen.to_string(), config.limits).await?;
        if let Some(tls) = &config.tls {
            listener = listener.with_tls(tls, &format!("{}.ssl", CollectorSection::NAME))?;
        }
        listener.show(metrics);
        config.budget.show(metrics);
        let counted = Arc::clone(&ingest);
        metrics.ask(move |answers| counted.counters().answer(answers));
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        let exports = Server::new(Arc::new(Exports {
            ingest,
            token: config.token.clone(),
            budget: config.budget.clone(),
            turns: Arc::new(Semaphore::new(cpus)),
            grpc_messages: metrics.counter(Metric::GrpcMessagesReceived, &[]),
            told: Told::default(),
        }));
        let service = Service {
            exports,
            health,
            metrics: metrics.clone(),
            started: metrics.counter(Metric::GrpcStarted, &[]),
            handling: metrics.histogram(Metric::GrpcHandlingSeconds, &[]),
        };
        Ok(Self { listener, service })
    }

    /// Gives senders another time for the bytes of one export.
    #[must_use]
    pub fn with_receive_time(mut self, time: Duration) -> Self {
        self.service.exports = self.service.exports.with_receive_time(time);
        self
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
            return self.export(request).await;
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

    /// Takes one export and counts what became of it.
    async fn export(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path() == HTTP_EXPORT_PATH {
            let answer = self.exports.call(request).await;
            let status = answer.status();
            self.metrics.counter(Metric::HttpHandled, &[("status", status.as_str())]).add(1);
            return answer;
        }
        self.started.add(1);
        let start = Instant::now();
        let answer = self.exports.call(request).await;
        self.handling.record(start.elapsed());
        self.metrics.counter(Metric::GrpcHandled, &[("grpc_code", &grpc_code(&answer))]).add(1);
        answer
    }

    /// Why exports could not be written now.
    async fn ready(&self) -> Result<(), String> {
        let Some(health) = &self.health else { return Ok(()) };
        timeout(READY_TIME, health.ready())
            .await
            .unwrap_or_else(|_| Err(format!("the store has not answered within {READY_TIME:?}")))
    }
}

fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(AnswerBody::new(Full::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
