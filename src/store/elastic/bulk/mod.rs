//! The [`Writer`] over Elasticsearch: documents to bulk requests, bulk requests to answers, answers to senders.
//!
//! `Ok` means that Elasticsearch has answered for every item, or that the disk queue holds it. Bytes on their way are
//! bounded; what is beyond is refused with an error that asks to try again, and so is everything while Elasticsearch
//! takes nothing and there is no queue. Only documents that Elasticsearch will never take are lost, counted by reason.

mod answer;
mod counters;
mod courier;
mod drain;
mod gather;
mod health;
mod rejects;
mod shape;
mod show;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::queue::{DiskQueue, Packed, QueueError};
use super::{BulkBody, Client, Encoder, Generation, Shape};
use crate::config::{ElasticsearchOutput, GenerationChoice};
use crate::model::UnixNanos;
use crate::net::{RetryPolicy, Shutdown};
use crate::store::{Documents, Error, Result, Written};
use courier::{Courier, FLUSH_BYTES};
use gather::{Submission, Tally};
use health::Health;
use rejects::Rejects;

pub use counters::{Counter, Counters};

/// Bytes of bulk bodies on their way, at most: a dozen full requests. Each is held once more while requests are joined.
const ROOM_BYTES: usize = 64 << 20;
/// The unit in which room is given.
const ROOM_UNIT: usize = 1 << 10;
/// Time that a batch waits for room before its sender is asked to come back.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one piece of a batch.
const PIECE_BYTES: usize = 4 << 20;
/// Batches with more samples are encoded on another thread: this many take some milliseconds.
const ENCODE_ASIDE: u64 = 5_000;
/// Time for requests on their way to be answered when the process stops.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Chooses which events the down-sampled streams hold. The same for all collectors, so that an export that is sent
/// again to another of them gives the same documents.
const SAMPLING_SEED: u64 = 0x6576_6572_666c_616d;

/// Writes documents to a cluster.
pub struct ElasticWriter {
    /// Once it is known what documents look like.
    encoder: RwLock<Option<Arc<Encoder>>>,
    courier: Arc<Courier>,
    lane: Lane,
    room: Arc<Semaphore>,
    /// Batches that are being written.
    batches: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    forced: Option<Generation>,
}

/// How bodies travel.
enum Lane {
    /// Senders wait for Elasticsearch. Empty once closed.
    Direct(Mutex<Option<mpsc::Sender<Submission>>>),
    /// Senders wait for the disk.
    Queue(Arc<DiskQueue>),
}

impl std::fmt::Debug for ElasticWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ElasticWriter").field("courier", &self.courier).finish_non_exhaustive()
    }
}

impl ElasticWriter {
    /// Starts to write to the cluster of `client`, which need not be there yet. Must be called inside a runtime.
    #[must_use]
    pub fn start(
        output: &ElasticsearchOutput,
        client: Arc<Client>,
        queue: Option<Arc<DiskQueue>>,
    ) -> Arc<Self> {
        let writer = Self::assemble(output, client, queue);
        let watching = tokio::spawn(watch::run(Arc::downgrade(&writer), writer.courier.clone()));
        writer.tasks.lock().push(watching);
        writer
    }

    /// A writer that does not ask the cluster what it is.
    fn assemble(
        output: &ElasticsearchOutput,
        client: Arc<Client>,
        queue: Option<Arc<DiskQueue>>,
    ) -> Arc<Self> {
        let courier = Arc::new(Courier {
            client,
            policy: RetryPolicy {
                first: output.backoff_init,
                longest: output.backoff_max,
                retries: output.max_retries,
            },
            counters: Arc::default(),
            rejects: Arc::new(Rejects::default()),
            health: Arc::new(Health::default()),
            shutdown: Shutdown::new(),
            flush_bytes: AtomicUsize::new(FLUSH_BYTES),
            queued: queue.is_some(),
        });
        let forced = output.generation.map(|choice| match choice {
            GenerationChoice::Classic => Generation::Classic,
            GenerationChoice::Otel => Generation::Otel,
        });
        // What the disk takes is as it was last time, until the cluster can be asked.
        let last = queue.as_ref().and_then(|queue| shape::parse(&queue.note()?));
        let (lane, task) = if let Some(queue) = queue {
            (Lane::Queue(queue.clone()), tokio::spawn(drain::run(courier.clone(), queue)))
        } else {
            let (sender, submissions) = mpsc::channel(gather::WAITING);
            (Lane::Direct(Mutex::new(Some(sender))), tokio::spawn(gather::run(courier.clone(), submissions)))
        };
        let writer = Arc::new(Self {
            encoder: RwLock::new(None),
            courier,
            lane,
            room: Arc::new(Semaphore::new(ROOM_BYTES / ROOM_UNIT)),
            batches: AtomicUsize::new(0),
            tasks: Mutex::new(vec![task]),
            forced,
        });
        if let Some(last) = last {
            writer.set_shape(last);
        }
        writer
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.courier.counters
    }

