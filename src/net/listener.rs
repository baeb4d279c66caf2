//! One port for HTTP/1 and HTTP/2, with bounds on connections and on patience, and an orderly end.
//!
//! A connection beyond the limit waits in the kernel's queue. One that sends no complete request in time is closed.
//! On shutdown no new connection is taken, running requests may finish until the deadline, the rest is cut.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;

use super::Shutdown;

/// Pause when the system cannot give a connection (out of file descriptors): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams: u32,
    /// Time for the first request's header, and for each later one on HTTP/1.
    pub header_time: Duration,
    /// Silence after which an HTTP/2 connection is asked whether it is alive, and time for its answer.
    pub keep_alive: Duration,
    /// Time for running requests after shutdown was called.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 64,
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
            _ => None,
        }
    }
}

/// A bound port that does not serve yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Listener {
    /// Binds `address` (`host:port`; port 0 = any free one).
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn bind(address: &str, limits: Limits) -> Result<Self, Error> {
        let failed = |source| Error { address: address.to_owned(), source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, limits })
    }

    /// Address that was bound, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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
        let builder = Arc::new(self.builder());
        let room = Arc::new(Semaphore::new(self.limits.connections));
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
                    tracing::warn!(%error, address = %self.address, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Answers are small and waited for: never hold them back.
            let _ = stream.set_nodelay(true);
            let (builder, service, shutdown) = (builder.clone(), service.clone(), shutdown.clone());
            let header_time = self.limits.header_time;
            connections.spawn(async move {
                serve_connection(&builder, stream, service, shutdown, header_time).await;
                drop(permit);
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
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.header_time);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .keep_alive_interval(self.limits.keep_alive)
            .keep_alive_timeout(self.limits.keep_alive)
            .max_header_list_size(16 << 10);
        builder
    }
}

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = socket.accept().await?;
    Ok((stream, permit))
}

async fn serve_connection<S, B>(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    service: S,
    shutdown: Shutdown,
    header_time: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
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
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    // The version is told by the first bytes, before any timer of hyper runs: watch over the first request here.
    let patience = Instant::now() + header_time;
    let mut draining = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection ended");
                }
                return;
            }
            () = tokio::time::sleep_until(patience), if !*requested.borrow() => return,
            Ok(()) = requested.changed() => {}
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::service_fn;

    fn quick() -> Limits {
        Limits {
            connections: 2,
            header_time: Duration::from_millis(200),
            drain_time: Duration::from_millis(500),
            ..Limits::default()
        }
    }

    async fn start(limits: Limits) -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
        let listener = Listener::bind("127.0.0.1:0", limits).await.unwrap();
        let (address, shutdown) = (listener.address(), Shutdown::new());
        let service = service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/slow" {
                sleep(Duration::from_millis(150)).await;
            } else if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let version = format!("{:?}", request.version());
            let _ = request.into_body().collect().await;
            Ok(Response::new(Full::new(Bytes::from(version))))
        });
        let serving = tokio::spawn(listener.serve(service, shutdown.clone()));
        (address, shutdown, serving)
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn serves_http1_and_stops() {
        let (address, shutdown, serving) = start(quick()).await;
        assert!(get(address, "/").await.ends_with("HTTP/1.1"));
        shutdown.cancel();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_makes_room() {
        let (address, _shutdown, _serving) = start(quick()).await;
        let mut silent =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        // Half of an HTTP/2 preface is silence too.
        silent[1].write_all(b"PRI * HT").await.unwrap();
        assert!(get(address, "/").await.ends_with("HTTP/1.1"), "no room was made");
        for stream in &mut silent {
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
        }
    }

    #[tokio::test]
    async fn a_running_request_is_finished_after_shutdown() {
        let (address, shutdown, serving) = start(quick()).await;
        let request = tokio::spawn(get(address, "/slow").into_future());
        sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
        assert!(request.await.unwrap().ends_with("HTTP/1.1"));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_at_the_deadline() {
        let (address, shutdown, serving) = start(quick()).await;
        let request = tokio::spawn(get(address, "/never").into_future());
        sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
        serving.await.unwrap();
        assert_eq!(request.await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_with_a_hint() {
        let (address, _shutdown, _serving) = start(quick()).await;
        let error = Listener::bind(&address.to_string(), quick()).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")));
        assert!(error.hint().is_some());
    }
}
