//! Jitdump files: binary records of code as it is made, moved and described.
//!
//! Format: `tools/perf/Documentation/jitdump-specification.txt` of Linux, version 1, in the byte order of this machine.
//! Machine code and unwind information in the records are passed over. No length in them is believed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Change, Code, Source, clean, range};

/// `JiTD`, read in the writer's byte order.
const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: usize = 40;
const PREFIX_BYTES: usize = 16;
/// Most bytes that are kept of a record: names and lines; what is behind is code. 1 MiB.
const MAX_KEPT_BYTES: usize = 1 << 20;
/// Largest header, with fields of later versions.
const MAX_HEADER_BYTES: u64 = 4096;
/// Most lines kept of one piece of code.
const MAX_LINES: usize = 4096;
/// Most descriptions that wait for their code, which follows at once.
const MAX_WAITING: usize = 64;
/// Times are those of the processor's counter.
const FLAG_ARCH_TIMESTAMP: u64 = 1;

const LOAD: u32 = 0;
const MOVE: u32 = 1;
const DEBUG_INFO: u32 = 2;

/// Why the rest of a dump is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Another kind of file.
    #[error("jitdump header: expected the magic number {MAGIC:#x}, found {0:#x}")]
    Magic(u32),
    /// A later format.
    #[error("jitdump header: expected version 1, found {0}")]
    Version(u32),
    /// Left over from another process, or made up.
    #[error("jitdump header: expected process {expected}, found {found}")]
    Process {
        /// Number of the process in its own namespace.
        expected: u32,
        /// Number in the file.
        found: u32,
    },
    /// A length that cannot be: nobody can tell where the next record begins.
    #[error("jitdump record at byte {at}: expected a length of at least {PREFIX_BYTES}, found {found}")]
    Length {
        /// Offset in the file.
        at: u64,
        /// Length in the file.
        found: u64,
    },
}

/// Reads a dump that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Process that it must be of, in its own namespace.
    pid: u32,
    in_records: bool,
    arch_times: bool,
    /// Kept bytes of the current header or record.
    kept: Vec<u8>,
    /// Length of the current one as far as it is known.
    length: Option<u64>,
    /// Bytes of it that have come.
    seen: u64,
    at: u64,
    /// Descriptions by the address of the code they are of.
    sources: HashMap<u64, Arc<Source>>,
    skipped: u64,
    broken: Option<Broken>,
}

