//! `_id` of documents that have no identity of their own: events and hosts.
//!
//! Given by content and place, not by chance: the same batch gets the same identifiers, whether its bytes are sent
//! again after a cut connection, come out of the disk queue, or are encoded anew because the agent did not get its
//! answer. Elasticsearch then answers 409 to what it holds already, and each sample is stored once.

use std::hash::{Hash as _, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use twox_hash::XxHash64;

use crate::model::UnixNanos;
use crate::store::Documents;
use crate::store::document::Host;

/// Characters of an identifier: as many as Elasticsearch's own have.
pub(super) const ID_BYTES: usize = 20;
/// Characters of its part that all documents of a batch share: 6 bytes of milliseconds, 6 of a hash.
const SHARED_BYTES: usize = 16;
/// Documents that the other 4 characters tell apart.
const COUNTED: u64 = 1 << 24;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Hash of everything that events say. Equal batches are equal to the nanosecond of each sample: a batch sent again.
pub(super) fn of_events(documents: &Documents) -> u64 {
    let resources: Vec<u64> = documents
        .resources
        .iter()
        .map(|resource| {
            let mut hash = XxHash64::with_seed(0);
            resource.hash(&mut hash);
            hash.finish()
        })
        .collect();
    let mut hash = XxHash64::with_seed(0);
    for event in &documents.events {
        hash.write_u64(resources.get(event.resource as usize).copied().unwrap_or_default());
        hash.write(&event.stack.0);
        event.thread_name.hash(&mut hash);
        hash.write_u64(u64::from(event.pid) << 32 | u64::from(event.tid));
        hash.write_usize(event.times.len());
        event.times.iter().for_each(|time| hash.write_u64(time.0));
    }
    hash.finish()
}

/// Hash of everything that a host says.
pub(super) fn of_host(host: &Host) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    (&host.id, &host.name, &host.facts).hash(&mut hash);
    hash.finish()
}

/// Identifiers of one batch, in order.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    time: UnixNanos,
    hash: u64,
    next: u64,
    text: [u8; ID_BYTES],
}

impl Ids {
    /// `time` comes first in the identifiers, so that those of one time are neighbours: Elasticsearch looks for a
    /// newcomer only where such identifiers are, and stores neighbours in few bytes.
    pub(super) fn new(time: UnixNanos, hash: u64) -> Self {
        let mut ids = Self { time, hash, next: 0, text: [b'A'; ID_BYTES] };
        ids.write_shared();
        ids
    }

    /// The next identifier.
    #[inline]
    pub(super) fn next(&mut self) -> [u8; ID_BYTES] {
        let at = self.next % COUNTED;
        if at == 0 && self.next > 0 {
            // More than 4 characters can count: as if a further batch began.
            self.hash = self.hash.wrapping_add(1);
            self.write_shared();
        }
        self.next += 1;
        for (place, shift) in (SHARED_BYTES..).zip([18, 12, 6, 0]) {
            self.text[place] = ALPHABET[(at >> shift & 63) as usize];
        }
        self.text
    }

    fn write_shared(&mut self) {
        let mut bytes = [0; SHARED_BYTES / 4 * 3];
        bytes[..6].copy_from_slice(&self.time.millis().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&self.hash.to_be_bytes()[2..]);
        URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut self.text[..SHARED_BYTES])
            .expect("12 bytes are 16 characters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(id: [u8; ID_BYTES]) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(id).unwrap()
    }

    #[test]
    fn identifiers_are_time_hash_and_number() {
        let mut ids = Ids::new(UnixNanos::from_millis(0x0123_4567_89ab), 0xffff_1122_3344_5566);
        let expected = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66];
        for number in 0..300u32 {
            let bytes = decoded(ids.next());
            assert_eq!(bytes[..12], expected);
            assert_eq!(bytes[12..], number.to_be_bytes()[1..]);
        }
    }

    #[test]
    fn a_batch_without_end_still_has_different_identifiers() {
        let mut ids = Ids::new(UnixNanos(0), 5);
        let first = ids.next();
        ids.next = COUNTED;
        let second = ids.next();
        assert_ne!(first, second);
        assert_eq!(decoded(second)[11], 6);
    }
}
