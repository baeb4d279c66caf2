//! Samples that cannot be converted yet: they came while the ring was being read, or wait for an unwind table. Copied.
//!
//! A handful per round. Keeps its memory; bounded in bytes.

use crate::agent::bpf::{EndReason, RawTrace, StackCopy, UserFrame};

/// Most bytes of stack copies that wait: 1024 copies of 16 KiB.
const MAX_BYTES: usize = 16 << 20;
/// Stack copies whose memory is kept for the next ones.
const KEPT_COPIES: usize = 16;

#[derive(Clone, Debug)]
struct Header {
    pid: u32,
    tid: u32,
    cpu: u32,
    time_ns: u64,
    comm: [u8; 16],
    kernel_frames: u32,
    user_frames: u32,
    gap_at: u32,
    end: EndReason,
    stack_copy: Option<StackCopy>,
}

/// The copies, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    headers: Vec<Header>,
    kernel: Vec<u64>,
    user: Vec<UserFrame>,
    bytes: usize,
    spare: Vec<StackCopy>,
}

impl Pending {
    /// Copies a sample; without its stack where too many wait already.
    pub(crate) fn push(&mut self, raw: &RawTrace<'_>) {
        let stack_copy = raw.stack_copy.filter(|_| self.has_room()).map(|copy| {
            let mut own = self.spare.pop().unwrap_or_default();
            own.clone_from(copy);
            self.bytes += own.bytes.len();
            own
        });
        self.headers.push(Header {
            pid: raw.pid,
            tid: raw.tid,
            cpu: raw.cpu,
            time_ns: raw.time_ns,
            comm: raw.comm,
            kernel_frames: raw.kernel.len() as u32,
            user_frames: raw.user.len() as u32,
            gap_at: raw.gap_at,
            end: raw.end,
            stack_copy,
        });
        self.kernel.extend_from_slice(raw.kernel);
        self.user.extend_from_slice(raw.user);
    }

    /// Whether another stack copy may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < MAX_BYTES
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Hands over all copies and forgets them.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&RawTrace<'_>)) {
        let (mut kernel, mut user) = (&self.kernel[..], &self.user[..]);
        for header in &mut self.headers {
            let (own_kernel, rest) = kernel.split_at(header.kernel_frames as usize);
            kernel = rest;
            let (own_user, rest) = user.split_at(header.user_frames as usize);
            user = rest;
            take(&RawTrace {
                pid: header.pid,
                tid: header.tid,
                cpu: header.cpu,
                time_ns: header.time_ns,
                comm: header.comm,
                kernel: own_kernel,
                user: own_user,
                gap_at: header.gap_at,
                end: header.end,
                stack_copy: header.stack_copy.as_ref(),
            });
            if let Some(copy) = header.stack_copy.take().filter(|_| self.spare.len() < KEPT_COPIES) {
                self.spare.push(copy);
            }
        }
        self.headers.clear();
        self.kernel.clear();
        self.user.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_come_out_as_they_went_in() {
        let user = [UserFrame(1), UserFrame(2), UserFrame(3)];
        let stack = StackCopy { start: 0x7000, bytes: vec![7; 64], ..StackCopy::default() };
        let raw = |pid, kernel, user, stack_copy| RawTrace {
            pid,
            tid: 2,
            cpu: 3,
            time_ns: 4,
            comm: [5; 16],
            kernel,
            user,
            gap_at: 0,
            end: EndReason::Complete,
            stack_copy,
        };
        let mut pending = Pending::default();
        for _ in 0..2 {
            pending.push(&raw(1, &[10, 11], &user[..1], None));
            pending.push(&raw(2, &[], &user[1..], Some(&stack)));
            let mut seen = Vec::new();
            pending.drain(|raw| {
                seen.push((raw.pid, raw.kernel.to_vec(), raw.user.to_vec(), raw.stack_copy.cloned()));
            });
            let expected = [
                (1, vec![10, 11], user[..1].to_vec(), None),
                (2, vec![], user[1..].to_vec(), Some(stack.clone())),
            ];
            assert_eq!(seen, expected);
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn stacks_beyond_the_room_are_left_out_and_samples_are_not() {
        let stack = StackCopy { bytes: vec![0; MAX_BYTES / 2], ..StackCopy::default() };
        let mut pending = Pending::default();
        for _ in 0..3 {
            pending.push(&RawTrace {
                pid: 1,
                tid: 1,
                cpu: 0,
                time_ns: 0,
                comm: [0; 16],
                kernel: &[],
                user: &[],
                gap_at: 0,
                end: EndReason::UnknownProcess,
                stack_copy: Some(&stack),
            });
        }
        let mut with_stack = Vec::new();
        pending.drain(|raw| with_stack.push(raw.stack_copy.is_some()));
        assert_eq!(with_stack, [true, true, false]);
        assert!(pending.has_room());
    }
}
