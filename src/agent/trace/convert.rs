//! One raw sample to numbers: who ran, which thread, which stack, when on the wall.
//!
//! A stack seen before costs a hash and a look-up. A new one asks the process for the mappings of its time, and the
//! kernel's symbol list for names.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::TraceCache;
use super::clock::WallClock;
use super::interner::{Interner, ResourceNumber, StackNumber, ThreadNumber, WideHash, comm_text};
use super::marks;
use crate::agent::bpf::{EndReason, RawTrace};
use crate::agent::host::Host;
use crate::agent::kernel_symbols::KernelNames;
use crate::agent::process::{
    Content, Description, Follower, Image, JitCounts, JitNames, Mapping, Name, base_name,
};
use crate::model::{FrameKind, Resource, SourceLine, UnixNanos};

/// Raw stacks that are remembered when nobody says.
const REMEMBERED_STACKS: usize = 32_768;

/// What code of no file is said to lie in.
const COMPILED_AT_RUN_TIME: &str = "[jit]";

/// Images have serials from 1; keys of processes without an image have this bit.
const NO_IMAGE: u64 = 1 << 63;

/// One sample in numbers of the interner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Process.
    pub(crate) resource: ResourceNumber,
    /// Stack.
    pub(crate) stack: StackNumber,
    /// Thread.
    pub(crate) thread: ThreadNumber,
    /// When.
    pub(crate) time: UnixNanos,
}

/// The window has no room for another distinct thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowFull;

/// Converts samples of one agent.
#[derive(Debug)]
pub(crate) struct Converter {
    interner: Interner,
    cache: TraceCache,
    names: KernelNames,
    jit: JitNames,
    jit_executable: Arc<str>,
    clock: WallClock,
    host: Host,
    others: Vec<(Arc<str>, Arc<str>)>,
    /// Whether a frame says why a stack is not whole.
    marks: bool,
    /// Frames by kernel address, as long as names do not change.
    kernel_frames: HashMap<u64, u32>,
    kernel_generation: (u32, u32),
    scratch: Vec<u32>,
    turn: usize,
    /// Ends in samples, by reason, that are no proper end.
    pub(crate) truncated: u64,
    /// Stacks that were in the cache.
    pub(crate) hits: u64,
}

impl Converter {
    /// A converter for samples of `host`, each of whose processes is reported with `others` as well.
    pub(crate) fn new(others: Vec<(Arc<str>, Arc<str>)>, host: Host, names: KernelNames) -> Self {
        Self {
            interner: Interner::default(),
            cache: TraceCache::new(REMEMBERED_STACKS),
            marks: true,
            names,
            jit: JitNames::default(),
            jit_executable: COMPILED_AT_RUN_TIME.into(),
            clock: WallClock::synced(),
            host,
            others,
            kernel_frames: HashMap::new(),
            kernel_generation: (0, 0),
            scratch: Vec::new(),
            turn: 0,
            truncated: 0,
            hits: 0,
        }
    }

    /// Remembers this many raw stacks, and says or does not say in a frame of its own why a stack is not whole.
    pub(crate) fn set_up(&mut self, remembered_stacks: usize, marks: bool) {
        self.cache = TraceCache::new(remembered_stacks);
        self.marks = marks;
    }

    /// The wall clock.
    pub(crate) fn clock(&mut self) -> &mut WallClock {
        &mut self.clock
    }

    /// Names of the kernel.
    pub(crate) fn names(&mut self) -> &mut KernelNames {
        &mut self.names
    }

    /// Counts of names of code compiled at run time.
    pub(crate) fn jit_counts(&self) -> JitCounts {
        self.jit.counts()
    }

    /// What the numbers mean.
    pub(crate) fn interner(&self) -> &Interner {
        &self.interner
    }

    /// Between two windows: forgets everything when there is too much of it, or when it is asked for.
    pub(crate) fn window_ended(&mut self, forget: bool) {
        self.jit.sweep();
        if forget || self.interner.is_over_limit() {
            self.interner.clear();
        }
    }

