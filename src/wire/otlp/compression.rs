//! Bodies as they travel: unpacked up to a limit and not a byte further, each byte claimed before it is held.

use std::io::{self, Read};

/// Room taken for what comes out first; doubled from there.
const FIRST: usize = 64 << 10;

/// How a message is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Packing {
    /// By the name in a header.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "" | "identity" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error<R> {
    /// More than the limit came out.
    #[error("body: expected at most {limit} bytes after decompression, found more")]
    TooLarge { limit: usize },
    /// The packed data is broken.
    #[error("body: expected {encoding} data, found something else: {source}")]
    Broken { encoding: &'static str, source: io::Error },
    /// There is no room for what comes out.
    #[error("no room")]
    NoRoom(R),
}

/// Unpacks `body`, of which at most `limit` bytes may come out; `None` when it is not packed. `grow` is asked before
/// more bytes are held.
pub(super) fn unpack<R>(
    packing: Packing,
    body: &[u8],
    limit: usize,
    grow: impl FnMut(usize) -> Result<(), R>,
) -> Result<Option<Vec<u8>>, Error<R>> {
    match packing {
        Packing::None => Ok(None),
        Packing::Gzip => take("gzip", flate2::read::GzDecoder::new(body), limit, grow).map(Some),
        Packing::Zstd => {
            let decoder = zstd::Decoder::with_buffer(body)
                .and_then(|mut decoder| {
                    // Window of 32 MiB: no message needs more, and a frame may not make us reserve more.
                    decoder.window_log_max(25)?;
                    Ok(decoder)
                })
                .map_err(|source| Error::Broken { encoding: "zstd", source })?;
            take("zstd", decoder, limit, grow).map(Some)
        }
    }
}

fn take<R>(
    encoding: &'static str,
    mut decoder: impl Read,
    limit: usize,
    mut grow: impl FnMut(usize) -> Result<(), R>,
) -> Result<Vec<u8>, Error<R>> {
    let mut out = Vec::new();
    loop {
        let spare = out.capacity() - out.len();
        if spare == 0 {
            if out.len() > limit {
                return Err(Error::TooLarge { limit });
            }
            let more = out.capacity().clamp(FIRST, (limit + 1).max(FIRST)).min(limit + 1 - out.len());
            grow(more).map_err(Error::NoRoom)?;
            out.reserve_exact(more);
            continue;
        }
        let before = out.len();
        decoder
            .by_ref()
            .take(spare as u64)
            .read_to_end(&mut out)
            .map_err(|source| Error::Broken { encoding, source })?;
        if out.len() == before {
            return if out.len() > limit { Err(Error::TooLarge { limit }) } else { Ok(out) };
        }
    }
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

    #[allow(clippy::unnecessary_wraps, reason = "it answers as a budget does")]
    fn roomy(_: usize) -> Result<(), ()> {
        Ok(())
    }

    #[test]
    fn both_encodings_come_back() {
        for length in [0, 1, 900, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST] {
            let data: Vec<u8> = (0..length).map(|i| (i * 7 % 251) as u8).collect();
            for limit in [length, length + 1, 1 << 20] {
                let packed = unpack(Packing::Gzip, &gzip(&data), limit, roomy).unwrap();
                assert_eq!(packed.as_ref(), Some(&data), "{length} of {limit}");
                let packed = zstd::encode_all(&data[..], 1).unwrap();
                assert_eq!(unpack(Packing::Zstd, &packed, limit, roomy).unwrap(), Some(data.clone()));
            }
        }
        assert_eq!(unpack(Packing::None, b"data", 1, roomy).unwrap(), None);
        assert_eq!(Packing::named("br"), None);
    }

    #[test]
    fn a_bomb_stops_at_the_limit_or_where_there_is_no_room() {
        let bomb = vec![0; 10_000_000];
        for (packing, packed) in
            [(Packing::Gzip, gzip(&bomb)), (Packing::Zstd, zstd::encode_all(&bomb[..], 19).unwrap())]
        {
            let mut claimed = 0;
            let claim = |bytes| {
                claimed += bytes;
                Ok::<_, ()>(())
            };
            let error = unpack(packing, &packed, 1 << 20, claim).unwrap_err().to_string();
            assert_eq!(error, "body: expected at most 1048576 bytes after decompression, found more");
            assert_eq!(claimed, (1 << 20) + 1);
            let mut room = 300_000;
            let claim = |bytes| {
                room = usize::checked_sub(room, bytes).ok_or("full")?;
                Ok(())
            };
            assert!(matches!(unpack(packing, &packed, 1 << 20, claim), Err(Error::NoRoom("full"))));
        }
    }

    #[test]
    fn broken_data_is_named() {
        for (packing, body, expected) in [
            (Packing::Gzip, &b"not packed"[..], "body: expected gzip data, found something else: "),
            (Packing::Gzip, &gzip(b"cut off")[..12], "body: expected gzip data, found something else: "),
            (Packing::Zstd, &b"not packed"[..], "body: expected zstd data, found something else: "),
        ] {
            let error = unpack(packing, body, 1000, roomy).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
