//! One file of the queue: records one behind the other, appended to and never changed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{HEADER, Header};

/// First bytes of a file; the digit is the version of the layout.
pub(super) const MAGIC: &[u8; 8] = b"EFQUEUE1";

/// Path of segment `number` below `folder`.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.segment"))
}

/// Numbers of the segments in `folder`, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
        numbers.extend(number.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a new segment that only its owner may read, and gives it with its length.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<(File, u64)> {
    let file =
        OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path(folder, number))?;
    file.write_all_at(MAGIC, 0)?;
    file.sync_all()?;
    // The entry in the folder has to be as durable as what is written behind it.
    File::open(folder)?.sync_all()?;
    Ok((file, MAGIC.len() as u64))
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// End of the last whole record.
    pub(super) end: u64,
    /// Whole records.
    pub(super) records: u64,
    /// Bytes behind the last whole record: a write that was cut, or damage.
    pub(super) rest: u64,
}

/// Reads a segment from `start` (the beginning of a record) to its first record that is not whole.
pub(super) fn scan(folder: &Path, number: u64, start: u64) -> io::Result<Contents> {
    let file = File::open(path(folder, number))?;
    let length = file.metadata()?.len();
    let mut magic = [0; MAGIC.len()];
    let known = file.read_exact_at(&mut magic, 0).is_ok() && &magic == MAGIC;
    let mut contents = Contents { end: start.max(MAGIC.len() as u64), records: 0, rest: 0 };
    let mut payload = Vec::new();
    while known && let Ok(header) = header_at(&file, contents.end, length) {
        payload.resize(header.payload_bytes(), 0);
        let whole = file.read_exact_at(&mut payload, contents.end + HEADER as u64).is_ok();
        if !whole || header.check(&payload).is_err() {
            break;
        }
        contents.end += (HEADER + payload.len()) as u64;
        contents.records += 1;
    }
    contents.rest = length.saturating_sub(contents.end);
    Ok(contents)
}

/// The header at `offset` of a file of `length` bytes, whose payload lies within the file.
pub(super) fn header_at(file: &File, offset: u64, length: u64) -> io::Result<Header> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, offset)?;
    let header = Header::read(&bytes).map_err(io::Error::other)?;
    let end = offset + HEADER as u64 + header.payload_bytes() as u64;
    if end > length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(header)
}
