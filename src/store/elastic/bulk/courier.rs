//! Brings one bulk body to Elasticsearch and finds out what became of each of its items.
//!
//! Items that are put off are sent again by themselves after growing pauses; a request that is refused for its size or
//! its contents is cut in halves until the item that spoils it stands alone. Repeats are harmless: items carry their
//! identifiers, and what is there already counts as written.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use tokio::time::Instant;

use super::super::{CallError, Cause, Client, Item, Kind};
use super::answer::{BulkAnswer, FILTER, Outcome, Verdict};
use super::counters::{Counter, Counters, Tally};
use super::health::Health;
use super::rejects::Rejects;
use super::trouble::Trouble;
use crate::net::{RetryPolicy, Shutdown};

/// Bytes of one bulk request, about: large enough that its overhead does not count, small enough to fail cheaply.
pub(super) const FLUSH_BYTES: usize = 5 << 20;
/// Requests are not made smaller than this, whatever a proxy in between says.
const LEAST_FLUSH_BYTES: usize = 64 << 10;
/// Attempts for an item that Elasticsearch answers with an error of its own (500), where nobody waits.
const ODD_TRIES: u32 = 10;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As often as the settings say: somebody waits for the answer.
    Retries,
    /// Until Elasticsearch takes it: it lies on the disk.
    Forever,
}

/// What became of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not answered for.
    Open,
    /// Elasticsearch holds it.
    Done,
    /// It never will.
    Rejected,
    /// It does not until a person mends something, and the batch does not wait for that.
    Missed,
}

/// What became of a body.
#[derive(Debug)]
pub(super) struct Delivered {
    /// Per item, in order.
    pub(super) fates: Vec<Fate>,
    /// Why items are open.
    pub(super) trouble: Option<Trouble>,
    /// Why the first of the rejected items was.
    pub(super) rejection: Option<String>,
}

/// Brings bodies.
#[derive(Debug)]
pub(super) struct Courier {
    pub(super) client: Arc<Client>,
    pub(super) policy: RetryPolicy,
    pub(super) counters: Arc<Counters>,
    pub(super) rejects: Arc<Rejects>,
    pub(super) health: Arc<Health>,
    /// Ends pauses.
    pub(super) shutdown: Shutdown,
    pub(super) flush_bytes: AtomicUsize,
    /// Documents that are not taken now wait on the disk.
    pub(super) queued: bool,
}

/// State of one delivery.
struct Delivery<'a> {
    bytes: &'a Bytes,
    items: &'a [Item],
    delivered: Delivered,
}

/// Why an attempt did not finish its piece.
enum Setback {
    /// Cut it in halves.
    Split,
    /// Try again what is left.
    Again { trouble: Trouble, retry_after: Option<Duration>, progress: bool },
}

impl Courier {
    /// Bytes that one request should have.
    pub(super) fn flush_bytes(&self) -> usize {
        self.flush_bytes.load(Ordering::Relaxed)
    }

    /// Delivers a body. Every item has its fate afterwards; an open one only together with the trouble.
    pub(super) async fn deliver(&self, bytes: Bytes, items: &[Item], patience: Patience) -> Delivered {
        let fates = vec![Fate::Open; items.len()];
        let delivered = Delivered { fates, trouble: None, rejection: None };
        let mut delivery = Delivery { bytes: &bytes, items, delivered };
        let mut pieces = VecDeque::from([(0..items.len() as u32).collect::<Vec<_>>()]);
        while let Some(piece) = pieces.pop_front() {
            match self.piece(&mut delivery, piece, patience).await {
                Ok(None) => {}
                Ok(Some((first, second))) => {
                    pieces.push_front(second);
                    pieces.push_front(first);
                }
                Err(trouble) => {
                    delivery.delivered.trouble = Some(trouble);
                    break;
                }
            }
        }
        delivery.delivered
    }

