//! The flame graph as parallel columns: root, executables, threads, then frames with their inlined functions.

use std::collections::HashMap;
use std::sync::Arc;

use super::cost::Annual;
use super::identity::{self, Part};
use super::scene::{Frame, Line, Scene};
use crate::query::{Cancel, Result};

/// Node kind of the root.
pub const ROOT: u16 = 0x100;
/// Node kind of an executable.
pub const EXECUTABLE: u16 = 0x101;
/// Node kind of a thread.
pub const THREAD: u16 = 0x102;
/// Runtime code of the kernel.
const KERNEL: u8 = 4;

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Numbers of its children.
    pub children: Vec<u32>,
    /// Text of the file's identity.
    pub file_id: String,
    /// Runtime, or one of the levels above the frames.
    pub kind: u16,
    /// Whether the function is inlined into its parent.
    pub is_inlined: bool,
    /// Executable, or name of the level.
    pub executable: Arc<str>,
    /// Low 32 bits of the address, signed.
    pub address_or_line: i32,
    /// Function, empty when unknown.
    pub function: Arc<str>,
    /// Source file.
    pub source: Arc<str>,
    /// Line in it.
    pub line: u32,
    /// Events that pass through.
    pub inclusive: u64,
    /// Events that end here.
    pub exclusive: u64,
    /// What passes through costs.
    pub inclusive_annual: Annual,
    /// What ends here costs.
    pub exclusive_annual: Annual,
}

impl Node {
    fn level(kind: u16, name: &Arc<str>) -> Self {
        Self { kind, executable: name.clone(), ..Self::default() }
    }

    fn frame(frame: &Frame, line: &Line, is_inlined: bool) -> Self {
        Self {
            file_id: frame.file_id.clone(),
            kind: u16::from(frame.kind.0),
            is_inlined,
            executable: frame.executable.clone(),
            address_or_line: frame.address_or_line,
            function: line.function.clone(),
            source: line.file.clone(),
            line: line.number,
            ..Self::default()
        }
    }
}

/// Nodes in the order in which they are first met; node 0 is the root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// All nodes.
    pub nodes: Vec<Node>,
}

/// Builds the graph of a scene.
pub fn draw(scene: &Scene, cancel: &Cancel) -> Result<Graph> {
    let mut builder = Builder { nodes: vec![Node::level(ROOT, &"".into())], children: HashMap::new() };
    let kernel: Arc<str> = "kernel".into();
    for (i, sample) in scene.samples.iter().enumerate() {
        cancel.check_every(i)?;
        let key = &scene.keys[sample.key];
        let starts_in_kernel =
            sample.frames.first().is_some_and(|root| scene.frames[*root as usize].kind.0 == KERNEL);
        let executable =
            if key.executable.is_empty() && starts_in_kernel { &kernel } else { &key.executable };
        let mut at = builder.pass(0, sample.events, sample.annual);
        for (kind, name) in [(EXECUTABLE, executable), (THREAD, &key.thread)] {
            let id = identity::hash(&[Part::Text(name), Part::Number(i32::from(kind))]);
            at = builder.child(at, id, || Node::level(kind, name));
            builder.pass(at, sample.events, sample.annual);
        }
        for frame in sample.frames.iter().map(|frame| &scene.frames[*frame as usize]) {
            for (depth, line) in frame.lines.iter().enumerate() {
                at = builder.child(at, line.id, || Node::frame(frame, line, depth > 0));
                builder.pass(at, sample.events, sample.annual);
            }
        }
        let leaf = &mut builder.nodes[at as usize];
        leaf.exclusive += sample.events;
        leaf.exclusive_annual += sample.annual;
    }
    Ok(Graph { nodes: builder.nodes })
}

struct Builder {
    nodes: Vec<Node>,
    /// Child of a node by its identity.
    children: HashMap<(u32, i32), u32>,
}

impl Builder {
    fn pass(&mut self, node: u32, events: u64, annual: Annual) -> u32 {
        let passed = &mut self.nodes[node as usize];
        passed.inclusive += events;
        passed.inclusive_annual += annual;
        node
    }

    fn child(&mut self, parent: u32, id: i32, node: impl FnOnce() -> Node) -> u32 {
        let nodes = &mut self.nodes;
        *self.children.entry((parent, id)).or_insert_with(|| {
            let number = nodes.len() as u32;
            nodes[parent as usize].children.push(number);
            nodes.push(node());
            number
        })
    }
}
