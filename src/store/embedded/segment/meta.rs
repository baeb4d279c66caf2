//! What the manifest says of a segment, and its binary form.

use super::super::codec::{Bytes, put_i64, put_u64};
use super::super::layout::Part;
use super::super::parquet_file::FileMeta;

/// How far a segment has come on its way from the head to a day file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// As flushed from the head: at most one UTC hour, unless times are wild.
    Young,
    /// One UTC hour.
    Hour,
    /// One UTC day in blocks.
    Day,
}

impl Level {
    /// Number in files.
    pub(crate) fn number(self) -> u64 {
        self as u64
    }

    /// Inverse of [`Level::number`].
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        [Self::Young, Self::Hour, Self::Day].into_iter().find(|l| l.number() == number)
    }
}

/// A run of row groups that is sorted in itself and covers one stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Earliest time in milliseconds.
    pub(crate) min_ms: i64,
    /// Latest time in milliseconds.
    pub(crate) max_ms: i64,
    /// First row group.
    pub(crate) first_group: usize,
    /// Number of row groups.
    pub(crate) groups: usize,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Number, also the name of its files.
    pub(crate) id: u64,
    /// Level.
    pub(crate) level: Level,
    /// Times are multiples of this many milliseconds.
    pub(crate) unit_ms: u32,
    /// Nominal length of its blocks in hours.
    pub(crate) block_hours: u32,
    /// When it was written, in milliseconds since 1970.
    pub(crate) published_ms: i64,
    /// Samples.
    pub(crate) rows: u64,
    /// Blocks by time.
    pub(crate) blocks: Vec<Block>,
    /// Events, totals, minutes; the last two only where they pay.
    pub(crate) files: [Option<FileMeta>; 3],
}

impl Meta {
    /// Earliest and latest time in milliseconds.
    pub(crate) fn extent(&self) -> (i64, i64) {
        let min = self.blocks.iter().map(|b| b.min_ms).min().unwrap_or(0);
        (min, self.blocks.iter().map(|b| b.max_ms).max().unwrap_or(0))
    }

    /// The description of one of its files.
    pub(crate) fn file(&self, part: Part) -> Option<&FileMeta> {
        self.files[part as usize].as_ref()
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().flatten().map(|f| f.bytes).sum()
    }

    /// Binary form without the number, which is the key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.level.number());
        put_u64(&mut out, u64::from(self.unit_ms));
        put_u64(&mut out, u64::from(self.block_hours));
        put_i64(&mut out, self.published_ms);
        put_u64(&mut out, self.rows);
        put_u64(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            put_i64(&mut out, block.min_ms);
            put_i64(&mut out, block.max_ms);
            put_u64(&mut out, block.first_group as u64);
            put_u64(&mut out, block.groups as u64);
        }
        for file in &self.files {
            out.push(u8::from(file.is_some()));
            if let Some(file) = file {
                file.put(&mut out);
            }
        }
        out
    }

    /// Inverse of [`Meta::encode`]; `None` when malformed.
    pub(crate) fn decode(id: u64, value: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(value);
        let level = Level::from_number(bytes.u64()?)?;
        let (unit_ms, block_hours, published_ms) = (bytes.u32()?, bytes.u32()?, bytes.i64()?);
        let rows = bytes.u64()?;
        let blocks = (0..bytes.count()?)
            .map(|_| {
                Some(Block {
                    min_ms: bytes.i64()?,
                    max_ms: bytes.i64()?,
                    first_group: bytes.u32()? as usize,
                    groups: bytes.u32()? as usize,
                })
            })
            .collect::<Option<_>>()?;
        let mut files = [None, None, None];
        for file in &mut files {
            if bytes.byte()? == 1 {
                *file = Some(FileMeta::take(&mut bytes)?);
            }
        }
        Some(Self { id, level, unit_ms, block_hours, published_ms, rows, blocks, files })
    }
}

/// How a segment came about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Level.
    pub(crate) level: Level,
    /// Nominal length of a block in hours.
    pub(crate) block_hours: u32,
    /// Now, in milliseconds since 1970.
    pub(crate) published_ms: i64,
    /// Segments whose samples are all in this one.
    pub(crate) replaces: &'a [u64],
}

/// What an events file says of itself, for the day on which the manifest is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Level.
    pub(crate) level: Level,
    /// Times are multiples of this many milliseconds.
    pub(crate) unit_ms: u32,
    /// Nominal length of a block in hours.
    pub(crate) block_hours: u32,
    /// Blocks by time.
    pub(crate) blocks: Vec<Block>,
    /// Segments whose samples are all in this one.
    pub(crate) replaces: Vec<u64>,
}

impl Notes {
    /// Key of [`Notes::level`] in the footer, as a number.
    pub(crate) const LEVEL: &'static str = "everflame.level";
    /// Key of [`Notes::unit_ms`] in the footer.
    pub(crate) const UNIT_MS: &'static str = "everflame.unit_ms";
    /// Key of [`Notes::block_hours`] in the footer.
    pub(crate) const BLOCK_HOURS: &'static str = "everflame.block_hours";
    /// Key of [`Notes::blocks`] in the footer: `min_ms,max_ms,first_group,groups` separated by `;`.
    pub(crate) const BLOCKS: &'static str = "everflame.blocks";
    /// Key of [`Notes::replaces`] in the footer: numbers separated by `;`.
    pub(crate) const REPLACES: &'static str = "everflame.replaces";

    /// Reads the notes; `None` when one is missing or malformed.
    pub(crate) fn read<'k>(note: impl Fn(&str) -> Option<&'k str>) -> Option<Self> {
        let blocks = note(Self::BLOCKS)?.split(';').filter(|b| !b.is_empty()).map(|block| {
            let mut fields = block.split(',');
            Some(Block {
                min_ms: fields.next()?.parse().ok()?,
                max_ms: fields.next()?.parse().ok()?,
                first_group: fields.next()?.parse().ok()?,
                groups: fields.next()?.parse().ok()?,
            })
        });
        let replaces = note(Self::REPLACES)?.split(';').filter(|id| !id.is_empty()).map(|id| id.parse().ok());
        Some(Self {
            level: Level::from_number(note(Self::LEVEL)?.parse().ok()?)?,
            unit_ms: note(Self::UNIT_MS)?.parse().ok()?,
            block_hours: note(Self::BLOCK_HOURS)?.parse().ok()?,
            blocks: blocks.collect::<Option<_>>()?,
            replaces: replaces.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let meta = Meta {
            id: 7,
            level: Level::Day,
            unit_ms: 1000,
            block_hours: 6,
            published_ms: -5,
            rows: 12,
            blocks: vec![Block { min_ms: 1, max_ms: 9, first_group: 0, groups: 2 }],
            files: [Some(FileMeta { bytes: 10, rows: 12, hashes: vec![1, u64::MAX] }), None, None],
        };
        assert_eq!(Meta::decode(7, &meta.encode()), Some(meta));
        assert_eq!(Meta::decode(7, &[2, 1]), None);
    }
}
