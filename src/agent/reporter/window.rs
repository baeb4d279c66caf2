//! Samples of a few seconds, then one [`Batch`]. Pure.
//!
//! Holds numbers of the interner only: 24 bytes a sample, and no allocation once it has grown.

use crate::agent::trace::{Interner, ResourceNumber, Sample, StackNumber};
use crate::model::{Batch, ProfileInfo, SampleKind, UnixNanos};

/// Most samples of one window: 512 CPUs at 97 Hz for 5 s are 250,000; 24 MB.
const MAX_SAMPLES: usize = 1_000_000;
/// Room that is kept between windows; more is given back.
const KEPT_SAMPLES: usize = 65_536;

/// What was sampled since the last batch.
#[derive(Debug, Default)]
pub(crate) struct Window {
    samples: Vec<Sample>,
}

/// What all profiles of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Nanoseconds between two samples of one CPU.
    pub(crate) period_ns: u64,
    /// Start of the window.
    pub(crate) start: UnixNanos,
    /// End of the window.
    pub(crate) end: UnixNanos,
}

impl Window {
    /// Takes a sample. Says whether there was room.
    pub(crate) fn push(&mut self, sample: Sample) -> bool {
        let room = self.samples.len() < MAX_SAMPLES;
        if room {
            self.samples.push(sample);
        }
        room
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Everything as one batch, and an empty window.
    pub(crate) fn finish(&mut self, interner: &Interner, frame: Frame) -> Batch {
        self.samples
            .sort_unstable_by_key(|sample| (sample.resource, sample.stack, sample.thread, sample.time));
        let mut builder = Builder::new(interner, frame);
        builder.batch.times.reserve_exact(self.samples.len());
        for run in
            self.samples.chunk_by(|a, b| (a.resource, a.stack, a.thread) == (b.resource, b.stack, b.thread))
        {
            builder.add(run);
        }
        self.samples.clear();
        self.samples.shrink_to(KEPT_SAMPLES);
        builder.batch
    }
}

/// Numbers of the interner to numbers of the batch: what the window mentions, once each.
struct Builder<'i> {
    interner: &'i Interner,
    frame: Frame,
    batch: Batch,
    executables: Vec<u32>,
    frames: Vec<u32>,
    stacks: Vec<u32>,
    /// Resource of the last profile; runs are sorted by it.
    resource: Option<ResourceNumber>,
}

/// Not mentioned yet.
const UNSEEN: u32 = u32::MAX;

impl<'i> Builder<'i> {
    fn new(interner: &'i Interner, frame: Frame) -> Self {
        Self {
            interner,
            frame,
            batch: Batch::default(),
            executables: vec![UNSEEN; interner.executables().len()],
            frames: vec![UNSEEN; interner.frames().len()],
            stacks: vec![UNSEEN; interner.stack_count()],
            resource: None,
        }
    }

    /// Adds samples of one process, stack and thread.
    fn add(&mut self, run: &[Sample]) {
        let first = run[0];
        let profile = self.profile(first.resource);
        let stack = self.stack(first.stack);
        let (tid, name) = self.interner.thread_at(first.thread);
        let start = self.batch.times.len() as u32;
        self.batch.times.extend(run.iter().map(|sample| sample.time));
        self.batch.samples.push(crate::model::Sample {
            profile,
            stack,
            thread_name: name.clone(),
            tid: *tid,
            executable_name: None,
            times: start..self.batch.times.len() as u32,
            values: Vec::new(),
        });
    }

    fn profile(&mut self, resource: ResourceNumber) -> u32 {
        if self.resource != Some(resource) {
            self.resource = Some(resource);
            self.batch.profiles.push(ProfileInfo {
                resource: self.batch.resources.len() as u32,
                kind: SampleKind::OnCpu,
                period_ns: self.frame.period_ns,
                start: self.frame.start,
                duration_ns: self.frame.end.0.saturating_sub(self.frame.start.0),
            });
            self.batch.resources.push(self.interner.resource_at(resource).clone());
        }
        self.batch.profiles.len() as u32 - 1
    }