    /// Converts one sample. All events up to its time must be applied. `None` where it `may_wait` and better does, for
    /// names that a process will have written by then.
    ///
    /// # Errors
    /// When the window is full.
    pub(crate) fn convert(
        &mut self,
        raw: &RawTrace<'_>,
        processes: &mut Follower,
        may_wait: bool,
    ) -> Result<Option<Sample>, WindowFull> {
        let nowhere = processes.nowhere();
        let image = processes.image(raw.pid, raw.time_ns);
        let resource = self.resource(raw, image.as_deref(), nowhere).ok_or(WindowFull)?;
        let thread = self.interner.thread(raw.tid, raw.comm).ok_or(WindowFull)?;
        let time = self.clock.wall(raw.time_ns);
        self.note_use(raw, image.as_deref());
        if let Some(image) = image.as_deref() {
            self.jit.sampled(image);
        }
        let key = self.key(raw, image.as_deref());
        if let Some(key) = key
            && let Some(stack) = self.cache.get(key, self.interner.generation())
        {
            self.hits += 1;
            self.truncated += u64::from(!raw.end.is_whole());
            if let Some(Content::Executable(executable, _)) = missing_table(raw, image.as_deref()) {
                processes.want_table(&executable);
            }
            return Ok(Some(Sample { resource, stack, thread, time }));
        }
        let later = self.frames(raw, image.as_deref());
        if later && may_wait {
            return Ok(None);
        }
        self.truncated += u64::from(!raw.end.is_whole());
        let wanted = missing_table(raw, image.as_deref());
        let stack = self.interner.stack(&self.scratch).ok_or(WindowFull)?;
        if let Some(key) = key.filter(|_| !later) {
            self.cache.insert(key, stack);
        }
        if let Some(Content::Executable(executable, _)) = wanted {
            processes.want_table(&executable);
        }
        Ok(Some(Sample { resource, stack, thread, time }))
    }

    /// Key of the raw stack; `None` when what it means now may not be remembered.
    fn key(&self, raw: &RawTrace<'_>, image: Option<&Image>) -> Option<(u64, u64)> {
        let mut hash = WideHash::new();
        let (serial, generation) = match image {
            Some(image) => (image.serial, image.space.generation(raw.time_ns)?),
            None => (NO_IMAGE, 0),
        };
        hash.word(serial);
        hash.word(image.map_or(Some(0), |image| self.jit.generation(image, raw.time_ns))?);
        hash.word(u64::from(generation) << 32 | u64::from(self.names.generation()));
        hash.word((raw.kernel.len() as u64) << 48 | u64::from(raw.gap_at) << 16 | raw.end as u64);
        raw.kernel.iter().for_each(|address| hash.word(*address));
        raw.user.iter().for_each(|frame| hash.word(frame.0));
        Some(hash.finish())
    }

    /// Tells the files that the sample lies in: that of the leaf and that of one more frame, another one each time.
    fn note_use(&mut self, raw: &RawTrace<'_>, image: Option<&Image>) {
        let Some(image) = image else { return };
        self.turn = self.turn.wrapping_add(1);
        let other = self.turn % raw.user.len().max(1);
        for frame in [raw.user.first(), raw.user.get(other)].into_iter().flatten() {
            let mapping = image.space.find(frame.code_address(), raw.time_ns);
            if let Some(Content::Executable(executable, _)) = mapping.map(|mapping| &mapping.content) {
                executable.heat.touch();
            }
        }
    }

    /// Fills `scratch` with the frames of a new stack, leaf first. Says whether some may have a name later.
    fn frames(&mut self, raw: &RawTrace<'_>, image: Option<&Image>) -> bool {
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        for (index, address) in raw.kernel.iter().enumerate() {
            let address = address.saturating_sub(u64::from(index > 0));
            frames.push(self.kernel_frame(address, raw.time_ns));
        }
        let (mut last, mut later) = (None, false);
        for (index, frame) in raw.user.iter().enumerate() {
            if self.marks && index > 0 && index == raw.gap_at as usize {
                frames.push(self.interner.named_frame(FrameKind::ABORT, None, 0, &marks::at_gap()));
            }
            let address = frame.code_address();
            last = image.and_then(|image| image.space.find(address, raw.time_ns));
            let named = image.filter(|_| last.is_some_and(Mapping::is_nameless)).and_then(|image| {
                let name = self.jit.find(image, address, raw.time_ns);
                later |= matches!(name, Name::Later | Name::Outdated(_));
                self.jit_frame(name)
            });
            frames.push(named.unwrap_or_else(|| self.user_frame(address, last)));
        }
        // With a gap the outermost frames are there: nothing is missing at the root.
        let place = last.map(|mapping| &**mapping.name());
        // The kernel side knew no mapping where one is: the process has just begun or mapped it.
        let late = raw.end == EndReason::NoMapping && last.is_some();
        let end = if late { EndReason::UnknownProcess } else { raw.end };
        let whole = raw.end == EndReason::TooDeep && raw.gap_at > 0;
        if let Some(text) = marks::at_root(end, place).filter(|_| self.marks && !whole) {
            frames.push(self.interner.named_frame(FrameKind::ABORT, None, 0, &text));
        }
        self.scratch = frames;
        later
    }

