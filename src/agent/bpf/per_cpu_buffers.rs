//! Samples through a perf buffer of each CPU: the way out of kernels without a ring buffer (before 5.8), or where it is
//! asked for.
//!
//! Records are copied once, for the kernel puts them at odd places. Order is kept within a CPU, not between CPUs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{Map, MapCore, MapFlags};

use super::records::{Malformed, Records};
use super::{RawTrace, perf};
use crate::agent::host::perf_ring::PerfRing;

/// `PERF_RECORD_SAMPLE`: header, length, bytes. Others tell of losses that the kernel side has counted.
const SAMPLE: u32 = 9;
/// Bytes before those of the sampling program: header of 8, length of 4.
const BEFORE: usize = 12;
/// A buffer holds at least some stack copies.
const SMALLEST_BYTES: usize = 128 << 10;

/// Buffers of all CPUs that ever ticked.
#[derive(Debug)]
pub(super) struct PerCpuBuffers {
    rings: BTreeMap<u32, PerfRing>,
    /// Of each.
    pages: usize,
    records: Records,
    /// Bytes of a record at a multiple of eight.
    aligned: Vec<u64>,
}

impl PerCpuBuffers {
    /// Buffers that share about `all_bytes` among the CPUs there can be.
    pub(super) fn new(all_bytes: usize, page_bytes: usize) -> io::Result<Self> {
        let each = (all_bytes / perf::possible_cpus()?.len().max(1)).max(SMALLEST_BYTES);
        let pages = (each / page_bytes).next_power_of_two();
        Ok(Self { rings: BTreeMap::new(), pages, records: Records::default(), aligned: Vec::new() })
    }

    /// Opens the buffer of a CPU, once, and tells the kernel side of it.
    pub(super) fn open(&mut self, cpu: u32, events: &Map<'_>) -> io::Result<()> {
        if self.rings.contains_key(&cpu) {
            return Ok(());
        }
        let ring = PerfRing::open_output(cpu, self.pages)?;
        let descriptor = ring.as_fd().as_raw_fd();
        events
            .update(&cpu.to_ne_bytes(), &descriptor.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| io::Error::other(format!("{error:#}")))?;
        self.rings.insert(cpu, ring);
        Ok(())
    }

    /// Hands over every sample, CPU by CPU.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Result<RawTrace<'_>, Malformed>)) {
        let Self { rings, records, aligned, .. } = self;
        for ring in rings.values_mut() {
            ring.drain(|record| {
                let Some(bytes) = sampled(record) else { return };
                aligned.clear();
                let (words, rest) = bytes.as_chunks::<8>();
                aligned.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
                debug_assert!(rest.len() < 8);
                records.take(super::records::bytes_of(aligned), &mut take);
            });
        }
    }

    /// Bytes that wait in the fullest buffer, times the number of buffers: what a shared ring as full as that would hold.
    pub(super) fn fill_bytes(&self) -> u64 {
        self.rings.values().map(PerfRing::waiting_bytes).max().unwrap_or(0) * self.rings.len() as u64
    }
}

/// What the sampling program wrote, of a record of the buffer. The kernel pads it: records are whole multiples of eight
/// bytes, and so is what is sent, but for the length field before it.
fn sampled(record: &[u8]) -> Option<&[u8]> {
    let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
    let length = u32::from_ne_bytes(record.get(8..BEFORE)?.try_into().ok()?);
    (kind == SAMPLE).then_some(())?;
    record.get(BEFORE..BEFORE + length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_taken_out_of_its_record() {
        let record = |kind: u32, length: u32, bytes: &[u8]| {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend([0; 4]);
            record.extend(length.to_ne_bytes());
            record.extend(bytes);
            record
        };
        assert_eq!(sampled(&record(9, 4, &[1, 2, 3, 4])), Some(&[1, 2, 3, 4][..]));
        assert_eq!(sampled(&record(2, 4, &[1, 2, 3, 4])), None);
        assert_eq!(sampled(&record(9, 5, &[1, 2, 3, 4])), None);
        assert_eq!(sampled(&[9, 0, 0, 0]), None);
    }
}
