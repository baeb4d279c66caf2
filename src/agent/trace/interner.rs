//! Everything distinct that samples mention, once: executables, frames, stacks, threads, processes.
//!
//! Numbers are stable until [`Interner::clear`], which happens only between two windows, when a limit is passed.
//! Known things cost no allocation.

use std::collections::HashMap;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use twox_hash::XxHash64;

use crate::model::{Executable, FileId, Frame, FrameKind, Resource, SourceLine};

/// Beyond this many of one kind everything is forgotten at the end of the window.
const MAX_FRAMES: usize = 200_000;
const MAX_STACKS: usize = 100_000;
/// Frame numbers of all stacks: 4 bytes each.
const MAX_STACK_WORDS: usize = 2_000_000;
const MAX_RESOURCES: usize = 20_000;
const MAX_THREADS: usize = 50_000;
/// Within one window twice as much is taken; what is beyond is dropped and counted.
const HARD: usize = 2;

/// Number of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StackNumber(pub(crate) u32);

/// Number of a process image as a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ResourceNumber(pub(crate) u32);

/// Number of a thread with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ThreadNumber(pub(crate) u32);

/// 128 bits over words, for keys of caches whose content is not kept. Two seeds: one 64-bit hash over millions of
/// stacks would collide now and then, and draw a wrong picture without a trace.
#[derive(Debug)]
pub(crate) struct WideHash(XxHash64, XxHash64);

impl WideHash {
    pub(crate) fn new() -> Self {
        Self(XxHash64::with_seed(0x9e37_79b9_7f4a_7c15), XxHash64::with_seed(0xc2b2_ae3d_27d4_eb4f))
    }

    pub(crate) fn word(&mut self, word: u64) {
        self.0.write_u64(word);
        self.1.write_u64(word);
    }

    pub(crate) fn finish(&self) -> (u64, u64) {
        (self.0.finish(), self.1.finish())
    }
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    executables: Vec<Executable>,
    executable_by_id: HashMap<FileId, u32>,
    executable_by_name: HashMap<Arc<str>, u32>,
    frames: Vec<Frame>,
    /// Frames without lines: (kind and executable, address).
    bare_frames: HashMap<(u64, u64), u32>,
    lined_frames: HashMap<Frame, u32>,
    stack_words: Vec<u32>,
    stacks: Vec<Range<u32>>,
    stack_by_content: HashMap<(u64, u64), u32>,
    threads: Vec<(u32, Arc<str>)>,
    thread_by_key: HashMap<(u32, [u8; 16]), u32>,
    thread_names: HashMap<[u8; 16], Arc<str>>,
    resources: Vec<Resource>,
    resource_by_key: HashMap<u64, u32>,
    /// Raised by each [`Interner::clear`].
    generation: u32,
}

impl Interner {
    /// An executable by identity, or by name when it has none.
    pub(crate) fn executable(
        &mut self,
        file_id: Option<FileId>,
        name: &Arc<str>,
        build_id: &Arc<str>,
    ) -> u32 {
        let known = match file_id {
            Some(file_id) => self.executable_by_id.get(&file_id),
            None => self.executable_by_name.get(name),
        };
        if let Some(number) = known {
            return *number;
        }
        let number = self.executables.len() as u32;
        self.executables.push(Executable {
            file_id,
            name: Arc::clone(name),
            gnu_build_id: Arc::clone(build_id),
        });
        match file_id {
            Some(file_id) => self.executable_by_id.insert(file_id, number),
            None => self.executable_by_name.insert(Arc::clone(name), number),
        };
        number
    }

    /// A frame that somebody else will name.
    pub(crate) fn bare_frame(&mut self, kind: FrameKind, executable: Option<u32>, address: u64) -> u32 {
        let place = u64::from(kind.0) << 32 | u64::from(executable.unwrap_or(u32::MAX));
        let Self { frames, bare_frames, .. } = self;
        *bare_frames.entry((place, address)).or_insert_with(|| {
            frames.push(Frame { kind, executable, address, lines: Vec::new() });
            frames.len() as u32 - 1
        })
    }

    /// A frame with the name that is known here.
    pub(crate) fn named_frame(
        &mut self,
        kind: FrameKind,
        executable: Option<u32>,
        address: u64,
        name: &Arc<str>,
    ) -> u32 {
        self.lined_frame(
            kind,
            executable,
            address,
            SourceLine { function: Arc::clone(name), ..SourceLine::default() },
        )
    }

    /// A frame with the name and line that are known here.
    pub(crate) fn lined_frame(
        &mut self,
        kind: FrameKind,
        executable: Option<u32>,
        address: u64,
        line: SourceLine,
    ) -> u32 {
        let frame = Frame { kind, executable, address, lines: vec![line] };
        let Self { frames, lined_frames, .. } = self;
        if let Some(number) = lined_frames.get(&frame) {
            return *number;
        }
        let number = frames.len() as u32;
        frames.push(frame.clone());
        lined_frames.insert(frame, number);
        number
    }