    /// Rejected documents by kind and `error.type`.
    #[must_use]
    pub fn rejected(&self) -> Vec<(&'static str, String, u64)> {
        self.courier.rejects.list()
    }

    /// Bytes in the disk queue, where there is one.
    #[must_use]
    pub fn queued_bytes(&self) -> Option<u64> {
        match &self.lane {
            Lane::Direct(_) => None,
            Lane::Queue(queue) => Some(queue.bytes()),
        }
    }

    /// Records of the disk queue that could not be read any more.
    fn queue_damaged(&self) -> u64 {
        match &self.lane {
            Lane::Direct(_) => 0,
            Lane::Queue(queue) => queue.damaged(),
        }
    }

    /// What documents look like, once the cluster has been asked.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        self.encoder.read().as_ref().map(|encoder| encoder.shape())
    }

    /// Why documents cannot be written now, with what a person can do about it.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if let Some(trouble) = self.courier.health.trouble() {
            let hint = trouble.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            return Some(format!("{trouble}{hint}"));
        }
        self.encoder.read().is_none().then(|| "Elasticsearch has not answered yet".to_owned())
    }

    fn set_shape(&self, shape: Shape) {
        let mut encoder = self.encoder.write();
        if encoder.as_ref().is_some_and(|known| known.shape() == shape) {
            return;
        }
        *encoder = Some(Arc::new(Encoder::new(shape, SAMPLING_SEED)));
        drop(encoder);
        if let Lane::Queue(queue) = &self.lane {
            queue.set_note(&shape::text(shape));
        }
    }

    /// Finishes what is on its way, or leaves it in the queue. Writes that come later are refused.
    pub async fn close(&self) {
        match &self.lane {
            Lane::Direct(sender) => drop(sender.lock().take()),
            Lane::Queue(_) => self.courier.shutdown.cancel(),
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let (first, others) = tasks
            .split_first()
            .map_or((None, &[][..]), |(first, others)| (Some(first.abort_handle()), others));
        others.iter().for_each(JoinHandle::abort);
        let finished = async {
            for task in tasks {
                // Watching was ended above.
                let _ = task.await;
            }
        };
        if timeout(CLOSE_TIME, finished).await.is_err() {
            self.courier.shutdown.cancel();
            if let Some(first) = first {
                first.abort();
            }
            tracing::warn!(
                "requests to Elasticsearch were cut; what they carried comes again, from its sender or from the disk queue"
            );
        }
        self.courier.shutdown.cancel();
        self.courier.rejects.tell();
        if let Lane::Queue(queue) = &self.lane {
            let queue = queue.clone();
            // The runtime lives until this returns.
            let _ = tokio::task::spawn_blocking(move || queue.close()).await;
        }
    }

    /// Room for about `bytes`, after a short wait at most.
    async fn room(&self, bytes: usize) -> Result<Arc<OwnedSemaphorePermit>> {
        let units = bytes.div_ceil(ROOM_UNIT).clamp(1, ROOM_BYTES / ROOM_UNIT);
        let waiting = timeout(ROOM_PATIENCE, self.room.clone().acquire_many_owned(units as u32)).await;
        let Ok(permit) = waiting else {
            self.count(Counter::RefusedOverloaded);
            return Err(Error::Overloaded { waiting: self.batches.load(Ordering::Relaxed) });
        };
        Ok(Arc::new(permit.expect("the semaphore is never closed")))
    }

    fn count(&self, counter: Counter) {
        self.courier.counters.add(counter, 1);
    }
}

