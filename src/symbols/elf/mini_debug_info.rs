//! MiniDebugInfo: a second, stripped ELF file with the local functions, compressed with xz in `.gnu_debugdata`.
//!
//! Fedora and its relatives ship it in nearly every file. The decoder buffers all output up to the next dictionary
//! reset, so a limit on what it writes would come too late; instead the sizes that the stream itself declares for each
//! of its chunks are added up before anything is decoded. A chunk cannot produce more than it declares.

use crate::symbols::mapped::Bytes;
use crate::symbols::{Error, Result};

/// Largest compressed section: 32 MiB. That of a browser is about 3 MB.
pub const MAX_PACKED_BYTES: u64 = 32 << 20;
/// Largest file inside: 128 MiB, one million symbols with 100 bytes of name each.
const MAX_UNPACKED_BYTES: u64 = 128 << 20;

const WHAT: &str = ".gnu_debugdata";

/// Unpacks the file inside.
///
/// # Errors
/// When it is no xz stream of LZMA2 blocks, or would be larger than 128 MiB.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let declared = declared_bytes(packed)?;
    if declared > MAX_UNPACKED_BYTES {
        let what = "unpacked .gnu_debugdata in bytes";
        return Err(Error::TooLarge { what, found: declared, limit: MAX_UNPACKED_BYTES });
    }
    let mut unpacked = Vec::with_capacity(declared as usize);
    let mut input = packed;
    if lzma_rs::xz_decompress(&mut input, &mut unpacked).is_err() {
        let offset = (packed.len() - input.len()) as u64;
        return Err(Error::Malformed {
            what: WHAT,
            offset,
            why: "xz data is damaged, or of a kind not supported",
        });
    }
    Ok(unpacked)
}

/// Sum of what all chunks of all blocks declare to produce, without decoding any.
fn declared_bytes(packed: &[u8]) -> Result<u64> {
    let bytes = Bytes(packed);
    let bad = |offset: u64, why: &'static str| Error::Malformed { what: WHAT, offset, why };
    let short = |offset: u64| bad(offset, "xz data ends early");
    if bytes.slice(0, 6) != Some(b"\xfd7zXZ\0") {
        return Err(bad(0, "not an xz stream"));
    }
    let check_bytes: u64 = match bytes.u8(7).ok_or_else(|| short(7))? & 15 {
        0 => 0,
        1..=3 => 4,
        4..=6 => 8,
        7..=9 => 16,
        10..=12 => 32,
        _ => 64,
    };
    let (mut at, mut sum) = (12u64, 0u64);
    loop {
        let size = u64::from(bytes.u8(at).ok_or_else(|| short(at))?);
        if size == 0 {
            return Ok(sum);
        }
        let block = at;
        at += (size + 1) * 4;
        loop {
            let control = bytes.u8(at).ok_or_else(|| short(at))?;
            let size_at = |offset: u64| {
                bytes
                    .array(offset)
                    .map(|pair| u64::from(u16::from_be_bytes(pair)))
                    .ok_or_else(|| short(offset))
            };
            match control {
                0 => break,
                1 | 2 => {
                    let size = size_at(at + 1)? + 1;
                    sum += size;
                    at += 3 + size;
                }
                3..=0x7f => return Err(bad(at, "unknown kind of LZMA2 chunk")),
                _ => {
                    sum += ((u64::from(control) & 0x1f) << 16 | size_at(at + 1)?) + 1;
                    let properties = u64::from(control >= 0xc0);
                    at += 5 + properties + size_at(at + 3)? + 1;
                }
            }
        }
        at += 1;
        // Block padding aligns to 4, counted from the start of the block.
        at = block + (at - block).next_multiple_of(4) + check_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        lzma_rs::xz_compress(&mut &*bytes, &mut packed).unwrap();
        packed
    }

    #[test]
    fn unpacks_what_was_packed_and_knows_its_size_before() {
        let content: Vec<u8> = (0..200_000u32).map(|n| (n / 7) as u8).collect();
        let packed = pack(&content);
        assert_eq!(declared_bytes(&packed).unwrap(), content.len() as u64);
        assert_eq!(unpack(&packed).unwrap(), content);
    }

    #[test]
    fn truncated_anywhere_is_an_error() {
        let packed = pack(b"some bytes that are not many");
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end]).is_err(), "{end} bytes");
        }
    }

    /// Header of a stream, of a block with one LZMA2 filter, then chunks that claim 2 MiB each for 6 bytes of input.
    #[test]
    fn bomb_is_refused_before_it_is_lit() {
        let mut packed = b"\xfd7zXZ\0\0\x01".to_vec();
        packed.extend([0; 4]);
        packed.extend([2, 0, 0x21, 1, 0x16, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..65 {
            packed.extend([0xff, 0xff, 0xff, 0, 0, 0x5d, 0]);
        }
        packed.extend([0; 16]);
        let error = unpack(&packed).unwrap_err().to_string();
        assert_eq!(error, "unpacked .gnu_debugdata in bytes: expected at most 134217728, found 136314880");
    }
}
