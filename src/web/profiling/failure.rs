//! Errors in the shape of Elasticsearch.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::WRONG;
use crate::query;
use crate::web::error::ApiError;

/// Why a request of the interface has no answer.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Failure {
    /// The body is not what the interface takes.
    #[error("{reason}")]
    Parse { kind: &'static str, reason: String },
    /// The values of the body do not go together; each sentence is one of them.
    #[error("{}", listed(.0))]
    Validation(Vec<String>),
    /// As any other route.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        Self::Api(error.into())
    }
}

impl Failure {
    /// A body that cannot be read.
    pub(super) fn parse(reason: impl Into<String>) -> Self {
        Self::Parse { kind: "parsing_exception", reason: reason.into() }
    }
}

fn listed(problems: &[String]) -> String {
    let mut text = "Validation Failed: ".to_owned();
    for (i, problem) in problems.iter().enumerate() {
        let _ = write!(text, "{}: {problem};", i + 1);
    }
    text
}

#[derive(Serialize)]
struct Body<'a> {
    error: Cause<'a>,
    status: u16,
}

#[derive(Serialize)]
struct Cause<'a> {
    root_cause: [Root<'a>; 1],
    #[serde(flatten)]
    root: Root<'a>,
}

#[derive(Clone, Serialize)]
struct Root<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    reason: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let kind = match &self {
            Self::Parse { kind, .. } => kind,
            Self::Validation(_) => "action_request_validation_exception",
            Self::Api(_) => "",
        };
        let reason = self.to_string();
        if let Self::Api(error) = self {
            return error.into_response();
        }
        let root = Root { kind, reason };
        let error = Cause { root_cause: [root.clone()], root };
        (WRONG, axum::Json(Body { error, status: WRONG.as_u16() })).into_response()
    }
}
