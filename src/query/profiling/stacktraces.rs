//! The building blocks: stack traces, frames and executables by their identities.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cost::Annual;
use super::scene::Scene;
use crate::store::document::encode;

/// One stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackTrace {
    /// Indices in [`Scene::frames`], root first.
    pub frames: Vec<u32>,
    /// What its events cost a year.
    pub annual: Annual,
    /// Its events.
    pub events: u64,
}

/// All stacks of a scene.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackTraces {
    /// Stacks by the text of their identity.
    pub stacks: BTreeMap<String, StackTrace>,
    /// Names of executables by the text of their file identity.
    pub executables: BTreeMap<String, Arc<str>>,
    /// Frames of all stacks, and functions inlined into them.
    pub total_frames: u64,
}

/// Sorts events by stack.
#[must_use]
pub fn collect(scene: &Scene) -> StackTraces {
    let mut found = StackTraces::default();
    for sample in &scene.samples {
        let stack = found.stacks.entry(encode::stack_id(sample.stack)).or_insert_with(|| {
            let inlined = |frame: &u32| scene.frames[*frame as usize].lines.len() as u64;
            found.total_frames += sample.frames.iter().map(inlined).sum::<u64>();
            StackTrace { frames: sample.frames.clone(), ..StackTrace::default() }
        });
        stack.events += sample.events;
        stack.annual += sample.annual;
        for frame in sample.frames.iter().map(|frame| &scene.frames[*frame as usize]) {
            if !frame.executable.is_empty() && !found.executables.contains_key(&frame.file_id) {
                found.executables.insert(frame.file_id.clone(), frame.executable.clone());
            }
        }
    }
    found
}