    /// Code compiled at run time: its address means nothing beyond this process and moment, its name does.
    fn jit_frame(&mut self, name: Name) -> Option<u32> {
        let (Name::Known(found) | Name::Outdated(found)) = name else { return None };
        let executable = self.interner.executable(None, &self.jit_executable, &Arc::from(""));
        let line =
            SourceLine { function: found.name, file: found.file, line: found.line, ..SourceLine::default() };
        Some(self.interner.lined_frame(FrameKind::NATIVE, Some(executable), 0, line))
    }

    fn user_frame(&mut self, address: u64, mapping: Option<&Mapping>) -> u32 {
        match mapping.map(|mapping| &mapping.content) {
            Some(Content::Executable(executable, bias)) if !executable.is_stand_in => {
                let number = self.interner.executable(
                    Some(executable.file_id),
                    &executable.name,
                    &executable.build_id,
                );
                self.interner.bare_frame(FrameKind::NATIVE, Some(number), address.wrapping_sub(*bias))
            }
            _ => self.interner.bare_frame(FrameKind::NATIVE, None, address),
        }
    }

    fn kernel_frame(&mut self, address: u64, now_ns: u64) -> u32 {
        let generation = (self.names.generation(), self.interner.generation());
        if generation != self.kernel_generation {
            self.kernel_generation = generation;
            self.kernel_frames.clear();
        }
        if let Some(frame) = self.kernel_frames.get(&address) {
            return *frame;
        }
        let place = self.names.place(address, now_ns);
        let module = place
            .module
            .map(|module| self.interner.executable(module.file_id, &module.name, &module.build_id));
        let frame = match &place.function {
            Some(function) => self.interner.named_frame(FrameKind::KERNEL, module, place.address, function),
            None => self.interner.bare_frame(FrameKind::KERNEL, module, place.address),
        };
        self.kernel_frames.insert(address, frame);
        frame
    }

    fn resource(
        &mut self,
        raw: &RawTrace<'_>,
        image: Option<&Image>,
        nowhere: Arc<Description>,
    ) -> Option<ResourceNumber> {
        let path = image.map(|image| &image.executable_path).filter(|path| !path.is_empty());
        // Between exec and its first mapping the program is unknown; its name then must not stick.
        let key = image
            .map_or(NO_IMAGE | u64::from(raw.pid), |image| image.serial << 1 | u64::from(path.is_some()));
        let Self { interner, host, others, .. } = self;
        interner.resource(key, || {
            let description = image.and_then(|image| image.described.clone()).unwrap_or(nowhere);
            Resource {
                host_id: Arc::clone(&host.id),
                host_name: Arc::clone(&host.name),
                pid: raw.pid,
                executable_name: match (path, image) {
                    (Some(path), _) => base_name(std::path::Path::new(&**path)).into(),
                    (None, Some(image)) if image.comm[0] != 0 => comm_text(&image.comm).into(),
                    (None, _) => comm_text(&raw.comm).into(),
                },
                executable_path: path.map_or_else(|| Arc::from(""), Arc::clone),
                container_id: Arc::clone(&description.container_id),
                container_name: Arc::clone(&description.container_name),
                pod_name: Arc::clone(&description.pod_name),
                namespace_name: Arc::clone(&description.namespace),
                others: others.iter().chain(&description.attributes).cloned().collect(),
                ..Resource::default()
            }
        })
    }
}

/// What lies at the outermost frame where the walk ended for want of its table.
fn missing_table(raw: &RawTrace<'_>, image: Option<&Image>) -> Option<Content> {
    if !matches!(raw.end, EndReason::NoTable | EndReason::TableMoved) {
        return None;
    }
    let mapping = image?.space.find(raw.user.last()?.code_address(), raw.time_ns)?;
    Some(mapping.content.clone())
}

#[cfg(test)]
mod tests;
