//! Calls to Elasticsearch over HTTP.

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use crate::config::ElasticsearchOutput;
use crate::net::tls::{self, TlsError};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A host that is none.
    #[error("output.elasticsearch.hosts: expected host, host:port or URL, found \"{0}\"")]
    Host(String),
    /// The TLS section cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP library refused the settings.
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer.
    #[error("{host} does not answer: {source}")]
    Unreachable {
        /// Host asked.
        host: String,
        /// What the HTTP library said.
        source: reqwest::Error,
    },
    /// An answer that is an error.
    #[error("{host} answered {status}: {reason}")]
    Refused {
        /// Host asked.
        host: String,
        /// HTTP status.
        status: u16,
        /// `error.type` of the answer, empty when it has none.
        kind: String,
        /// `error.reason` of the answer, else its text.
        reason: String,
    },
}

/// A connection to a cluster.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: reqwest::Url,
}

impl Client {
    /// A client as the settings say. Connects with the first call.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(output: &ElasticsearchOutput) -> Result<Self, ClientError> {
        let host = output.hosts.first().cloned().unwrap_or_default();
        let text = if host.contains("://") { host.clone() } else { format!("{}://{host}", output.protocol) };
        let mut base = reqwest::Url::parse(&text).map_err(|_| ClientError::Host(host.clone()))?;
        if base.port().is_none() && !host.contains("://") {
            base.set_port(Some(9200)).map_err(|()| ClientError::Host(host))?;
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &output.api_key
            && let Ok(mut value) = HeaderValue::from_str(&format!("ApiKey {}", key.reveal()))
        {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let tls = tls::client_config(&output.tls, "output.elasticsearch.ssl")?;
        let http = reqwest::Client::builder().default_headers(headers).tls_backend_preconfigured(tls);
        Ok(Self { http: http.build()?, base })
    }

    /// One call with a JSON body, if any; the answer of a success.
    ///
    /// # Errors
    /// When nobody answers, or with anything but success.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.send(method, path, "application/json", bytes).await
    }

    /// One call with any body, for example `_bulk` with `application/x-ndjson`; the answer of a success.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Value, CallError> {
        let host = self.base.authority().to_owned();
        let unreachable = |source| CallError::Unreachable { host: host.clone(), source };
        let url = self.base.join(path.trim_start_matches('/')).unwrap_or_else(|_| self.base.clone());
        let request = self.http.request(method, url).header(header::CONTENT_TYPE, content_type).body(body);
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let text = |key: &str| value["error"][key].as_str().map(str::to_owned);
        let reason =
            text("reason").unwrap_or_else(|| String::from_utf8_lossy(&bytes).chars().take(300).collect());
        Err(CallError::Refused {
            host,
            status: status.as_u16(),
            kind: text("type").unwrap_or_default(),
            reason,
        })
    }
}
