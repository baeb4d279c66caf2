//! Lines of `/proc/PID/maps` to executable ranges. Pure; the bytes are shaped by whoever named the files.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::events::MappedRange;

/// Most executable ranges that are kept of one process. Chromium has about 200, a JVM some 2000.
pub(crate) const MAX_RANGES: usize = 16_384;
/// Longest line that is understood: addresses and numbers, then a path of 4096 bytes with each escaped as `\ooo`.
const MAX_LINE_BYTES: usize = 128 + 4 * 4096;
/// Most lines that are read. `vm.max_map_count` is 65,530 by default and about a million where it was raised.
const MAX_LINES: usize = 2_000_000;

/// Executable ranges of a process in order of address.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    /// The ranges, ascending.
    pub(crate) ranges: Vec<MappedRange>,
    /// Lines that were not understood or lie beyond a limit.
    pub(crate) skipped: u64,
}

/// Reads a whole maps file.
///
/// # Errors
/// When reading fails.
pub(crate) fn read(mut reader: impl BufRead) -> std::io::Result<Maps> {
    let mut maps = Maps::default();
    let mut line = Vec::with_capacity(256);
    for _ in 0..MAX_LINES {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(maps);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        match parse_line(&line) {
            Some(Some(range)) if maps.ranges.len() < MAX_RANGES => maps.ranges.push(range),
            Some(None) => {}
            _ => maps.skipped += 1,
        }
    }
    maps.skipped += 1;
    Ok(maps)
}

/// One line: `None` when it makes no sense, `Some(None)` when it is not executable.
///
/// `7f00-7f10 r-xp 00002000 fe:00 316526    /usr/lib/x.so (deleted)`
#[expect(clippy::option_option, reason = "nonsense and not executable are two things")]
fn parse_line(line: &[u8]) -> Option<Option<MappedRange>> {
    if line.len() > MAX_LINE_BYTES {
        return None;
    }
    let (addresses, rest) = word(line)?;
    let (permissions, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (device, rest) = word(rest)?;
    let (inode, rest) = word(rest).unwrap_or((rest, &[]));
    if *permissions.get(2)? != b'x' {
        return Some(None);
    }
    let (start, end) = split(addresses, b'-')?;
    let (major, minor) = split(device, b':')?;
    let (start, end) = (hex(start)?, hex(end)?);
    if start >= end {
        return None;
    }
    let path = &rest[rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len())..];
    Some(Some(MappedRange {
        start,
        end,
        file_offset: hex(offset)?,
        device: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path: unescape(path),
    }))
}

fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    split(line, b' ')
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

fn hex(bytes: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok()
}

/// The kernel writes line ends in names as `\012`, and nothing else escaped.
fn unescape(path: &[u8]) -> Box<Path> {
    const LINE_END: &[u8] = b"\\012";
    let mut plain = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.windows(LINE_END.len()).position(|window| window == LINE_END) {
        plain.extend_from_slice(&rest[..at]);
        plain.push(b'\n');
        rest = &rest[at + LINE_END.len()..];
    }
    if plain.is_empty() {
        return Path::new(OsStr::from_bytes(path)).into();
    }
    plain.extend_from_slice(rest);
    Path::new(OsStr::from_bytes(&plain)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &[u8]) -> Vec<MappedRange> {
        read(text).unwrap().ranges
    }

    #[test]
    fn executable_lines_are_kept() {
        let text = b"\
565222640000-565222643000 r--p 00000000 fe:00 247741                     /usr/bin/sed
565222643000-565222657000 r-xp 00003000 fe:00 247741                     /usr/bin/sed
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7ffd2f1f6000-7ffd2f1f8000 r-xp 00000000 00:00 0                          [vdso]
";
        let found = ranges(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].start, 0x5652_2264_3000);
        assert_eq!(found[0].file_offset, 0x3000);
        assert_eq!(found[0].device, (0xfe, 0));
        assert_eq!(found[0].inode, 247_741);
        assert_eq!(&*found[0].path, Path::new("/usr/bin/sed"));
        assert_eq!(found[1].path.as_os_str(), "");
        assert!(!found[1].is_file() && found[2].is_vdso());
    }

    #[test]
    fn names_with_blanks_line_ends_and_the_word_deleted() {
        let text = b"1000-2000 r-xp 00000000 08:01 5 /tmp/a b \\012c (deleted)\n";
        assert_eq!(&*ranges(text)[0].path, Path::new("/tmp/a b \nc (deleted)"));
        let text = b"1000-2000 r-xp 00000000 08:01 5 /tmp/\xff\xfe\n";
        assert_eq!(ranges(text)[0].path.as_os_str().as_bytes(), b"/tmp/\xff\xfe");
    }

    #[test]
    fn nonsense_is_counted_and_never_a_panic() {
        for text in [
            &b"\n"[..],
            b"zzz",
            b"1000-2000",
            b"1000-2000 r-x",
            b"1000 r-xp 0 0:0 0 x",
            b"2000-1000 r-xp 0 0:0 0 x",
            b"1000-2000 r-xp 0 0:0 -5 x",
            b"1000-2000 r-xp 0 fffffffff:0 5 x",
            b"-ffffffffffffffffff r-xp 0 0:0 0 x",
            b"1000-2000 r 0 0:0 0 x",
        ] {
            let maps = read(text).unwrap();
            assert_eq!((maps.ranges.len(), maps.skipped), (0, 1), "{:?}", String::from_utf8_lossy(text));
        }
        let long = [b"1000-2000 r-xp 0 0:0 5 /".to_vec(), vec![b'a'; 20_000]].concat();
        assert_eq!(read(&long[..]).unwrap().skipped, 1);
    }

    #[test]
    fn number_of_ranges_is_bounded() {
        let mut text = Vec::new();
        for n in 0..MAX_RANGES as u64 + 10 {
            text.extend(format!("{:x}-{:x} r-xp 0 0:0 0 \n", n << 12, (n + 1) << 12).bytes());
        }
        let maps = read(&text[..]).unwrap();
        assert_eq!((maps.ranges.len(), maps.skipped), (MAX_RANGES, 10));
    }
}
