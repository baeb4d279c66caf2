//! An image as bytes, for the disk cache, and back. What is read is checked whole: a file of strangers, or one cut short,
//! is no image, and an image that was read can be published like one that was built.

use std::hash::Hasher;

use twox_hash::XxHash64;

use super::image::{GROUP_ROWS, Group, NO_ROW, RULE_MASK, TableImage};
use crate::agent::bpf::abi;
use crate::model::FileId;

/// First bytes of each file.
const MAGIC: &[u8; 8] = b"evfltabl";
/// Raised with every change of the layout here or of the rows' in `bpf/abi.h`.
const VERSION: u32 = 1;
/// Magic, version, two counts; maker, file ID, base, rows, lost rules.
const HEADER_BYTES: usize = 8 + 3 * 4 + 8 + 16 + 3 * 8;
/// At the end: XXH64 of everything before.
const CHECKSUM_BYTES: usize = 8;
const RULE_BYTES: usize = abi::RULE_BYTES as usize;
const GROUP_BYTES: usize = GROUP_ROWS * 4;

/// Largest file that is read: 8 million rows take 36 MB unmerged.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

impl TableImage {
    /// As bytes. `maker` tells programs apart that read executables differently.
    pub(crate) fn to_bytes(&self, file_id: FileId, maker: u64) -> Vec<u8> {
        let (rules, groups) = (self.rules.len(), self.groups.len());
        let mut bytes = Vec::with_capacity(length(rules, groups).unwrap_or(0));
        bytes.extend_from_slice(MAGIC);
        for number in [VERSION, rules as u32, groups as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let (high, low) = file_id.words();
        for number in [maker, high, low, self.base, self.source_rows, self.lost_rules] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let words = self.rules.iter().flat_map(|rule| rule.words());
        let words = words.chain(self.firsts.iter().copied()).chain(self.groups.iter().flatten().copied());
        words.for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The image in a file; `None` when it is none, or not that of this file by this maker.
    pub(crate) fn from_bytes(bytes: &[u8], file_id: FileId, maker: u64) -> Option<Self> {
        let (content, end) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        let mut words = Words(content.strip_prefix(MAGIC)?);
        let [version, rules, groups] = [words.u32()?, words.u32()?, words.u32()?];
        let [rules, groups] = [rules as usize, groups as usize];
        let (high, low) = file_id.words();
        let is_wanted = [words.u64()?, words.u64()?, words.u64()?] == [maker, high, low];
        if version != VERSION || !is_wanted || length(rules, groups)? != bytes.len() {
            return None;
        }
        if checksum(content).to_le_bytes() != *end {
            return None;
        }
        let [base, source_rows, lost_rules] = [words.u64()?, words.u64()?, words.u64()?];
        let rules = (0..rules).map(|_| words.rule()).collect::<Option<Vec<_>>>()?;
        let firsts = (0..groups).map(|_| words.u32()).collect::<Option<Vec<_>>>()?;
        let groups = (0..groups).map(|_| words.group()).collect::<Option<Vec<_>>>()?;
        let image = Self { base, rules, firsts, groups, source_rows, lost_rules };
        is_sound(&image).then_some(image)
    }
}

/// Length of a file; `None` beyond [`MAX_FILE_BYTES`].
fn length(rules: usize, groups: usize) -> Option<usize> {
    let rules = rules.checked_mul(RULE_BYTES)?;
    let groups = groups.checked_mul(4 + GROUP_BYTES)?;
    let length = (HEADER_BYTES + CHECKSUM_BYTES).checked_add(rules)?.checked_add(groups)?;
    (length as u64 <= MAX_FILE_BYTES).then_some(length)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = XxHash64::with_seed(u64::from(VERSION));
    hash.write(bytes);
    hash.finish()
}

/// Everything that the search relies on: order, and rules that exist.
fn is_sound(image: &TableImage) -> bool {
    let rules = image.rules.len();
    let last =
        |group: &Group| group.iter().rfind(|word| **word != NO_ROW).map(|word| word >> abi::ROW_RULE_BITS);
    let mut end = None;
    rules <= RULE_MASK as usize + 1
        && image.rules.first() == Some(&abi::Rule::default())
        && image.firsts.iter().zip(&image.groups).all(|(first, group)| {
            let filled = group.iter().take_while(|word| **word != NO_ROW).count();
            let rows = &group[..filled];
            let sound = rows.first().is_some_and(|row| row >> abi::ROW_RULE_BITS == 0)
                && rows.windows(2).all(|pair| pair[0] >> abi::ROW_RULE_BITS < pair[1] >> abi::ROW_RULE_BITS)
                && rows.iter().all(|row| ((row & RULE_MASK) as usize) < rules)
                && group[filled..].iter().all(|word| *word == NO_ROW)
                && end.is_none_or(|end| end < *first);
            end = last(group).and_then(|distance| first.checked_add(distance));
            // The largest offset is padding.
            sound && end.is_some_and(|end| end < u32::MAX)
        })
}

/// Numbers from the front.
struct Words<'b>(&'b [u8]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn group(&mut self) -> Option<Group> {
        let mut group = [NO_ROW; GROUP_ROWS];
        for word in &mut group {
            *word = self.u32()?;
        }
        Some(group)
    }

    fn rule(&mut self) -> Option<abi::Rule> {
        let [cfa, fp, ra, slot] = self.take()?;
        let [cfa_offset, fp_offset, ra_offset] =
            [self.u32()?, self.u32()?, self.u32()?].map(|word| word as i32);
        let rule = abi::Rule { cfa, fp, ra, slot, cfa_offset, fp_offset, ra_offset };
        let known = u32::from(cfa) <= abi::CFA_GOROUTINE
            && u32::from(fp) <= abi::FP_UNKNOWN
            && u32::from(ra) & !abi::RA_GUESS <= abi::RA_REGISTER;
        known.then_some(rule)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unwind;

    const FILE: FileId = FileId::from_words(1, 2);

    fn image() -> TableImage {
        TableImage::new(&unwind::from_elf(&std::fs::read("/bin/sleep").unwrap()).unwrap())
    }

    #[test]
    fn what_was_written_is_read() {
        for image in [image(), TableImage::new(&unwind::UnwindTable::default())] {
            let bytes = image.to_bytes(FILE, 7);
            assert_eq!(Some(bytes.len()), length(image.rules.len(), image.groups.len()));
            assert_eq!(TableImage::from_bytes(&bytes, FILE, 7), Some(image));
        }
    }

    #[test]
    fn another_file_another_maker_and_another_length_are_no_hit() {
        let mut bytes = image().to_bytes(FILE, 7);
        assert_eq!(TableImage::from_bytes(&bytes, FileId::from_words(1, 3), 7), None);
        assert_eq!(TableImage::from_bytes(&bytes, FILE, 8), None);
        bytes.push(0);
        assert_eq!(TableImage::from_bytes(&bytes, FILE, 7), None);
    }

    /// Replaces the checksum, so that what lies behind it is looked at.
    fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(at) = bytes.len().checked_sub(CHECKSUM_BYTES) {
            let right = checksum(&bytes[..at]);
            bytes[at..].copy_from_slice(&right.to_le_bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_no_image_or_a_sound_one(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
            resigned in any::<bool>(),
        ) {
            let good = image().to_bytes(FILE, 7);
            let mut bytes = good.clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if !resigned {
                prop_assert!(bytes == good || TableImage::from_bytes(&bytes, FILE, 7).is_none());
            } else if let Some(image) = TableImage::from_bytes(&signed(bytes), FILE, 7) {
                prop_assert!(is_sound(&image));
                // Whatever it says, it can be laid out and read back.
                prop_assert!(image.rows().zip(image.rows().skip(1)).all(|(a, b)| a.offset < b.offset));
                prop_assert_eq!(image.expanded().source_rows, image.source_rows);
            }
        }
    }
}
