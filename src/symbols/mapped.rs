//! Files of strangers as checked windows of bytes: the only place of this room that touches a file.
//!
//! # Why the file itself is not mapped
//!
//! The executables we read belong to whoever runs them, in any container, on any file system. A file-backed map of
//! such a file is a promise that its owner can break at any time:
//!
//! 1. *Truncation.* After `ftruncate` each access behind the new end raises SIGBUS. Any user could end a profiler that
//!    runs as root by shortening a library of their own at the right moment. Comparing `fstat` before access does not
//!    help (the file may shrink between check and use), and a SIGBUS handler is process-wide state that would have to
//!    be shared with every library in the process.
//! 2. *Change.* A `&[u8]` must not change while it is borrowed. Through a map it does, as soon as the owner writes, and
//!    a length that was checked may be another one when it is used. No bounds check in safe Rust survives that.
//!
//! So a window is a private copy, taken with `pread`: what is parsed cannot change, a file that shrinks is an
//! [`Error::Truncated`], and no code here is `unsafe`. The price is one copy of the sections that are wanted, never of
//! the whole file, about the cost of the page faults which the copy saves. Large copies live in anonymous maps instead
//! of the heap, so that they return to the system when the window is dropped and do not fragment a small agent.
//!
//! A file-backed map has a place only where SIGBUS ends nobody else and where the bytes are our own: in a sandboxed
//! child, or over a sealed copy. It would be opened here.

use std::fs::{File, FileType};
use std::ops::Deref;
use std::os::unix::fs::{FileExt, FileTypeExt};

use super::{Error, Result};
use crate::model::FileOffset;

/// Largest file that is opened at all: 8 GiB. Chromium with full debug information is about 5 GB.
pub const MAX_FILE_BYTES: u64 = 8 << 30;
/// Largest single window: 256 MiB. Callers have smaller limits of their own; this one bounds their mistakes. The string
/// table of a 1 GB debug file is about 100 MB.
pub const MAX_WINDOW_BYTES: u64 = 256 << 20;
/// Windows above this size get an anonymous map of their own: 16 pages, below it the heap is cheaper.
const HEAP_WINDOW_BYTES: u64 = 64 << 10;

/// A regular file with the size that it had when it was opened, or bytes in memory that stand for one.
#[derive(Debug)]
pub struct ImageFile {
    content: Content,
    size: u64,
}

#[derive(Debug)]
enum Content {
    File(File),
    Memory(Window),
}

/// A file inside another one (MiniDebugInfo), or in memory only (vDSO).
impl From<Window> for ImageFile {
    fn from(bytes: Window) -> Self {
        let size = bytes.len() as u64;
        Self { content: Content::Memory(bytes), size }
    }
}

