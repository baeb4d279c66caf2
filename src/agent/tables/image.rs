//! A finished table as it lies in pages, but for where its pages are and how the machine numbers its rules.
//!
//! Made by the workers that read executables, written to pages by the agent's thread, kept in the disk cache between. Pure.
//! 68 bytes for 16 rows, runs of pushes and pops merged.

use std::collections::HashMap;
use std::hash::Hasher;

use twox_hash::XxHash64;

use super::rules;
use super::runs::{self, Row};
use crate::agent::bpf::abi;
use crate::unwind::{Architecture, UnwindTable};

/// Rows of a group.
pub(super) const GROUP_ROWS: usize = abi::LEAF_GROUP_ROWS as usize;
/// Bits of a row that name its rule.
pub(super) const RULE_MASK: u32 = (1 << abi::ROW_RULE_BITS) - 1;
/// Largest distance of a row from the first of its group, so that the bytes passed since it can be told.
const GROUP_REACH: u32 = abi::GROUP_SPAN - abi::MAX_PASSED - 1;
/// A place in a group without a row: compares as larger than any address.
pub(super) const NO_ROW: u32 = u32::MAX;

/// 16 rows whose offsets lie within 256 KiB: distance from the first, and number of the rule in the image.
pub(super) type Group = [u32; GROUP_ROWS];

/// Fingerprint of an image: 128 bits and the number of groups.
pub(super) type Content = (u64, u64, usize);

/// A table ready to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableImage {
    /// ELF address of offset 0.
    pub(super) base: u64,
    /// The first is the one that says nothing.
    pub(super) rules: Vec<abi::Rule>,
    /// Offset of each group's first row, ascending.
    pub(super) firsts: Vec<u32>,
    pub(super) groups: Vec<Group>,
    /// Rows before runs were merged.
    pub(super) source_rows: u64,
    /// Rules that the kernel side cannot express.
    pub(super) lost_rules: u64,
}

impl TableImage {
    /// Of a table, its runs merged.
    #[must_use]
    pub fn new(table: &UnwindTable) -> Self {
        Self::of(Architecture::HOST, table)
    }

    /// The same for processes of `architecture`, for tests that replay stacks of another machine.
    #[must_use]
    pub fn of(architecture: Architecture, table: &UnwindTable) -> Self {
        let mut lost = 0;
        let encoded: Vec<abi::Rule> = table
            .rules
            .iter()
            .map(|rule| {
                let encoded = rules::encode_for(architecture, rule);
                lost += u64::from(encoded.is_none());
                encoded.unwrap_or_default()
            })
            .collect();
        let row = |row: &crate::unwind::Row| Row {
            offset: row.offset,
            rule: encoded.get(usize::from(row.rule)).copied().unwrap_or_default(),
        };
        let rows: Vec<Row> = table.rows.iter().map(row).collect();
        let mut image = Self::of_rows(table.base.0, &runs::merge(&rows));
        image.source_rows = table.rows.len() as u64;
        image.lost_rules += lost;
        image
    }

    /// The same without rules for runs.
    pub(super) fn expanded(&self) -> Self {
        let rows = runs::expand(&self.rows().collect::<Vec<_>>());
        let mut image = Self::of_rows(self.base, &rows);
        image.source_rows = self.source_rows;
        image.lost_rules += self.lost_rules;
        image
    }

