//! Notes: owner, kind, content.

use crate::symbols::mapped::Bytes;

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Who defines `kind`, without the closing NUL: `GNU`, `Go`, `stapsdt`.
    pub owner: &'a [u8],
    /// Meaning of the content, a number of the owner's.
    pub kind: u32,
    /// Content, without padding.
    pub content: &'a [u8],
}

/// Notes of a segment or section, in order, up to the first that does not fit into `bytes`.
///
/// Owner and content are padded to 4 bytes. (The gABI asks for 8 in 64-bit files; of the linkers only
/// `.note.gnu.property` follows it, whose content is a multiple of 8 anyway, so 4 reads both.)
pub fn notes(bytes: &[u8]) -> impl Iterator<Item = Note<'_>> {
    let bytes = Bytes(bytes);
    let mut at = 0u64;
    std::iter::from_fn(move || {
        // 12 bytes of header, then at least nothing: each step moves on by 12 or more.
        let owner_bytes = u64::from(bytes.u32(at)?);
        let content_bytes = u64::from(bytes.u32(at + 4)?);
        let kind = bytes.u32(at + 8)?;
        let owner = bytes.slice(at + 12, owner_bytes)?;
        let content_at = at + 12 + owner_bytes.next_multiple_of(4);
        let content = bytes.slice(content_at, content_bytes)?;
        at = content_at + content_bytes.next_multiple_of(4);
        // One NUL closes the owner; Go counts the padding in as well.
        let end = owner.iter().position(|byte| *byte == 0).unwrap_or(owner.len());
        Some(Note { owner: owner.get(..end)?, kind, content })
    })
}
