//! Call paths of stacks, remembered: a stack trace never changes, and most questions are about the same ones.
//!
//! One trie for all stacks seen holds each path once. When it has grown beyond its bound it is replaced by an empty one;
//! questions under way keep the one they began with.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::Inner;
use super::documents;
use crate::model::{FrameId, FrameKind, StackId};
use crate::store::document::encode;
use crate::store::elastic::Generation;
use crate::store::{Error, Result, StackTrie};

/// Nodes of a trie that is given up for a new one: 2 M × about 40 bytes.
const MAX_NODES: usize = 2_000_000;
/// Nodes of one question beyond which it is refused: 16 M × about 40 bytes.
const MAX_NODES_ASKED: usize = 16_000_000;
/// Stack traces of one request: about 1.5 kB each.
const BATCH: usize = 1000;
/// The root of every trie.
const ROOT: u32 = 0;

/// Stacks and their paths.
#[derive(Debug)]
pub(super) struct Paths {
    parent: Vec<u32>,
    frame: Vec<u32>,
    frames: Vec<(FrameId, FrameKind)>,
    children: HashMap<(u32, u32), u32>,
    frame_numbers: HashMap<(FrameId, FrameKind), u32>,
    leaves: HashMap<StackId, u32>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            parent: vec![ROOT],
            frame: vec![0],
            frames: Vec::new(),
            children: HashMap::new(),
            frame_numbers: HashMap::new(),
            leaves: HashMap::new(),
        }
    }
}

impl Paths {
    fn insert(&mut self, id: StackId, frames: Vec<(FrameId, FrameKind)>) {
        let mut node = ROOT;
        for frame in frames {
            let number = *self.frame_numbers.entry(frame).or_insert_with(|| {
                self.frames.push(frame);
                self.frames.len() as u32 - 1
            });
            node = *self.children.entry((node, number)).or_insert_with(|| {
                self.parent.push(node);
                self.frame.push(number);
                self.parent.len() as u32 - 1
            });
        }
        self.leaves.insert(id, node);
    }

    /// The part of the trie above some stacks, and the node of each of them. Stacks that are not known end at the root.
    fn cut(&self, stacks: &[StackId]) -> (StackTrie, Vec<u32>) {
        let leaves: Vec<u32> = stacks.iter().map(|id| self.leaves.get(id).copied().unwrap_or(ROOT)).collect();
        let mut new_number = vec![u32::MAX; self.parent.len()];
        new_number[ROOT as usize] = 0;
        for &leaf in &leaves {
            let mut node = leaf as usize;
            while new_number[node] == u32::MAX {
                new_number[node] = 0;
                node = self.parent[node] as usize;
            }
        }
        let mut trie = StackTrie { parent: vec![0], frame: vec![0], frames: Vec::new() };
        let mut new_frame = vec![u32::MAX; self.frames.len()];
        for node in 1..self.parent.len() {
            if new_number[node] == u32::MAX {
                continue;
            }
            new_number[node] = trie.parent.len() as u32;
            // A parent has the smaller number, so it has its new one already.
            trie.parent.push(new_number[self.parent[node] as usize]);
            let frame = self.frame[node] as usize;
            if new_frame[frame] == u32::MAX {
                new_frame[frame] = trie.frames.len() as u32;
                trie.frames.push(self.frames[frame]);
            }
            trie.frame.push(new_frame[frame]);
        }
        let leaves = leaves.into_iter().map(|leaf| new_number[leaf as usize]).collect();
        (trie, leaves)
    }

    /// Whether a stack starts with code: its root frame is no marker, and it is known.
    fn is_complete(&self, id: &StackId) -> bool {
        let Some(&leaf) = self.leaves.get(id).filter(|leaf| **leaf != ROOT) else { return false };
        let mut node = leaf as usize;
        while self.parent[node] != ROOT {
            node = self.parent[node] as usize;
        }
        !self.frames[self.frame[node] as usize].1.is_error()
    }
}

/// The paths that all questions share.
#[derive(Debug, Default)]
pub(super) struct PathCache(Mutex<Arc<Mutex<Paths>>>);

/// Fetches what is not known yet of these stacks.
async fn known(inner: &Inner, generation: Generation, stacks: &[StackId]) -> Result<Arc<Mutex<Paths>>> {
    let paths = inner.paths.0.lock().clone();
    let unknown: Vec<String> = {
        let paths = paths.lock();
        stacks.iter().filter(|id| !paths.leaves.contains_key(id)).map(|id| encode::stack_id(*id)).collect()
    };
    // Documents that are not there are asked for again next time: an event may be searchable before its stack is.
    let mut nodes = 0;
    let keep = |id: &str, source: &Value| {
        if let Some(frames) = documents::stack_trace(source) {
            let mut paths = paths.lock();
            if paths.parent.len() < MAX_NODES_ASKED {
                paths.insert(documents::stack_id(id), frames);
            }
            nodes = paths.parent.len();
        }
    };
    inner.tables.fetch(&inner.ask, generation.names().stacktraces, unknown, BATCH, keep).await?;
    if nodes > MAX_NODES {
        let mut current = inner.paths.0.lock();
        if Arc::ptr_eq(&current, &paths) {
            *current = Arc::default();
        }
    }
    if nodes >= MAX_NODES_ASKED {
        let what = "call paths of this range".into();
        return Err(Error::TooMuch { what, limit: MAX_NODES_ASKED as u64 });
    }
    Ok(paths)
}

/// Call paths of some stacks as a trie, and the node where each of them ends.
pub(super) async fn trie(
    inner: &Inner,
    generation: Generation,
    stacks: &[StackId],
) -> Result<(StackTrie, Vec<u32>)> {
    let paths = known(inner, generation, stacks).await?;
    let paths = paths.lock();
    Ok(paths.cut(stacks))
}

/// Samples whose stack starts with code.
pub(super) async fn complete(
    inner: &Inner,
    generation: Generation,
    counts: &HashMap<StackId, u64>,
) -> Result<u64> {
    let stacks: Vec<StackId> = counts.keys().copied().collect();
    let paths = known(inner, generation, &stacks).await?;
    let paths = paths.lock();
    Ok(counts.iter().filter(|(id, _)| paths.is_complete(id)).map(|(_, samples)| samples).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FileId;

    fn frame(address: u64, kind: FrameKind) -> (FrameId, FrameKind) {
        (FrameId { file: FileId::from_words(1, 1), address_or_line: address }, kind)
    }

    #[test]
    fn the_part_above_the_stacks_is_cut_out_with_parents_first() {
        let mut paths = Paths::default();
        let native = |address| frame(address, FrameKind::NATIVE);
        let id = |n: u8| StackId([n; 16]);
        paths.insert(id(1), vec![native(1), native(2), native(3)]);
        paths.insert(id(2), vec![native(1), native(4)]);
        paths.insert(id(3), vec![frame(0, FrameKind::ABORT), native(4)]);
        let (trie, leaves) = paths.cut(&[id(3), id(2), id(9), id(2)]);
        assert_eq!(trie.parent, [0, 0, 1, 0, 3]);
        assert_eq!(leaves, [4, 2, 0, 2]);
        let path = |mut node: u32| {
            let mut path = Vec::new();
            while node != 0 {
                path.push(trie.frames[trie.frame[node as usize] as usize].0.address_or_line);
                node = trie.parent[node as usize];
            }
            path
        };
        assert_eq!((path(4), path(2)), (vec![4, 0], vec![4, 1]));
        assert!(paths.is_complete(&id(1)) && !paths.is_complete(&id(3)) && !paths.is_complete(&id(9)));
    }
}