    pub(super) fn of_rows(base: u64, rows: &[Row]) -> Self {
        let mut image = Self { base, rules: vec![abi::Rule::default()], ..Self::default() };
        let mut numbers = HashMap::from([(abi::Rule::default(), 0)]);
        // Most rows repeat a rule met lately.
        let mut recent = [(abi::Rule::default(), 0); RECENT];
        image.groups.reserve(rows.len() / GROUP_ROWS + 1);
        image.firsts.reserve(rows.len() / GROUP_ROWS + 1);
        let mut filled = GROUP_ROWS;
        for row in rows {
            let slot = slot(row.rule);
            let known = if recent[slot].0 == row.rule {
                Some(recent[slot].1)
            } else {
                numbers.get(&row.rule).copied()
            };
            let number = match known {
                Some(number) => number,
                None if image.rules.len() > RULE_MASK as usize => {
                    image.lost_rules += 1;
                    0
                }
                None => {
                    let number = image.rules.len() as u32;
                    numbers.insert(row.rule, number);
                    image.rules.push(row.rule);
                    number
                }
            };
            recent[slot] = (row.rule, number);
            let distance = image.firsts.last().map_or(0, |first| row.offset - first);
            if filled == GROUP_ROWS || distance > GROUP_REACH {
                image.firsts.push(row.offset);
                image.groups.push([NO_ROW; GROUP_ROWS]);
                filled = 0;
            }
            let distance = row.offset - image.firsts[image.firsts.len() - 1];
            if let Some(group) = image.groups.last_mut() {
                group[filled] = distance << abi::ROW_RULE_BITS | number;
            }
            filled += 1;
        }
        image
    }

    /// All rows, merged as they are.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        self.firsts.iter().zip(&self.groups).flat_map(|(first, group)| {
            group.iter().filter(|word| **word != NO_ROW).map(|word| Row {
                offset: first.wrapping_add(word >> abi::ROW_RULE_BITS),
                rule: self.rules.get((word & RULE_MASK) as usize).copied().unwrap_or_default(),
            })
        })
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Rows of the table that it was made of.
    #[must_use]
    pub fn source_rows(&self) -> u64 {
        self.source_rows
    }

    /// Rows as stored.
    #[must_use]
    pub fn stored_rows(&self) -> u64 {
        self.rows().count() as u64
    }

    /// Bytes that it holds in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let group_bytes = size_of::<Group>() + size_of::<u32>();
        (self.groups.len() * group_bytes + self.rules.len() * size_of::<abi::Rule>()) as u64
    }

    /// Whether any rule is one for runs.
    #[cfg(test)]
    fn has_runs(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_run())
    }

    /// Two hashes of all that it says.
    pub(super) fn content(&self) -> Content {
        let (mut first, mut second) = (XxHash64::with_seed(1), XxHash64::with_seed(2));
        let mut bytes = Vec::with_capacity(GROUP_ROWS * size_of::<u32>() + 4);
        let mut both = |bytes: &mut Vec<u8>| {
            first.write(bytes);
            second.write(bytes);
            bytes.clear();
        };
        bytes.extend_from_slice(&self.base.to_le_bytes());
        for word in self.rules.iter().flat_map(|rule| rule.words()) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        both(&mut bytes);
        for (start, group) in self.firsts.iter().zip(&self.groups) {
            bytes.extend_from_slice(&start.to_le_bytes());
            for word in group {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            both(&mut bytes);
        }
        (first.finish(), second.finish(), self.groups.len())
    }
}

/// Rules met lately, by a cheap hash.
const RECENT: usize = 256;

