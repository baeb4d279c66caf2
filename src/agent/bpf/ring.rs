//! The ring buffer's reader: records borrowed in place.
//!
//! Nobody is woken: the caller comes by timer.

#![allow(clippy::cast_ptr_alignment, reason = "memory maps begin at a page, records at multiples of eight")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libbpf_rs::libbpf_sys;
use memmap2::{MmapOptions, MmapRaw};

use super::RawTrace;
use super::records::{Malformed, Records};

/// Reader of one BPF ring buffer; there must be only one per ring.
#[derive(Debug)]
pub(crate) struct Ring {
    /// One page, shared with the kernel: how far was read.
    consumer: MmapRaw,
    /// One page, read-only: how far was written; then the data twice in a row, so that no record is ever split.
    producer: MmapRaw,
    page_bytes: usize,
    data_bytes: usize,
    records: Records,
}

impl Ring {
    /// Maps the ring behind `fd`, which holds `data_bytes` (the map's `max_entries`).
    pub(crate) fn new(fd: BorrowedFd<'_>, data_bytes: usize, page_bytes: usize) -> io::Result<Self> {
        assert!(data_bytes.is_power_of_two(), "the kernel accepts no other ring size");
        let consumer = MmapOptions::new().len(page_bytes).map_raw(fd.as_raw_fd())?;
        let producer = MmapOptions::new()
            .offset(page_bytes as u64)
            .len(page_bytes + 2 * data_bytes)
            .map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self { consumer, producer, page_bytes, data_bytes, records: Records::default() })
    }

    /// Hands over every sample that is complete by now, then gives its space back.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(Result<RawTrace<'_>, Malformed>)) {
        let mask = self.data_bytes as u64 - 1;
        let mut records = std::mem::take(&mut self.records);
        let (consumer, producer) = self.positions();
        let mut at = consumer.load(Ordering::Relaxed);
        // Read once, so that a fast writer cannot keep us here.
        let end = producer.load(Ordering::Acquire);
        while at < end {
            let offset = self.page_bytes + (at & mask) as usize;
            // SAFETY: `offset` lies in the first copy of the data, positions are multiples of eight, and the
            // mapping lives as long as `self`.
            let header = unsafe { &*self.producer.as_ptr().add(offset).cast::<AtomicU32>() };
            let length = header.load(Ordering::Acquire);
            if length & libbpf_sys::BPF_RINGBUF_BUSY_BIT != 0 {
                break;
            }
            let bytes = (length & !libbpf_sys::BPF_RINGBUF_DISCARD_BIT) as usize;
            if bytes > self.data_bytes {
                // Cannot happen with a working kernel; to believe it would leave the mapping.
                take(Err(Malformed::Short(bytes)));
                at = end;
                consumer.store(at, Ordering::Release);
                break;
            }
            if length & libbpf_sys::BPF_RINGBUF_DISCARD_BIT == 0 {
                // SAFETY: the record begins in the first copy of the data and is at most one copy long, so it ends
                // within the second. The kernel does not write to it before the consumer position passes it, which
                // happens below, when the borrow is over.
                let record = unsafe {
                    let start = self.producer.as_ptr().add(offset + libbpf_sys::BPF_RINGBUF_HDR_SZ as usize);
                    std::slice::from_raw_parts(start, bytes)
                };
                records.take(record, &mut take);
            }
            at += (bytes + libbpf_sys::BPF_RINGBUF_HDR_SZ as usize).next_multiple_of(8) as u64;
            consumer.store(at, Ordering::Release);
        }
        self.records = records;
    }

    /// How far was read and how far was written, in bytes since the ring was made.
    fn positions(&self) -> (&AtomicU64, &AtomicU64) {
        // SAFETY: both pages are mapped as long as `self`, each begins with its position, which the kernel changes
        // atomically and nobody here without an atomic.
        unsafe { (&*self.consumer.as_mut_ptr().cast(), &*self.producer.as_ptr().cast()) }
    }

    /// Bytes waiting.
    pub(crate) fn fill_bytes(&self) -> u64 {
        let (consumer, producer) = self.positions();
        producer.load(Ordering::Acquire).saturating_sub(consumer.load(Ordering::Relaxed))
    }
}
