//! A whole file as one slice of which only chosen parts are filled; the rest reads as zero and costs no memory.
//!
//! For parsers that address a file as a whole but need little of it (`unwind`). A private copy for the reasons that
//! `mapped` gives: the file may shrink or change at any time.

use std::ops::{Deref, Range};

use super::mapped::ImageFile;
use super::{Error, Result};
use crate::model::FileOffset;

/// Largest file that is laid out: 8 GiB of addresses, not of memory.
const MAX_SPAN_BYTES: u64 = 8 << 30;

/// The copy. Dereferences to as many bytes as the file has.
#[derive(Debug)]
pub struct SparseImage(memmap2::MmapMut);

impl SparseImage {
    /// Copies `ranges` (file offsets in bytes) of a file, in total at most `limit` bytes. Ranges may overlap and reach
    /// beyond the end; parts that cannot be read stay zero, as if the file had a hole there.
    ///
    /// # Errors
    /// When the file is empty or too large, the ranges exceed `limit`, or the system has no address space.
    pub fn copy(image: &ImageFile, ranges: &[Range<u64>], limit: u64) -> Result<Self> {
        let size = image.size();
        if size == 0 || size > MAX_SPAN_BYTES {
            return Err(Error::TooLarge { what: "file size in bytes", found: size, limit: MAX_SPAN_BYTES });
        }
        let wanted = ranges
            .iter()
            .fold(0u64, |sum, range| sum.saturating_add(range.end.min(size).saturating_sub(range.start)));
        if wanted > limit {
            return Err(Error::TooLarge { what: "parts of the file in bytes", found: wanted, limit });
        }
        let map = memmap2::MmapOptions::new().len(size as usize).no_reserve_swap().map_anon();
        let map = map.map_err(|source| Error::Io { what: "memory for a file", offset: 0, source })?;
        let mut copy = Self(map);
        copy.add(image, ranges);
        Ok(copy)
    }

    /// Copies more of the same file. How much is the caller's to bound.
    pub fn add(&mut self, image: &ImageFile, ranges: &[Range<u64>]) {
        let size = self.0.len() as u64;
        for range in ranges {
            let end = range.end.min(size);
            if let Some(part) = self.0.get_mut(range.start as usize..end as usize) {
                // A part that is missing is a hole; the parser counts what it cannot use.
                let _ = image.read("part of the file", FileOffset(range.start), part);
            }
        }
    }
}

impl Deref for SparseImage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn chosen_parts_are_there_and_the_rest_is_zero() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let image = ImageFile::open(file.reopen().unwrap()).unwrap();
        let copy =
            SparseImage::copy(&image, &[10..20, 15..30, 9_990..20_000, 50_000..60_000], 1 << 20).unwrap();
        assert_eq!(copy.len(), 10_000);
        let filled: Vec<usize> = (0..copy.len()).filter(|at| copy[*at] == 7).collect();
        assert_eq!(filled, (10..30).chain(9_990..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn limits_are_kept() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let empty = ImageFile::open(file.reopen().unwrap()).unwrap();
        assert!(SparseImage::copy(&empty, &[], 10).is_err());
        file.write_all(&[7; 100]).unwrap();
        let image = ImageFile::open(file.reopen().unwrap()).unwrap();
        assert!(SparseImage::copy(&image, &[0..50, 50..100], 99).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "hostile input")]
        let reversed = SparseImage::copy(&image, &[20..10, 0..0], 99).unwrap();
        assert!(reversed.iter().all(|byte| *byte == 0));
    }
}