fn slot(rule: abi::Rule) -> usize {
    let offsets = (rule.cfa_offset as u32).wrapping_mul(0x9e37_79b1)
        ^ (rule.fp_offset as u32).wrapping_mul(0x85eb_ca6b);
    let key = offsets ^ (rule.ra_offset as u32).wrapping_mul(0xc2b2_ae35) ^ u32::from(rule.cfa);
    (key ^ key >> 16) as usize % RECENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ElfAddr;
    use crate::unwind::{self, CfaRule, FpRule, RaRule, Rule};

    /// What an image says at an offset.
    fn find(rows: &[Row], offset: u32) -> Option<abi::Rule> {
        let row = rows[..rows.partition_point(|row| row.offset <= offset)].last()?;
        Some(row.rule.at((offset - row.offset).min(abi::MAX_PASSED)))
    }

    /// Each address at which anything may change, and its neighbours.
    fn check(table: &UnwindTable) {
        let image = TableImage::new(table);
        for (image, kind) in [(&image, "merged"), (&image.expanded(), "expanded")] {
            let rows: Vec<Row> = image.rows().collect();
            assert!(rows.windows(2).all(|pair| pair[0].offset < pair[1].offset));
            for (at, row) in table.rows.iter().enumerate() {
                let end =
                    table.rows.get(at + 1).map_or(u64::from(row.offset) + 100, |next| next.offset.into());
                let rule = rules::encode(&table.rules[usize::from(row.rule)]).unwrap_or_default();
                // Every byte that a run may tell apart, and the last one.
                let near = (u64::from(row.offset)..end).take(40).chain([end - 1]);
                for offset in near.filter_map(|offset| u32::try_from(offset).ok()) {
                    assert_eq!(find(&rows, offset), Some(rule), "{kind}, at {offset:#x}");
                }
            }
        }
        assert!(!image.expanded().has_runs());
        assert_eq!(image.source_rows(), table.rows.len() as u64);
    }

    /// Libraries of a C compiler's and of the Rust compiler's make: those of the list that this machine has.
    fn libraries() -> Vec<std::path::PathBuf> {
        let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
        let rust = std::path::PathBuf::from(String::from_utf8(sysroot.stdout).unwrap().trim()).join("lib");
        let wanted = ["libc.so.6", "libstdc++.so.6", "libcrypto.so.3"];
        ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64"]
            .iter()
            .map(std::path::PathBuf::from)
            .chain([rust])
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                wanted.contains(&&*name) || name.starts_with("librustc_driver")
            })
            .collect()
    }

    #[test]
    fn says_the_same_as_the_tables_of_real_libraries() {
        let mut merged = 0;
        for path in libraries() {
            let table = unwind::from_elf(&std::fs::read(&path).unwrap()).unwrap();
            check(&table);
            let image = TableImage::new(&table);
            assert!(image.stored_rows() <= image.source_rows());
            merged += u64::from(image.has_runs());
        }
        assert!(merged > 0, "no library with runs");
    }

    #[test]
    fn groups_end_where_distances_would_not_fit() {
        let rule = |n: i32| Rule::Frame { cfa: CfaRule::Fp(n), fp: FpRule::Unchanged, ra: RaRule::AtCfa(-8) };
        let far = [0, 5, GROUP_REACH, GROUP_REACH + 1, 2 * GROUP_REACH + 2, 0xffff_0000, 0xffff_fffe];
        let rows = far.iter().enumerate().map(|(n, &offset)| unwind::Row { offset, rule: n as u16 % 3 });
        let table = UnwindTable {
            base: ElfAddr(0x1000),
            rows: rows.collect(),
            rules: (0..3).map(rule).collect(),
            ..UnwindTable::default()
        };
        assert_eq!(TableImage::new(&table).firsts, [0, GROUP_REACH + 1, 2 * GROUP_REACH + 2, 0xffff_0000]);
        check(&table);
    }

    #[test]
    fn content_tells_tables_apart() {
        let rows = vec![unwind::Row { offset: 0, rule: 0 }, unwind::Row { offset: 9, rule: 1 }];
        let table = UnwindTable { rows, rules: vec![Rule::Stop, Rule::Signal], ..UnwindTable::default() };
        let content = |change: &dyn Fn(&mut UnwindTable)| {
            let mut other = table.clone();
            change(&mut other);
            TableImage::new(&other).content()
        };
        let same = content(&|_| ());
        assert_eq!(same, content(&|_| ()));
        assert_ne!(same, content(&|table| table.base = ElfAddr(8)));
        assert_ne!(same, content(&|table| table.rows[1].offset = 10));
        assert_ne!(same, content(&|table| table.rules[1] = Rule::FramePointer));
    }
}
