//! Which function each frame of a stack tree is: names, inlined functions, and one identity per function.
//!
//! Two frames are the same function when kind, library and name agree; a frame without a name is its own function,
//! identified by file and address.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::model::hash::Fnv128;
use crate::model::{FrameId, FrameKind, UnknownReason};
use crate::store::{FrameDetail, StackTrie};

/// What a node of the drawn tree is: the runtime code of the documents, or one of ours beyond 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKind(pub u16);

impl NodeKind {
    /// A marker instead of code: why a stack is incomplete.
    pub const MARKER: Self = Self(128);
    /// The root: everything.
    pub const ROOT: Self = Self(256);
    /// The first level: a value of the grouping field.
    pub const GROUP: Self = Self(257);

    fn of(kind: FrameKind) -> Self {
        if kind.is_error() { Self::MARKER } else { Self(u16::from(kind.0)) }
    }
}

/// Stable identity of a function across queries: 64 bits of a hash over kind, library and name.
///
/// A million functions collide with a probability of 3 × 10⁻⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionKey(pub u64);

impl FunctionKey {
    fn new(kind: NodeKind, parts: [&[u8]; 2]) -> Self {
        let mut hash = Fnv128::default();
        hash.write(&kind.0.to_be_bytes());
        for part in parts {
            hash.write(&(part.len() as u64).to_be_bytes());
            hash.write(part);
        }
        let all = u128::from_be_bytes(hash.finish());
        Self((all >> 64) as u64 ^ all as u64)
    }

    /// Parses 16 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One function as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name, or `library+0xaddress` without one.
    pub name: Arc<str>,
    /// Base name of the executable; empty when there is none.
    pub library: Arc<str>,
    /// Source file where known; the first by name where its frames know several (inlined and generic code has them).
    pub file: Arc<str>,
    /// Runtime, marker, root or group.
    pub kind: NodeKind,
    /// Why there is no name.
    pub reason: Option<UnknownReason>,
    /// Identity.
    pub key: FunctionKey,
}

/// One function at a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Index of the function.
    pub(super) function: u32,
    /// Line of the call or sample; 0 when unknown.
    pub(super) line: u32,
    /// Whether the function was inlined here.
    pub(super) inlined: bool,
}

/// The functions of all frames of a tree that were asked for.
#[derive(Clone, Debug, Default)]
pub struct FunctionNames {
    functions: Vec<Function>,
    by_key: HashMap<u64, u32, BuildHasherDefault<HashedKey>>,
    /// Functions of all frames, outermost first within each.
    links: Vec<Link>,
    /// Range in `links` of each frame of the tree; empty for frames not asked for.
    ranges: Vec<(u32, u32)>,
}

impl FunctionNames {
    /// Joins the frames `asked` (indices in `trie.frames`) with their details, in the same order.
    /// Details that are missing at the end count as not looked up.
    #[must_use]
    pub fn new(trie: &StackTrie, asked: &[u32], details: &[FrameDetail]) -> Self {
        let mut names = Self { ranges: vec![(0, 0); trie.frames.len()], ..Self::default() };
        let unknown = FrameDetail::default();
        for (i, &frame) in asked.iter().enumerate() {
            let (id, kind) = trie.frames[frame as usize];
            let start = names.links.len() as u32;
            names.link(id, kind, details.get(i).unwrap_or(&unknown));
            names.ranges[frame as usize] = (start, names.links.len() as u32);
        }
        names
    }

    /// All functions; links and trees hold indices of this list.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Index of the function with this key.
    #[must_use]
    pub fn find(&self, key: FunctionKey) -> Option<u32> {
        self.by_key.get(&key.0).copied()
    }

    /// Functions at one frame of the tree, outermost first; never empty for a frame asked for.
    pub(super) fn links(&self, frame: u32) -> &[Link] {
        let (start, end) = self.ranges[frame as usize];
        &self.links[start as usize..end as usize]
    }

    /// Adds the function of a group or the root.
    pub(super) fn add_level(&mut self, kind: NodeKind, name: &Arc<str>) -> u32 {
        let key = FunctionKey::new(kind, [b"", name.as_bytes()]);
        self.intern(key, || Function {
            name: name.clone(),
            library: "".into(),
            file: "".into(),
            kind,
            reason: None,
            key,
        })
    }

