//! FNV-1a with 128 bits, the hash behind stack and kernel file identifiers.

/// Offset basis of FNV-1a-128 (draft-eastlake-fnv).
pub const FNV128_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
/// Prime of FNV-1a-128: 2^88 + 0x13b.
const FNV128_PRIME: u128 = (1 << 88) + 0x13b;

/// Running FNV-1a-128 state.
#[derive(Clone, Copy, Debug)]
pub struct Fnv128(u128);

impl Default for Fnv128 {
    fn default() -> Self {
        Self(FNV128_BASIS)
    }
}

impl Fnv128 {
    /// Feeds bytes in order.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(FNV128_PRIME);
        }
    }

    /// Feeds a number as decimal ASCII, without sign, padding or separator.
    pub fn write_decimal(&mut self, mut number: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.write(&digits[at..]);
    }

    /// The hash, big endian.
    #[must_use]
    pub fn finish(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}
