//! Records as the kernel side writes them, checked and lent as [`RawTrace`].
//!
//! A record that does not fit `abi.h` is counted, never believed. Where the bytes come from is told by [`super::ring`]
//! and [`super::per_cpu_buffers`].

use super::abi::{self, TraceEvent};
use super::stack_copies::StackCopies;
use super::{RawTrace, UserFrame};

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Shorter than its header, or not at a multiple of eight.
    #[error("record of {0} bytes holds no header")]
    Short(usize),
    /// Written by another version of the kernel side.
    #[error("record version: expected {expected}, found {0}", expected = abi::VERSION)]
    Version(u16),
    /// More frames than the limits allow, or than the record holds.
    #[error("record of {bytes} bytes claims {kernel} kernel and {user} user frames")]
    Frames {
        /// Length of the record.
        bytes: usize,
        /// Kernel frames claimed.
        kernel: u16,
        /// User frames claimed.
        user: u16,
    },
    /// A ring position outside the ring, or a ring without frames left out.
    #[error("record claims a ring that starts at {0}")]
    Ring(u16),
    /// A stack copy that is longer than its record.
    #[error("stack copy claims {claimed} bytes, its record holds {found}")]
    StackCopy {
        /// Bytes claimed.
        claimed: u32,
        /// Bytes there.
        found: usize,
    },
    /// An end reason that this build does not know.
    #[error("record with unknown end reason {0}")]
    End(u16),
}

/// Checks the record of a sample and lends its parts. `unrolled` takes the user frames of a deep stack, in order.
fn decode<'r>(
    record: &'r [u8],
    unrolled: &'r mut Vec<UserFrame>,
    copies: &'r StackCopies,
) -> Result<RawTrace<'r>, Malformed> {
    let event = TraceEvent::read(record).ok_or(Malformed::Short(record.len()))?;
    if u32::from(event.version) != abi::VERSION {
        return Err(Malformed::Version(event.version));
    }
    // SAFETY: every bit pattern is a u64, and `align_to` keeps to aligned words inside the slice.
    let (before, words, _) = unsafe { record[abi::TRACE_EVENT_BYTES as usize..].align_to::<u64>() };
    let (kernel, user) = (usize::from(event.kernel_frames), usize::from(event.user_frames));
    if !before.is_empty()
        || kernel > abi::MAX_KERNEL_FRAMES as usize
        || user > abi::MAX_USER_FRAMES as usize
        || kernel + user > words.len()
    {
        let (kernel, user) = (event.kernel_frames, event.user_frames);
        return Err(Malformed::Frames { bytes: record.len(), kernel, user });
    }
    let (kernel, words) = words.split_at(kernel);
    let mut user = user_frames(&words[..user]);
    let mut gap_at = 0;
    if event.skipped > 0 {
        let start = usize::from(event.ring_start);
        if user.len() != abi::MAX_USER_FRAMES as usize || start >= abi::OUTER_FRAMES as usize {
            return Err(Malformed::Ring(event.ring_start));
        }
        let (inner, outer) = user.split_at(abi::INNER_FRAMES as usize);
        unrolled.clear();
        unrolled.extend_from_slice(inner);
        unrolled.extend_from_slice(&outer[start..]);
        unrolled.extend_from_slice(&outer[..start]);
        user = unrolled;
        gap_at = abi::INNER_FRAMES;
    }
    let end = event.end_reason().ok_or(Malformed::End(event.end))?;
    Ok(RawTrace {
        pid: event.pid,
        tid: event.tid,
        cpu: event.cpu,
        time_ns: event.time_ns,
        comm: event.comm,
        kernel,
        user,
        gap_at,
        end,
        stack_copy: if u32::from(event.flags) & abi::HAS_STACK_COPY == 0 {
            None
        } else {
            copies.of(event.cpu, event.time_ns)
        },
    })
}

/// Words as frames.
fn user_frames(words: &[u64]) -> &[UserFrame] {
    // SAFETY: `UserFrame` is a transparent u64 without invariants; length and lifetime are those of the source.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<UserFrame>(), words.len()) }
}

/// Words as bytes.
pub(super) fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: any word is eight bytes, and bytes need no alignment; the lifetime is that of the source.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) }
}

/// Records of one sampler, in the order in which they come from each CPU.
#[derive(Debug, Default)]
pub(super) struct Records {
    unrolled: Vec<UserFrame>,
    copies: StackCopies,
}

