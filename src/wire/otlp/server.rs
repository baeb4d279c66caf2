//! Takes exports over gRPC and over HTTP, both on one port, and hands them to a [`Receiver`].
//!
//! Here end framing, size and patience: a receiver sees whole messages of at most [`MAX_MESSAGE_BYTES`], still packed.
//! A refused export is answered and the connection lives on.
//!
//! [`MAX_MESSAGE_BYTES`]: super::limits::MAX_MESSAGE_BYTES

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tonic::{Code, Status};

use super::compression::Packing;
use super::export::{Export, Form, Package, Refusal, Room, Transport};
use super::gather;
use super::messages::{PartialSuccess, encode_status};
use super::{EXPERIMENTAL_EXPORT_PATH, EXPORT_PATH, HTTP_EXPORT_PATH};

/// Body of an answer.
pub type AnswerBody = tonic::body::Body;
/// An answer.
pub type Answer = Response<AnswerBody>;

/// Time for the bytes of one export to arrive.
const RECEIVE_TIME: Duration = Duration::from_secs(30);
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Takes exports.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Memory of one export.
    type Room: Room;

    /// Whether the sender may send. Asked before anything else is read.
    fn authorize(&self, headers: &HeaderMap) -> bool;

    /// Room for one export, of which nothing is taken yet.
    fn room(&self) -> Self::Room;

    /// Hears of an export that was refused before it was whole.
    fn turned_away(&self, refusal: &Refusal);

    /// Takes one export.
    async fn receive(&self, export: Export, room: Self::Room) -> Result<PartialSuccess, Refusal>;
}

/// Serves exports for one receiver.
#[derive(Debug)]
pub struct Server<R> {
    receiver: Arc<R>,
    receive_time: Duration,
}

impl<R> Clone for Server<R> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), receive_time: self.receive_time }
    }
}

impl<R: Receiver> Server<R> {
    /// Serves exports for `receiver`.
    #[must_use]
    pub fn new(receiver: Arc<R>) -> Self {
        Self { receiver, receive_time: RECEIVE_TIME }
    }

    /// Gives senders another time for the bytes of one export.
    #[must_use]
    pub fn with_receive_time(self, receive_time: Duration) -> Self {
        Self { receive_time, ..self }
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
        match self.grpc_export(request, package).await {
            Ok(partial) => grpc_answer(&partial.encode()),
            Err(refusal) => {
                let unpackable = matches!(refusal, Refusal::Unpackable(_));
                let mut answer = refusal.status().into_http();
                if unpackable {
                    let known = HeaderValue::from_static("identity,gzip,zstd");
                    answer.headers_mut().insert("grpc-accept-encoding", known);
                }
                answer
            }
        }
    }

    async fn grpc_export<B>(&self, request: Request<B>, package: Package) -> Result<PartialSuccess, Refusal>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut room = self.receiver.room();
        let gathered = async {
            let packing = packing(request.headers(), &GRPC_ENCODING)?;
            let framed = gather::framed(request.into_body(), &mut room, self.receive_time).await?;
            if framed.packed && packing == Packing::None {
                let message = "body: expected grpc-encoding for a packed message, found none";
                return Err(Refusal::Malformed(message.into()));
            }
            let packing = if framed.packed { packing } else { Packing::None };
            let (form, transport) = (Form::Protobuf, Transport::Grpc);
            Ok(Export { body: framed.message, packing, form, package, transport })
        };
        let export = gathered.await.inspect_err(|refusal| self.receiver.turned_away(refusal))?;
        self.receiver.receive(export, room).await
    }

    async fn http<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let form = form_of(request.headers());
        // Who speaks neither is told in the older one.
        let answered = form.as_ref().copied().unwrap_or(Form::Protobuf);
        if request.method() != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut answer = refuse(answered, status, Code::Unimplemented, "expected POST", None);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        if !self.receiver.authorize(request.headers()) {
            let (status, code) = (StatusCode::UNAUTHORIZED, Code::Unauthenticated);
            let mut answer = refuse(answered, status, code, "authentication failed", None);
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let mut room = self.receiver.room();
        let gathered = async {
            let form = form?;
            let packing = packing(request.headers(), &CONTENT_ENCODING)?;
            let body = gather::whole(request.into_body(), &mut room, self.receive_time).await?;
            Ok(Export { body, packing, form, package: Package::Development, transport: Transport::Http })
        };
        let outcome = match gathered.await {
            Ok(export) => self.receiver.receive(export, room).await,
            Err(refusal) => {
                self.receiver.turned_away(&refusal);
                Err(refusal)
            }
        };
        match (outcome, answered) {
            (Ok(partial), Form::Protobuf) => answer(answered, StatusCode::OK, partial.encode()),
            (Ok(partial), Form::Json) => answer(answered, StatusCode::OK, partial.to_json().into_bytes()),
            (Err(refusal), _) => refusal.answer(answered),
        }
    }
}

impl Refusal {
    fn parts(&self) -> (Code, StatusCode, &str, Option<Duration>) {
        match self {
            Self::Malformed(message) => (Code::InvalidArgument, StatusCode::BAD_REQUEST, message, None),
            Self::TooLarge(message) => {
                (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, message, None)
            }
            Self::Unpackable(message) => {
                (Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE, message, None)
            }
            Self::Late(message) => (Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, message, None),
            Self::Cut(message) => (Code::Cancelled, StatusCode::BAD_REQUEST, message, None),
            Self::Overloaded(message, after) => {
                (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, message, Some(*after))
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

/// Name of the gRPC status of an answer, as metrics write it: `OK`, `InvalidArgument`.
#[must_use]
pub fn grpc_code(answer: &Answer) -> String {
    // A refusal says its status in the header, a success behind its message.
    let status = answer.headers().get(GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()));
    match status {
        None | Some(Code::Ok) => "OK".into(),
        Some(code) => format!("{code:?}"),
    }
}

/// Text of a header, trimmed and in lower case.
fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name);
    value
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase())
        .unwrap_or_default()
}

fn packing(headers: &HeaderMap, name: &HeaderName) -> Result<Packing, Refusal> {
    let found = header(headers, name);
    Packing::named(&found).ok_or_else(|| {
        let shown: String = found.chars().take(64).collect();
        Refusal::Unpackable(format!("{name}: expected gzip, zstd or identity, found \"{shown}\""))
    })
}

/// A message with its frame and a good status behind it.
fn grpc_answer(message: &[u8]) -> Answer {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let trailers = std::future::ready(Some(Ok::<_, Infallible>(trailers)));
    let body = Full::new(Bytes::from(framed)).with_trailers(trailers);
    let mut answer = Response::new(AnswerBody::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The form that `content-type` names.
fn form_of(headers: &HeaderMap) -> Result<Form, Refusal> {
    let found = header(headers, &CONTENT_TYPE);
    match found.split(';').next().map(str::trim) {
        Some("application/x-protobuf") => Ok(Form::Protobuf),
        Some("application/json") => Ok(Form::Json),
        _ => {
            let shown: String = found.chars().take(64).collect();
            let expected = "application/x-protobuf or application/json";
            Err(Refusal::Unpackable(format!("content-type: expected {expected}, found \"{shown}\"")))
        }
    }
}

fn answer(form: Form, status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(AnswerBody::new(Full::from(body)));
    *answer.status_mut() = status;
    let kind = match form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
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
