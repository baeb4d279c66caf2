//! The answer to a bulk request, item by item.

use std::borrow::Cow;

use serde::Deserialize;

use super::super::Cause;

/// Parts of the answer that are looked at; the rest stays on the other side.
pub(super) const FILTER: &str = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason";

/// Characters of a reason that are shown: Elasticsearch repeats whole values in it.
const MAX_SHOWN: usize = 300;

/// What became of the items, in their order.
#[derive(Debug, Deserialize)]
pub(super) struct BulkAnswer<'a> {
    /// Whether an item failed.
    pub(super) errors: bool,
    #[serde(borrow, default)]
    items: Vec<Action<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action<'a> {
    #[serde(borrow)]
    Create(Outcome<'a>),
    #[serde(borrow)]
    Index(Outcome<'a>),
    #[serde(borrow)]
    Update(Outcome<'a>),
    #[serde(borrow)]
    Delete(Outcome<'a>),
}

/// What became of one item.
#[derive(Debug, Deserialize)]
pub(super) struct Outcome<'a> {
    status: u16,
    #[serde(borrow, default)]
    error: Option<ItemError<'a>>,
}

#[derive(Debug, Deserialize)]
struct ItemError<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(borrow, default)]
    caused_by: Option<CausedBy<'a>>,
}

#[derive(Debug, Deserialize)]
struct CausedBy<'a> {
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
}

/// What an outcome means for its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Stored now.
    Done,
    /// Stored before, by this or another writer.
    AlreadyThere,
    /// Not now: too much to do, or a shard is away.
    Again,
    /// Not until a person mends the cluster or the key.
    Blocked(Cause),
    /// Never.
    Rejected,
}

impl<'a> BulkAnswer<'a> {
    /// Reads an answer.
    pub(super) fn read(body: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }

    /// Outcomes in the order of the items.
    pub(super) fn outcomes(&self) -> impl ExactSizeIterator<Item = &Outcome<'a>> {
        self.items.iter().map(|action| match action {
            Action::Create(outcome)
            | Action::Index(outcome)
            | Action::Update(outcome)
            | Action::Delete(outcome) => outcome,
        })
    }
}

impl Outcome<'_> {
    /// HTTP status of the item.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// `error.type`; a short word that a metric can be named after.
    pub(super) fn kind(&self) -> &str {
        self.error.as_ref().map_or("", |error| &error.kind)
    }

    /// `error.reason` with its cause, as far as it is shown.
    pub(super) fn reason(&self) -> String {
        let Some(error) = &self.error else { return format!("status {}", self.status) };
        let shown = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        match error.caused_by.as_ref().filter(|cause| !cause.reason.is_empty()) {
            Some(cause) => format!("{}: {}", shown(&error.reason), shown(&cause.reason)),
            None => shown(&error.reason),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.status {
            200..300 => Verdict::Done,
            409 => Verdict::AlreadyThere,
            status => match Cause::of(status, self.kind()) {
                Cause::Busy => Verdict::Again,
                cause @ (Cause::ReadOnly | Cause::Forbidden | Cause::Unauthenticated | Cause::Missing) => {
                    Verdict::Blocked(cause)
                }
                // A shard that moves or a node that stops answers in many ways.
                Cause::Other if status >= 500 => Verdict::Again,
                Cause::Other | Cause::TooLarge => Verdict::Rejected,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Again, AlreadyThere, Blocked, Done, Rejected};
    use super::*;

    #[test]
    fn each_item_has_its_own_verdict() {
        let text = r#"{"errors":true,"items":[
            {"create":{"status":201}},
            {"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}}},
            {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}},
            {"update":{"status":503,"error":{"type":"unavailable_shards_exception","reason":"away"}}},
            {"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:2] failed",
                "caused_by":{"reason":"For input string: \"x\""}}}},
            {"create":{"status":429,"error":{"type":"cluster_block_exception","reason":"flood-stage"}}},
            {"create":{"status":403,"error":{"type":"security_exception","reason":"no"}}},
            {"index":{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}},
            {"create":{"status":500,"error":{"type":"node_closed_exception","reason":"closing"}}}]}"#;
        let answer = BulkAnswer::read(text.as_bytes()).unwrap();
        assert!(answer.errors);
        let verdicts: Vec<_> = answer.outcomes().map(Outcome::verdict).collect();
        assert_eq!(
            verdicts,
            [
                Done,
                AlreadyThere,
                Again,
                Again,
                Rejected,
                Blocked(Cause::ReadOnly),
                Blocked(Cause::Forbidden),
                Blocked(Cause::Missing),
                Again
            ]
        );
        assert_eq!(answer.outcomes().nth(4).unwrap().reason(), "[1:2] failed: For input string: \"x\"");
    }
}
