//! Text forms of identifiers, frame lists and times, exactly as Elasticsearch holds them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::{FileId, FrameId, FrameKind, StackId};

/// base64url without padding, 22 characters.
#[must_use]
pub fn file_id(id: FileId) -> String {
    URL_SAFE_NO_PAD.encode(id.0)
}

/// base64url without padding, 22 characters.
#[must_use]
pub fn stack_id(id: StackId) -> String {
    URL_SAFE_NO_PAD.encode(id.0)
}

/// base64url without padding, 32 characters.
#[must_use]
pub fn frame_id(id: FrameId) -> String {
    URL_SAFE_NO_PAD.encode(id.to_bytes())
}

/// Appends what [`frame_id`] gives: long stacks have many.
pub fn push_frame_id(out: &mut Vec<u8>, id: FrameId) {
    let mut text = [0; 32];
    URL_SAFE_NO_PAD.encode_slice(id.to_bytes(), &mut text).expect("24 bytes are 32 characters");
    out.extend_from_slice(&text);
}

/// Inverse of [`frame_id`]; `None` when the text is anything else.
#[must_use]
pub fn parse_frame_id(text: &str) -> Option<FrameId> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(FrameId::from_bytes(bytes.try_into().ok()?))
}

/// `Stacktrace.frame.types`: (count, type) pairs, root first, counts 1 to 255, base64url.
#[must_use]
pub fn frame_types(root_first: impl IntoIterator<Item = FrameKind>) -> String {
    let mut runs: Vec<u8> = Vec::new();
    for kind in root_first {
        match runs.as_mut_slice() {
            [.., count, last] if *last == kind.0 && *count < 255 => *count += 1,
            _ => runs.extend([1, kind.0]),
        }
    }
    URL_SAFE_NO_PAD.encode(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(leaf_first: &[(usize, u8)], expected: &str) {
        let root_first =
            leaf_first.iter().rev().flat_map(|(n, kind)| std::iter::repeat_n(FrameKind(*kind), *n));
        assert_eq!(frame_types(root_first), expected);
    }

    #[test]
    fn frame_types_are_run_lengths_root_first() {
        check(&[(1, 3)], "AQM");
        check(&[(2, 4), (3, 3), (4, 5)], "BAUDAwIE");
        check(&[(300, 3)], "_wMtAw");
        check(&[(1, 0x80), (2, 3)], "AgMBgA");
        check(&[(2, 1), (1, 3)], "AQMCAQ");
    }

    #[test]
    fn ids_are_base64url_without_padding() {
        let file = FileId::parse_hex("77efa716a912a49217445787329fd29a").unwrap();
        let frame = FrameId { file, address_or_line: 0xe51c };
        assert_eq!(frame_id(frame), "d--nFqkSpJIXRFeHMp_SmgAAAAAAAOUc");
        let mut pushed = b"x".to_vec();
        push_frame_id(&mut pushed, frame);
        assert_eq!(pushed, b"xd--nFqkSpJIXRFeHMp_SmgAAAAAAAOUc");
        assert_eq!(parse_frame_id("d--nFqkSpJIXRFeHMp_SmgAAAAAAAOUc"), Some(frame));
        assert_eq!(parse_frame_id("d--n"), None);
        let file = FileId::parse_hex("600dcafe4a110000f2bf38c493f5fb92").unwrap();
        assert_eq!(file_id(file), "YA3K_koRAADyvzjEk_X7kg");
    }
}