    /// Delivers some items, or says how to cut them.
    async fn piece(
        &self,
        delivery: &mut Delivery<'_>,
        mut piece: Vec<u32>,
        patience: Patience,
    ) -> Result<Option<(Vec<u32>, Vec<u32>)>, Trouble> {
        let mut attempt = 0;
        while !piece.is_empty() {
            let setback = self.attempt(delivery, &mut piece).await;
            let (trouble, retry_after, progress) = match setback {
                None => return Ok(None),
                Some(Setback::Split) => {
                    let second = piece.split_off(piece.len().div_ceil(2));
                    return Ok(Some((piece, second)));
                }
                Some(Setback::Again { trouble, retry_after, progress }) => (trouble, retry_after, progress),
            };
            if progress {
                attempt = 0;
            }
            if self.leaves_out(delivery, &piece, &trouble) {
                return Ok(None);
            }
            // Nobody mends a key or a disk while a sender waits.
            let hopeless = matches!(trouble.cause(), Some(cause) if cause != Cause::Busy);
            let pause = match patience {
                Patience::Retries if hopeless => None,
                Patience::Retries => self.policy.pause(attempt, random(), retry_after),
                Patience::Forever => {
                    let endless = RetryPolicy { retries: u32::MAX, ..self.policy };
                    endless.pause(attempt, random(), retry_after)
                }
            };
            // One cut connection is no reason to turn senders away.
            if !progress && (attempt > 0 || pause.is_none()) {
                self.health.failed(&trouble, Instant::now(), self.queued);
            }
            let Some(pause) = pause else { return Err(trouble) };
            attempt += 1;
            if patience == Patience::Forever && attempt >= ODD_TRIES && is_odd(&trouble) {
                self.reject_all(delivery, &piece, &trouble);
                return Ok(None);
            }
            self.counters.add(Counter::DocumentsRetried, piece.len() as u64);
            tokio::select! {
                () = tokio::time::sleep(pause.min(self.policy.longest)) => {}
                () = self.shutdown.cancelled() => return Err(Trouble::Stopping),
            }
        }
        Ok(None)
    }

