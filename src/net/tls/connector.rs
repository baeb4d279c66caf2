//! TLS connections for a gRPC client, which speaks HTTP/2 over whatever stream it is given.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::{TlsError, client_config};
use crate::config::ClientTls;

/// A connection as HTTP libraries take it.
pub type Stream = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

/// Connects to `https://host:port`. The caller bounds the time.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Connects as `section` says and agrees on HTTP/2.
    ///
    /// # Errors
    /// As [`client_config`].
    pub fn http2(tls: &ClientTls, section: &str) -> Result<Self, TlsError> {
        let mut config = client_config(tls, section)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config).into()))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "expected a host name");
            let host = uri.host().ok_or_else(invalid)?;
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
            let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            tls.connect(name, stream).await.map(TokioIo::new)
        })
    }
}
