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

/// Unpacks the file inside.
///
/// The container is walked here, the library sees LZMA2 data only. Check sums are not looked at: what comes out is as
/// untrusted as what went in.
///
/// # Errors
/// When it is no xz stream of LZMA2 blocks, or would be larger than 128 MiB.
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let blocks = blocks(packed)?;
    let declared = blocks.iter().map(|block| block.declared_bytes).sum();
    if declared > MAX_UNPACKED_BYTES {
        let what = "unpacked .gnu_debugdata in bytes";
        return Err(Error::TooLarge { what, found: declared, limit: MAX_UNPACKED_BYTES });
    }
    let mut unpacked = Vec::with_capacity(declared as usize);
    for block in blocks {
        let mut data = block.data;
        if lzma_rs::lzma2_decompress(&mut data, &mut unpacked).is_err() {
            return Err(bad(block.offset, "LZMA2 data is damaged"));
        }
    }
    Ok(unpacked)
}

/// LZMA2 data of one block.
#[derive(Debug)]
struct Block<'a> {
    /// Chunks with the byte that ends them.
    data: &'a [u8],
    /// Where `data` is in the stream.
    offset: u64,
    /// Sum of what the chunks declare to produce.
    declared_bytes: u64,
}

fn bad(offset: u64, why: &'static str) -> Error {
    Error::Malformed { what: ".gnu_debugdata", offset, why }
}

fn short(offset: u64) -> Error {
    bad(offset, "xz data ends early")
}

/// Blocks of the first stream.
fn blocks(packed: &[u8]) -> Result<Vec<Block<'_>>> {
    let bytes = Bytes(packed);
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
    let mut blocks = Vec::new();
    let mut at = 12u64;
    loop {
        // Size of the block header in units of 4 bytes, itself included; 0 begins the index, which ends the blocks.
        let units = u64::from(bytes.u8(at).ok_or_else(|| short(at))?);
        if units == 0 {
            return Ok(blocks);
        }
        let start = at;
        check_filter(bytes, start)?;
        at += (units + 1) * 4;
        let (end, declared_bytes) = chunks(bytes, at)?;
        let data = bytes.slice(at, end - at).ok_or_else(|| short(at))?;
        blocks.push(Block { data, offset: at, declared_bytes });
        // Padding aligns to 4, counted from the start of the block.
        at = start + (end - start).next_multiple_of(4) + check_bytes;
    }
}

/// The header at `start` names LZMA2 as its only filter.
fn check_filter(bytes: Bytes<'_>, start: u64) -> Result<()> {
    let flags = bytes.u8(start + 1).ok_or_else(|| short(start))?;
    let mut at = start + 2;
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            // A size, up to nine bytes of which all but the last have the highest bit.
            let length = (0..9).find(|index| bytes.u8(at + index).is_some_and(|byte| byte & 0x80 == 0));
            at += length.ok_or_else(|| short(at))? + 1;
        }
    }
    let further_filters = flags & 3;
    if further_filters == 0 && bytes.u8(at) == Some(0x21) {
        Ok(())
    } else {
        Err(bad(at, "filters other than LZMA2"))
    }
}

/// Walks over the chunks at `at` without decoding: where they end and what they declare to produce.
fn chunks(bytes: Bytes<'_>, mut at: u64) -> Result<(u64, u64)> {
    let size_at = |offset: u64| {
        bytes.array(offset).map(|pair| u64::from(u16::from_be_bytes(pair))).ok_or_else(|| short(offset))
    };
    let mut sum = 0u64;
    loop {
        let control = bytes.u8(at).ok_or_else(|| short(at))?;
        match control {
            0 => return Ok((at + 1, sum)),
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
        let declared: u64 = blocks(&packed).unwrap().iter().map(|block| block.declared_bytes).sum();
        assert_eq!(declared, content.len() as u64);
        assert_eq!(unpack(&packed).unwrap(), content);
    }

    #[test]
    fn truncated_anywhere_is_an_error() {
        let packed = pack(b"some bytes that are not many");
        // The index behind the blocks is not needed.
        let block = &blocks(&packed).unwrap()[0];
        let end = block.offset as usize + block.data.len();
        for end in 0..=end {
            assert!(unpack(&packed[..end]).is_err(), "{end} bytes");
        }
    }

    /// Made by `xz -9e --block-size=1500`: two blocks, compressed chunks, check sums.
    #[test]
    fn unpacks_what_the_real_tool_packed() {
        let packed = include_bytes!("../../../tests/data/symbols/two_blocks.xz");
        let once: Vec<u8> = (0..600u32).map(|n| (n / 7 * n % 251) as u8).collect();
        assert_eq!(blocks(packed).unwrap().len(), 2);
        assert_eq!(unpack(packed).unwrap(), once.repeat(4));
        for at in 0..packed.len() {
            let mut damaged = packed.to_vec();
            damaged[at] ^= 0xff;
            let _ = unpack(&damaged);
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
