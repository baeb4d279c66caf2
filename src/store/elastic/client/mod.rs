//! Calls to Elasticsearch over HTTP: hosts in turn, credentials, proxy, compression, TLS, and errors that say what is
//! wrong.
//!
//! Knows no documents and no questions. A call is repeated on another host when a repeat cannot do harm; waiting and
//! trying again later belong to the callers, who know how long that is worth it.

mod error;
mod host;
mod pool;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::config::{ClientTls, ElasticsearchOutput, Verification};
use crate::net::{handshake_problem, tls};

pub use error::{CallError, Cause, ClientError, HostProblem};
use host::HostUrl;
use pool::Pool;

/// Time to connect; a host that has not answered by then is asked no further.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Connections that rest are closed before servers and load balancers do it in the middle of a request.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Answers beyond this are not read: the largest page of stack traces that is asked for has some 30 MB.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Text of an answer that is no JSON, as far as messages show it.
const MAX_SHOWN: usize = 300;
/// Bodies below one network packet gain nothing from compression.
const COMPRESS_FROM: usize = 1400;
/// Bodies beyond this are compressed on another thread: gzip at level 5 takes some 20 ms for a megabyte.
const COMPRESS_ASIDE: usize = 64 << 10;
/// Header by which Elasticsearch 7.14 and later tells itself from others.
const PRODUCT: HeaderName = HeaderName::from_static("x-elastic-product");
/// What the root page of every Elasticsearch says, and no other program.
const OLD_TAGLINE: &str = "You Know, for Search";

/// A connection to a cluster.
#[derive(Debug)]
pub struct Client {
    hosts: Vec<Host>,
    pool: Pool,
    compression_level: u32,
}

#[derive(Debug)]
struct Host {
    url: HostUrl,
    http: reqwest::Client,
    authorization: Option<HeaderValue>,
}

/// A success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Host that gave it, `host:port`.
    pub host: String,
    /// Its body.
    pub body: Bytes,
}

impl Client {
    /// A client as the settings say. Connects with the first call.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(output: &ElasticsearchOutput) -> Result<Self, ClientError> {
        let parse = |text: &String| HostUrl::parse(text, &output.protocol, output.path.as_deref());
        let urls = output.hosts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let proxied = http_client(output, &urls, false)?;
        let direct = http_client(output, &urls, true)?;
        let authorization = authorization(output)?;
        let hosts = urls.into_iter().map(|url| {
            // As Go programs do: what the environment says of proxies is not meant for this machine.
            let http = if url.is_loopback() && output.proxy_url.is_none() { &direct } else { &proxied };
            let authorization = match (&authorization, &url.credentials) {
                (None, Some((user, password))) => Some(basic(user, password)?),
                (given, _) => given.clone(),
            };
            Ok(Host { url, http: http.clone(), authorization })
        });
        let hosts = hosts.collect::<Result<Vec<_>, ClientError>>()?;
        Ok(Self { pool: Pool::new(hosts.len()), hosts, compression_level: output.compression_level })
    }

    /// Hosts for people, `a:9200, b:9200`.
    #[must_use]
    pub fn address(&self) -> String {
        self.hosts.iter().map(|host| host.url.shown.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// One call with a JSON body, if any; the answer of a success.
    ///
    /// # Errors
    /// When nobody answers, or with anything but success.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.send(method, path, "application/json", bytes).await
    }

    /// One call with any body, for example `_msearch` with `application/x-ndjson`; the answer of a success. An answer
    /// without a body is `null`.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Result<Value, CallError> {
        let answer = self.call(method, path, content_type, body.into()).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|error| CallError::Answer {
            problem: format!("expected JSON: {error}"),
            host: answer.host,
        })
    }

    /// One call; the bytes of a success, for callers that read them into types of their own.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let (body, gzip) = self.pack(body).await;
        let mut unreachable = Vec::new();
        let mut failure = None;
        for index in self.pool.order(Instant::now()) {
            let host = &self.hosts[index];
            let mut request = host.http.request(method.clone(), host.url.join(path));
            if !body.is_empty() {
                request = request.header(header::CONTENT_TYPE, content_type).body(body.clone());
            }
            if gzip {
                request = request.header(header::CONTENT_ENCODING, "gzip");
            }
            if let Some(authorization) = &host.authorization {
                request = request.header(header::AUTHORIZATION, authorization.clone());
            }
            let error = match host.answer(request).await {
                Ok(answer) => {
                    self.alive(index);
                    return Ok(answer);
                }
                Err(Failed { error, arrived }) => {
                    if !error.blames_host() {
                        self.alive(index);
                        return Err(error);
                    }
                    if self.pool.failed(index, Instant::now()) && self.hosts.len() > 1 {
                        tracing::warn!(host = host.url.shown, "host left alone for a while: {error}");
                    }
                    if arrived && !is_repeatable(&method, path) {
                        return Err(error);
                    }
                    error
                }
            };
            match error {
                CallError::Unreachable(problems) => unreachable.extend(problems),
                other => failure = Some(other),
            }
        }
        // An answer, however bad, says more than silence.
        Err(failure.unwrap_or(CallError::Unreachable(unreachable)))
    }

    fn alive(&self, index: usize) {
        if self.pool.answered(index) && self.hosts.len() > 1 {
            tracing::info!(host = self.hosts[index].url.shown, "host answers again");
        }
    }

    async fn pack(&self, body: Bytes) -> (Bytes, bool) {
        let level = self.compression_level;
        if level == 0 || body.len() < COMPRESS_FROM {
            return (body, false);
        }
        if body.len() < COMPRESS_ASIDE {
            return (gzip(&body, level), true);
        }
        let raw = body.clone();
        match tokio::task::spawn_blocking(move || gzip(&raw, level)).await {
            Ok(packed) => (packed, true),
            // The thread pool is shutting down; the body still goes out as it is.
            Err(_) => (body, false),
        }
    }
}