impl ImageFile {
    /// Takes a file for reading. Does not move its cursor, now or later.
    ///
    /// # Errors
    /// When it is no regular file, or larger than [`MAX_FILE_BYTES`].
    pub fn open(file: File) -> Result<Self> {
        let metadata =
            file.metadata().map_err(|source| Error::Io { what: "file status", offset: 0, source })?;
        if !metadata.is_file() {
            return Err(Error::NotRegular { found: describe(metadata.file_type()) });
        }
        let size = metadata.len();
        if size > MAX_FILE_BYTES {
            return Err(Error::TooLarge { what: "file size in bytes", found: size, limit: MAX_FILE_BYTES });
        }
        Ok(Self { content: Content::File(file), size })
    }

    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset`. `what` names the purpose in errors.
    ///
    /// # Errors
    /// When the file ends before `buffer` is full.
    pub fn read(&self, what: &'static str, offset: FileOffset, buffer: &mut [u8]) -> Result<()> {
        self.check(what, offset, buffer.len() as u64)?;
        let file = match &self.content {
            Content::File(file) => file,
            Content::Memory(bytes) => {
                let end = bytes.len() as u64;
                let wanted = buffer.len() as u64;
                let short = Error::Truncated { what, offset: offset.0, wanted, end };
                let source = Bytes(bytes).slice(offset.0, wanted).ok_or(short)?;
                buffer.copy_from_slice(source);
                return Ok(());
            }
        };
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.0 + done as u64;
            match file.read_at(rest, at) {
                Ok(0) => {
                    return Err(Error::Truncated { what, offset: at, wanted: rest.len() as u64, end: at });
                }
                Ok(count) => done += count,
                Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { what, offset: at, source }),
            }
        }
        Ok(())
    }

    /// Copies `length` bytes from `offset`, all or nothing. `what` names the purpose in errors.
    ///
    /// # Errors
    /// When the range is not inside the file, or longer than `limit` or [`MAX_WINDOW_BYTES`].
    pub fn window(&self, what: &'static str, offset: FileOffset, length: u64, limit: u64) -> Result<Window> {
        let limit = limit.min(MAX_WINDOW_BYTES);
        if length > limit {
            return Err(Error::TooLarge { what, found: length, limit });
        }
        self.check(what, offset, length)?;
        let mut bytes = Store::with_length(length).map_err(|source| Error::Io {
            what: "memory for a window",
            offset: offset.0,
            source,
        })?;
        self.read(what, offset, bytes.as_mut())?;
        Ok(Window(bytes))
    }

    /// The range lies inside the file as it was opened.
    fn check(&self, what: &'static str, offset: FileOffset, length: u64) -> Result<()> {
        match offset.0.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::Truncated { what, offset: offset.0, wanted: length, end: self.size }),
        }
    }
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

/// A private copy of a part of a file. Dereferences to its bytes.
#[derive(Debug)]
pub struct Window(Store);

#[derive(Debug)]
enum Store {
    Heap(Box<[u8]>),
    Anonymous(memmap2::MmapMut),
}

impl Store {
    fn with_length(length: u64) -> std::io::Result<Self> {
        if length <= HEAP_WINDOW_BYTES {
            Ok(Self::Heap(vec![0; length as usize].into_boxed_slice()))
        } else {
            // Safe: an anonymous map belongs to this process alone.
            memmap2::MmapMut::map_anon(length as usize).map(Self::Anonymous)
        }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Anonymous(map) => map,
        }
    }
}

impl From<Vec<u8>> for Window {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Store::Heap(bytes.into_boxed_slice()))
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Store::Heap(bytes) => bytes,
            Store::Anonymous(map) => map,
        }
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Little-endian numbers and texts in bytes of strangers: `None` instead of a panic, never a made-up zero.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// `length` bytes from `offset`.
    #[must_use]
    pub fn slice(self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        self.0.get(start..end)
    }

    /// Everything from `offset` on.
    #[must_use]
    pub fn tail(self, offset: u64) -> Option<&'a [u8]> {
        self.0.get(usize::try_from(offset).ok()?..)
    }

    /// `N` bytes from `offset`.
    #[must_use]
    pub fn array<const N: usize>(self, offset: u64) -> Option<[u8; N]> {
        self.slice(offset, N as u64)?.try_into().ok()
    }

    /// One byte.
    #[must_use]
    pub fn u8(self, offset: u64) -> Option<u8> {
        self.array::<1>(offset).map(|[byte]| byte)
    }

    /// Two bytes, little endian.
    #[must_use]
    pub fn u16(self, offset: u64) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }

    /// Four bytes, little endian.
    #[must_use]
    pub fn u32(self, offset: u64) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    /// Four bytes, little endian, signed.
    #[must_use]
    pub fn i32(self, offset: u64) -> Option<i32> {
        self.array(offset).map(i32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    #[must_use]
    pub fn u64(self, offset: u64) -> Option<u64> {
        self.array(offset).map(u64::from_le_bytes)
    }

    /// Bytes from `offset` to the next NUL, without it; `None` when no NUL follows within `limit` bytes.
    #[must_use]
    pub fn c_text(self, offset: u64, limit: usize) -> Option<&'a [u8]> {
        let tail = self.tail(offset)?;
        let head = tail.get(..limit.saturating_add(1)).unwrap_or(tail);
        let end = head.iter().position(|byte| *byte == 0)?;
        head.get(..end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn image(bytes: &[u8]) -> (ImageFile, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        (ImageFile::open(file.reopen().unwrap()).unwrap(), file)
    }

    #[test]
    fn window_is_exact_or_an_error_with_the_place() {
        let (image, _file) = image(b"0123456789");
        assert_eq!(&*image.window("part", FileOffset(2), 3, 100).unwrap(), b"234");
        assert_eq!(&*image.window("part", FileOffset(10), 0, 100).unwrap(), b"");
        let error = image.window("part", FileOffset(8), 3, 100).unwrap_err();
        assert_eq!(error.to_string(), "part: expected 3 bytes at offset 0x8, found an end at 0xa");
        let error = image.window("part", FileOffset(0), 5, 4).unwrap_err();
        assert_eq!(error.to_string(), "part: expected at most 4, found 5");
        assert!(image.window("part", FileOffset(u64::MAX), 2, 100).is_err());
        assert!(image.window("part", FileOffset(0), u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn file_that_shrinks_or_changes_does_not_hurt_a_window() {
        let (image, file) = image(&vec![7; 1 << 20]);
        let window = image.window("part", FileOffset(0), 1 << 20, 1 << 20).unwrap();
        file.as_file().set_len(4096).unwrap();
        assert!(window.iter().all(|byte| *byte == 7));
        let error = image.window("part", FileOffset(0), 1 << 20, 1 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "part: expected 1044480 bytes at offset 0x1000, found an end at 0x1000"
        );
    }

    #[test]
    fn refuses_what_is_no_regular_file() {
        let directory = File::open("/").unwrap();
        let error = ImageFile::open(directory).unwrap_err();
        assert_eq!(error.to_string(), "expected a regular file, found a directory");
        let device = File::open("/dev/zero").unwrap();
        assert!(matches!(ImageFile::open(device), Err(Error::NotRegular { found: "a device" })));
    }

    #[test]
    fn numbers_and_texts_end_where_the_bytes_end() {
        let bytes = Bytes(b"\x01\x02\x03\x04abc\0def");
        assert_eq!(bytes.u32(0), Some(0x0403_0201));
        assert_eq!(bytes.u16(10), None);
        assert_eq!(bytes.u64(u64::MAX), None);
        assert_eq!(bytes.c_text(4, 3), Some(&b"abc"[..]));
        assert_eq!(bytes.c_text(4, 2), None);
        assert_eq!(bytes.c_text(8, 100), None);
    }
}
