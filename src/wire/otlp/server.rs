//! Takes exports over gRPC and over HTTP, both on one port, and hands their bytes to a [`Receiver`].
//!
//! Here end framing, compression and size: a receiver sees whole messages of at most [`MAX_MESSAGE_BYTES`]. A refused
//! export is answered and the connection lives on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::codec::RawCodec;
use super::compression::{self, unpack};
use super::json;
use super::limits::MAX_MESSAGE_BYTES;
use super::messages::{PartialSuccess, encode_status};
use super::{EXPERIMENTAL_EXPORT_PATH, EXPORT_PATH, HTTP_EXPORT_PATH};

/// Body of an answer.
pub type AnswerBody = tonic::body::Body;
/// An answer.
pub type Answer = Response<AnswerBody>;

/// Exports read and processed at the same time. Each holds a message, packed and unpacked: 2 GiB at the very worst,
/// some hundred KiB each in practice. Others wait unread, which holds their senders back.
const EXPORTS_AT_ONCE: usize = 32;
/// Time for the bytes of one export to arrive.
const RECEIVE_TIME: Duration = Duration::from_secs(30);
/// JSON beyond this is read off the network threads: at some 100 MB/s, 256 KiB are 2 to 3 ms.
const LARGE_JSON: usize = 256 << 10;

/// How messages travel over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    /// By the value of `content-type`.
    fn of(kind: &str) -> Option<Self> {
        match kind.split(';').next().map(str::trim) {
            Some("application/x-protobuf") => Some(Self::Protobuf),
            Some("application/json") => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }
}

/// Which family of messages the sender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// `v1development`: 1.4 and later.
    Development,
    /// `v1experimental`: 1.3.
    Experimental,
}

/// Why an export was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message says something impossible; never send it again.
    Malformed(String),
    /// Too much work right now; come back after the pause.
    Overloaded(String, Duration),
    /// Cannot work right now; come back after the pause.
    Unavailable(String, Duration),
    /// Something broke here.
    Internal(String),
}

/// Takes exports.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Whether the sender may send. Asked before anything else is read.
    fn authorize(&self, headers: &HeaderMap) -> bool;

    /// Takes one export.
    async fn receive(&self, message: Bytes, package: Package) -> Result<PartialSuccess, Refusal>;
}

/// Serves exports for one receiver.
#[derive(Debug)]
pub struct Server<R> {
    receiver: Arc<R>,
    room: Arc<Semaphore>,
    receive_time: Duration,
}

impl<R> Clone for Server<R> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), room: self.room.clone(), receive_time: self.receive_time }
    }
}

impl<R: Receiver> Server<R> {
    /// Serves exports for `receiver`.
    #[must_use]
    pub fn new(receiver: Arc<R>) -> Self {
        Self { receiver, room: Arc::new(Semaphore::new(EXPORTS_AT_ONCE)), receive_time: RECEIVE_TIME }
    }

    /// Whether a request is for this server: its paths, and everything that speaks gRPC.
    #[must_use]
    pub fn wants<B>(request: &Request<B>) -> bool {
        request.uri().path() == HTTP_EXPORT_PATH || is_grpc(request.headers())
    }