#[async_trait]
impl crate::store::Writer for ElasticWriter {
    async fn write(&self, documents: Documents) -> Result<Written> {
        let encoder = self.encoder.read().clone();
        let Some(encoder) = encoder else {
            self.count(Counter::RefusedUnavailable);
            let problem = self.problem().unwrap_or_else(|| "Elasticsearch has not answered yet".into());
            return Err(Error::Unavailable { problem, hint: None });
        };
        if let Lane::Direct(_) = &self.lane
            && let Some(trouble) = self.courier.health.refusal(Instant::now())
        {
            self.count(Counter::RefusedUnavailable);
            return Err(trouble.into());
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.batches);
        let size = Size::of(&documents);
        let room = self.room(size.bytes).await?;
        match &self.lane {
            Lane::Direct(sender) => {
                let bodies = aside(size.samples, move || encode(&encoder, &documents)).await?;
                let sender = sender.lock().clone();
                self.submit(sender, bodies, &room).await
            }
            Lane::Queue(queue) => {
                let packed = aside(u64::MAX, move || {
                    encode(&encoder, &documents).iter().map(Packed::new).collect::<Option<Vec<_>>>()
                });
                let packed = packed
                    .await?
                    .ok_or_else(|| Error::Engine("a batch is beyond what the disk queue takes".into()))?;
                queue.append(packed).await.map_err(|error| {
                    self.count(Counter::RefusedQueue);
                    queue_error(error)
                })?;
                self.count(Counter::Queued);
                Ok(Written::default())
            }
        }
    }
}

impl ElasticWriter {
    /// Sends the pieces of one batch on their way and waits for all of them.
    async fn submit(
        &self,
        sender: Option<mpsc::Sender<Submission>>,
        bodies: Vec<BulkBody>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Written> {
        let stopping = || Error::Unavailable { problem: "the collector is stopping".into(), hint: None };
        let sender = sender.ok_or_else(stopping)?;
        let mut answers = Vec::with_capacity(bodies.len());
        for body in bodies {
            let (reply, answer) = oneshot::channel();
            let submission = Submission { body, reply, room: room.clone() };
            sender.send(submission).await.map_err(|_| stopping())?;
            answers.push(answer);
        }
        let (mut written, mut trouble) = (Written::default(), None);
        for answer in answers {
            let Tally { rejected_samples, missed_look_ups, reason, trouble: open } =
                answer.await.map_err(|_| stopping())?;
            written.missed_look_ups += missed_look_ups;
            written.rejected_samples += rejected_samples;
            written.reason = written.reason.or(reason);
            trouble = trouble.or(open);
        }
        match trouble {
            None => Ok(written),
            Some(trouble) => {
                self.count(Counter::RefusedUnavailable);
                Err(trouble.into())
            }
        }
    }
}

/// One batch that is being written, also when its sender goes away in between.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a batch will need.
struct Size {
    samples: u64,
    /// Bytes of its bulk body, about.
    bytes: usize,
}

impl Size {
    fn of(documents: &Documents) -> Self {
        let samples: usize = documents.events.iter().map(|event| event.times.len()).sum();
        let frames: usize = documents.stacktraces.iter().map(|stack| stack.frames.len()).sum();
        let others = documents.stackframes.len()
            + documents.executables.len()
            + documents.hosts.len()
            + 2 * documents.unnamed.len();
        // An event has some 350 bytes, and a quarter of them goes to the down-sampled streams as well; the text of a
        // frame's identifier has 32 bytes.
        Self {
            samples: samples as u64,
            bytes: samples * 440 + frames * 36 + documents.stacktraces.len() * 160 + others * 300,
        }
    }
}

fn encode(encoder: &Encoder, documents: &Documents) -> Vec<BulkBody> {
    encoder.parts(documents, wall_clock(), PIECE_BYTES).collect()
}

/// Runs work where it does not hold up the network.
async fn aside<T: Send + 'static>(samples: u64, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if samples < ENCODE_ASIDE {
        return Ok(work());
    }
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::Engine(format!("encoding ended early: {error}")))
}

fn queue_error(error: QueueError) -> Error {
    let hint = match &error {
        QueueError::Full { .. } => "raise queue.disk.max_size, or bring Elasticsearch back",
        _ => "see the log of the collector",
    };
    match error {
        QueueError::DiskFull { path } => Error::DiskFull { path },
        error => Error::Unavailable { problem: error.to_string(), hint: Some(hint.into()) },
    }
}

fn wall_clock() -> UnixNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(since.as_nanos() as u64)
}
