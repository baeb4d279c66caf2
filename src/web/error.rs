//! Errors as people and programs get them: a status and a JSON body with the sentence, the cure and the place.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use crate::net::Refused;
use crate::{query, store};

use super::dto::ErrorDto;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// A parameter is wrong.
    #[error("{message}")]
    BadParameter { message: String, hint: Option<String> },
    /// The question could not be answered.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// Nothing lives at this address.
    #[error("no such address: {path}")]
    NotFound { path: String, hint: Option<String> },
    /// The address answers other methods only.
    #[error("expected {expected}, found {method}")]
    WrongMethod { method: String, expected: &'static str },
    /// All workers are busy and stayed so.
    #[error("too many queries are running")]
    Busy,
    /// A browser or host that may not ask.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No token, or a wrong one.
    #[error("this page wants an access token")]
    Unauthorized,
    /// The answer could not be written.
    #[error("answer could not be written: {0}")]
    Encode(String),
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        Self::Query(error.into())
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadParameter { .. } => StatusCode::BAD_REQUEST,
            Self::Query(error) => match error {
                query::Error::Filter(_)
                | query::Error::Time { .. }
                | query::Error::EmptyRange { .. }
                | query::Error::UnknownField { .. }
                | query::Error::Store(store::Error::TooMuch { .. }) => StatusCode::BAD_REQUEST,
                query::Error::NoSuchFunction { .. } => StatusCode::NOT_FOUND,
                query::Error::Store(store::Error::Remote {
                    kind: store::Remote::Forbidden | store::Remote::NoLogin | store::Remote::Refused,
                    ..
                }) => StatusCode::BAD_GATEWAY,
                query::Error::Store(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
                query::Error::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
                query::Error::BrokenTrie { .. } | query::Error::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::BadParameter { hint, .. } | Self::NotFound { hint, .. } => hint.clone(),
            Self::Query(error) => error.hint(),
            Self::Busy => Some("try again in a moment, or ask for a shorter range".into()),
            Self::Refused(refused) => Some(match refused {
                Refused::NoHost | Refused::Host(_) => {
                    "open the page by an address, or add the name to web.allowed_hosts".into()
                }
                Refused::Origin(_) => "open the page in a tab of its own".into(),
            }),
            Self::Unauthorized => Some(
                "open the address that everflame printed, or send the header Authorization: Bearer TOKEN"
                    .into(),
            ),
            Self::WrongMethod { .. } | Self::Encode(_) => None,
        }
    }

    fn position(&self) -> Option<usize> {
        if let Self::Query(error) = self { error.position() } else { None }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a query failed");
        }
        let body = ErrorDto { error: self.to_string(), hint: self.hint(), position: self.position() };
        let allowed = match &self {
            Self::WrongMethod { expected: "POST", .. } => "POST",
            _ => "GET, HEAD",
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, http::HeaderValue::from_static(allowed));
        }
        response
    }
}
