//! The agent inside this process, and what it says of the programs that rows watch.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use everflame::agent::reporter::{ReportError, Sink};
use everflame::agent::{Agent, AgentHandle, AgentStatus, Error, Settings};
use everflame::model::{Batch, FileId, FrameKind, UnixNanos};
use everflame::net::Shutdown;
use parking_lot::Mutex;

/// One frame as recorded, without names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Recorded {
    /// Code of a file: identity, name of the file, address in it.
    Code(FileId, Arc<str>, u64),
    /// Code of no file that is known.
    Bare(u64),
    /// The sentence of a marker.
    Marker(Arc<str>),
}

/// Recorded stacks of one row, leaf first, without kernel frames, with the number of samples of each.
pub(crate) type Stacks = HashMap<Vec<Recorded>, u64>;

/// Whose samples belong to a row.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Executables.
    pub(crate) paths: HashSet<PathBuf>,
    /// Name that a process has before anybody knows its executable.
    pub(crate) comm: String,
    /// Samples before this are somebody else's.
    pub(crate) from: UnixNanos,
}

#[derive(Debug, Default)]
struct Watched {
    watches: HashMap<u64, (Watch, Stacks)>,
    next: u64,
    /// Start of the newest window that came in.
    newest: UnixNanos,
}

#[derive(Debug, Default)]
struct Receiver(Mutex<Watched>);

#[async_trait]
impl Sink for Receiver {
    async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
        assert!(batch.check(), "agents build valid batches");
        let Watched { watches, newest, .. } = &mut *self.0.lock();
        *newest = batch.profiles.iter().map(|profile| profile.start).max().unwrap_or_default().max(*newest);
        for sample in &batch.samples {
            let resource = &batch.resources[batch.profiles[sample.profile as usize].resource as usize];
            let path = PathBuf::from(&*resource.executable_path);
            for (watch, stacks) in watches.values_mut() {
                let mine = if path.as_os_str().is_empty() {
                    *resource.executable_name == *watch.comm || *sample.thread_name == *watch.comm
                } else {
                    watch.paths.contains(&path)
                };
                let count = batch.times_of(sample).iter().filter(|time| **time >= watch.from).count() as u64;
                if mine && count > 0 {
                    *stacks.entry(recorded(batch, sample.stack)).or_default() += count;
                }
            }
        }
        Ok(())
    }
}

fn recorded(batch: &Batch, stack: u32) -> Vec<Recorded> {
    let mut frames = Vec::new();
    for frame in batch.stack(stack).iter().map(|index| &batch.frames[*index as usize]) {
        let executable = frame.executable.map(|index| &batch.executables[index as usize]);
        frames.push(match (frame.kind, executable.and_then(|file| Some((file.file_id?, &file.name)))) {
            (FrameKind::KERNEL, _) => continue,
            (kind, _) if kind.is_error() => Recorded::Marker(
                frame.lines.first().map(|line| Arc::clone(&line.function)).unwrap_or_default(),
            ),
            (_, Some((id, name))) => Recorded::Code(id, Arc::clone(name), frame.address),
            (_, None) => Recorded::Bare(frame.address),
        });
    }
    frames
}

/// Now, on the clock that samples carry.
pub(crate) fn now() -> UnixNanos {
    UnixNanos(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64)
}

/// A running agent.
pub(crate) struct Recorder {
    receiver: Arc<Receiver>,
    handle: AgentHandle,
    shutdown: Shutdown,
    runtime: tokio::runtime::Runtime,
}

impl Recorder {
    /// Starts an agent. `None` where the machine does not allow it, which is said.
    pub(crate) fn start(frequency_hz: u32) -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let receiver = Arc::new(Receiver::default());
        let settings =
            Settings { frequency_hz, report_interval: Duration::from_secs(1), ..Settings::default() };
        let agent = match Agent::build(settings, Arc::clone(&receiver) as Arc<dyn Sink>) {
            Ok(agent) => agent,
            Err(error @ Error::Privilege(_)) => {
                crate::cannot_run::cannot_run("the native matrix", &error.to_string());
                return None;
            }
            Err(error) => panic!("{error} ({:?})", error.hint()),
        };
        let shutdown = Shutdown::new();
        let inside = runtime.enter();
        let handle = agent.spawn(shutdown.clone()).unwrap();
        drop(inside);
        Some(Self { receiver, handle, shutdown, runtime })
    }

    /// Waits until what runs now is known. What starts later is the business of the rows.
    pub(crate) fn wait_for_tables(&self, deadline: Duration) {
        let pending = |status: AgentStatus| {
            status.counters.iter().find(|(name, _)| *name == "tables_pending").map_or(1, |(_, value)| *value)
        };
        let start = Instant::now();
        let mut calm = 0;
        while calm < 5 {
            std::thread::sleep(Duration::from_millis(200));
            calm = if pending(self.handle.status().get()) == 0 { calm + 1 } else { 0 };
            assert!(start.elapsed() < deadline, "tables not built: {:#?}", self.handle.status().get());
        }
    }

    /// Begins to keep samples of a row.
    pub(crate) fn watch(&self, watch: Watch) -> u64 {
        let mut watched = self.receiver.0.lock();
        watched.next += 1;
        let number = watched.next;
        watched.watches.insert(number, (watch, Stacks::new()));
        number
    }

    /// Samples of a row so far.
    pub(crate) fn samples(&self, number: u64) -> u64 {
        self.receiver.0.lock().watches.get(&number).map_or(0, |(_, stacks)| stacks.values().sum())
    }

    /// Ends a watch when everything up to now has come in, or `deadline` is over (an idle machine reports nothing).
    pub(crate) fn take(&self, number: u64, deadline: Duration) -> Stacks {
        let (end, start) = (now(), Instant::now());
        while self.receiver.0.lock().newest < end && start.elapsed() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.receiver.0.lock().watches.remove(&number).map(|(_, stacks)| stacks).unwrap_or_default()
    }

    /// Stops the agent.
    pub(crate) fn stop(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.handle.joined()).unwrap();
    }
}