impl Dump {
    /// For the dump of the process that calls itself `pid`.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the file makes no sense from here on; everything behind is left out, now and later.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Change)) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(broken) = self.broken {
                return Err(broken);
            }
            let step = self.step(rest, &mut take);
            match step {
                Ok(used) => rest = &rest[used..],
                Err(broken) => {
                    self.broken = Some(broken);
                    return Err(broken);
                }
            }
        }
        Ok(())
    }

    /// Records that made no sense.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Uses some bytes, at least one. Says how many.
    fn step(&mut self, bytes: &[u8], take: &mut impl FnMut(Change)) -> Result<usize, Broken> {
        let head = if self.in_records { PREFIX_BYTES } else { HEADER_BYTES };
        let wanted = match self.length {
            None => (head - self.kept.len()) as u64,
            Some(length) => length - self.seen,
        };
        let used = wanted.min(bytes.len() as u64) as usize;
        let room = MAX_KEPT_BYTES - self.kept.len();
        self.kept.extend_from_slice(&bytes[..used.min(room)]);
        self.seen += used as u64;
        if self.length.is_none() && self.kept.len() == head {
            self.length = Some(self.check_head(head)?);
        }
        if self.length == Some(self.seen) {
            self.at += self.seen;
            if self.in_records {
                self.record(take);
            }
            self.in_records = true;
            self.kept.clear();
            self.kept.shrink_to(64 << 10);
            (self.length, self.seen) = (None, 0);
        }
        Ok(used)
    }

    /// Length of the header or record whose head is there.
    fn check_head(&mut self, head: usize) -> Result<u64, Broken> {
        if self.in_records {
            let found = u64::from(u32_at(&self.kept, 4).unwrap_or(0));
            return if found >= head as u64 { Ok(found) } else { Err(Broken::Length { at: self.at, found }) };
        }
        let word = |at| u32_at(&self.kept, at).unwrap_or(0);
        if word(0) != MAGIC {
            return Err(Broken::Magic(word(0)));
        }
        if word(4) != 1 {
            return Err(Broken::Version(word(4)));
        }
        if word(20) != self.pid {
            return Err(Broken::Process { expected: self.pid, found: word(20) });
        }
        self.arch_times = u64_at(&self.kept, 32).unwrap_or(0) & FLAG_ARCH_TIMESTAMP != 0;
        let found = u64::from(word(8));
        let fits = (head as u64..=MAX_HEADER_BYTES).contains(&found);
        if fits { Ok(found) } else { Err(Broken::Length { at: 0, found }) }
    }

    fn record(&mut self, take: &mut impl FnMut(Change)) {
        let understood = match u32_at(&self.kept, 0) {
            Some(LOAD) => self.load().map(take),
            Some(MOVE) => self.moved().map(take),
            Some(DEBUG_INFO) => self.describe(),
            // The end, unwind information, and what later versions add.
            _ => Some(()),
        };
        self.skipped += u64::from(understood.is_none());
    }

    fn time(&self) -> Option<u64> {
        u64_at(&self.kept, 8).filter(|_| !self.arch_times)
    }

    fn load(&mut self) -> Option<Change> {
        let (start, end) = range(u64_at(&self.kept, 32)?, u64_at(&self.kept, 40)?)?;
        let (name, _) = text_at(&self.kept, 56)?;
        let source = self.sources.remove(&start);
        let name = clean(name);
        (!name.is_empty()).then(|| Change::Made(Code { start, end, from_ns: self.time(), name, source }))
    }

    fn moved(&self) -> Option<Change> {
        let (from, to) = (u64_at(&self.kept, 32)?, u64_at(&self.kept, 40)?);
        range(to, u64_at(&self.kept, 48)?)?;
        Some(Change::Moved { from, to, at_ns: self.time() })
    }

    /// Lines of the first file that is named; those of other files, which were inlined, are left out.
    fn describe(&mut self) -> Option<()> {
        let start = u64_at(&self.kept, 16)?;
        let count = u64_at(&self.kept, 24)?;
        let mut at = 32;
        let mut source = Source::default();
        let mut is_first_file = true;
        for _ in 0..count.min(MAX_LINES as u64) {
            // A description cut short by the limit still has its first lines.
            let (Some(address), Some(line)) = (u64_at(&self.kept, at), u32_at(&self.kept, at + 8)) else {
                break;
            };
            let Some((name, behind)) = text_at(&self.kept, at + 16) else { break };
            at = behind;
            // One byte of ones: the file of the entry before.
            if name != [0xff] {
                if source.lines.is_empty() {
                    source.file = clean(name);
                }
                is_first_file = *source.file == *clean(name);
            }
            if let Ok(offset) = u32::try_from(address.wrapping_sub(start))
                && is_first_file
            {
                source.lines.push((offset, line));
            }
        }
        source.lines.sort_by_key(|(offset, _)| *offset);
        source.lines.shrink_to_fit();
        if self.sources.len() >= MAX_WAITING {
            self.sources.clear();
        }
        if !source.lines.is_empty() {
            self.sources.insert(start, Arc::new(source));
        }
        Some(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Text up to its zero, and the offset behind.
fn text_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some((&rest[..end], at + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(pid: u32, flags: u64) -> Vec<u8> {
        let words = [MAGIC, 1, 40, 62, 0, pid];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend([5_u64.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes
    }

    fn record(id: u32, time: u64, body: &[u8]) -> Vec<u8> {
        let length = (PREFIX_BYTES + body.len()) as u32;
        [&id.to_ne_bytes()[..], &length.to_ne_bytes(), &time.to_ne_bytes(), body].concat()
    }

    fn load(time: u64, start: u64, name: &str, code: &[u8]) -> Vec<u8> {
        let words = [7, start, start, code.len() as u64, 1];
        let mut body: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
        body.extend(name.bytes().chain([0]));
        body.extend(code);
        record(LOAD, time, &body)
    }

    fn debug(start: u64, entries: &[(u64, u32, &[u8])]) -> Vec<u8> {
        let mut body = [start.to_ne_bytes(), (entries.len() as u64).to_ne_bytes()].concat();
        for (address, line, name) in entries {
            body.extend(address.to_ne_bytes());
            body.extend(line.to_ne_bytes());
            body.extend([0; 4]);
            body.extend(name.iter().chain(&[0]));
        }
        record(DEBUG_INFO, 1, &body)
    }

    fn read(bytes: &[u8], piece: usize) -> (Vec<Change>, Result<(), Broken>, u64) {
        let mut dump = Dump::new(42);
        let mut found = Vec::new();
        let mut result = Ok(());
        for piece in bytes.chunks(piece) {
            result = result.and(dump.feed(piece, |change| found.push(change)));
        }
        (found, result, dump.skipped())
    }

    #[test]
    fn code_lines_and_moves_in_pieces_of_any_size() {
        let moved: Vec<u8> =
            [7, 0x1000, 0x1000, 0x3000, 16, 1].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
        let bytes = [
            header(42, 0),
            debug(0x1000, &[(0x1008, 12, b"\xff"), (0x1000, 10, b"a.js"), (0x100c, 99, b"other.js")]),
            load(100, 0x1000, "f", &[0x90; 16]),
            record(4, 1, &[1; 100]),
            record(MOVE, 200, &moved),
            record(3, 300, &[]),
            record(77, 1, b"of a later version"),
        ]
        .concat();
        for piece in [1, 3, 17, 64, bytes.len()] {
            let (found, result, skipped) = read(&bytes, piece);
            assert_eq!((result, skipped, found.len()), (Ok(()), 0, 2), "pieces of {piece}");
            let Change::Made(code) = &found[0] else { panic!("{found:?}") };
            assert_eq!((code.start, code.end, code.from_ns, &*code.name), (0x1000, 0x1010, Some(100), "f"));
            assert_eq!(found[1], Change::Moved { from: 0x1000, to: 0x3000, at_ns: Some(200) });
        }
        let lined = [
            header(42, 0),
            debug(0x1000, &[(0x1000, 10, b"a.js"), (0x1008, 12, b"\xff"), (0x100c, 99, b"b")]),
            load(1, 0x1000, "f", &[0; 16]),
        ];
        let (found, ..) = read(&lined.concat(), 4096);
        let Change::Made(code) = &found[0] else { panic!("{found:?}") };
        let source = code.source.as_ref().unwrap();
        assert_eq!((&*source.file, &source.lines[..]), ("a.js", &[(0, 10), (8, 12)][..]));
    }

    #[test]
    fn other_files_are_refused() {
        let result = |bytes: &[u8]| read(bytes, 7).1;
        assert_eq!(result(&header(43, 0)), Err(Broken::Process { expected: 42, found: 43 }));
        assert_eq!(result(&[0; 40]), Err(Broken::Magic(0)));
        let mut turned = header(42, 0);
        turned[..4].reverse();
        assert_eq!(result(&turned), Err(Broken::Magic(MAGIC.swap_bytes())));
        let mut later = header(42, 0);
        later[4] ^= 3;
        assert!(matches!(result(&later), Err(Broken::Version(_))));
        for length in [0_u32, 39, u32::MAX] {
            let mut header = header(42, 0);
            header[8..12].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(result(&header), Err(Broken::Length { at: 0, found: length.into() }));
        }
        let short =
            [header(42, 0), [0_u32, 15, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()].concat();
        assert_eq!(result(&short), Err(Broken::Length { at: 40, found: 15 }));
    }

    #[test]
    fn nonsense_inside_records_is_counted_and_passed_over() {
        let bad = [
            record(LOAD, 1, &[]),
            record(LOAD, 1, &[1; 40]),
            load(1, 0, "null", &[0; 4]),
            load(1, u64::MAX - 3, "wraps", &[0; 8]),
            load(1, 0x1000, "", &[0; 8]),
            record(MOVE, 1, &[0; 12]),
            record(DEBUG_INFO, 1, &[0; 9]),
        ];
        let bytes = [header(42, 0), bad.concat(), load(1, 0x1000, "good", &[0; 4])].concat();
        let (found, result, skipped) = read(&bytes, 50);
        assert_eq!((found.len(), result, skipped), (1, Ok(()), bad.len() as u64));
        // More entries than there are bytes.
        let mut lying = debug(0x1000, &[(0x1000, 1, b"a")]);
        lying[24..32].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(read(&[header(42, 0), lying].concat(), 4096).1, Ok(()));
    }

    #[test]
    fn large_code_takes_no_memory() {
        let mut dump = Dump::new(42);
        let code = vec![0x90; 8 << 20];
        let bytes = [header(42, 0), load(1, 0x1000, "big", &code)].concat();
        let mut found = 0;
        for piece in bytes.chunks(64 << 10) {
            dump.feed(piece, |_| found += 1).unwrap();
            assert!(dump.kept.capacity() <= 2 * MAX_KEPT_BYTES);
        }
        assert_eq!(found, 1);
    }

    #[test]
    fn times_of_the_processor_are_no_times() {
        let bytes = [header(42, FLAG_ARCH_TIMESTAMP), load(100, 0x1000, "f", &[0; 4])].concat();
        assert!(matches!(&read(&bytes, 9).0[..], [Change::Made(Code { from_ns: None, .. })]));
    }
}
