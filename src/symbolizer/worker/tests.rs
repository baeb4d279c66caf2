//! The loop against a queue in memory and executables of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;

use super::*;
use crate::model::{FrameId, UnknownReason};
use crate::store::document::StackFrame;
use crate::symbols::elf::Elf;
use crate::symbols::file_id::of_file;
use crate::symbols::mapped::ImageFile;

type GivenUp = (UnknownReason, Option<UnixNanos>);

/// A queue as the trait describes it, in memory.
#[derive(Default)]
struct MemoryQueue {
    waiting: Mutex<BTreeMap<FrameId, UnixNanos>>,
    names: Mutex<BTreeMap<FrameId, String>>,
    given_up: Mutex<BTreeMap<FrameId, GivenUp>>,
    changed: Notify,
    broken: AtomicBool,
}

fn refused() -> crate::store::Error {
    crate::store::Error::Overloaded { waiting: 1 }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn due(
        &self,
        now: UnixNanos,
        max_files: usize,
        max_addresses: usize,
    ) -> crate::store::Result<Vec<PendingFile>> {
        let mut files: BTreeMap<FileId, Vec<u64>> = BTreeMap::new();
        for (id, _) in self.waiting.lock().iter().filter(|(_, due)| **due <= now) {
            let addresses = files.entry(id.file).or_default();
            if addresses.len() < max_addresses {
                addresses.push(id.address_or_line);
            }
        }
        let pending = |(file, addresses)| PendingFile { file, name: "file".into(), addresses, retries: 0 };
        Ok(files.into_iter().take(max_files).map(pending).collect())
    }

    async fn name(&self, frames: Vec<StackFrame>) -> crate::store::Result<()> {
        if self.broken.swap(false, Ordering::Relaxed) {
            return Err(refused());
        }
        for frame in frames {
            self.waiting.lock().remove(&frame.id);
            let names: Vec<&str> = frame.lines.iter().map(|line| &*line.function).collect();
            self.names.lock().insert(frame.id, names.join(" > "));
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn give_up(
        &self,
        file: FileId,
        addresses: &[u64],
        reason: &UnknownReason,
        retry_at: Option<UnixNanos>,
    ) -> crate::store::Result<()> {
        for address in addresses {
            let id = FrameId { file, address_or_line: *address };
            self.waiting.lock().remove(&id);
            self.given_up.lock().insert(id, (reason.clone(), retry_at));
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

/// This very program, and nothing else.
struct OwnProgram(FileId);

impl ExecutableSource for OwnProgram {
    fn open(&self, file: FileId) -> Result<File, UnknownReason> {
        if file == self.0 {
            Ok(File::open("/proc/self/exe").unwrap())
        } else {
            Err(UnknownReason::FileUnavailable("no process has it mapped".into()))
        }
    }
}

fn own_image() -> ImageFile {
    ImageFile::open(File::open("/proc/self/exe").unwrap()).unwrap()
}

/// ELF address of a function of this program.
fn own_address(function: *const ()) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = std::env::current_exe().unwrap();
    let runtime = function as u64;
    let line = maps.lines().find(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&runtime)
    });
    let line = line.unwrap();
    assert!(line.ends_with(path.to_str().unwrap()));
    let mut fields = line.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next().unwrap().split_once('-').unwrap().0, 16).unwrap();
    let offset = u64::from_str_radix(fields.nth(1).unwrap(), 16).unwrap();
    let elf = Elf::open(own_image()).unwrap();
    elf.address_of(crate::model::FileOffset(offset + (runtime - start))).unwrap().0
}

#[inline(never)]
fn a_function_to_be_named() -> u64 {
    std::hint::black_box(42)
}

struct Scene {
    queue: Arc<MemoryQueue>,
    file: FileId,
    handle: Handle,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

const NOW: UnixNanos = UnixNanos(1_000);

impl Scene {
    fn start(interval: Duration, frames: impl FnOnce(FileId) -> Vec<FrameId>) -> Self {
        let file = of_file(&own_image()).unwrap();
        let queue = Arc::new(MemoryQueue::default());
        queue.waiting.lock().extend(frames(file).into_iter().map(|id| (id, UnixNanos(0))));
        let dependencies = Dependencies {
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            source: Arc::new(OwnProgram(file)),
            clock: Arc::new(|| NOW),
        };
        let symbolizer = Symbolizer::build(Config { interval, ..Config::default() }, dependencies).unwrap();
        let (handle, shutdown) = (symbolizer.handle(), CancellationToken::new());
        Self { queue, file, handle, task: symbolizer.spawn(shutdown.clone()), shutdown }
    }

    async fn until_empty(&self) {
        let deadline = Duration::from_mins(1);
        let waited = tokio::time::timeout(deadline, async {
            loop {
                let changed = self.queue.changed.notified();
                if self.queue.waiting.lock().is_empty() {
                    break;
                }
                // The timeout covers a change between the look and the wait.
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        });
        assert!(waited.await.is_ok(), "still waiting: {:?}", self.queue.waiting.lock());
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn frame(file: FileId, address: u64) -> FrameId {
    FrameId { file, address_or_line: address }
}

#[tokio::test]
async fn names_what_is_known_and_says_why_not_of_the_rest() {
    let address = own_address(a_function_to_be_named as *const ());
    assert_eq!(a_function_to_be_named(), 42);
    let stranger = FileId::from_words(1, 2);
    let scene = Scene::start(Duration::from_secs(1), |file| {
        vec![frame(file, address), frame(file, 1), frame(stranger, 0x1000)]
    });
    scene.until_empty().await;
    let name = scene.queue.names.lock().get(&frame(scene.file, address)).cloned().unwrap();
    assert_eq!(name, "everflame::symbolizer::worker::tests::a_function_to_be_named");
    let given_up = scene.queue.given_up.lock().clone();
    assert_eq!(given_up[&frame(scene.file, 1)].0, UnknownReason::NotCovered);
    let (reason, retry_at) = &given_up[&frame(stranger, 0x1000)];
    assert_eq!(reason.to_string(), "executable not available: no process has it mapped");
    assert_eq!(*retry_at, Some(UnixNanos(NOW.0 + 600_000_000_000)));
    let counters: BTreeMap<_, _> = scene.handle.counters().snapshot().into_iter().collect();
    assert_eq!(counters["frames_named"], 1);
    assert_eq!(counters["frames_unnamed.not_covered"], 1);
    assert_eq!(counters["frames_unnamed.file_unavailable"], 1);
    scene.stop().await;
}

#[tokio::test]
async fn a_call_wakes_it_long_before_the_interval_ends() {
    let address = own_address(a_function_to_be_named as *const ());
    let scene = Scene::start(Duration::from_hours(1), |_| Vec::new());
    // Let it find the queue empty first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    scene.queue.waiting.lock().insert(frame(scene.file, address), UnixNanos(0));
    scene.handle.wake();
    scene.until_empty().await;
    assert!(started.elapsed() < Duration::from_mins(1));
    scene.stop().await;
}

#[tokio::test]
async fn more_addresses_than_fit_at_once_are_done_without_waiting() {
    let address = own_address(a_function_to_be_named as *const ());
    let many = MAX_ADDRESSES as u64 * 3;
    let scene =
        Scene::start(Duration::from_hours(1), |file| (0..many).map(|at| frame(file, address + at)).collect());
    scene.until_empty().await;
    let counters: BTreeMap<_, _> = scene.handle.counters().snapshot().into_iter().collect();
    assert_eq!(counters["files_read"], 1, "the index is kept");
    assert_eq!(counters["cache_hits"], 2);
    assert!(counters["cache_bytes"] > 0);
    scene.stop().await;
}

#[tokio::test]
async fn what_the_store_refused_is_done_again() {
    let address = own_address(a_function_to_be_named as *const ());
    let scene = Scene::start(Duration::from_millis(50), |_| Vec::new());
    scene.queue.broken.store(true, Ordering::Relaxed);
    scene.queue.waiting.lock().insert(frame(scene.file, address), UnixNanos(0));
    scene.handle.wake();
    scene.until_empty().await;
    let counters: BTreeMap<_, _> = scene.handle.counters().snapshot().into_iter().collect();
    assert_eq!(counters["queue_errors"], 1);
    assert_eq!(counters["frames_named"], 1);
    scene.stop().await;
}