impl Records {
    /// Hands a sample over; keeps a stack copy for the sample that follows it.
    pub(super) fn take(&mut self, record: &[u8], take: &mut impl FnMut(Result<RawTrace<'_>, Malformed>)) {
        match self.copies.take(record) {
            Ok(true) => {}
            Ok(false) => take(decode(record, &mut self.unrolled, &self.copies)),
            Err(malformed) => take(Err(malformed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::bpf::EndReason;

    /// A record as the kernel side writes it, in words so that it is aligned.
    fn record(event: &TraceEvent, frames: &[u64]) -> Vec<u64> {
        let mut bytes = Vec::new();
        bytes.extend(event.version.to_ne_bytes());
        bytes.extend(event.end.to_ne_bytes());
        bytes.extend(event.cpu.to_ne_bytes());
        bytes.extend(event.pid.to_ne_bytes());
        bytes.extend(event.tid.to_ne_bytes());
        bytes.extend(event.time_ns.to_ne_bytes());
        bytes.extend(event.comm);
        bytes.extend(event.kernel_frames.to_ne_bytes());
        bytes.extend(event.user_frames.to_ne_bytes());
        bytes.extend(event.ring_start.to_ne_bytes());
        bytes.extend(event.flags.to_ne_bytes());
        bytes.extend(event.skipped.to_ne_bytes());
        bytes.extend(event.reserved2.to_ne_bytes());
        bytes.extend(frames.iter().flat_map(|f| f.to_ne_bytes()));
        bytes.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap())).collect()
    }

    fn event(kernel: u16, user: u16) -> TraceEvent {
        TraceEvent {
            version: abi::VERSION as u16,
            end: 1,
            cpu: 1,
            pid: 10,
            tid: 11,
            time_ns: 12,
            comm: *b"chain\0\0\0\0\0\0\0\0\0\0\0",
            kernel_frames: kernel,
            user_frames: user,
            ring_start: 0,
            flags: 0,
            skipped: 0,
            reserved2: 0,
        }
    }

    #[test]
    fn lends_kernel_and_user_frames() {
        let words = record(&event(2, 3), &[1, 2, 3, 4 | UserFrame::RETURN_ADDRESS, 5]);
        let mut unrolled = Vec::new();
        let copies = StackCopies::default();
        let trace = decode(bytes_of(&words), &mut unrolled, &copies).unwrap();
        assert_eq!((trace.pid, trace.tid, trace.cpu, trace.time_ns), (10, 11, 1, 12));
        assert_eq!(trace.kernel, [1, 2]);
        assert_eq!(trace.user.iter().map(|f| f.address()).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(trace.user[1].is_return_address());
        assert_eq!((trace.end, trace.gap_at), (EndReason::Complete, 0));
    }

    #[test]
    fn unrolls_the_outer_half_of_a_deep_stack() {
        // Frame n of a stack of 600 is n + 1000; frames 256..344 were overwritten.
        let mut frames: Vec<u64> = (1000..1256).collect();
        frames.resize(512, 0);
        for n in 256..600_u64 {
            frames[256 + (n % 256) as usize] = 1000 + n;
        }
        let deep = TraceEvent { skipped: 88, ring_start: 600 % 256, ..event(0, 512) };
        let words = record(&deep, &frames);
        let mut unrolled = Vec::new();
        let copies = StackCopies::default();
        let trace = decode(bytes_of(&words), &mut unrolled, &copies).unwrap();
        let addresses: Vec<u64> = trace.user.iter().map(|f| f.address()).collect();
        let expected: Vec<u64> = (1000..1256).chain(1344..1600).collect();
        assert_eq!(addresses, expected);
        assert_eq!(trace.gap_at, 256);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut unrolled = Vec::new();
        let mut refused = |event: TraceEvent, frames: usize| {
            let words = record(&event, &vec![0; frames]);
            decode(bytes_of(&words), &mut unrolled, &StackCopies::default()).unwrap_err()
        };
        assert_eq!(refused(TraceEvent { version: 9, ..event(0, 0) }, 0), Malformed::Version(9));
        assert!(matches!(refused(event(3, 0), 2), Malformed::Frames { kernel: 3, .. }));
        assert!(matches!(refused(event(128, 0), 600), Malformed::Frames { .. }));
        assert!(matches!(refused(event(0, 513), 600), Malformed::Frames { .. }));
        assert_eq!(refused(TraceEvent { end: 99, ..event(0, 0) }, 0), Malformed::End(99));
        let ring = TraceEvent { skipped: 1, ring_start: 256, ..event(0, 512) };
        assert_eq!(refused(ring, 512), Malformed::Ring(256));
        let short = TraceEvent { skipped: 1, ..event(0, 511) };
        assert_eq!(refused(short, 511), Malformed::Ring(0));
        assert_eq!(
            decode(&[0; 55], &mut Vec::new(), &StackCopies::default()).unwrap_err(),
            Malformed::Short(55)
        );
    }

    proptest! {
        #[test]
        fn never_panics_on_a_hostile_record(words in prop::collection::vec(any::<u64>(), 0..700), version: bool) {
            let mut words = words;
            if version && !words.is_empty() {
                words[0] = words[0] & !0xffff_ffff | u64::from(abi::VERSION) | 1 << 16;
            }
            let mut unrolled = Vec::new();
            let _ = decode(bytes_of(&words), &mut unrolled, &StackCopies::default());
        }
    }
}
