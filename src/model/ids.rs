//! The three identifiers that everything else hangs on, with the rules of the documents we share with Elasticsearch.
//!
//! Text forms: hex here, base64url in `store::document` (the only place that needs it).

use std::fmt;

use super::hash::Fnv128;

/// 128-bit identity of an executable: the first 16 bytes of SHA-256 over its first 4096 bytes, its last 4096 bytes
/// and its size (u64 big endian). Kernel: FNV-1a-128 over the hex text of its GNU build ID.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub [u8; 16]);

/// Text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    /// Hex digits found (an identifier has 32).
    pub digits: usize,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected 32 hex digits, found {}", self.digits)
    }
}

impl std::error::Error for ParseIdError {}

impl FileId {
    /// Code of which neither file nor lines are known: XXH64 of nothing, twice.
    pub const NONE: Self = Self::from_words(0xEF46_DB37_51D8_E999, 0xEF46_DB37_51D8_E999);
    /// A kernel without a usable build ID.
    pub const UNKNOWN_KERNEL: Self = Self::from_words(0xFFFF_FFFF_FFFF_FFFD, 0xFFFF_FFFF_FFFF_FFFD);

    /// From the high and the low 64-bit word.
    #[must_use]
    pub const fn from_words(high: u64, low: u64) -> Self {
        Self((((high as u128) << 64) | low as u128).to_be_bytes())
    }

    /// High and low 64-bit word.
    #[must_use]
    pub fn words(self) -> (u64, u64) {
        let all = u128::from_be_bytes(self.0);
        ((all >> 64) as u64, all as u64)
    }

    /// All bits zero: "no file".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }

    /// Identity of a kernel image or module by its GNU build ID (raw bytes).
    /// Build IDs of fewer than 16 hex characters say too little and give [`FileId::UNKNOWN_KERNEL`].
    #[must_use]
    pub fn of_kernel(build_id: &[u8]) -> Self {
        if build_id.len() < 8 {
            return Self::UNKNOWN_KERNEL;
        }
        let mut hash = Fnv128::default();
        for byte in build_id {
            hash.write(format!("{byte:02x}").as_bytes());
        }
        Self(hash.finish())
    }

    /// Parses 32 hex digits; an `0x` prefix and dashes are ignored.
    ///
    /// # Errors
    /// When the rest is not exactly 32 hex digits.
    pub fn parse_hex(text: &str) -> Result<Self, ParseIdError> {
        let text = text.strip_prefix("0x").unwrap_or(text);
        let (mut value, mut digits) = (0u128, 0usize);
        for c in text.chars().filter(|c| *c != '-') {
            let Some(digit) = c.to_digit(16) else { return Err(ParseIdError { digits }) };
            digits += 1;
            if digits > 32 {
                return Err(ParseIdError { digits });
            }
            value = value << 4 | u128::from(digit);
        }
        if digits == 32 { Ok(Self(value.to_be_bytes())) } else { Err(ParseIdError { digits }) }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One place in one executable: file and ELF address, or line number for interpreted code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// Executable or synthetic file.
    pub file: FileId,
    /// ELF virtual address in bytes (return addresses already lowered by one), or a line number.
    pub address_or_line: u64,
}

impl FrameId {
    /// 24 bytes: file ID, then the address big endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.file.0);
        bytes[16..].copy_from_slice(&self.address_or_line.to_be_bytes());
        bytes
    }

    /// Inverse of [`FrameId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let (file, address) = bytes.split_at(16);
        Self {
            file: FileId(file.try_into().expect("16 of 24 bytes")),
            address_or_line: u64::from_be_bytes(address.try_into().expect("8 of 24 bytes")),
        }
    }
}

/// 128-bit identity of a call stack ("trace ID" in the documents).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub [u8; 16]);

/// Identity of a stack given leaf first: FNV-1a-128 over, per frame, the 16 file ID bytes and the address in decimal.
#[must_use]
pub fn stack_id(leaf_first: impl IntoIterator<Item = FrameId>) -> StackId {
    let mut hash = Fnv128::default();
    for frame in leaf_first {
        hash.write(&frame.file.0);
        hash.write_decimal(frame.address_or_line);
    }
    StackId(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word_frame(word: u64) -> FrameId {
        FrameId { file: FileId::from_words(word, word), address_or_line: word }
    }

    #[test]
    fn no_frames_hash_to_the_basis() {
        assert_eq!(FileId(stack_id([]).0).to_string(), "6c62272e07bb014262b821756295c58d");
    }

    #[test]
    fn three_frames_hash_as_the_documents_say() {
        let id = stack_id([word_frame(0), word_frame(1), word_frame(2)]);
        assert_eq!(FileId(id.0).to_string(), "21c6fe4c62868856cf510596eab68dc8");
    }

    #[test]
    fn one_frame_hashes_as_the_documents_say() {
        let file = FileId::parse_hex("600dcafe4a110000f2bf38c493f5fb92").unwrap();
        let id = stack_id([FrameId { file, address_or_line: 111 }]);
        assert_eq!(FileId(id.0).to_string(), "d36573b8295ba6dfcfdf1c70a31f3736");
    }

    #[test]
    fn frame_bytes_are_file_then_address() {
        let file = FileId::parse_hex("77efa716a912a49217445787329fd29a").unwrap();
        let frame = FrameId { file, address_or_line: 0xe51c };
        let bytes = frame.to_bytes();
        assert_eq!(bytes[16..], [0, 0, 0, 0, 0, 0, 0xe5, 0x1c]);
        assert_eq!(FrameId::from_bytes(bytes), frame);
    }

    #[test]
    fn hex_takes_prefix_and_dashes_and_refuses_other_lengths() {
        let id = FileId::parse_hex("0x00112233-44556677-8899aabb-ccddeeff").unwrap();
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(FileId::parse_hex("abc"), Err(ParseIdError { digits: 3 }));
        assert_eq!(FileId::parse_hex(&"0".repeat(33)), Err(ParseIdError { digits: 33 }));
    }
}