    /// Sends items once; leaves in `piece` those that have no fate yet.
    async fn attempt(&self, delivery: &mut Delivery<'_>, piece: &mut Vec<u32>) -> Option<Setback> {
        let body = delivery.body_of(piece);
        let size = body.len();
        self.counters.add(Counter::RequestBytes, size as u64);
        let path = format!("/_bulk?{FILTER}");
        let sent = self.client.call(Method::POST, &path, "application/x-ndjson", body).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => return self.refused(delivery, piece, size, error),
        };
        self.counters.add(Counter::Requests, 1);
        let again = |trouble| Some(Setback::Again { trouble, retry_after: None, progress: false });
        let read = match BulkAnswer::read(&answer.body) {
            Ok(read) if read.outcomes().len() == piece.len() => read,
            Ok(read) => {
                let found = read.outcomes().len();
                return again(Trouble::Answer(format!("expected {} items, found {found}", piece.len())));
            }
            Err(error) => return again(Trouble::Answer(error.to_string())),
        };
        if !read.errors {
            let mut tally = Tally::default();
            for index in piece.drain(..) {
                delivery.delivered.fates[index as usize] = Fate::Done;
                tally.add(delivery.items[index as usize].kind);
            }
            self.counters.written(&tally);
            self.health.works(Instant::now());
            return None;
        }
        let (written, trouble) = self.judge(delivery, piece, &read);
        if written > 0 {
            self.health.works(Instant::now());
        }
        Some(Setback::Again { trouble: trouble?, retry_after: None, progress: written > 0 })
    }

    /// Goes through the outcomes of an answer; gives the number of items written and why the first open one is.
    fn judge(
        &self,
        delivery: &mut Delivery<'_>,
        piece: &mut Vec<u32>,
        answer: &BulkAnswer<'_>,
    ) -> (u64, Option<Trouble>) {
        let (mut tally, mut there) = (Tally::default(), 0);
        let mut trouble = None;
        let mut outcomes = answer.outcomes();
        piece.retain(|index| {
            let outcome = outcomes.next().expect("as many as items, checked before");
            let fate = &mut delivery.delivered.fates[*index as usize];
            let kind = delivery.items[*index as usize].kind;
            match outcome.verdict() {
                Verdict::Done => {
                    tally.add(kind);
                    *fate = Fate::Done;
                }
                Verdict::AlreadyThere => {
                    tally.add(kind);
                    there += 1;
                    *fate = Fate::Done;
                }
                Verdict::Again | Verdict::Blocked(_) => {
                    trouble.get_or_insert_with(|| put_off(outcome));
                }
                Verdict::Rejected => {
                    *fate = Fate::Rejected;
                    let reason = outcome.reason();
                    self.reject(kind, outcome.kind(), &reason);
                    delivery.delivered.rejection.get_or_insert(reason);
                }
            }
            *fate == Fate::Open
        });
        self.counters.written(&tally);
        self.counters.add(Counter::DocumentsAlreadyThere, there);
        (tally.sum(), trouble)
    }

    /// A request that failed as a whole.
    fn refused(
        &self,
        delivery: &mut Delivery<'_>,
        piece: &mut Vec<u32>,
        size: usize,
        error: CallError,
    ) -> Option<Setback> {
        self.counters.add(Counter::RequestsFailed, 1);
        if matches!(error.cause(), Some(Cause::TooLarge)) {
            let limit = (size / 2).clamp(LEAST_FLUSH_BYTES, FLUSH_BYTES);
            if self.flush_bytes.fetch_min(limit, Ordering::Relaxed) > limit {
                tracing::warn!(
                    bytes = size,
                    "a bulk request was too large for Elasticsearch or a proxy; from now on they are smaller"
                );
            }
        }
        if matches!(error.cause(), Some(Cause::TooLarge | Cause::Other)) {
            if piece.len() > 1 {
                return Some(Setback::Split);
            }
            self.reject_all(delivery, piece, &Trouble::Call(error));
            piece.clear();
            return None;
        }
        let retry_after = match &error {
            CallError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        Some(Setback::Again { trouble: Trouble::Call(error), retry_after, progress: false })
    }

    /// Where events are written and something beside them is forbidden or not set up, the events count: what cannot be
    /// written beside them is left out. Says whether that is so.
    fn leaves_out(&self, delivery: &mut Delivery<'_>, piece: &[u32], trouble: &Trouble) -> bool {
        let needs_a_person = matches!(trouble.cause(), Some(Cause::Forbidden | Cause::Missing));
        let has_event = || piece.iter().any(|index| delivery.items[*index as usize].kind == Kind::Event);
        if !needs_a_person || has_event() || !delivery.delivered.fates.contains(&Fate::Done) {
            return false;
        }
        self.reject_all(delivery, piece, trouble);
        for index in piece {
            delivery.delivered.fates[*index as usize] = Fate::Missed;
        }
        true
    }

    fn reject_all(&self, delivery: &mut Delivery<'_>, piece: &[u32], trouble: &Trouble) {
        let error = match trouble {
            Trouble::Call(CallError::Refused { kind, .. }) | Trouble::Items { kind, .. } => kind.as_str(),
            _ => "",
        };
        let reason = match trouble.hint() {
            Some(hint) => format!("{trouble} ({hint})"),
            None => trouble.to_string(),
        };
        for index in piece {
            delivery.delivered.fates[*index as usize] = Fate::Rejected;
            self.reject(delivery.items[*index as usize].kind, error, &reason);
        }
        delivery.delivered.rejection.get_or_insert(reason);
    }

    fn reject(&self, kind: Kind, error: &str, reason: &str) {
        self.counters.add(Counter::DocumentsRejected, 1);
        if kind == Kind::Event {
            self.counters.add(Counter::SamplesRejected, 1);
        }
        self.rejects.add(kind, error, reason);
    }
}

impl Delivery<'_> {
    /// The lines of these items.
    fn body_of(&self, piece: &[u32]) -> Bytes {
        if piece.len() == self.items.len() {
            return self.bytes.clone();
        }
        let range = |index: u32| {
            let index = index as usize;
            let start = if index == 0 { 0 } else { self.items[index - 1].end };
            start..self.items[index].end
        };
        let mut body = BytesMut::with_capacity(piece.iter().map(|index| range(*index).len()).sum());
        for index in piece {
            body.extend_from_slice(&self.bytes[range(*index)]);
        }
        body.freeze()
    }
}

fn put_off(outcome: &Outcome<'_>) -> Trouble {
    Trouble::Items { status: outcome.status(), kind: outcome.kind().to_owned(), reason: outcome.reason() }
}

/// Errors of Elasticsearch itself, which a certain document may cause for ever.
fn is_odd(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Items { status: 500 | 501 | 505.., .. })
}

/// A number in `[0, 1)`, good enough to keep a fleet from coming back all at once.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
