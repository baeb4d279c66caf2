//! What every request passes before a route sees it, and every answer before it leaves: guard, token, headers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::net::Refused;

use super::error::ApiError;
use super::state::WebState;
use super::token;

/// Scripts, styles and data come from this server only; nothing inline runs; nobody may frame the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

/// Headers of every answer.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Adds the headers that keep browsers on the safe side.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses foreign hosts and origins.
pub(super) async fn guard(State(state): State<WebState>, request: Request, next: Next) -> Response {
    let checked = state.guard().check(request.uri(), request.headers());
    match checked.and_then(|()| same_site(request.headers())) {
        Ok(()) => next.run(request).await,
        Err(refused) => ApiError::from(refused).into_response(),
    }
}

/// Requests for images and scripts carry no `Origin`; browsers say instead where the page that asks comes from. A page
/// elsewhere could not read an answer but could keep us busy with queries. Following a link is what links are for.
fn same_site(headers: &HeaderMap) -> Result<(), Refused> {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    if is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate") {
        return Err(Refused::Origin("another site".into()));
    }
    Ok(())
}

/// Wants the token where one is set. An address with `?token=` trades it for a cookie and leaves the address.
pub(super) async fn want_token(State(state): State<WebState>, request: Request, next: Next) -> Response {
    let in_address = token::in_address(request.uri()).filter(|_| request.method() == Method::GET);
    let Some(access) = state.token() else {
        // A link with a token still works after the token was taken out of the configuration.
        return match in_address {
            Some((_, address)) => Redirect::to(&address).into_response(),
            None => next.run(request).await,
        };
    };
    if let Some((shown, address)) = in_address {
        if !access.is(&shown) {
            return ApiError::Unauthorized.into_response();
        }
        let mut response = Redirect::to(&address).into_response();
        response.headers_mut().insert(header::SET_COOKIE, access.set_cookie());
        return response;
    }
    if access.is_shown(request.headers()) {
        next.run(request).await
    } else {
        ApiError::Unauthorized.into_response()
    }
}
