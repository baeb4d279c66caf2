//! A cursor over untrusted bytes: every read is checked, nothing is allocated.
//!
//! Little-endian only, as both supported architectures are. Knows nothing of DWARF or Go beyond number encodings.

/// Position in a byte slice that never runs past its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Starts at `at`; `None` beyond the end.
    pub(super) fn at(bytes: &'a [u8], at: u64) -> Option<Self> {
        let at = usize::try_from(at).ok()?;
        (at <= bytes.len()).then_some(Self { bytes, at })
    }

    /// Bytes consumed so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn skip(&mut self, len: u64) -> Option<()> {
        self.take(len).map(|_| ())
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let array = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(array)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Unsigned LEB128; `None` when it needs more than 64 bits.
    #[inline]
    pub(super) fn uleb(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift >= 64 || (shift == 63 && low > 1) {
                return None;
            }
            value |= low << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    /// Signed LEB128; `None` when it needs more than 64 bits.
    #[inline]
    pub(super) fn sleb(&mut self) -> Option<i64> {
        let mut value = 0_i64;
        let mut shift = 0;
        loop {
            let byte = self.u8()?;
            if shift >= 64 || (shift == 63 && byte != 0 && byte != 0x7f) {
                return None;
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1 << shift;
                }
                return Some(value);
            }
        }
    }

    /// Bytes up to a zero byte, which is consumed but not returned.
    pub(super) fn c_string(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        self.at += len + 1;
        rest.get(..len)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use proptest::prelude::*;

    fn uleb(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    fn sleb(mut value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if (value == 0 && low & 0x40 == 0) || (value == -1 && low & 0x40 != 0) {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    proptest! {
        #[test]
        fn reads_back_any_leb128(unsigned: u64, signed: i64) {
            prop_assert_eq!(Reader::new(&uleb(unsigned)).uleb(), Some(unsigned));
            prop_assert_eq!(Reader::new(&sleb(signed)).sleb(), Some(signed));
        }
    }

    #[test]
    fn refuses_a_leb128_beyond_64_bits() {
        assert_eq!(Reader::new(&[0xff; 20]).uleb(), None);
        assert_eq!(Reader::new(&[0x80; 20]).sleb(), None);
        assert_eq!(Reader::new(&[0x80, 0x80]).uleb(), None);
    }

    #[test]
    fn never_reads_past_the_end() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.u16(), Some(0x0201));
        assert_eq!(reader.take(u64::MAX), None);
        assert_eq!(reader.c_string(), None);
        assert_eq!(reader.u8(), Some(3));
        assert!(reader.is_empty());
    }
}