    fn link(&mut self, id: FrameId, kind: FrameKind, detail: &FrameDetail) {
        let node_kind = NodeKind::of(kind);
        let before = self.links.len();
        for line in detail.lines.iter().filter(|line| !line.function.is_empty()) {
            let key = FunctionKey::new(node_kind, [detail.library.as_bytes(), line.function.as_bytes()]);
            let function = self.intern(key, || Function {
                name: line.function.clone(),
                library: detail.library.clone(),
                file: line.file.clone(),
                kind: node_kind,
                reason: None,
                key,
            });
            let file = &mut self.functions[function as usize].file;
            if !line.file.is_empty() && (file.is_empty() || line.file < *file) {
                file.clone_from(&line.file);
            }
            self.links.push(Link { function, line: line.line, inlined: self.links.len() > before });
        }
        if self.links.len() > before {
            return;
        }
        let key = FunctionKey::new(node_kind, [&id.file.0, &id.address_or_line.to_be_bytes()]);
        // A name that is empty by the source's own word has a place, so keep its line and file.
        let line = detail.lines.first();
        let function = self.intern(key, || Function {
            name: placeholder(id, kind, &detail.library),
            library: detail.library.clone(),
            file: line.map(|l| l.file.clone()).unwrap_or_default(),
            kind: node_kind,
            reason: detail.reason.clone().or((!kind.is_error()).then_some(UnknownReason::Pending)),
            key,
        });
        self.links.push(Link { function, line: line.map_or(0, |l| l.line), inlined: false });
    }

    fn intern(&mut self, key: FunctionKey, function: impl FnOnce() -> Function) -> u32 {
        *self.by_key.entry(key.0).or_insert_with(|| {
            self.functions.push(function());
            self.functions.len() as u32 - 1
        })
    }
}

/// What stands in for a name: `libfoo.so+0x1234`, or the start of the file ID where the file has no name.
fn placeholder(id: FrameId, kind: FrameKind, library: &str) -> Arc<str> {
    let address = id.address_or_line;
    if kind.is_error() {
        return if address == 0 {
            "[incomplete stack]".into()
        } else {
            format!("[incomplete stack: error {address}]").into()
        };
    }
    if !library.is_empty() {
        return format!("{library}+{address:#x}").into();
    }
    if id.file.is_zero() {
        return format!("[{}]+{address:#x}", kind.otlp_name()).into();
    }
    let (high, _) = id.file.words();
    format!("[{:08x}]+{address:#x}", high >> 32).into()
}

/// Passes 64 bits that are a hash already through to the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HashedKey(u64);

impl Hasher for HashedKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileId, SourceLine};

    fn line(function: &str, line: u32) -> SourceLine {
        SourceLine { function: function.into(), file: "a.c".into(), line, column: 0 }
    }

    fn frame(file: u64, address: u64, kind: FrameKind) -> (FrameId, FrameKind) {
        (FrameId { file: FileId::from_words(file, file), address_or_line: address }, kind)
    }

    #[test]
    fn addresses_of_one_function_are_one_function_and_inlines_follow_it() {
        let trie = StackTrie {
            parent: vec![0],
            frame: vec![0],
            frames: vec![frame(1, 0x10, FrameKind::NATIVE), frame(1, 0x20, FrameKind::NATIVE)],
        };
        let detail = |lines: Vec<SourceLine>| FrameDetail { library: "libz.so".into(), lines, reason: None };
        let details = [detail(vec![line("deflate", 7)]), detail(vec![line("deflate", 9), line("crc32", 3)])];
        let names = FunctionNames::new(&trie, &[0, 1], &details);
        let deflate = names.links(0)[0].function;
        assert_eq!(names.links(1)[0], Link { function: deflate, line: 9, inlined: false });
        assert!(names.links(1)[1].inlined);
        assert_eq!(names.functions().len(), 2);
        assert_eq!(names.find(names.functions()[0].key), Some(0));
    }

    #[test]
    fn a_frame_without_a_name_is_library_and_address_with_the_reason() {
        let kinds = [FrameKind::NATIVE, FrameKind::NATIVE, FrameKind::ABORT, FrameKind::PYTHON];
        let mut frames: Vec<_> =
            kinds.iter().map(|kind| frame(0xaabb_ccdd_0000_0000, 0x1234, *kind)).collect();
        frames[3].0.file = FileId::default();
        let trie = StackTrie { parent: vec![0], frame: vec![0], frames };
        let named = |library: &str, reason| FrameDetail { library: library.into(), lines: vec![], reason };
        let details = [named("libfoo.so", Some(UnknownReason::NoSymbols)), named("", None), named("", None)];
        let names = FunctionNames::new(&trie, &[0, 1, 2, 3], &details);
        let seen: Vec<_> = names.functions().iter().map(|f| (&*f.name, f.kind.0, f.reason.clone())).collect();
        // The second frame has the same file and address: the same function, named once.
        assert_eq!(
            seen,
            [
                ("libfoo.so+0x1234", 3, Some(UnknownReason::NoSymbols)),
                ("[incomplete stack: error 4660]", 128, None),
                ("[cpython]+0x1234", 1, Some(UnknownReason::Pending)),
            ]
        );
    }

    #[test]
    fn keys_survive_their_text_form() {
        let key = FunctionKey::new(NodeKind(3), [b"libz.so", b"deflate"]);
        assert_eq!(FunctionKey::parse(&key.to_string()), Some(key));
        assert_ne!(key, FunctionKey::new(NodeKind(3), [b"libz.sod", b"eflate"]));
        for text in ["", "12", "00000000000000zz", "+000000000000000"] {
            assert_eq!(FunctionKey::parse(text), None, "{text}");
        }
    }
}
