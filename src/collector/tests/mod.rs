//! The collector over real sockets, with our client, with raw gRPC and with plain HTTP.

mod hostile;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::config::HostPort;
use crate::model::Batch;
use crate::net::{Budget, Limits, Shutdown, Token};
use crate::store::{Documents, Error, Result, Writer, Written};
use crate::telemetry::Metrics;
use crate::wire::otlp::{Client, ClientOptions, Compression, SendError, decode, encode};

/// A store that keeps what it is given, or fails as told.
#[derive(Default)]
struct Kept {
    written: Mutex<Vec<Documents>>,
    answer: Mutex<Written>,
    fail: Mutex<Option<fn() -> Error>>,
}

#[async_trait]
impl Writer for Kept {
    async fn write(&self, documents: Documents) -> Result<Written> {
        if let Some(error) = *self.fail.lock() {
            return Err(error());
        }
        self.written.lock().push(documents);
        Ok(self.answer.lock().clone())
    }
}

struct Running {
    metrics: Metrics,
    address: String,
    store: Arc<Kept>,
    ingest: Arc<Ingest>,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

async fn start(token: &str) -> Running {
    start_with(token, |_| {}, Duration::from_secs(30)).await
}

fn config(listen: HostPort) -> Config {
    let limits = Limits { drain_time: Duration::from_secs(1), ..Limits::default() };
    Config { listen, token: None, tls: None, limits, budget: Budget::new(512 << 20) }
}

async fn start_with(token: &str, change: impl FnOnce(&mut Config), receive_time: Duration) -> Running {
    let store = Arc::new(Kept::default());
    let ingest = Arc::new(Ingest::new(store.clone()));
    let mut config = Config { token: Token::new(token), ..config(HostPort::new("127.0.0.1", 0)) };
    change(&mut config);
    let metrics = Metrics::new();
    let collector = Collector::bind(&config, ingest.clone(), None, &metrics).await.unwrap();
    let collector = collector.with_receive_time(receive_time);
    let (address, shutdown) = (collector.address().to_string(), Shutdown::new());
    let serving = tokio::spawn(collector.serve(shutdown.clone()));
    Running { metrics, address, store, ingest, shutdown, serving }
}

impl Running {
    fn client(&self, token: &str, compression: Compression) -> Client {
        let (address, token) = (self.address.clone(), token.to_owned());
        Client::new(&ClientOptions { address, token, compression, ..ClientOptions::default() }).unwrap()
    }

    fn events(&self) -> usize {
        self.store.written.lock().iter().flat_map(|d| &d.events).map(|event| event.times.len()).sum()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.ingest.counters().get(counter)
    }

    /// Sends an HTTP/1 request and returns status and body.
    async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        let length = body.len().to_string();
        for (name, value) in headers.iter().chain(&[("content-length", &*length)]) {
            request.extend([name, ": ", value, "\r\n"]);
        }
        stream.write_all((request + "\r\n").as_bytes()).await.unwrap();
        // A refusal may come before the whole body was taken.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
    }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const EXPORT: &str = "/v1development/profiles";

fn capture() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/otlp/c/request-001.otlp.pb");
    std::fs::read(path).unwrap()
}

