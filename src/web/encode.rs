//! Answers to bytes: JSON, compressed when it is large and the client can read it. Work for the blocking pool.

use std::io::{BufWriter, Write as _};

use axum::body::Body;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;

use super::error::ApiError;

/// Answers below this are sent as they are: compression would save less than one packet.
pub(super) const COMPRESS_FROM_BYTES: usize = 1400;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    /// The best that the client says it can read.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let accepts = headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let refused = parts.any(|p| {
                    p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|quality| quality == 0.0))
                });
                (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
            });
        if accepts { Self::Gzip } else { Self::Plain }
    }
}

/// Writes `answer` as JSON. Meant for large answers: the text goes straight into the compressor.
pub(super) fn large(answer: &impl Serialize, encoding: Encoding) -> Result<Response, ApiError> {
    let failed = |error: &dyn std::fmt::Display| ApiError::Encode(error.to_string());
    let bytes = match encoding {
        Encoding::Plain => serde_json::to_vec(answer).map_err(|e| failed(&e))?,
        Encoding::Gzip => {
            // The fastest level: columns of small numbers shrink well at any.
            let mut buffer =
                BufWriter::with_capacity(1 << 16, GzEncoder::new(Vec::new(), Compression::fast()));
            serde_json::to_writer(&mut buffer, answer).map_err(|e| failed(&e))?;
            buffer.flush().map_err(|e| failed(&e))?;
            let encoder = buffer.into_inner().map_err(|e| failed(&e))?;
            encoder.finish().map_err(|e| failed(&e))?
        }
    };
    Ok(respond(bytes, encoding))
}

/// Writes `answer` as JSON, compressed only when that pays.
pub(super) fn small(answer: &impl Serialize, accepted: Encoding) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(answer).map_err(|error| ApiError::Encode(error.to_string()))?;
    if accepted == Encoding::Gzip && bytes.len() >= COMPRESS_FROM_BYTES {
        let packed =
            gzip(&bytes, Compression::fast()).map_err(|error| ApiError::Encode(error.to_string()))?;
        return Ok(respond(packed, Encoding::Gzip));
    }
    Ok(respond(bytes, Encoding::Plain))
}

/// Bytes in gzip.
pub(super) fn gzip(bytes: &[u8], level: Compression) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn respond(bytes: Vec<u8>, encoding: Encoding) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_when_the_client_names_it() {
        for (value, expected) in [
            ("gzip", Encoding::Gzip),
            ("br, GZIP;q=0.5", Encoding::Gzip),
            ("*", Encoding::Gzip),
            ("gzip;q=0", Encoding::Plain),
            ("gzip; q=0.0", Encoding::Plain),
            ("identity", Encoding::Plain),
            ("", Encoding::Plain),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(Encoding::accepted(&headers), expected, "{value}");
        }
        assert_eq!(Encoding::accepted(&HeaderMap::new()), Encoding::Plain);
    }
}
