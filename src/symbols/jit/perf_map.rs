//! Perf maps: one line of text per function, `START SIZE NAME` with hexadecimal numbers.
//!
//! Format: `tools/perf/Documentation/jit-interface.txt` of Linux. Some runtimes write `0x` before the numbers.

use super::{Change, Code, clean, range};

/// Longest line that is taken, in bytes. What a longer one says is cut by nobody but refused.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Reads a map that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct PerfMap {
    /// Start of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The rest of this line is left out: it is too long, or its start is unknown.
    skipping: bool,
    /// Lines that made no sense or were too long.
    skipped: u64,
}

impl PerfMap {
    /// For a file that is read from somewhere in the middle.
    #[must_use]
    pub fn from_the_middle() -> Self {
        Self { skipping: true, ..Self::default() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Change)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if std::mem::take(&mut self.skipping) {
                self.partial.clear();
            } else if self.partial.is_empty() {
                self.line(line, &mut take);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole, &mut take);
                whole.clear();
                self.partial = whole;
            }
        }
        if !self.skipping && self.partial.len() + rest.len() > MAX_LINE_BYTES {
            self.skipping = true;
            self.skipped += 1;
            self.partial = Vec::new();
        }
        if !self.skipping {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Lines that made no sense or were too long.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn line(&mut self, line: &[u8], take: &mut impl FnMut(Change)) {
        match parse(line).filter(|_| line.len() <= MAX_LINE_BYTES) {
            Some(code) => take(Change::Made(code)),
            None => self.skipped += 1,
        }
    }
}

fn parse(line: &[u8]) -> Option<Code> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (start, bytes) = (hex(parts.next()?)?, hex(parts.next()?)?);
    let name = parts.next()?.trim_ascii();
    let (start, end) = range(start, bytes)?;
    (!name.is_empty()).then(|| Code { start, end, from_ns: None, name: clean(name), source: None })
}

fn hex(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // The standard library would take a sign.
    text.starts_with(|c: char| c.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let mut map = PerfMap::default();
        let mut found = Vec::new();
        for piece in pieces {
            map.feed(piece, |change| {
                let Change::Made(code) = change else { panic!("{change:?}") };
                found.push(format!("{:x}+{:x} {}", code.start, code.end - code.start, code.name));
            });
        }
        (found, map.skipped())
    }

    #[test]
    fn lines_of_several_runtimes() {
        let text =
            b"7f10a0 2c LazyCompile:*f /srv/a.js:10\n0x00007f20b0 0x40 void A::b(int)[Optimized]\n30 1 x\r\n";
        let (found, skipped) = read(&[text]);
        assert_eq!(
            found,
            ["7f10a0+2c LazyCompile:*f /srv/a.js:10", "7f20b0+40 void A::b(int)[Optimized]", "30+1 x"]
        );
        assert_eq!(skipped, 0);
    }

    #[test]
    fn lines_may_come_in_pieces_of_any_size() {
        let text = b"1000 10 one\n2000 20 two\n3000 30 th";
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(read(&pieces).0, ["1000+10 one", "2000+20 two"], "pieces of {size}");
        }
        assert_eq!(read(&[text, b"ree\n"]).0[2], "3000+30 three");
    }

    #[test]
    fn nonsense_is_counted() {
        for line in [
            &b""[..],
            b"x",
            b"1000",
            b"1000 10",
            b"1000 10 ",
            b"1000 0 f",
            b"0 10 f",
            b"+1000 10 f",
            b"-1 10 f",
            b"1000 -1 f",
            b"ffffffffffffffff 10 f",
            b"fffffffffffffffff 10 f",
            b"1000 ffffffffffffffff f",
            b"\xff 10 f",
            b"0x 10 f",
        ] {
            let text = [line, b"\n5000 1 good\n"].concat();
            assert_eq!(
                read(&[&text]),
                (vec!["5000+1 good".into()], 1),
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn endless_line_takes_no_memory_and_the_next_one_counts() {
        let mut map = PerfMap::default();
        let mut found = 0;
        for _ in 0..100 {
            map.feed(&[b'a'; 4096], |_| found += 1);
            assert!(map.partial.len() <= MAX_LINE_BYTES);
        }
        map.feed(b"\n1000 10 f\n", |_| found += 1);
        assert_eq!((found, map.skipped()), (1, 1));
        let long = [b"1000 10 ".to_vec(), vec![b'a'; MAX_LINE_BYTES], b"\n".to_vec()].concat();
        assert_eq!(read(&[&long]), (vec![], 1));
    }

    #[test]
    fn first_line_of_a_middle_is_left_out() {
        let mut map = PerfMap::from_the_middle();
        let mut found = Vec::new();
        map.feed(b"0 10 half\n2000 10 whole\n", |change| found.push(change));
        assert!(matches!(&found[..], [Change::Made(code)] if code.start == 0x2000));
        assert_eq!(map.skipped(), 0);
    }
}
