//! Bodies as they travel over HTTP: unpacked up to a limit and not a byte further.

use std::io::{self, Read};

/// Why a body could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No name that we know.
    #[error("content-encoding: expected gzip, zstd or identity, found \"{0}\"")]
    Unknown(String),
    /// More than the limit came out.
    #[error("body: expected at most {limit} bytes after decompression, found more")]
    TooLarge { limit: usize },
    /// The packed data is broken.
    #[error("body: expected {encoding} data, found something else: {source}")]
    Broken { encoding: &'static str, source: io::Error },
}

/// Unpacks `body`, of which at most `limit` bytes may come out.
pub(super) fn unpack(encoding: &str, body: &[u8], limit: usize) -> Result<Option<Vec<u8>>, Error> {
    match encoding {
        "" | "identity" => Ok(None),
        "gzip" => take("gzip", flate2::read::GzDecoder::new(body), body.len(), limit).map(Some),
        "zstd" => {
            let decoder = zstd::Decoder::with_buffer(body)
                .and_then(|mut decoder| {
                    // Window of 32 MiB: no message needs more, and a frame may not make us reserve more.
                    decoder.window_log_max(25)?;
                    Ok(decoder)
                })
                .map_err(|source| Error::Broken { encoding: "zstd", source })?;
            take("zstd", decoder, body.len(), limit).map(Some)
        }
        other => Err(Error::Unknown(other.chars().take(64).collect())),
    }
}

fn take(encoding: &'static str, decoder: impl Read, packed: usize, limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(packed.saturating_mul(3).min(limit));
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|source| Error::Broken { encoding, source })?;
    if out.len() > limit { Err(Error::TooLarge { limit }) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_encodings_come_back() {
        let data = b"some data".repeat(100);
        assert_eq!(unpack("gzip", &gzip(&data), 1000).unwrap(), Some(data.clone()));
        let packed = zstd::encode_all(&data[..], 1).unwrap();
        assert_eq!(unpack("zstd", &packed, 1000).unwrap(), Some(data.clone()));
        assert_eq!(unpack("identity", &data, 1).unwrap(), None);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = vec![0; 10_000_000];
        for (encoding, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd::encode_all(&bomb[..], 19).unwrap())]
        {
            let error = unpack(encoding, &packed, 1 << 20).unwrap_err().to_string();
            assert_eq!(error, "body: expected at most 1048576 bytes after decompression, found more");
        }
    }

    #[test]
    fn broken_and_unknown_encodings_are_named() {
        for (encoding, body, expected) in [
            ("gzip", &b"not packed"[..], "body: expected gzip data, found something else: "),
            ("gzip", &gzip(b"cut off")[..12], "body: expected gzip data, found something else: "),
            ("zstd", &b"not packed"[..], "body: expected zstd data, found something else: "),
            ("br", &b""[..], "content-encoding: expected gzip, zstd or identity, found \"br\""),
        ] {
            let error = unpack(encoding, body, 1000).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
