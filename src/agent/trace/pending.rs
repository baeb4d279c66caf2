//! Samples that came while the ring was being read: copied, to be converted once the events of their time are applied.
//!
//! A handful per round. Keeps its memory.

use crate::agent::bpf::{EndReason, RawTrace, UserFrame};

#[derive(Clone, Copy, Debug)]
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
}

/// The copies, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    headers: Vec<Header>,
    kernel: Vec<u64>,
    user: Vec<UserFrame>,
}

impl Pending {
    /// Copies a sample.
    pub(crate) fn push(&mut self, raw: &RawTrace<'_>) {
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
        });
        self.kernel.extend_from_slice(raw.kernel);
        self.user.extend_from_slice(raw.user);
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Hands over all copies and forgets them.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&RawTrace<'_>)) {
        let (mut kernel, mut user) = (&self.kernel[..], &self.user[..]);
        for header in &self.headers {
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
            });
        }
        self.headers.clear();
        self.kernel.clear();
        self.user.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_come_out_as_they_went_in() {
        let user = [UserFrame(1), UserFrame(2), UserFrame(3)];
        let raw = |pid, kernel, user| RawTrace {
            pid,
            tid: 2,
            cpu: 3,
            time_ns: 4,
            comm: [5; 16],
            kernel,
            user,
            gap_at: 0,
            end: EndReason::Complete,
        };
        let mut pending = Pending::default();
        for _ in 0..2 {
            pending.push(&raw(1, &[10, 11], &user[..1]));
            pending.push(&raw(2, &[], &user[1..]));
            let mut seen = Vec::new();
            pending.drain(|raw| seen.push((raw.pid, raw.kernel.to_vec(), raw.user.to_vec())));
            assert_eq!(seen, [(1, vec![10, 11], user[..1].to_vec()), (2, vec![], user[1..].to_vec())]);
            assert!(pending.is_empty());
        }
    }
}
