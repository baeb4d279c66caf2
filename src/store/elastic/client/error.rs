//! What can go wrong with a cluster, as a caller and a person need to know it.

use std::time::Duration;

use crate::net::tls::TlsError;
use crate::store;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A host that is none.
    #[error("output.elasticsearch.hosts: expected host, host:port or URL, found \"{found}\"")]
    Host {
        /// What was written, without credentials.
        found: String,
        /// What to write instead.
        hint: &'static str,
    },
    /// A proxy that is none.
    #[error("output.elasticsearch.proxy_url: expected a URL such as http://proxy:3128: {0}")]
    Proxy(String),
    /// A header that HTTP does not take.
    #[error("output.elasticsearch.{0}: found a character that HTTP headers cannot hold")]
    Header(String),
    /// The TLS section cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP library refused the settings.
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

impl ClientError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Host { hint, .. } => Some((*hint).to_owned()),
            Self::Tls(error) => error.hint().map(str::to_owned),
            _ => None,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No answer from any host.
    #[error("Elasticsearch cannot be reached: {}", list(.0))]
    Unreachable(Vec<HostProblem>),
    /// No agreement on TLS.
    #[error("{host}: {problem}")]
    Tls {
        /// Host asked.
        host: String,
        /// What is wrong with the certificate or the handshake.
        problem: String,
        /// What a person can do about it.
        hint: &'static str,
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
        /// Pause that the server asks for.
        retry_after: Option<Duration>,
    },
    /// Something else listens there.
    #[error("{host} is not Elasticsearch: {found}")]
    NotElasticsearch {
        /// Host asked.
        host: String,
        /// What its answer looked like.
        found: String,
    },
    /// An Elasticsearch that does not know what is needed.
    #[error("{host} runs Elasticsearch {found}, which is too old")]
    TooOld {
        /// Host asked.
        host: String,
        /// Its version.
        found: String,
    },
    /// A success whose body cannot be used.
    #[error("answer of {host}: {problem}")]
    Answer {
        /// Host asked.
        host: String,
        /// What was expected and found.
        problem: String,
    },
}

/// One host that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostProblem {
    /// `host:port`.
    pub host: String,
    /// What connecting or waiting gave.
    pub problem: String,
}

fn list(problems: &[HostProblem]) -> String {
    problems.iter().map(|one| format!("{}: {}", one.host, one.problem)).collect::<Vec<_>>().join("; ")
}

/// What an answer that is an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No or wrong credentials (401).
    Unauthenticated,
    /// A privilege is missing (403).
    Forbidden,
    /// What was asked for is not there (404).
    Missing,
    /// The cluster has blocked writing: its disks are full, or somebody set it so.
    ReadOnly,
    /// Too much to do, or a node is starting or gone (429, 502, 503, 504).
    Busy,
    /// The request has too many bytes (413).
    TooLarge,
    /// Anything else: the request itself is wrong.
    Other,
}

impl Cause {
    /// Meaning of a status and an `error.type`, of a whole answer or of one item of a bulk answer.
    #[must_use]
    pub fn of(status: u16, kind: &str) -> Self {
        match (status, kind) {
            (_, "cluster_block_exception") => Self::ReadOnly,
            (401, _) => Self::Unauthenticated,
            (403, _) => Self::Forbidden,
            (404, _) => Self::Missing,
            (413, _) => Self::TooLarge,
            (429 | 502 | 503 | 504, _) => Self::Busy,
            _ => Self::Other,
        }
    }

    /// What a person can do about it, given the `reason` of the answer.
    #[must_use]
    pub fn hint(self, reason: &str) -> Option<String> {
        match self {
            Self::Unauthenticated => {
                Some("check api_key, or username and password, of output.elasticsearch".into())
            }
            Self::Forbidden => Some(match privileges(reason) {
                Some(missing) => format!("give the key or user one of the {missing}"),
                None => "give the key or user the privileges that `everflame setup` lists".into(),
            }),
            Self::Missing => Some("run `everflame setup` once against this cluster".into()),
            Self::ReadOnly => Some(
                "free disk space of Elasticsearch or add nodes; it lifts the block by itself below the high watermark"
                    .into(),
            ),
            Self::Busy | Self::TooLarge | Self::Other => None,
        }
    }
}

