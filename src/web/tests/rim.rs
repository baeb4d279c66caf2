//! Guard, token and headers around all routes.

use super::*;

async fn status_of(parts: Parts, uri: &str, headers: &[(&'static str, &str)]) -> Response {
    let mut request = request(uri);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    send(parts, request).await
}

fn with_token() -> Parts {
    Parts { token: AccessToken::new("s3cret"), ..parts(MemoryReader::scene()) }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    for (headers, expected) in [
        (&[("host", "evil.example")][..], 403),
        (&[("origin", "https://evil.example")][..], 403),
        (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")][..], 403),
        (&[("origin", "http://localhost:8250")][..], 200),
        (&[][..], 200),
    ] {
        let response = status_of(parts(MemoryReader::scene()), "/api/v1/status", headers).await;
        assert_eq!(response.status().as_u16(), expected, "{headers:?}");
    }
    let foreign = [("host", "any.example:8250")];
    assert_eq!(status_of(parts(MemoryReader::scene()), "/live", &foreign).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn where_a_token_is_set_it_must_be_shown() {
    let refused = status_of(with_token(), "/api/v1/status", &[]).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(status_of(with_token(), "/", &[]).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(status_of(with_token(), "/ready", &[]).await.status(), StatusCode::OK);
    let bearer = [("authorization", "Bearer s3cret")];
    assert_eq!(status_of(with_token(), "/api/v1/status", &bearer).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_address_with_the_token_gives_a_cookie_and_leaves_the_address() {
    let traded = status_of(with_token(), "/flamegraph?from=now-1h&token=s3cret", &[]).await;
    assert_eq!(traded.status(), StatusCode::SEE_OTHER);
    assert_eq!(traded.headers()[header::LOCATION], "/flamegraph?from=now-1h");
    let cookie = traded.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict") && !cookie.contains("s3cret"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(status_of(with_token(), "/api/v1/status", &[("cookie", pair)]).await.status(), StatusCode::OK);
    let wrong = status_of(with_token(), "/?token=wrong", &[]).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(!wrong.headers().contains_key(header::SET_COOKIE));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    for uri in ["/", "/api/v1/status", "/api/v1/none", "/live"] {
        let response = status_of(parts(MemoryReader::scene()), uri, &[]).await;
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{uri}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{uri}");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer", "{uri}");
        assert!(headers.contains_key(header::CACHE_CONTROL), "{uri}");
    }
}
