//! One port for HTTP/1 and HTTP/2, plain or TLS, with bounds on connections and on patience, and an orderly end.
//!
//! A connection beyond the limit waits in the kernel's queue. One that sends no complete request in time is closed, a
//! TLS handshake included. On shutdown no new connection is taken, running requests may finish until the deadline, the
//! rest is cut.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::Shutdown;
pub use super::socket::Address;
use super::socket::{Connection, Socket};
use super::tls::{self, TlsError};
use crate::config::ServerTls;
use crate::telemetry::{Metric, Metrics, Seldom};

/// Pause when the system cannot give a connection (out of file descriptors): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of bodies that one connection may have sent and nobody has read yet.
    pub window: u32,
    /// Time for the first request's header, and for each later one on HTTP/1.
    pub header_time: Duration,
    /// Silence after which an HTTP/2 connection is asked whether it is alive, and time for its answer.
    pub keep_alive: Duration,
    /// Time for running requests after shutdown was called.
    pub drain_time: Duration,
}

impl Limits {
    /// What a connection costs beside its window: its task, its buffers, those of TLS.
    pub const CONNECTION_BYTES: u64 = 64 << 10;
    /// Windows are not made smaller than what the protocol begins with.
    pub const SMALLEST_WINDOW: u32 = 64 << 10;

    /// Bounds with which connections alone stay below `bytes`, whatever they send.
    #[must_use]
    pub fn within(bytes: u64) -> Self {
        let all = Self::default();
        let each = bytes / all.connections as u64;
        let window = each.saturating_sub(Self::CONNECTION_BYTES);
        let window = window.clamp(Self::SMALLEST_WINDOW.into(), all.window.into()) as u32;
        let connections = bytes / (Self::CONNECTION_BYTES + u64::from(window));
        Self { window, connections: (connections as usize).clamp(16, all.connections), ..all }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 64,
            window: 1 << 20,
            header_time: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
            drain_time: Duration::from_secs(5),
        }
    }
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct Error {
    /// Address wanted.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => Some("stop the other process on this port or choose another port"),
            io::ErrorKind::PermissionDenied => Some("ports below 1024 need privileges; choose a higher one"),
            io::ErrorKind::AddrNotAvailable => Some("the address does not belong to this machine"),
            io::ErrorKind::AlreadyExists => Some("choose another path, or take the file away"),
            _ => None,
        }
    }
}

/// What became of connections.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    silent: AtomicU64,
    tls: AtomicU64,
}

/// An open connection, counted as such until it is gone, however it ends.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bound port that does not serve yet.
pub struct Listener {
    socket: Socket,
    address: Address,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// Binds `address` (`host:port`; port 0 = any free one).
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(address: &str, limits: Limits) -> Result<Self, Error> {
        let bound = Socket::tcp(address).await;
        Self::new(bound.map_err(|source| Error { address: address.to_owned(), source })?, limits)
    }

    /// Binds a path. A socket left behind by a process that is gone is replaced; it goes away with this listener.
    ///
    /// # Errors
    /// When the system refuses, somebody listens there, or another file has the path.
    pub async fn bind_path(path: &Path, limits: Limits) -> Result<Self, Error> {
        let bound = Socket::unix(path).await;
        Self::new(bound.map_err(|source| Error { address: path.display().to_string(), source })?, limits)
    }

    #[allow(clippy::unnecessary_wraps, reason = "ends both ways to bind")]
    fn new((socket, address): (Socket, Address), limits: Limits) -> Result<Self, Error> {
        Ok(Self { socket, address, limits, tls: None, counts: Arc::default() })
    }

    /// Serves TLS instead of plain text, as `section` of the configuration says.
    ///
    /// # Errors
    /// When a certificate or a key cannot be read or used.
    pub fn with_tls(mut self, tls: &ServerTls, section: &str) -> Result<Self, TlsError> {
        self.tls = Some(tls::server_config(tls, section)?.into());
        Ok(self)
    }