    fn stack(&mut self, stack: StackNumber) -> u32 {
        if self.stacks[stack.0 as usize] == UNSEEN {
            let start = self.batch.stack_frames.len() as u32;
            for frame in self.interner.stack_frames(stack) {
                let frame = self.frame(*frame);
                self.batch.stack_frames.push(frame);
            }
            self.stacks[stack.0 as usize] = self.batch.stacks.len() as u32;
            self.batch.stacks.push(start..self.batch.stack_frames.len() as u32);
        }
        self.stacks[stack.0 as usize]
    }

    fn frame(&mut self, frame: u32) -> u32 {
        if self.frames[frame as usize] == UNSEEN {
            let mut copy = self.interner.frames()[frame as usize].clone();
            copy.executable = copy.executable.map(|executable| self.executable(executable));
            self.frames[frame as usize] = self.batch.frames.len() as u32;
            self.batch.frames.push(copy);
        }
        self.frames[frame as usize]
    }

    fn executable(&mut self, executable: u32) -> u32 {
        if self.executables[executable as usize] == UNSEEN {
            self.executables[executable as usize] = self.batch.executables.len() as u32;
            self.batch.executables.push(self.interner.executables()[executable as usize].clone());
        }
        self.executables[executable as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::trace::ThreadNumber;
    use crate::model::{FileId, FrameKind, Resource};

    fn interner() -> Interner {
        let mut interner = Interner::default();
        let name: Arc<str> = "a.out".into();
        let unused = interner.executable(Some(FileId([1; 16])), &"unused".into(), &name);
        let used = interner.executable(Some(FileId([2; 16])), &name, &name);
        interner.bare_frame(FrameKind::NATIVE, Some(unused), 1);
        let leaf = interner.bare_frame(FrameKind::NATIVE, Some(used), 2);
        let root = interner.bare_frame(FrameKind::NATIVE, Some(used), 3);
        interner.stack(&[root]);
        interner.stack(&[leaf, root]);
        interner.thread(7, *b"main\0\0\0\0\0\0\0\0\0\0\0\0");
        for pid in [1, 2] {
            interner.resource(pid, || Resource { pid: pid as u32, ..Resource::default() });
        }
        interner
    }

    fn sample(resource: u32, stack: u32, time: u64) -> Sample {
        Sample {
            resource: ResourceNumber(resource),
            stack: StackNumber(stack),
            thread: ThreadNumber(0),
            time: UnixNanos(time),
        }
    }

    const FRAME: Frame = Frame { period_ns: 50_000_000, start: UnixNanos(100), end: UnixNanos(500) };

    #[test]
    fn batch_holds_what_was_sampled_and_nothing_else() {
        let interner = interner();
        let mut window = Window::default();
        for pushed in [sample(1, 1, 300), sample(0, 1, 200), sample(1, 1, 150)] {
            assert!(window.push(pushed));
        }
        let batch = window.finish(&interner, FRAME);
        assert!(batch.check());
        assert_eq!((batch.sample_count(), window.len()), (3, 0));
        assert_eq!(batch.executables.iter().map(|e| &*e.name).collect::<Vec<_>>(), ["a.out"]);
        assert_eq!(batch.stacks.len(), 1);
        assert_eq!(
            batch.stack(0).iter().map(|f| batch.frames[*f as usize].address).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!(batch.resources.iter().map(|r| r.pid).collect::<Vec<_>>(), [1, 2]);
        let times: Vec<_> = batch.samples.iter().map(|s| batch.times_of(s).to_vec()).collect();
        assert_eq!(times, [vec![UnixNanos(200)], vec![UnixNanos(150), UnixNanos(300)]]);
        assert_eq!((batch.profiles[0].duration_ns, batch.profiles[0].period_ns), (400, 50_000_000));
        assert_eq!((&*batch.samples[0].thread_name, batch.samples[0].tid), ("main", 7));
    }

    #[test]
    fn window_is_bounded() {
        let mut window = Window { samples: vec![sample(0, 0, 0); MAX_SAMPLES] };
        assert!(!window.push(sample(0, 0, 0)));
        assert_eq!(window.finish(&interner(), FRAME).sample_count(), MAX_SAMPLES as u64);
    }
}
