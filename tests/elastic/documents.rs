//! Documents as a fleet makes them: hosts, containers, pods, threads, stacks of a few sizes.

use everflame::model::{FileId, FrameId, FrameKind, SourceLine, UnixNanos, stack_id};
use everflame::store::Documents;
use everflame::store::document::{Event, EventResource, Executable, Host, StackFrame, StackTrace};

/// 2023-11-20T18:20:27Z.
pub(crate) const NOW: UnixNanos = UnixNanos(1_700_504_427_000_000_000);

/// A generator of numbers that is the same on every machine (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`, small ones more often: half of all draws fall into the first `limit`/8.
    pub(crate) fn skewed(&mut self, limit: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((limit as f64 * unit.powi(3)) as u64).min(limit - 1)
    }
}

fn file(number: u64) -> FileId {
    FileId::from_words(0x600d_cafe_4a11_0000 + number, 0xf2bf_38c4_93f5_fb92 ^ (number << 20))
}

fn stack(number: u64) -> StackTrace {
    let mut numbers = Numbers(number);
    // 8 to 71 frames, of libraries that many stacks share and of code that few do.
    let depth = 8 + numbers.next() % 64;
    let frames: Vec<(FrameId, FrameKind)> = (0..depth)
        .map(|level| {
            let (file, address) = if level < depth / 2 {
                (file(number % 7), 0x1000 + level * 0x40 + (number % 97) * 0x1_0000)
            } else {
                (file(8 + numbers.next() % 40), numbers.skewed(1 << 22))
            };
            let kind = if level + 4 >= depth && number.is_multiple_of(3) {
                FrameKind::KERNEL
            } else {
                FrameKind::NATIVE
            };
            (FrameId { file, address_or_line: address }, kind)
        })
        .collect();
    let id = stack_id(frames.iter().rev().map(|frame| frame.0));
    StackTrace { id, frames }
}

/// `events` samples of `hosts` hosts within ten minutes, and everything that a collector writes with them.
pub(crate) fn made(hosts: u64, events: u64) -> Documents {
    let mut numbers = Numbers(hosts);
    let mut documents = Documents::default();
    for host in 0..hosts {
        let id: std::sync::Arc<str> = format!("845760515647305{host:04}").into();
        let name: std::sync::Arc<str> = format!("node-{host}.example").into();
        documents.hosts.push(Host {
            id: id.clone(),
            name: name.clone(),
            facts: vec![
                ("host.arch".into(), "amd64".into()),
                ("cloud.provider".into(), "aws".into()),
                ("cloud.region".into(), "eu-west-1".into()),
                ("profiling.agent.config.present_cpu_cores".into(), "16".into()),
            ],
        });
        for process in 0..8 {
            let in_pod = process % 2 == 0;
            let text = |text: String| if in_pod { text.into() } else { "".into() };
            documents.resources.push(EventResource {
                host_id: id.clone(),
                host_name: name.clone(),
                executable_name: format!("program-{process}").into(),
                container_id: text(format!("{:064x}", host * 8 + process)),
                container_name: text(format!("container-{process}")),
                pod_name: text(format!("service-{process}-7d4b9c6f5-{host:05}")),
                namespace_name: text("production".into()),
                service_name: text(format!("service-{process}")),
                frequency_hz: 20,
            });
        }
    }
    let (resources, stacks) = (documents.resources.len() as u64, (events / 25).max(4));
    documents.stacktraces = (0..stacks).map(stack).collect();
    for _ in 0..events {
        let stack = numbers.skewed(stacks) as usize;
        let time = NOW.0 + (numbers.next() % 600_000) * 1_000_000;
        documents.events.push(Event {
            resource: (numbers.next() % resources) as u32,
            stack: documents.stacktraces[stack].id,
            thread_name: format!("worker-{}", numbers.skewed(12)).into(),
            pid: 1,
            tid: 1,
            times: vec![UnixNanos(time)],
        });
    }
    let mut frames: Vec<FrameId> =
        documents.stacktraces.iter().flat_map(|stack| &stack.frames).map(|frame| frame.0).collect();
    frames.sort_unstable();
    frames.dedup();
    documents.unnamed = frames.iter().copied().step_by(3).collect();
    documents.stackframes = frames
        .iter()
        .skip(1)
        .step_by(3)
        .map(|&id| {
            let line = |function: &str| SourceLine {
                function: format!("{function}_{:x}", id.address_or_line).into(),
                file: "src/worker/queue.rs".into(),
                line: 100 + (id.address_or_line % 900) as u32,
                ..SourceLine::default()
            };
            // Two in ten places are inlined into another function.
            let lines = if id.address_or_line % 5 == 0 {
                vec![line("outer"), line("inner")]
            } else {
                vec![line("named")]
            };
            StackFrame { id, lines }
        })
        .collect();
    let mut files: Vec<FileId> = frames.iter().map(|frame| frame.file).collect();
    files.dedup();
    documents.executables = files
        .iter()
        .map(|&id| Executable {
            id,
            name: format!("lib-{}.so", id.words().0 & 0xff).into(),
            gnu_build_id: "".into(),
        })
        .collect();
    documents.unnamed_files = files;
    documents
}