    /// Shows what becomes of connections on the pages.
    pub fn show(&self, metrics: &Metrics) {
        let counts = Arc::clone(&self.counts);
        metrics.ask(move |answers| {
            let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            answers.put(Metric::Connections, value(&counts.open));
            answers.put(Metric::ConnectionsAccepted, value(&counts.accepted));
            for (reason, counter) in [("silent", &counts.silent), ("tls", &counts.tls)] {
                answers.put_with(Metric::ConnectionsRefused, &[("reason", reason)], value(counter) as f64);
            }
        });
    }

    /// Address that was bound, with the real port.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves until `shutdown` is called and everything has ended or was cut.
    pub async fn serve<S, B>(self, service: S, shutdown: Shutdown)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let open = Arc::new(Opening {
            builder: self.builder(),
            tls: self.tls,
            counts: self.counts,
            header_time: self.limits.header_time,
            refused: Seldom::default(),
        });
        let room = Arc::new(Semaphore::new(self.limits.connections));
        let full = Seldom::default();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = accept(&self.socket, &room) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(times) = full.due() {
                        tracing::warn!(%error, address = %self.address, times, "cannot accept a connection");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if room.available_permits() == 0
                && let Some(times) = full.due()
            {
                let connections = self.limits.connections;
                tracing::warn!(address = %self.address, connections, times, "all connections are taken; more have to wait");
            }
            let (open, service, shutdown) = (open.clone(), service.clone(), shutdown.clone());
            let counted = Open::new(&open.counts);
            connections.spawn(async move {
                open.serve(stream, service, shutdown).await;
                drop((counted, permit));
            });
        }
        drop(self.socket);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(self.limits.drain_time, ended).await.is_err() {
            tracing::warn!(address = %self.address, "requests still running after {:?} were cut", self.limits.drain_time);
        }
        connections.shutdown().await;
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_time)
            .max_buf_size(Limits::SMALLEST_WINDOW as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .initial_stream_window_size(self.limits.window)
            .initial_connection_window_size(self.limits.window)
            .keep_alive_interval(self.limits.keep_alive)
            .keep_alive_timeout(self.limits.keep_alive)
            .max_header_list_size(16 << 10);
        builder
    }
}

async fn accept(socket: &Socket, room: &Arc<Semaphore>) -> io::Result<(Connection, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    Ok((socket.accept().await?, permit))
}

/// What every connection of a listener needs.
struct Opening {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    counts: Arc<Counts>,
    header_time: Duration,
    refused: Seldom,
}

impl Opening {
    async fn serve<S, B>(&self, stream: Connection, service: S, shutdown: Shutdown)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let patience = Instant::now() + self.header_time;
        let Some(tls) = &self.tls else {
            return self.requests(stream, service, shutdown, patience).await;
        };
        let peer = stream.peer();
        let problem = tokio::select! {
            met = timeout_at(patience, tls.accept(stream)) => match met {
                Ok(Ok(stream)) => return self.requests(stream, service, shutdown, patience).await,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no handshake within {:?}", self.header_time),
            },
            () = shutdown.cancelled() => return,
        };
        self.counts.tls.fetch_add(1, Ordering::Relaxed);
        if let Some(times) = self.refused.due() {
            tracing::warn!(peer, problem, times, "a connection ended in its TLS handshake");
        } else {
            tracing::debug!(peer, problem, "a connection ended in its TLS handshake");
        }
    }

    async fn requests<S, B, I>(&self, stream: I, service: S, shutdown: Shutdown, patience: Instant)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (first_request, mut requested) = tokio::sync::watch::channel(false);
        let service = tower::ServiceBuilder::new()
            .map_request(move |request| {
                first_request.send_if_modified(|seen| !std::mem::replace(seen, true));
                request
            })
            .service(service);
        let connection =
            self.builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        // The version is told by the first bytes, before any timer of hyper runs: watch over the first request here.
        let mut draining = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "connection ended");
                    }
                    return;
                }
                () = tokio::time::sleep_until(patience), if !*requested.borrow() => {
                    self.counts.silent.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(()) = requested.changed() => {}
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