    /// A stack, leaf first. `None` when the window is full.
    pub(crate) fn stack(&mut self, frames: &[u32]) -> Option<StackNumber> {
        let mut hash = WideHash::new();
        for frame in frames {
            hash.word(u64::from(*frame));
        }
        let key = hash.finish();
        if let Some(number) = self.stack_by_content.get(&key) {
            return Some(StackNumber(*number));
        }
        if self.stacks.len() >= MAX_STACKS * HARD
            || self.stack_words.len() + frames.len() > MAX_STACK_WORDS * HARD
            || self.frames.len() > MAX_FRAMES * HARD
        {
            return None;
        }
        let number = self.stacks.len() as u32;
        let start = self.stack_words.len() as u32;
        self.stack_words.extend_from_slice(frames);
        self.stacks.push(start..self.stack_words.len() as u32);
        self.stack_by_content.insert(key, number);
        Some(StackNumber(number))
    }

    /// A thread under the name that it had. `None` when the window is full.
    pub(crate) fn thread(&mut self, tid: u32, comm: [u8; 16]) -> Option<ThreadNumber> {
        if let Some(number) = self.thread_by_key.get(&(tid, comm)) {
            return Some(ThreadNumber(*number));
        }
        if self.threads.len() >= MAX_THREADS * HARD {
            return None;
        }
        let name = self.thread_names.entry(comm).or_insert_with(|| comm_text(&comm).into());
        let number = self.threads.len() as u32;
        self.threads.push((tid, Arc::clone(name)));
        self.thread_by_key.insert((tid, comm), number);
        Some(ThreadNumber(number))
    }

    /// A resource under a key that stands for one process image. `None` when the window is full.
    pub(crate) fn resource(&mut self, key: u64, make: impl FnOnce() -> Resource) -> Option<ResourceNumber> {
        if let Some(number) = self.resource_by_key.get(&key) {
            return Some(ResourceNumber(*number));
        }
        if self.resources.len() >= MAX_RESOURCES * HARD {
            return None;
        }
        let number = self.resources.len() as u32;
        self.resources.push(make());
        self.resource_by_key.insert(key, number);
        Some(ResourceNumber(number))
    }

    /// All executables.
    pub(crate) fn executables(&self) -> &[Executable] {
        &self.executables
    }

    /// All frames.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Number of stacks.
    pub(crate) fn stack_count(&self) -> usize {
        self.stacks.len()
    }

    /// Frames of a stack, leaf first.
    pub(crate) fn stack_frames(&self, stack: StackNumber) -> &[u32] {
        let range = &self.stacks[stack.0 as usize];
        &self.stack_words[range.start as usize..range.end as usize]
    }

    /// Number and name of a thread.
    pub(crate) fn thread_at(&self, thread: ThreadNumber) -> &(u32, Arc<str>) {
        &self.threads[thread.0 as usize]
    }

    /// A resource.
    pub(crate) fn resource_at(&self, resource: ResourceNumber) -> &Resource {
        &self.resources[resource.0 as usize]
    }

    /// Changes when numbers change their meaning.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether a limit is passed, so that it is time for [`Interner::clear`].
    pub(crate) fn is_over_limit(&self) -> bool {
        self.frames.len() > MAX_FRAMES
            || self.stacks.len() > MAX_STACKS
            || self.stack_words.len() > MAX_STACK_WORDS
            || self.resources.len() > MAX_RESOURCES
            || self.threads.len() > MAX_THREADS
    }

    /// Forgets everything. Only between two windows.
    pub(crate) fn clear(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
    }
}

/// Name of a thread as text.
pub(crate) fn comm_text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_things_have_the_same_number() {
        let mut interner = Interner::default();
        let (name, build_id): (Arc<str>, Arc<str>) = ("libc.so.6".into(), "ab".into());
        let libc = interner.executable(Some(FileId([1; 16])), &name, &build_id);
        assert_eq!(interner.executable(Some(FileId([1; 16])), &"copy".into(), &build_id), libc);
        assert_ne!(interner.executable(None, &name, &build_id), libc);
        let frame = interner.bare_frame(FrameKind::NATIVE, Some(libc), 0x10);
        assert_eq!(interner.bare_frame(FrameKind::NATIVE, Some(libc), 0x10), frame);
        assert_ne!(interner.bare_frame(FrameKind::NATIVE, None, 0x10), frame);
        let marker = interner.named_frame(FrameKind::ABORT, None, 0, &"[x]".into());
        assert_eq!(interner.named_frame(FrameKind::ABORT, None, 0, &"[x]".into()), marker);
        let stack = interner.stack(&[frame, marker]).unwrap();
        assert_eq!(interner.stack(&[frame, marker]), Some(stack));
        assert_ne!(interner.stack(&[marker, frame]), Some(stack));
        assert_eq!(interner.stack_frames(stack), [frame, marker]);
    }

    #[test]
    fn window_has_an_end() {
        let mut interner = Interner::default();
        let mut taken = 0;
        while interner.stack(&[taken]).is_some() {
            taken += 1;
        }
        assert_eq!(taken as usize, MAX_STACKS * HARD);
        assert!(interner.is_over_limit());
        interner.clear();
        assert!(!interner.is_over_limit() && interner.stack(&[1]).is_some());
        assert_eq!(interner.generation(), 1);
    }

    #[test]
    fn names_that_are_not_text_stay_readable() {
        assert_eq!(comm_text(b"kworker/0:1\0\0\0\0\0"), "kworker/0:1");
        assert_eq!(comm_text(&[0xff; 16]), "\u{fffd}".repeat(16));
    }
}