fn batch() -> Batch {
    decode(&capture()).unwrap().batch
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn exports_arrive_over_grpc_in_every_packing() {
    let running = start("").await;
    let expected = batch().sample_count() as usize;
    for (round, compression) in
        [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().enumerate()
    {
        let client = running.client("", compression);
        let answer = client.send(capture().into()).await.unwrap();
        assert_eq!(answer.rejected_profiles, 0);
        assert_eq!(running.events(), expected * (round + 1));
    }
    // Stacks were known from the second time on.
    let written = running.store.written.lock();
    assert!(!written[0].stacktraces.is_empty());
    assert!(written[1].stacktraces.is_empty() && written[1].stackframes.is_empty());
    assert_eq!(running.count(Counter::SamplesWritten), 3 * expected as u64);
}

#[tokio::test]
async fn messages_of_the_largest_size_are_taken() {
    let running = start("").await;
    // A field that nobody knows fills the message up: number 15, length in four bytes.
    let mut message = capture();
    let rest = (32 << 20) - message.len() - 5;
    message.push(15 << 3 | 2);
    message.extend((0..4).map(|at| (rest >> (7 * at)) as u8 & 0x7f | if at < 3 { 0x80 } else { 0 }));
    message.resize(32 << 20, 0);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        running.client("", compression).send(message.clone().into()).await.unwrap();
    }
    let (status, _, body) = running.http("POST", EXPORT, &[PROTOBUF], &message).await;
    assert_eq!((status, &body[..]), (200, &b""[..]));
    let zstd = zstd::encode_all(&message[..], 1).unwrap();
    let (status, ..) = running.http("POST", EXPORT, &[PROTOBUF, ("content-encoding", "zstd")], &zstd).await;
    assert_eq!(status, 200);
    assert_eq!(running.events(), 5 * batch().sample_count() as usize);
}

#[tokio::test]
async fn what_our_own_agent_writes_gives_the_same_documents() {
    let running = start("").await;
    let direct = start("").await;
    direct.ingest.ingest(&batch()).await.unwrap();
    for message in encode(&batch()).messages {
        running.client("", Compression::Zstd).send(message.into()).await.unwrap();
    }
    let sent = running.store.written.lock();
    let given = direct.store.written.lock();
    let events = |documents: &Documents| {
        let mut all: Vec<_> = documents
            .events
            .iter()
            .flat_map(|e| e.times.iter().map(|t| (*t, e.stack, e.thread_name.clone())))
            .collect();
        all.sort();
        all
    };
    assert_eq!(events(&sent[0]), events(&given[0]));
    assert_eq!(sent[0].stacktraces.len(), given[0].stacktraces.len());
    assert_eq!(sent[0].unnamed.len(), given[0].unnamed.len());
}

#[tokio::test]
async fn the_token_opens_the_door_and_nothing_else() {
    let running = start("secret16chars").await;
    running.client("secret16chars", Compression::Gzip).send(capture().into()).await.unwrap();
    for wrong in ["", "secret16char", "Secret16chars"] {
        let error = running.client(wrong, Compression::Gzip).send(capture().into()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{}: authentication failed", running.address));
        assert!(!error.is_retryable() && error.hint().is_some());
    }
    let (status, head, _) = running.http("POST", EXPORT, &[PROTOBUF], &capture()).await;
    assert_eq!(status, 401);
    assert!(head.contains("www-authenticate: bearer"));
    let bearer = ("authorization", "Bearer secret16chars");
    assert_eq!(running.http("POST", EXPORT, &[PROTOBUF, bearer], &capture()).await.0, 200);
    let raw = ("secrettoken", "secret16chars");
    assert_eq!(running.http("POST", EXPORT, &[PROTOBUF, raw], &capture()).await.0, 200);
    assert_eq!(running.http("GET", "/live", &[], b"").await.0, 200);
    assert_eq!(running.count(Counter::Unauthorized), 4);
}

#[tokio::test]
async fn bad_exports_are_refused_by_name_and_the_connection_lives_on() {
    let running = start("").await;
    let client = running.client("", Compression::Gzip);
    let truncated = &capture()[..20_000];
    for (message, expected) in [
        (Bytes::from_static(b"\x0a\x05\x01"), "message: expected 5 bytes, found 1"),
        (Bytes::from_static(b"\xff\xff\xff"), "message: expected 4 bytes, found 3"),
        (Bytes::copy_from_slice(truncated), "message: expected "),
    ] {
        let error = client.send(message).await.unwrap_err();
        assert!(
            matches!(&error, SendError::Refused { reason, .. } if reason.starts_with(expected)),
            "{error}"
        );
    }
    // Larger than allowed, packed to almost nothing.
    let bomb = Bytes::from(vec![0u8; (32 << 20) + 1]);
    let error = client.send(bomb.clone()).await.unwrap_err();
    assert!(error.to_string().contains("33554432") && !error.is_retryable(), "{error}");
    let error = running.client("", Compression::None).send(bomb).await.unwrap_err();
    assert!(error.to_string().contains("33554432") && !error.is_retryable(), "{error}");
    // The very same connection still takes good ones.
    client.send(capture().into()).await.unwrap();
    assert_eq!(running.count(Counter::BatchesMalformed), 3);
    assert_eq!(running.count(Counter::BatchesWritten), 1);
}

#[tokio::test]
async fn http_takes_what_otlp_says_and_names_what_it_refuses() {
    let running = start("").await;
    let good = capture();
    let zstd = zstd::encode_all(&good[..], 1).unwrap();
    for (encoding, body) in [("identity", good.clone()), ("gzip", gzip(&good)), ("zstd", zstd)] {
        let headers = [("content-type", "Application/x-protobuf; charset=x"), ("content-encoding", encoding)];
        let (status, head, body) = running.http("POST", EXPORT, &headers, &body).await;
        assert_eq!((status, &body[..]), (200, &b""[..]), "{encoding}");
        assert!(head.contains("content-type: application/x-protobuf"));
    }
    let bomb = gzip(&vec![0; (32 << 20) + 1]);
    for (headers, body, status, message) in [
        (
            &[("content-type", "text/plain")][..],
            &b"{}"[..],
            415,
            "content-type: expected application/x-protobuf or application/json, found \"text/plain\"",
        ),
        (&[][..], b"", 415, "content-type: expected application/x-protobuf or application/json, found \"\""),
        (&[PROTOBUF, ("content-encoding", "br")][..], b"x", 415, "found \"br\""),
        (&[PROTOBUF, ("content-encoding", "gzip")][..], b"not gzip", 400, "body: expected gzip data"),
        (&[PROTOBUF, ("content-encoding", "gzip")][..], &bomb, 413, "body: expected at most 33554432 bytes"),
        (&[PROTOBUF][..], &good[..20_000], 400, "message: expected "),
    ] {
        let (found, _, body) = running.http("POST", EXPORT, headers, body).await;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(found, status, "{text}");
        assert!(text.contains(message), "{text}");
    }
    let (status, head, _) = running.http("GET", EXPORT, &[], b"").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: post"));
    assert_eq!(running.http("GET", "/elsewhere", &[], b"").await.0, 404);
    assert_eq!(running.http("GET", "/live", &[], b"").await.2, b"live\n");
    assert_eq!(running.http("GET", "/ready", &[], b"").await.2, b"ready\n");
}

#[tokio::test]
async fn json_over_http_is_taken_and_answered_in_kind() {
    let running = start("").await;
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/otlp/collector-json/file-exporter-001.json.gz");
    let json = ("content-type", "application/json; charset=utf-8");
    let packed = std::fs::read(path).unwrap();
    let headers = [json, ("content-encoding", "gzip")];
    let (status, head, body) = running.http("POST", EXPORT, &headers, &packed).await;
    assert_eq!((status, &body[..]), (200, &b"{}"[..]), "{head}");
    assert!(head.contains("content-type: application/json"));
    assert_eq!(running.events(), 419);
    let (status, _, body) = running.http("POST", EXPORT, &[json], b"{\"dictionary\":[]}").await;
    assert_eq!(status, 400);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["code"], 3);
    assert!(body["message"].as_str().unwrap().contains("expected an object at line 1 column"), "{body}");
    // A profile of something else is left out, and said so.
    let other =
        br#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"samples":[{"stackIndex":0}]}]}]}]}"#;
    let (status, _, body) = running.http("POST", EXPORT, &[json], other).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["partialSuccess"]["rejectedProfiles"]), (200, &"1".into()), "{body}");
    *running.store.fail.lock() = Some(|| Error::Overloaded { waiting: 9 });
    let (status, head, body) = running.http("POST", EXPORT, &headers, &packed).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["code"]), (429, &8.into()), "{body}");
    assert!(head.contains("retry-after: 1"), "{head}");
}