/// A call to one host that failed, and whether the host may have carried it out nevertheless.
struct Failed {
    error: CallError,
    arrived: bool,
}

impl Host {
    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failed> {
        let host = &self.url.shown;
        let mut response = request.send().await.map_err(|error| self.failed(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let problem = format!("expected at most {MAX_ANSWER_BYTES} bytes, found more");
                let error = CallError::Answer { host: host.clone(), problem };
                return Err(Failed { error, arrived: true });
            }
            body.extend_from_slice(&chunk);
        }
        judge(host, status, &headers, body.freeze()).map_err(|error| Failed { error, arrived: true })
    }

    fn failed(&self, error: &reqwest::Error) -> Failed {
        let host = self.url.shown.clone();
        let arrived = !error.is_connect();
        if let Some(problem) = handshake_problem(error) {
            let (problem, hint) = (problem.message, problem.hint);
            return Failed { error: CallError::Tls { host, problem, hint }, arrived };
        }
        let problem = if error.is_timeout() {
            let what = if error.is_connect() { "connection" } else { "answer" };
            format!("no {what} in time")
        } else {
            innermost(error)
        };
        Failed { error: CallError::Unreachable(vec![HostProblem { host, problem }]), arrived }
    }
}

/// A success, or what kind of failure the answer is.
fn judge(host: &str, status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<Answer, CallError> {
    let host = host.to_owned();
    let is_elasticsearch = headers.get(PRODUCT).is_some_and(|value| value == "Elasticsearch");
    if status.is_success() && is_elasticsearch {
        return Ok(Answer { host, body });
    }
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    // Releases before 7.14 do not name themselves in a header.
    if let (true, Some(found)) = (value["tagline"] == OLD_TAGLINE, value["version"]["number"].as_str()) {
        return Err(CallError::TooOld { host, found: found.to_owned() });
    }
    let error = &value["error"];
    // Before a request reaches the part that adds the header, only the shape of the answer tells who spoke.
    let is_its_error = error["type"].is_string() || (error.is_string() && value["status"].is_u64());
    let by_something_between = matches!(status.as_u16(), 401 | 403 | 413 | 429 | 502..=504);
    if !is_elasticsearch && !is_its_error && !by_something_between {
        let server = headers.get(header::SERVER).and_then(|value| value.to_str().ok());
        let server = server.map(|server| format!(" by {server}")).unwrap_or_default();
        return Err(CallError::NotElasticsearch {
            host,
            found: format!("answer {}{server}", status.as_u16()),
        });
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let error = root_of(error);
    let reason = text(&error["reason"]).or_else(|| text(error)).unwrap_or_else(|| shown(&body));
    let kind = text(&error["type"]).unwrap_or_default();
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    Err(CallError::Refused { host, status: status.as_u16(), kind, reason, retry_after })
}

/// The failure of a shard that made a search fail; the failure of the search itself says next to nothing.
fn root_of(error: &Value) -> &Value {
    if error["type"] != "search_phase_execution_exception" {
        return error;
    }
    let mut caused_by = &error["caused_by"];
    while caused_by["caused_by"].is_object() {
        caused_by = &caused_by["caused_by"];
    }
    [&error["root_cause"][0], caused_by].into_iter().find(|cause| cause["type"].is_string()).unwrap_or(error)
}

/// Calls that do the same when they are carried out twice. Bulk items of ours carry their identifiers.
fn is_repeatable(method: &Method, path: &str) -> bool {
    if method != Method::POST {
        return true;
    }
    let path = path.split('?').next().unwrap_or_default();
    path.rsplit('/')
        .next()
        .is_some_and(|last| matches!(last, "_bulk" | "_search" | "_msearch" | "_mget" | "_count"))
}

fn http_client(
    output: &ElasticsearchOutput,
    hosts: &[HostUrl],
    direct: bool,
) -> Result<reqwest::Client, ClientError> {
    let secure = hosts.iter().any(HostUrl::is_https)
        || output.proxy_url.as_ref().is_some_and(|url| url.reveal().starts_with("https://"));
    let section = "output.elasticsearch.ssl";
    // Without TLS a machine without certificates will do.
    let tls = if secure {
        output.tls.clone()
    } else {
        ClientTls { verification_mode: Verification::None, ..ClientTls::default() }
    };
    let loopback = hosts.iter().all(HostUrl::is_loopback);
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(&tls, section)?)
        .default_headers(headers(output)?)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIME.min(output.timeout))
        .timeout(output.timeout)
        .pool_idle_timeout(IDLE_TIME)
        // On one machine packing costs more than it saves.
        .gzip(!loopback);
    builder = match &output.proxy_url {
        _ if output.proxy_disable || direct => builder.no_proxy(),
        Some(url) => builder.proxy(proxy(url.reveal())?),
        None => builder,
    };
    Ok(builder.build()?)
}

