//! The page's files, embedded in the binary: content types, validators and packed forms made once at start.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Redirect, Response};
use flate2::Compression;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::encode::{COMPRESS_FROM_BYTES, Encoding, gzip};
use super::error::ApiError;
use super::token::hex;

static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/web/assets");

/// The page itself.
const INDEX: &str = "index.html";

/// One file as it is served.
#[derive(Debug)]
struct Asset {
    bytes: &'static [u8],
    /// Packed form, where it is smaller.
    packed: Option<Bytes>,
    content_type: HeaderValue,
    /// Strong validator of the plain form.
    etag: HeaderValue,
    packed_etag: HeaderValue,
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let mut assets = HashMap::new();
    let mut open = vec![&FILES];
    while let Some(folder) = open.pop() {
        open.extend(folder.dirs());
        for file in folder.files() {
            let Some(path) = file.path().to_str() else { continue };
            if let Some(content_type) = content_type(path) {
                assets.insert(path, Asset::new(file.contents(), content_type));
            }
        }
    }
    assets
});

impl Asset {
    fn new(bytes: &'static [u8], content_type: &'static str) -> Self {
        let packed = (bytes.len() >= COMPRESS_FROM_BYTES)
            .then(|| gzip(bytes, Compression::default()).ok())
            .flatten()
            .filter(|packed| packed.len() < bytes.len())
            .map(Bytes::from);
        let digest = hex(&Sha256::digest(bytes)[..12]);
        let etag = |text: String| HeaderValue::try_from(text).expect("hex digits in quotes");
        Self {
            bytes,
            packed,
            content_type: HeaderValue::from_static(content_type),
            etag: etag(format!("\"{digest}\"")),
            packed_etag: etag(format!("\"{digest}-gzip\"")),
        }
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let packed = self.packed.as_ref().filter(|_| Encoding::accepted(headers) == Encoding::Gzip);
        let etag = if packed.is_some() { &self.packed_etag } else { &self.etag };
        let mut response = if is_known(headers, etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let body = packed.cloned().map_or_else(|| Body::from(self.bytes), Body::from);
            let mut response = Response::new(body);
            response.headers_mut().insert(header::CONTENT_TYPE, self.content_type.clone());
            if packed.is_some() {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Names carry no version: the browser keeps the file and asks each time whether it is still the one.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// Whether the client already holds this version.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || etag == tag)
}

/// Content type by extension; files of other kinds (notes, type checks) are no part of the page.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

/// Whether a path that is no file may be a page of the single-page program: one word without a dot.
fn looks_like_page(path: &str) -> bool {
    !path.is_empty() && path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The file or page at the address of a request.
pub(super) fn serve(uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let not_found = || ApiError::NotFound { path: uri.path().chars().take(80).collect(), hint: None };
    // Pages stand directly below the root, so that their relative addresses hold.
    if let Some(page) = path.strip_suffix('/').filter(|page| looks_like_page(page)) {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Ok(Redirect::permanent(&format!("/{page}{query}")).into_response());
    }
    let name = if path.is_empty() || looks_like_page(path) { INDEX } else { path };
    ASSETS.get(name).map(|asset| asset.respond(headers)).ok_or_else(not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_single_words() {
        for (path, expected) in [
            ("flamegraph", true),
            ("add-data", true),
            ("a.js", false),
            ("a/b", false),
            ("", false),
            ("..", false),
        ] {
            assert_eq!(looks_like_page(path), expected, "{path}");
        }
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        let asset = Asset::new(b"body { color: red }", "text/css; charset=utf-8");
        let etag = asset.etag.to_str().unwrap().to_owned();
        for (value, expected) in [
            (etag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"x\", W/{etag}"), StatusCode::NOT_MODIFIED),
            ("\"x\"".into(), StatusCode::OK),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
            assert_eq!(asset.respond(&headers).status(), expected, "{value}");
        }
    }
}