    /// Answers one request.
    pub async fn call<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if is_grpc(request.headers()) { self.grpc(request).await } else { self.http(request).await }
    }

    async fn grpc<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let package = match request.uri().path() {
            EXPORT_PATH => Package::Development,
            EXPERIMENTAL_EXPORT_PATH => Package::Experimental,
            other => {
                let service = other.trim_start_matches('/').split('/').next().unwrap_or_default();
                return Status::unimplemented(format!("unknown service {service}")).into_http();
            }
        };
        if !self.receiver.authorize(request.headers()) {
            return Status::unauthenticated("authentication failed").into_http();
        }
        let _permit = self.room.acquire().await.expect("the semaphore is never closed");
        let receiver = self.receiver.clone();
        let export = tower::service_fn(move |request: tonic::Request<Bytes>| {
            let receiver = receiver.clone();
            async move {
                match receiver.receive(request.into_inner(), package).await {
                    Ok(partial) => Ok(tonic::Response::new(Bytes::from(partial.encode()))),
                    Err(refusal) => Err(refusal.status()),
                }
            }
        });
        let mut grpc = tonic::server::Grpc::new(RawCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .apply_max_message_size_config(Some(MAX_MESSAGE_BYTES), None);
        grpc.unary(export, request.map(|body| Patient::new(body, self.receive_time))).await
    }

    async fn http<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let form = Form::of(&text_of(request.headers(), &CONTENT_TYPE));
        // Who speaks neither is told in the older one.
        let answered = form.unwrap_or(Form::Protobuf);
        let refuse = |status, code, message| refuse(answered, status, code, message, None);
        if request.method() != Method::POST {
            let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "expected POST");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        if !self.receiver.authorize(request.headers()) {
            let mut answer = refuse(StatusCode::UNAUTHORIZED, Code::Unauthenticated, "authentication failed");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let Some(form) = form else {
            let shown: String = text_of(request.headers(), &CONTENT_TYPE).chars().take(64).collect();
            let message = format!(
                "content-type: expected application/x-protobuf or application/json, found \"{shown}\""
            );
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, &message);
        };
        let _permit = self.room.acquire().await.expect("the semaphore is never closed");
        match self.http_message(request, form).await {
            Err(refused) => refused,
            Ok(message) => match self.receiver.receive(message, Package::Development).await {
                Ok(partial) => answer(
                    form,
                    StatusCode::OK,
                    match form {
                        Form::Protobuf => partial.encode(),
                        Form::Json => partial.to_json().into_bytes(),
                    },
                ),
                Err(refusal) => refusal.answer(form),
            },
        }
    }

    /// The message in the body, or the answer that refuses it.
    async fn http_message<B>(&self, request: Request<B>, form: Form) -> Result<Bytes, Answer>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let refuse = |status, code, message: &str| refuse(form, status, code, message, None);
        let encoding = text_of(request.headers(), &CONTENT_ENCODING);
        let body = Limited::new(Patient::new(request.into_body(), self.receive_time), MAX_MESSAGE_BYTES);
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = format!("body: expected at most {MAX_MESSAGE_BYTES} bytes, found more");
                return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, &message));
            }
            Err(error) => {
                let message = format!("body: {error}");
                return Err(refuse(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, &message));
            }
        };
        let message: Bytes = match unpack(&encoding, &body, MAX_MESSAGE_BYTES) {
            Ok(None) => body,
            Ok(Some(unpacked)) => unpacked.into(),
            Err(error) => {
                let (status, code) = match &error {
                    compression::Error::Unknown(_) => {
                        (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument)
                    }
                    compression::Error::TooLarge { .. } => {
                        (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted)
                    }
                    compression::Error::Broken { .. } => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
                };
                return Err(refuse(status, code, &error.to_string()));
            }
        };
        if form == Form::Protobuf {
            return Ok(message);
        }
        let read = if message.len() > LARGE_JSON {
            match tokio::task::spawn_blocking(move || json::to_protobuf(&message)).await {
                Ok(read) => read,
                Err(error) => {
                    let message = format!("decoding ended early: {error}");
                    return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, &message));
                }
            }
        } else {
            json::to_protobuf(&message)
        };
        read.map(Bytes::from).map_err(|error| {
            let message = format!("body: expected an export as JSON, found something else: {error}");
            refuse(StatusCode::BAD_REQUEST, Code::InvalidArgument, &message)
        })
    }
}

impl Refusal {
    fn parts(&self) -> (Code, StatusCode, &str, Option<Duration>) {
        match self {
            Self::Malformed(message) => (Code::InvalidArgument, StatusCode::BAD_REQUEST, message, None),
            Self::Overloaded(message, after) => {
                (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE, message, Some(*after))
            }
            Self::Unavailable(message, after) => {
                (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, message, Some(*after))
            }
            Self::Internal(message) => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, message, None),
        }
    }

    fn status(&self) -> Status {
        let (code, _, message, after) = self.parts();
        match after {
            None => Status::new(code, message),
            // Without this detail, senders must take resource exhaustion for final.
            Some(_) => Status::with_details(code, message, encode_status(code as i32, message, after).into()),
        }
    }

    fn answer(&self, form: Form) -> Answer {
        let (code, status, message, after) = self.parts();
        refuse(form, status, code, message, after)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A header in lower case; empty when it is absent.
fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase())
        .unwrap_or_default()
}

fn answer(form: Form, status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(AnswerBody::new(Full::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, form.content_type());
    answer
}

/// OTLP over HTTP: the body of a refusal is a `google.rpc.Status`.
fn refuse(
    form: Form,
    status: StatusCode,
    code: Code,
    message: &str,
    retry_after: Option<Duration>,
) -> Answer {
    let body = match form {
        Form::Protobuf => encode_status(code as i32, message, retry_after),
        Form::Json => serde_json::json!({"code": code as i32, "message": message}).to_string().into_bytes(),
    };
    let mut answer = answer(form, status, body);
    if let Some(after) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
    }
    answer
}

/// A body that must arrive in time.
struct Patient<B> {
    body: Pin<Box<B>>,
    deadline: Pin<Box<tokio::time::Sleep>>,
    time: Duration,
}

impl<B> Patient<B> {
    fn new(body: B, time: Duration) -> Self {
        Self { body: Box::pin(body), deadline: Box::pin(tokio::time::sleep(time)), time }
    }
}

impl<B> Body for Patient<B>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = self.body.as_mut().poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.deadline.as_mut().poll(context));
        let late = Status::deadline_exceeded(format!("expected the whole message within {:?}", self.time));
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