#[tokio::test]
async fn a_store_that_refuses_makes_senders_wait_and_forgets_nothing() {
    let running = start("").await;
    let client = running.client("", Compression::Gzip);
    *running.store.fail.lock() = Some(|| Error::DiskFull { path: "/data".into() });
    let error = client.send(capture().into()).await.unwrap_err();
    let SendError::Retryable { reason, after, .. } = &error else { panic!("{error}") };
    assert_eq!((&**reason, *after), ("no space left for /data", Some(Duration::from_secs(30))));
    *running.store.fail.lock() = Some(|| Error::Overloaded { waiting: 9 });
    let error = client.send(capture().into()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let (status, head, _) = running.http("POST", EXPORT, &[PROTOBUF], &capture()).await;
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: 1"), "{head}");
    *running.store.fail.lock() = Some(|| Error::Engine("secret path".into()));
    let error = client.send(capture().into()).await.unwrap_err();
    assert!(!error.is_retryable() && !error.to_string().contains("secret path"), "{error}");
    // Nothing was marked as stored, so the first success carries everything.
    *running.store.fail.lock() = None;
    client.send(capture().into()).await.unwrap();
    assert!(!running.store.written.lock()[0].stacktraces.is_empty());
    let [received, written, refused] =
        [Counter::SamplesReceived, Counter::SamplesWritten, Counter::SamplesRefused]
            .map(|counter| running.count(counter));
    assert_eq!((received, refused), (written * 5, written * 4));
}

#[tokio::test]
async fn look_ups_that_were_given_up_are_sent_again() {
    let running = start("").await;
    running.store.answer.lock().missed_look_ups = 1;
    for _ in 0..3 {
        running.ingest.ingest(&batch()).await.unwrap();
        running.store.answer.lock().missed_look_ups = 0;
    }
    let written = running.store.written.lock();
    let counts: Vec<usize> = written.iter().map(|documents| documents.stacktraces.len()).collect();
    assert_eq!(counts[0], counts[1]);
    assert!(counts[1] > 0 && counts[2] == 0, "{counts:?}");
}

#[tokio::test]
async fn other_services_are_unknown() {
    let running = start("").await;
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let (status, head, _) =
        running.http("POST", "/collectionagent.CollectionAgent/AddCountsForTraces", &headers, b"").await;
    assert_eq!(status, 200);
    assert!(head.contains("grpc-status: 12"), "{head}");
    assert!(head.contains("unknown%20service%20collectionagent.collectionagent"), "{head}");
}

#[tokio::test]
async fn shutdown_ends_and_the_client_is_told_to_come_back() {
    let running = start("").await;
    let client = running.client("", Compression::Gzip);
    client.send(capture().into()).await.unwrap();
    running.shutdown.cancel();
    running.serving.await.unwrap();
    let error = client.send(capture().into()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_client_finds_its_collector_when_it_comes_back() {
    let running = start("").await;
    let client = running.client("", Compression::Gzip);
    client.send(capture().into()).await.unwrap();
    running.shutdown.cancel();
    running.serving.await.unwrap();
    assert!(client.send(capture().into()).await.is_err());
    let listen: HostPort = running.address.parse().unwrap();
    let again =
        Collector::bind(&config(listen), running.ingest.clone(), None, &running.metrics).await.unwrap();
    let shutdown = Shutdown::new();
    let serving = tokio::spawn(again.serve(shutdown.clone()));
    client.send(capture().into()).await.unwrap();
    drop(client);
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_said_at_once() {
    for (address, expected) in
        [("https://x:1", "expected http, found https"), ("not an address", "expected host:port")]
    {
        let options = ClientOptions { address: address.into(), ..ClientOptions::default() };
        let error = Client::new(&options).unwrap_err();
        assert_eq!(error.to_string(), format!("{address}: {expected}"));
        assert!(error.hint().is_some());
    }
}
