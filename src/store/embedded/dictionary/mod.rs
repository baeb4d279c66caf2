//! Everything that samples point to by number: resources, thread names, frames, the call-path trie, stacks.
//!
//! Held in memory as arrays with a hash index (about 30 bytes a stack, 20 a node, 40 a frame), persisted as append-only
//! logs in redb (`logs`). Values that were numbered by a batch whose commit failed stay and go with the next commit.
//! Only the ingest thread adds; everybody reads.

mod interner;
pub(super) mod logs;

use std::collections::HashMap;
use std::sync::Arc;

pub(super) use interner::Interner;

use crate::model::hash::Fnv128;
use crate::model::{FileId, FrameId, FrameKind, StackId};
use crate::store::document::{EventResource, Executable, StackTrace};

/// Node number of the root of the trie.
pub(super) const ROOT: u32 = 0;

/// All dictionaries of a store.
#[derive(Debug)]
pub(super) struct Dictionaries {
    /// Resources.
    pub(super) resources: Interner<EventResource>,
    /// Thread names.
    pub(super) threads: Interner<Arc<str>>,
    /// Frames with their kind.
    pub(super) frames: Interner<(FrameId, FrameKind)>,
    /// Trie: (parent, frame) of each node; node 0 is the root, a parent comes before its children.
    pub(super) nodes: Interner<(u32, u32)>,
    /// Whether the path to a node starts with code instead of a marker.
    node_complete: Vec<bool>,
    /// Stacks.
    pub(super) stacks: Interner<StackId>,
    /// Leaf node of each stack; [`ROOT`] while its frames are unknown.
    pub(super) stack_node: Vec<u32>,
    /// One bit per stack: whether it is complete.
    complete: Vec<u64>,
    /// Stacks that got their frames after they were numbered, not yet persisted.
    pub(super) late: Vec<u32>,
    /// Executables.
    pub(super) executables: HashMap<FileId, Executable>,
}

impl Default for Dictionaries {
    fn default() -> Self {
        let mut nodes = Interner::default();
        nodes.push((ROOT, u32::MAX));
        Self {
            resources: Interner::default(),
            threads: Interner::default(),
            frames: Interner::default(),
            nodes,
            node_complete: vec![false],
            stacks: Interner::default(),
            stack_node: Vec::new(),
            complete: Vec::new(),
            late: Vec::new(),
            executables: HashMap::new(),
        }
    }
}

impl Dictionaries {
    /// Numbers a call stack and its path.
    pub(super) fn intern_stack(&mut self, trace: &StackTrace) {
        let (stack, new) = self.stacks.intern(&trace.id);
        if !new && self.stack_node[stack as usize] != ROOT {
            return;
        }
        let mut node = ROOT;
        for frame in &trace.frames {
            let (frame, _) = self.frames.intern(frame);
            node = self.intern_node(node, frame);
        }
        if new {
            self.push_stack(node);
        } else if node != ROOT {
            self.set_late(stack, node);
            self.late.push(stack);
        }
    }

    fn intern_node(&mut self, parent: u32, frame: u32) -> u32 {
        let (node, new) = self.nodes.intern(&(parent, frame));
        if new {
            let complete = self.is_complete_below(parent, frame);
            self.node_complete.push(complete);
        }
        node
    }

    fn is_complete_below(&self, parent: u32, frame: u32) -> bool {
        if parent == ROOT {
            self.frames.values().get(frame as usize).is_some_and(|(_, kind)| !kind.is_error())
        } else {
            self.node_complete[parent as usize]
        }
    }

    /// Number of a stack that an event points to, known or not.
    pub(super) fn intern_stack_id(&mut self, id: StackId) -> u32 {
        let (stack, new) = self.stacks.intern(&id);
        if new {
            self.push_stack(ROOT);
        }
        stack
    }

    fn push_stack(&mut self, node: u32) {
        let stack = self.stack_node.len();
        self.stack_node.push(node);
        if stack.is_multiple_of(64) {
            self.complete.push(0);
        }
        if self.node_complete[node as usize] {
            self.complete[stack / 64] |= 1 << (stack % 64);
        }
    }

