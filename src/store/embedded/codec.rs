//! Byte encodings of what redb holds: variable-length integers and length-prefixed text.
//!
//! Pure. Readers return `None` for anything malformed; the caller names the table. Called by `dictionary`, `head`,
//! `queue` and `segment::meta`.

use std::sync::Arc;

/// Appends `value` in LEB128: seven bits a byte, low bits first.
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, small magnitudes short.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends text behind its length in bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what the `put_*` functions wrote, in the same order.
#[derive(Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Inverse of [`put_u64`].
    pub(super) fn u64(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Inverse of [`put_u64`] for numbers that fit.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.u64()?.try_into().ok()
    }

    /// Inverse of [`put_i64`].
    pub(super) fn i64(&mut self) -> Option<i64> {
        let raw = self.u64()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// A count of items of at least one byte each: never more than there are bytes left, so safe to allocate for.
    pub(super) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    /// Inverse of [`put_text`].
    pub(super) fn text(&mut self) -> Option<Arc<str>> {
        let len = self.count()?;
        Some(std::str::from_utf8(self.take(len)?).ok()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_text_come_back(a: u64, b: i64, text: String, c: u32) {
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            put_text(&mut out, &text);
            put_u64(&mut out, u64::from(c));
            let mut bytes = Bytes(&out);
            prop_assert_eq!(bytes.u64(), Some(a));
            prop_assert_eq!(bytes.i64(), Some(b));
            prop_assert_eq!(bytes.text(), Some(Arc::from(text)));
            prop_assert_eq!(bytes.u32(), Some(c));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let mut bytes = Bytes(&garbage);
            while bytes.text().is_some() && !bytes.is_empty() {}
            let mut bytes = Bytes(&garbage);
            while bytes.i64().is_some() {}
        }
    }

    #[test]
    fn counts_beyond_the_bytes_left_are_refused() {
        let mut out = Vec::new();
        put_u64(&mut out, 1 << 40);
        assert_eq!(Bytes(&out).count(), None);
        assert_eq!(Bytes(&out).text(), None);
    }
}