/// `index privileges [create_doc, …]` out of the sentence that Elasticsearch refuses with.
fn privileges(reason: &str) -> Option<String> {
    let rest = &reason[reason.find("granted by the ")? + "granted by the ".len()..];
    let end = rest.find(']')?;
    Some(rest[..=end].replace(',', ", "))
}

impl CallError {
    /// What the answer means, when there was one that is an error.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Refused { status, kind, .. } => Some(Cause::of(*status, kind)),
            _ => None,
        }
    }

    /// Whether the same call may succeed later: when a server is back, has less to do, or a person has mended it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self.cause(), Some(Cause::Other | Cause::TooLarge)) && !matches!(self, Self::Answer { .. })
    }

    /// Whether another host of the cluster may do better.
    pub(super) fn blames_host(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Tls { .. } | Self::NotElasticsearch { .. } => true,
            Self::Refused { status, .. } => matches!(status, 502..=504),
            Self::TooOld { .. } | Self::Answer { .. } => false,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable(problems) => Some(
                if problems.iter().any(|one| one.problem.contains("closed before")) {
                    "if the server speaks TLS, set output.elasticsearch.protocol to https"
                } else {
                    "check output.elasticsearch.hosts, and that Elasticsearch runs"
                }
                .into(),
            ),
            Self::Tls { hint, .. } => Some((*hint).to_owned()),
            Self::Refused { reason, .. } => self.cause().and_then(|cause| cause.hint(reason)),
            Self::NotElasticsearch { .. } => {
                Some("check output.elasticsearch.hosts, path and proxy_url".into())
            }
            Self::TooOld { .. } => Some("upgrade Elasticsearch".into()),
            Self::Answer { .. } => None,
        }
    }
}

impl From<CallError> for store::Error {
    fn from(error: CallError) -> Self {
        if error.is_retryable() {
            let hint = error.hint();
            Self::Unavailable { problem: error.to_string(), hint }
        } else {
            Self::Engine(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, kind: &str, reason: &str) -> CallError {
        let (kind, reason) = (kind.into(), reason.into());
        CallError::Refused { host: "es:9200".into(), status, kind, reason, retry_after: None }
    }

    #[test]
    fn a_missing_privilege_is_named() {
        let error = refused(
            403,
            "security_exception",
            "action [indices:data/write/bulk[s]] is unauthorized for API key id [x] of user [elastic] on indices \
             [profiling-events-all], this action is granted by the index privileges [create_doc,create,delete,index,write,all]",
        );
        assert_eq!(error.cause(), Some(Cause::Forbidden));
        let hint = error.hint().unwrap();
        assert!(hint.contains("index privileges [create_doc, create,"), "{hint}");
        assert!(refused(403, "security_exception", "no").hint().unwrap().contains("everflame setup"));
    }

    #[test]
    fn a_full_disk_is_told_from_a_busy_server() {
        let full = "index [profiling-hosts] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage \
                    watermark, index has read-only-allow-delete block];";
        let error = refused(429, "cluster_block_exception", full);
        assert_eq!(error.cause(), Some(Cause::ReadOnly));
        assert!(error.is_retryable() && error.hint().unwrap().contains("disk space"));
        assert_eq!(refused(429, "es_rejected_execution_exception", "").cause(), Some(Cause::Busy));
    }

    #[test]
    fn only_what_a_repeat_can_mend_is_retryable() {
        for (status, retryable) in
            [(400, false), (401, true), (403, true), (404, true), (413, false), (429, true), (503, true)]
        {
            assert_eq!(refused(status, "", "").is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn each_host_is_named_with_its_problem() {
        let problem = |host: &str, problem: &str| HostProblem { host: host.into(), problem: problem.into() };
        let error = CallError::Unreachable(vec![problem("a:9200", "refused"), problem("b:9200", "no route")]);
        assert_eq!(error.to_string(), "Elasticsearch cannot be reached: a:9200: refused; b:9200: no route");
    }
}
