//! What a failed call means for whoever asked: which kind, and what can be done about it.

use serde_json::Value;

use crate::store::elastic::CallError;
use crate::store::{Error, Remote};

/// Error types of Elasticsearch that mean that no copy of a shard answers.
const UNHEALTHY: [&str; 4] = [
    "no_shard_available_action_exception",
    "cluster_block_exception",
    "master_not_discovered_exception",
    "unavailable_shards_exception",
];
/// Error types that mean "this much at once is too much for the node".
const OVERLOADED: [&str; 2] = ["es_rejected_execution_exception", "circuit_breaking_exception"];
/// An aggregation would have had more buckets than the cluster allows.
const TOO_MANY_BUCKETS: &str = "too_many_buckets_exception";

/// Whether the same question with smaller pages may succeed.
pub(super) fn is_too_many_buckets(error: &CallError) -> bool {
    matches!(error, CallError::Refused { kind, reason, .. }
        if kind == TOO_MANY_BUCKETS || reason.contains("too many buckets"))
}

/// Whether the index asked for does not exist, which is no failure: nothing was written yet.
pub(super) fn is_missing_index(error: &CallError) -> bool {
    matches!(error, CallError::Refused { status: 404, kind, .. } if kind == "index_not_found_exception")
}

/// Whether the user may not do this.
pub(super) fn is_forbidden(error: &CallError) -> bool {
    matches!(error, CallError::Refused { status: 403, .. })
}

/// The failure as the pages tell it.
pub(super) fn told(error: &CallError) -> Error {
    let kind = match error {
        CallError::Refused { status, kind, reason, .. } => match (status, kind.as_str()) {
            (401, _) => Remote::NoLogin,
            (_, kind) if UNHEALTHY.contains(&kind) => Remote::Unhealthy,
            (_, TOO_MANY_BUCKETS) => Remote::TooManyBuckets,
            (403, _) => Remote::Forbidden,
            (_, kind) if *status == 429 || OVERLOADED.contains(&kind) => Remote::Overloaded,
            // A search whose shards all failed without a cause has no shard to ask.
            (503, "search_phase_execution_exception") => Remote::Unhealthy,
            (_, "search_phase_execution_exception") if reason.contains("all shards failed") => {
                Remote::Unhealthy
            }
            (502..=504, _) => Remote::Unreachable,
            _ => Remote::Refused,
        },
        CallError::Unreachable(_) => Remote::Unreachable,
        _ => Remote::Refused,
    };
    let own = match kind {
        Remote::Forbidden => {
            Some("reading wants the privileges read and view_index_metadata on profiling-* and .profiling-*")
        }
        Remote::Overloaded => Some("try again in a moment, or ask for a shorter range"),
        Remote::Unhealthy => {
            Some("GET _cluster/allocation/explain on the cluster says which shard is missing and why")
        }
        Remote::TooManyBuckets => {
            Some("raise search.max_buckets on the cluster (65536 by default), or ask for a shorter range")
        }
        Remote::Unreachable | Remote::NoLogin | Remote::Refused => None,
    };
    Error::Remote { kind, message: error.to_string(), hint: own.map(Into::into).or_else(|| error.hint()) }
}

/// An answer that is not what Elasticsearch answers.
pub(super) fn unexpected(what: &str, found: &Value) -> Error {
    let found: String = found.to_string().chars().take(200).collect();
    let message = format!("expected {what}, found {found}");
    Error::Remote { kind: Remote::Refused, message, hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, kind: &str, reason: &str) -> Error {
        let (kind, reason) = (kind.into(), reason.into());
        told(&CallError::Refused { host: "es:9200".into(), status, kind, reason, retry_after: None })
    }

    #[test]
    fn each_refusal_has_its_kind_and_cure() {
        for (status, kind, reason, expected) in [
            (401, "security_exception", "missing authentication credentials", Remote::NoLogin),
            (
                403,
                "security_exception",
                "action [indices:data/read/search] is unauthorized",
                Remote::Forbidden,
            ),
            (400, "too_many_buckets_exception", "Trying to create too many buckets.", Remote::TooManyBuckets),
            (503, "no_shard_available_action_exception", "", Remote::Unhealthy),
            (503, "search_phase_execution_exception", "all shards failed", Remote::Unhealthy),
            (429, "circuit_breaking_exception", "Data too large", Remote::Overloaded),
            (502, "", "Bad Gateway", Remote::Unreachable),
            (400, "parsing_exception", "unknown query [x]", Remote::Refused),
        ] {
            let Error::Remote { kind: found, .. } = refused(status, kind, reason) else { panic!("{kind}") };
            assert_eq!(found, expected, "{status} {kind}");
        }
        assert!(refused(503, "search_phase_execution_exception", "all shards failed").is_retryable());
        assert!(!refused(403, "security_exception", "no").is_retryable());
        assert!(refused(403, "security_exception", "no").hint().is_some_and(|h| h.contains("read")));
    }
}
