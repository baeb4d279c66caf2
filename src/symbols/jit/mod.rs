//! Names that runtimes write for code they compile as they run: perf maps and jitdump files in, functions out.
//!
//! Pure, and fed in pieces, for such files grow while they are read. Whoever opens them decides whether to believe them.

mod code_map;
mod dump;
mod perf_map;

use std::sync::Arc;

pub use code_map::{CodeMap, Found};
pub use dump::{Broken, Dump};
pub use perf_map::PerfMap;

/// Longest name that is kept, in bytes; longer ones are cut. Java signatures and C# generics reach some 500.
pub const MAX_NAME_BYTES: usize = 1024;
/// No user address lies at or above: 56 bits, as on the kernel side.
const USER_END: u64 = 1 << 56;

/// Code that a runtime has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// Since when (`CLOCK_MONOTONIC`, nanoseconds); `None` where the file does not say.
    pub from_ns: Option<u64>,
    /// What the runtime calls it.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Option<Arc<Source>>,
}

/// Lines of one piece of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Source file.
    pub file: Arc<str>,
    /// Offset from the start of the code, and the line that begins there; ascending.
    pub lines: Vec<(u32, u32)>,
}

impl Source {
    /// Line at an offset; 0 when unknown.
    #[must_use]
    pub fn line(&self, offset: u64) -> u32 {
        let behind = self.lines.partition_point(|(start, _)| u64::from(*start) <= offset);
        behind.checked_sub(1).map_or(0, |at| self.lines[at].1)
    }
}

/// What becomes of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there from now on, in place of whatever lay there.
    Made(Code),
    /// The list was begun anew: nothing that it said before holds.
    Begun,
    /// It was moved.
    Moved {
        /// Where it began.
        from: u64,
        /// Where it begins.
        to: u64,
        /// When (`CLOCK_MONOTONIC`, nanoseconds), where the file says.
        at_ns: Option<u64>,
    },
}

/// A range of user addresses, not empty.
fn range(start: u64, bytes: u64) -> Option<(u64, u64)> {
    let end = start.checked_add(bytes)?;
    (start > 0 && bytes > 0 && end < USER_END).then_some((start, end))
}

/// A name fit to be shown: valid text of bounded length, without control characters and without those that turn the
/// direction of the text around them.
fn clean(name: &[u8]) -> Arc<str> {
    let cut = &name[..name.len().min(MAX_NAME_BYTES)];
    let text = String::from_utf8_lossy(cut);
    // A character that was cut through.
    let text = if cut.len() < name.len() { text.trim_end_matches('\u{fffd}') } else { &text };
    let is_bad = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(is_bad) { text.replace(is_bad, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_to_be_shown() {
        assert_eq!(&*clean(b"LazyCompile:*f /a b.js:1"), "LazyCompile:*f /a b.js:1");
        assert_eq!(&*clean(b"a\x1b[31m\0b\xff"), "a\u{fffd}[31m\u{fffd}b\u{fffd}");
        assert_eq!(&*clean("a\u{202e}b".as_bytes()), "a\u{fffd}b");
        let long = "ä".repeat(MAX_NAME_BYTES);
        assert_eq!(
            clean(&long.as_bytes()[1..]).len(),
            MAX_NAME_BYTES + 1,
            "one half character becomes three bytes"
        );
        assert_eq!(&*clean(format!("a{long}").as_bytes()), format!("a{}", &long[..MAX_NAME_BYTES - 2]));
    }

    #[test]
    fn ranges_are_of_user_memory() {
        assert_eq!(range(0x1000, 0x10), Some((0x1000, 0x1010)));
        for (start, bytes) in [(0, 1), (1, 0), (u64::MAX, 1), (u64::MAX, 2), (1 << 56, 1), (1, 1 << 56)] {
            assert_eq!(range(start, bytes), None, "{start:#x} {bytes:#x}");
        }
    }

    #[test]
    fn line_is_that_of_the_nearest_offset_below() {
        let source = Source { file: "a.js".into(), lines: vec![(0, 7), (16, 9)] };
        assert_eq!([0, 15, 16, 1 << 40].map(|offset| source.line(offset)), [7, 7, 9, 9]);
        assert_eq!(Source::default().line(1), 0);
    }
}
