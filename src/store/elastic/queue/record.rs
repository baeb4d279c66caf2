//! One record: a bulk body with its length and its checksum in front.
//!
//! ```text
//! bytes of the payload  u32 ┐
//! bytes unpacked        u32 │ all little-endian
//! items                 u32 │
//! CRC-32 of the above and the payload  u32 ┘
//! payload: zstd of (kind u8, level u8, end u32) per item, then the NDJSON
//! ```

use crate::store::elastic::{BulkBody, Item, Kind};

/// Bytes before the payload.
pub(super) const HEADER: usize = 16;
/// Bytes of one record unpacked, at most; bodies are cut far below it.
const MAX_RAW: usize = 64 << 20;
/// Bytes per item in the table of items.
const ITEM: usize = 6;
/// The fastest level still takes nine tenths off a bulk body.
const LEVEL: i32 = 1;

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    payload: u32,
    raw: u32,
    items: u32,
    crc: u32,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// Lengths that no writer writes.
    #[error("lengths that cannot be")]
    Lengths,
    /// Other bytes than were written.
    #[error("checksum differs")]
    Checksum,
    /// A payload that does not hold what its header says.
    #[error("contents that cannot be")]
    Contents,
}

/// A body as it stands on disk.
pub(super) fn pack(body: &BulkBody) -> Option<Vec<u8>> {
    let mut raw = Vec::with_capacity(body.items.len() * ITEM + body.bytes.len());
    for item in &body.items {
        let (kind, level) = code(item.kind);
        raw.extend([kind, level]);
        raw.extend(u32::try_from(item.end).ok()?.to_le_bytes());
    }
    raw.extend_from_slice(&body.bytes);
    if raw.len() > MAX_RAW {
        return None;
    }
    let payload = zstd::bulk::compress(&raw, LEVEL).ok()?;
    let mut header = Header {
        payload: u32::try_from(payload.len()).ok()?,
        raw: raw.len() as u32,
        items: body.items.len() as u32,
        crc: 0,
    };
    header.crc = header.checksum(&payload);
    let mut record = Vec::with_capacity(HEADER + payload.len());
    for number in [header.payload, header.raw, header.items, header.crc] {
        record.extend(number.to_le_bytes());
    }
    record.extend_from_slice(&payload);
    Some(record)
}

impl Header {
    /// Reads a header; what it says of lengths is believable then, nothing more.
    pub(super) fn read(bytes: &[u8; HEADER]) -> Result<Self, Damage> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let header = Self { payload: number(0), raw: number(4), items: number(8), crc: number(12) };
        let possible = header.payload > 0
            && header.payload as usize <= zstd::zstd_safe::compress_bound(MAX_RAW)
            && header.raw as usize <= MAX_RAW
            && header.items as usize * ITEM <= header.raw as usize;
        possible.then_some(header).ok_or(Damage::Lengths)
    }

    /// Bytes of the payload.
    pub(super) fn payload_bytes(self) -> usize {
        self.payload as usize
    }

    fn checksum(self, payload: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        for number in [self.payload, self.raw, self.items] {
            crc.update(&number.to_le_bytes());
        }
        crc.update(payload);
        crc.sum()
    }

    /// Whether this is the payload that was written.
    pub(super) fn check(self, payload: &[u8]) -> Result<(), Damage> {
        (self.checksum(payload) == self.crc).then_some(()).ok_or(Damage::Checksum)
    }

    /// The body again.
    pub(super) fn unpack(self, payload: &[u8]) -> Result<BulkBody, Damage> {
        self.check(payload)?;
        let mut raw = zstd::bulk::decompress(payload, self.raw as usize).map_err(|_| Damage::Contents)?;
        let table = self.items as usize * ITEM;
        if raw.len() != self.raw as usize {
            return Err(Damage::Contents);
        }
        let bytes = raw.split_off(table);
        let mut items = Vec::with_capacity(self.items as usize);
        let mut last = 0;
        for entry in raw.chunks_exact(ITEM) {
            let end = u32::from_le_bytes([entry[2], entry[3], entry[4], entry[5]]) as usize;
            let kind = kind(entry[0], entry[1]).filter(|_| end > last && end <= bytes.len());
            items.push(Item { kind: kind.ok_or(Damage::Contents)?, end });
            last = end;
        }
        (last == bytes.len()).then_some(BulkBody { bytes, items }).ok_or(Damage::Contents)
    }
}

fn code(kind: Kind) -> (u8, u8) {
    match kind {
        Kind::Event => (0, 0),
        Kind::SampledEvent(level) => (1, level),
        Kind::StackTrace => (2, 0),
        Kind::StackFrame => (3, 0),
        Kind::Executable => (4, 0),
        Kind::Host => (5, 0),
        Kind::QueuedExecutable => (6, 0),
        Kind::QueuedFrame => (7, 0),
    }
}

fn kind(code: u8, level: u8) -> Option<Kind> {
    Some(match code {
        0 => Kind::Event,
        1 => Kind::SampledEvent(level),
        2 => Kind::StackTrace,
        3 => Kind::StackFrame,
        4 => Kind::Executable,
        5 => Kind::Host,
        6 => Kind::QueuedExecutable,
        7 => Kind::QueuedFrame,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> BulkBody {
        let mut body = BulkBody::default();
        let kinds = [
            Kind::Event,
            Kind::SampledEvent(11),
            Kind::StackTrace,
            Kind::StackFrame,
            Kind::Executable,
            Kind::Host,
            Kind::QueuedExecutable,
            Kind::QueuedFrame,
        ];
        for (number, kind) in kinds.into_iter().enumerate() {
            body.bytes.extend(format!("{{\"create\":{{\"_id\":\"{number}\"}}}}\n{{}}\n").as_bytes());
            body.items.push(Item { kind, end: body.bytes.len() });
        }
        body
    }

    fn parts(record: &[u8]) -> (Result<Header, Damage>, &[u8]) {
        let (header, payload) = record.split_first_chunk::<HEADER>().unwrap();
        (Header::read(header), payload)
    }

    #[test]
    fn a_body_survives_the_disk() {
        let record = pack(&body()).unwrap();
        let (header, payload) = parts(&record);
        assert_eq!(header.unwrap().payload_bytes(), payload.len());
        assert_eq!(header.unwrap().unpack(payload), Ok(body()));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let record = pack(&body()).unwrap();
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 0x10;
            let (header, payload) = parts(&changed);
            let outcome = header.and_then(|header| match payload.get(..header.payload_bytes()) {
                Some(payload) => header.unpack(payload),
                None => Err(Damage::Lengths),
            });
            assert!(outcome.is_err(), "byte {at}");
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Header::read(&[0; HEADER]), Err(Damage::Lengths));
    }
}
