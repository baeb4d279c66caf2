//! Sends exports over gRPC.
//!
//! One connection, opened when first needed and again when lost. Retries belong to the caller, who knows how long
//! a batch is worth keeping; an error says whether another try can help.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::rt::{Read, Write};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tower::util::BoxCloneSyncService;

use super::codec::RawCodec;
use super::messages::{PartialSuccess, retry_after};
use super::{EXPORT_PATH, TOKEN_METADATA};

/// How messages are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// What every receiver understands.
    #[default]
    Gzip,
    /// Smaller and faster; not every receiver understands it.
    Zstd,
}

/// A connection that is already protected.
pub type Protected = Pin<Box<dyn Stream>>;
/// Opens protected connections to a URL; the caller decides how.
pub type Connect = BoxCloneSyncService<Uri, Protected, BoxError>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What HTTP needs of a connection.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// Where and how to send.
#[derive(Clone)]
pub struct ClientOptions {
    /// `host:port`, or a URL.
    pub address: String,
    /// How connections are protected; `None` = plain text.
    pub connect: Option<Connect>,
    /// Secret token; empty = none.
    pub token: String,
    /// How messages are packed.
    pub compression: Compression,
    /// Time to open a connection.
    pub connect_time: Duration,
    /// Time for one export, answer included.
    pub export_time: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            address: String::new(),
            connect: None,
            token: String::new(),
            compression: Compression::default(),
            connect_time: Duration::from_secs(3),
            export_time: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("address", &self.address)
            .field("token", &"[redacted]")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// Why an export was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another try may help.
    #[error("{address}: {reason}")]
    Retryable {
        /// Receiver.
        address: String,
        /// What it or the network said.
        reason: String,
        /// Pause that the receiver asks for.
        after: Option<Duration>,
    },
    /// Another try will not help.
    #[error("{address}: {reason}")]
    Refused {
        /// Receiver.
        address: String,
        /// What it said.
        reason: String,
        /// What a person can do about it.
        hint: Option<&'static str>,
        /// Nothing else that this sender says will be taken either: its token or its version is wrong.
        bars: bool,
    },
}

impl SendError {
    /// Whether the same message may be sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable { .. })
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { hint, .. } => *hint,
            Self::Retryable { .. } => None,
        }
    }
}

/// A receiver of exports.
#[derive(Clone)]
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
    address: String,
    /// The token as each of the two headers that receivers look at.
    token: Option<(MetadataValue<Ascii>, MetadataValue<Ascii>)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client; no connection is opened yet. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the address or the token cannot be used.
    pub fn new(options: &ClientOptions) -> Result<Self, SendError> {
        let address = options.address.clone();
        let refused =
            |reason: String, hint| SendError::Refused { address: address.clone(), reason, hint, bars: false };
        let (scheme, otherwise) = match options.connect {
            None => ("http", "leave the scheme out, or send over TLS"),
            Some(_) => ("https", "leave the scheme out, or send in plain text"),
        };
        let url = match address.split_once("://") {
            None => format!("{scheme}://{address}"),
            Some((found, _)) if found == scheme => address.clone(),
            Some((found, _)) => {
                return Err(refused(format!("expected {scheme}, found {found}"), Some(otherwise)));
            }
        };
        let endpoint = Endpoint::from_shared(url)
            .map_err(|_| refused("expected host:port".into(), Some("write 127.0.0.1:8260")))?
            .connect_timeout(options.connect_time)
            .timeout(options.export_time)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .expect("name and version are plain text");
        let channel = match &options.connect {
            None => endpoint.connect_lazy(),
            Some(connect) => endpoint.connect_with_connector_lazy(connect.clone()),
        };
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc = match options.compression {
            Compression::None => grpc,
            Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        };
        let token = if options.token.is_empty() {
            None
        } else {
            let header = |text: String| {
                let mut value = MetadataValue::try_from(text).map_err(|_| {
                    refused("the secret token has characters that no header takes".into(), None)
                })?;
                value.set_sensitive(true);
                Ok(value)
            };
            Some((header(options.token.clone())?, header(format!("Bearer {}", options.token))?))
        };
        Ok(Self { grpc, address, token })
    }

    /// Sends one export, written by [`super::encode()`].
    ///
    /// # Errors
    /// [`SendError::is_retryable`] tells whether another try may help.
    pub async fn send(&self, message: Bytes) -> Result<PartialSuccess, SendError> {
        let mut request = tonic::Request::new(message);
        if let Some((raw, bearer)) = &self.token {
            request.metadata_mut().insert(TOKEN_METADATA, raw.clone());
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| self.unreachable(&error))?;
        let path = PathAndQuery::from_static(EXPORT_PATH);
        let answer = grpc.unary(request, path, RawCodec).await.map_err(|status| self.failed(&status))?;
        // An answer that cannot be read does not undo an export that was taken.
        Ok(PartialSuccess::decode(answer.get_ref()).unwrap_or_default())
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> SendError {
        SendError::Retryable { address: self.address.clone(), reason: chain(error), after: None }
    }

    fn failed(&self, status: &tonic::Status) -> SendError {
        let address = self.address.clone();
        let after = retry_after(status.details());
        let reason = match std::error::Error::source(status) {
            Some(source) => chain(source),
            None if status.message().is_empty() => status.code().description().to_lowercase(),
            None => status.message().to_owned(),
        };
        // The rules of OTLP: resource exhaustion is final unless the receiver says when to come back.
        let retryable = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::DataLoss => {
                true
            }
            Code::ResourceExhausted => after.is_some(),
            // A connection that broke in the middle has no better code.
            Code::Unknown => std::error::Error::source(status).is_some(),
            _ => false,
        };
        if retryable {
            return SendError::Retryable { address, reason, after };
        }
        let hint = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                Some("check the secret token against the receiver's")
            }
            Code::FailedPrecondition => Some("the receiver takes other versions of the agent"),
            Code::Unimplemented => Some("the other side takes no OTLP profiles; check the address"),
            _ => None,
        };
        let bars = matches!(status.code(), Code::Unauthenticated | Code::FailedPrecondition);
        SendError::Refused { address, reason, hint, bars }
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
