//! Who a file is: the 128-bit identity of the documents, and the build IDs that its makers gave it.
//!
//! Reads at most 8 KiB of a file for the identity, whatever its size.

use sha2::{Digest, Sha256};

use super::mapped::ImageFile;
use super::{Error, Result, elf};
use crate::model::{FileId, FileOffset};

/// How much of either end of a file is hashed, in bytes.
const END_BYTES: u64 = 4096;

/// Identity of a file: SHA-256 over its first 4096 bytes, its last 4096 bytes and its size (u64 big endian), of which
/// the first 16 bytes count. Files of less than 8192 bytes have the overlap hashed twice.
///
/// # Errors
/// When the file cannot be read, or shrinks meanwhile.
pub fn of_file(image: &ImageFile) -> Result<FileId> {
    let end_bytes = image.size().min(END_BYTES);
    let mut buffer = [0; END_BYTES as usize];
    let buffer = buffer.get_mut(..end_bytes as usize).ok_or(Error::TooLarge {
        what: "end of a file in bytes",
        found: end_bytes,
        limit: END_BYTES,
    })?;
    let mut hash = Sha256::new();
    image.read("start of the file", FileOffset(0), buffer)?;
    hash.update(&*buffer);
    image.read("end of the file", FileOffset(image.size() - end_bytes), buffer)?;
    hash.update(&*buffer);
    hash.update(image.size().to_be_bytes());
    Ok(first_half(hash))
}

/// Identity of an image that exists in memory only (vDSO), by the same rule.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> FileId {
    let end_bytes = bytes.len().min(END_BYTES as usize);
    let (head, tail) = (&bytes[..end_bytes], &bytes[bytes.len() - end_bytes..]);
    let mut hash = Sha256::new();
    hash.update(head);
    hash.update(tail);
    hash.update((bytes.len() as u64).to_be_bytes());
    first_half(hash)
}

fn first_half(hash: Sha256) -> FileId {
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    FileId(id)
}

/// What the makers of an executable called it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildIds {
    /// GNU build ID, raw bytes (20 as a rule); key of debug files.
    pub gnu: Option<Box<[u8]>>,
    /// Go build ID, text with slashes.
    pub go: Option<Box<str>>,
}

impl BuildIds {
    /// GNU build ID as lower-case hex, empty when there is none.
    #[must_use]
    pub fn gnu_hex(&self) -> String {
        use std::fmt::Write;
        let bytes = self.gnu.as_deref().unwrap_or_default();
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Longest GNU build ID that is taken: 64 bytes, a SHA-512. Linkers write 8 to 32.
const MAX_GNU_BYTES: usize = 64;
/// Longest Go build ID that is taken, in bytes: four base64 hashes of 20 characters and slashes are 83.
const MAX_GO_BYTES: usize = 256;
/// Type of the note that holds a GNU build ID, owner `GNU`.
const NT_GNU_BUILD_ID: u32 = 3;
/// Type of the note that holds a Go build ID, owner `Go`.
const NT_GO_BUILD_ID: u32 = 4;

/// Build IDs in raw notes: content of a `PT_NOTE` segment, of a note section, or of `/sys/kernel/notes`.
/// Stops at the first note that does not fit.
#[must_use]
pub fn in_notes(notes: &[u8]) -> BuildIds {
    let mut ids = BuildIds::default();
    for note in elf::notes(notes) {
        match (note.owner, note.kind) {
            (b"GNU", NT_GNU_BUILD_ID) if (1..=MAX_GNU_BYTES).contains(&note.content.len()) => {
                ids.gnu.get_or_insert_with(|| note.content.into());
            }
            (b"Go", NT_GO_BUILD_ID) if (1..=MAX_GO_BYTES).contains(&note.content.len()) => {
                if let Ok(text) = std::str::from_utf8(note.content) {
                    ids.go.get_or_insert_with(|| text.into());
                }
            }
            _ => {}
        }
    }
    ids
}

/// Build IDs of an ELF file, from its note segments and, where these say nothing, its note sections.
///
/// # Errors
/// When the file cannot be read. Damaged notes count as none.
pub fn build_ids(elf: &elf::Elf) -> Result<BuildIds> {
    let mut ids = BuildIds::default();
    for notes in elf.note_windows()? {
        let found = in_notes(&notes);
        ids.gnu = ids.gnu.or(found.gnu);
        ids.go = ids.go.or(found.go);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let image = ImageFile::open(file.reopen().unwrap()).unwrap();
        assert_eq!(of_file(&image).unwrap().to_string(), expected);
        assert_eq!(of_bytes(bytes).to_string(), expected);
    }

    // Expected values come from `sha256sum` over hand-made head, tail and size.
    #[test]
    fn identity_is_that_of_the_documents() {
        check(b"hello world\n", "2ce54797688b1f770b04e463f8efd041");
        check(&[0; 123], "f4c1e5fe2f28034fcceb0776ec00b125");
        let counting: Vec<u8> = (0..16384u32).map(|n| n as u8).collect();
        check(&counting, "e537555f3e1b9f9c2995d96153c0413e");
        check(b"", "af5570f5a1810b7af78caf4bc70a660f");
    }

    #[test]
    fn ends_overlap_in_small_files() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n * 7) as u8).collect();
        check(&bytes, "d58b13ef7898665a8eb33da0a346e946");
    }

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((owner.len() as u32 + 1).to_le_bytes());
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(owner);
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn build_ids_are_found_among_other_notes() {
        let mut notes = note(b"GNU", 1, &[0; 16]);
        notes.extend(note(b"Go\0", 4, b"abc/def"));
        notes.extend(note(b"GNU", 3, &[0xab, 0xcd, 0x01]));
        let ids = in_notes(&notes);
        assert_eq!(ids.gnu_hex(), "abcd01");
        assert_eq!(ids.go.as_deref(), Some("abc/def"));
        for end in 0..notes.len() {
            let ids = in_notes(&notes[..end]);
            assert!(ids.gnu.is_none_or(|gnu| *gnu == [0xab, 0xcd, 0x01]));
        }
    }
}
