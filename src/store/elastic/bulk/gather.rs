//! Group commit: batches of many senders share bulk requests.
//!
//! A batch that finds nothing on its way goes at once. While requests are on their way, batches gather until there are
//! enough bytes or a little time has passed; each sender is answered for its own items when its request is.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::{BulkBody, Item, Kind};
use super::courier::{Courier, Fate, Patience};
use super::trouble::Trouble;

/// Time that a batch waits for company while other requests are on their way.
const LINGER: Duration = Duration::from_millis(10);
/// Requests on their way at the same time.
pub(super) const IN_FLIGHT: usize = 4;
/// Batches that wait; their bytes are bounded by the writer.
pub(super) const WAITING: usize = 1024;

/// One batch, or a part of one.
pub(super) struct Submission {
    pub(super) body: BulkBody,
    pub(super) reply: oneshot::Sender<Tally>,
    /// Room for its bytes, given back when it is answered.
    pub(super) room: Arc<OwnedSemaphorePermit>,
}

/// What became of the items of one submission.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Samples that Elasticsearch will never take.
    pub(super) rejected_samples: u64,
    /// Look-ups that it does not take until a person mends something.
    pub(super) missed_look_ups: u64,
    /// Why, for the first rejected item of its request.
    pub(super) reason: Option<String>,
    /// Why items are open; they have to be sent again.
    pub(super) trouble: Option<Trouble>,
}

/// Runs until the senders of submissions are gone and all are answered.
pub(super) async fn run(courier: Arc<Courier>, mut submissions: mpsc::Receiver<Submission>) {
    let mut sending = JoinSet::new();
    let mut waiting: Vec<Submission> = Vec::new();
    let (mut bytes, mut since, mut closed) = (0, Instant::now(), false);
    loop {
        let full = bytes >= courier.flush_bytes();
        let free = sending.len() < IN_FLIGHT;
        let due = full || closed || sending.is_empty() || since.elapsed() >= LINGER;
        if free && due && !waiting.is_empty() {
            bytes = 0;
            sending.spawn(send(courier.clone(), std::mem::take(&mut waiting)));
            continue;
        }
        if closed && waiting.is_empty() && sending.is_empty() {
            return;
        }
        tokio::select! {
            submission = submissions.recv(), if !closed && !full => {
                let mut next = submission;
                closed = next.is_none();
                while let Some(submission) = next {
                    if waiting.is_empty() {
                        since = Instant::now();
                    }
                    bytes += submission.body.bytes.len();
                    waiting.push(submission);
                    next = if bytes < courier.flush_bytes() { submissions.try_recv().ok() } else { None };
                }
            }
            Some(_) = sending.join_next(), if !sending.is_empty() => {}
            () = sleep_until(since + LINGER), if free && !waiting.is_empty() => {}
        }
    }
}

/// Sends submissions as one request and answers each.
async fn send(courier: Arc<Courier>, submissions: Vec<Submission>) {
    let mut replies = Vec::with_capacity(submissions.len());
    let (bytes, items) = join(submissions, &mut replies);
    let delivered = courier.deliver(bytes, &items, Patience::Retries).await;
    let mut start = 0;
    for (count, reply, room) in replies {
        let range = start..start + count;
        start += count;
        let mut tally = Tally::default();
        for (fate, item) in delivered.fates[range.clone()].iter().zip(&items[range]) {
            match fate {
                Fate::Done => {}
                Fate::Open => tally.trouble.clone_from(&delivered.trouble),
                Fate::Missed => {
                    tally.missed_look_ups += 1;
                    tally.reason.clone_from(&delivered.rejection);
                }
                Fate::Rejected => {
                    tally.rejected_samples += u64::from(item.kind == Kind::Event);
                    tally.reason.clone_from(&delivered.rejection);
                }
            }
        }
        drop(room);
        // A sender that has gone away will ask again, and be told that its documents are there.
        let _ = reply.send(tally);
    }
}

type Reply = (usize, oneshot::Sender<Tally>, Arc<OwnedSemaphorePermit>);

/// One body out of many; a single one is not copied.
fn join(submissions: Vec<Submission>, replies: &mut Vec<Reply>) -> (Bytes, Vec<Item>) {
    let total = submissions.iter().map(|submission| submission.body.bytes.len()).sum();
    let alone = submissions.len() == 1;
    let mut bytes = BytesMut::with_capacity(if alone { 0 } else { total });
    let mut items = Vec::with_capacity(submissions.iter().map(|s| s.body.items.len()).sum());
    for Submission { body, reply, room } in submissions {
        replies.push((body.items.len(), reply, room));
        if alone {
            return (body.bytes.into(), body.items);
        }
        let before = bytes.len();
        bytes.extend_from_slice(&body.bytes);
        items.extend(body.items.into_iter().map(|item| Item { end: before + item.end, ..item }));
    }
    (bytes.freeze(), items)
}