fn proxy(url: &str) -> Result<reqwest::Proxy, ClientError> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    reqwest::Proxy::all(&url).map_err(|error| ClientError::Proxy(innermost(&error)))
}

fn headers(output: &ElasticsearchOutput) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &output.headers {
        let wrong = || ClientError::Header(format!("headers.{name}"));
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value);
    }
    Ok(headers)
}

/// `id:key` is encoded, what has no colon is encoded already.
fn authorization(output: &ElasticsearchOutput) -> Result<Option<HeaderValue>, ClientError> {
    if let Some(key) = &output.api_key {
        let key = key.reveal().trim();
        let encoded = if key.contains(':') { STANDARD.encode(key) } else { key.to_owned() };
        return sensitive(&format!("ApiKey {encoded}"), "api_key").map(Some);
    }
    let Some(user) = &output.username else { return Ok(None) };
    let password = output.password.as_ref().map_or("", |password| password.reveal());
    basic(user, password).map(Some)
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, ClientError> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))), "username")
}

fn sensitive(text: &str, key: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ClientError::Header(key.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn gzip(body: &[u8], level: u32) -> Bytes {
    // Bulk bodies shrink to a tenth or less.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), flate2::Compression::new(level));
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory takes every byte").into()
}

/// The cause at the end of a chain: layers of HTTP say only that the layer below failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * MAX_SHOWN)]).into_owned();
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "no reason given".into() } else { text.chars().take(MAX_SHOWN).collect() }
}