    /// Gives a stack its frames after the fact.
    fn set_late(&mut self, stack: u32, node: u32) {
        let stack = stack as usize;
        self.stack_node[stack] = node;
        let bit = u64::from(self.node_complete[node as usize]) << (stack % 64);
        self.complete[stack / 64] = self.complete[stack / 64] & !(1 << (stack % 64)) | bit;
    }

    /// Which stacks are complete, as of now.
    pub(super) fn complete(&self) -> CompleteStacks {
        CompleteStacks(self.complete.clone())
    }

    /// Appends a node from disk; `None` when it points ahead.
    pub(super) fn load_node(&mut self, parent: u32, frame: u32) -> Option<()> {
        if parent as usize >= self.nodes.len() || frame as usize >= self.frames.len() {
            return None;
        }
        let complete = self.is_complete_below(parent, frame);
        self.nodes.push((parent, frame));
        self.node_complete.push(complete);
        Some(())
    }

    /// Appends a stack from disk; `None` when its node is unknown.
    pub(super) fn load_stack(&mut self, id: StackId, node: u32) -> Option<()> {
        if node as usize >= self.nodes.len() {
            return None;
        }
        self.stacks.push(id);
        self.push_stack(node);
        Some(())
    }

    /// Replaces what is lost: values without a meaning, so that everything that points to them can be kept.
    pub(super) fn fill_up(&mut self, resources: usize, threads: usize, stacks: usize) {
        while self.resources.len() < resources {
            self.resources.push(EventResource::default());
        }
        while self.threads.len() < threads {
            self.threads.push("".into());
        }
        while self.stacks.len() < stacks {
            let mut hash = Fnv128::default();
            hash.write(b"lost stack");
            hash.write_decimal(self.stacks.len() as u64);
            self.stacks.push(StackId(hash.finish()));
            self.push_stack(ROOT);
        }
    }

    /// Changes the node of a loaded stack; `None` when either is unknown.
    fn load_late(&mut self, stack: u32, node: u32) -> Option<()> {
        if node as usize >= self.nodes.len() || stack as usize >= self.stack_node.len() {
            return None;
        }
        self.set_late(stack, node);
        Some(())
    }
}

/// One bit per stack: whether its outermost frame is code and not a marker.
#[derive(Clone, Debug, Default)]
pub(super) struct CompleteStacks(Vec<u64>);

impl CompleteStacks {
    /// Whether stack `number` is complete; unknown numbers are not.
    #[inline]
    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(address: u64, kind: FrameKind) -> (FrameId, FrameKind) {
        (FrameId { file: FileId([1; 16]), address_or_line: address }, kind)
    }

    fn trace(id: u8, addresses: &[u64]) -> StackTrace {
        StackTrace {
            id: StackId([id; 16]),
            frames: addresses
                .iter()
                .map(|a| frame(*a, if *a == 0 { FrameKind::ABORT } else { FrameKind::NATIVE }))
                .collect(),
        }
    }

    #[test]
    fn stacks_share_their_paths() {
        let mut d = Dictionaries::default();
        d.intern_stack(&trace(1, &[1, 2, 3]));
        d.intern_stack(&trace(2, &[1, 2, 4]));
        d.intern_stack(&trace(1, &[1, 2, 3]));
        assert_eq!((d.stacks.len(), d.nodes.len(), d.frames.len()), (2, 5, 4));
        assert!(d.nodes.values().iter().enumerate().skip(1).all(|(i, (parent, _))| (*parent as usize) < i));
    }

    #[test]
    fn a_marker_at_the_root_makes_a_stack_incomplete() {
        let mut d = Dictionaries::default();
        d.intern_stack(&trace(1, &[1, 2]));
        d.intern_stack(&trace(2, &[0, 2]));
        d.intern_stack(&trace(3, &[1, 0]));
        let complete = d.complete();
        assert_eq!([0, 1, 2, 3].map(|s| complete.contains(s)), [true, false, true, false]);
    }

    #[test]
    fn frames_may_come_after_the_first_event() {
        let mut d = Dictionaries::default();
        let stack = d.intern_stack_id(StackId([7; 16]));
        assert!(!d.complete().contains(stack));
        d.intern_stack(&trace(7, &[5, 6]));
        assert_eq!(d.intern_stack_id(StackId([7; 16])), stack);
        assert!(d.complete().contains(stack));
        assert_eq!(d.late, [stack]);
    }
}
