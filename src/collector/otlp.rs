//! Exports from the network: token, memory, decoding, the store, and the answer that fits what happened.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::auth::is_authorized;
use super::counters::Counter;
use super::ingest::Ingest;
use super::mapping::{self, Mapped};
use super::weight;
use crate::net::{Budget, Claim, Token};
use crate::store;
use crate::telemetry::{Counter as Count, Seldom};
use crate::wire::otlp::{
    Decoded, Export, LeftOut, Package, PartialSuccess, Receiver, Refusal, Room, Transport, decode,
    decode_experimental,
};

/// Messages beyond this leave the network threads: decoding runs at some 100 MB/s, so 256 KiB are 2 to 3 ms.
const LARGE_MESSAGE: usize = 256 << 10;
/// Pause asked of senders while the store has too much to do, or there is no memory.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Pause asked of senders while the store is away; it may be back at any moment.
const AWAY_PAUSE: Duration = Duration::from_secs(5);
/// Pause asked of senders while the store cannot write at all.
const FULL_PAUSE: Duration = Duration::from_secs(30);
/// Time to wait for a turn to be read. Each turn takes a fraction of a second.
const TURN_TIME: Duration = Duration::from_secs(10);

/// Takes exports for one [`Ingest`].
#[derive(Debug)]
pub(super) struct Exports {
    pub(super) ingest: Arc<Ingest>,
    pub(super) token: Option<Token>,
    pub(super) budget: Budget,
    /// Exports unpacked and read at the same time: as many as there are CPUs, for more would only hold memory.
    pub(super) turns: Arc<Semaphore>,
    pub(super) grpc_messages: Count,
    pub(super) told: Told,
}

/// When strangers were last written about in the log.
#[derive(Debug, Default)]
pub(super) struct Told {
    token: Seldom,
    memory: Seldom,
    unread: Seldom,
    malformed: Seldom,
    lost: Seldom,
}

/// Memory of one export.
#[derive(Debug)]
pub(super) struct Held(Claim);

impl Room for Held {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        self.0.grow(bytes).map_err(|no_room| {
            if self.0.bytes().saturating_add(bytes) > no_room.limit {
                // It would not fit into an idle collector either.
                let limit = no_room.limit;
                Refusal::TooLarge(format!(
                    "expected an export that can be read in {limit} bytes of memory, found a larger one"
                ))
            } else {
                Refusal::Overloaded(no_room.to_string(), BUSY_PAUSE)
            }
        })
    }
}

#[async_trait]
impl Receiver for Exports {
    type Room = Held;

    fn authorize(&self, headers: &HeaderMap) -> bool {
        let authorized = is_authorized(self.token.as_ref(), headers);
        if !authorized {
            self.ingest.counters().add(Counter::Unauthorized, 1);
            if let Some(times) = self.told.token.due() {
                tracing::warn!(
                    times,
                    "authentication failed: requests without the right secret token are refused"
                );
            }
        }
        authorized
    }

    fn room(&self) -> Held {
        Held(self.budget.empty())
    }

    fn turned_away(&self, refusal: &Refusal) {
        let (counter, seldom) = match refusal {
            Refusal::Late(_) => (Counter::Late, &self.told.unread),
            Refusal::Cut(_) => (Counter::Cut, &self.told.unread),
            Refusal::TooLarge(_) => (Counter::TooLarge, &self.told.unread),
            Refusal::Overloaded(..) | Refusal::Unavailable(..) => (Counter::NoRoom, &self.told.memory),
            Refusal::Unpackable(_) | Refusal::Malformed(_) | Refusal::Internal(_) => {
                (Counter::Unpackable, &self.told.unread)
            }
        };
        self.ingest.counters().add(counter, 1);
        if let Some(times) = seldom.due() {
            let reason = counter.name().trim_start_matches("requests_refused.");
            tracing::warn!(reason, times, "exports were not taken: {}", words(refusal));
        }
    }

    async fn receive(&self, export: Export, room: Held) -> Result<PartialSuccess, Refusal> {
        let counters = self.ingest.counters();
        counters.add(Counter::BatchesReceived, 1);
        if export.transport == Transport::Grpc {
            self.grpc_messages.add(1);
        }
        let (mapped, left_out, room) =
            self.read(export, room).await.inspect_err(|refusal| match refusal {
                Refusal::Malformed(problem) => {
                    counters.add(Counter::BatchesMalformed, 1);
                    if let Some(times) = self.told.malformed.due() {
                        tracing::warn!(times, problem, "exports that cannot be read are refused");
                    } else {
                        tracing::debug!(problem, "export refused");
                    }
                }
                other => self.turned_away(other),
            })?;
        counters.add(Counter::ProfilesOtherType, left_out.profiles_of_other_type);
        counters.add(Counter::ProfilesOtherPeriod, left_out.profiles_of_other_period);
        counters.add(Counter::EntriesOfOtherProfiles, left_out.samples);
        counters.add(Counter::NegativeValues, left_out.negative_values);
        counters.add(Counter::UnreadableFileIds, left_out.unreadable_file_ids);
        let outcome = self.ingest.write(mapped).await.map_err(|error| self.refusal(&error));
        drop(room);
        let outcome = outcome?;
        // The wire counts whole profiles only, so samples are counted in words.
        let rejected = (outcome.rejected > 0).then(|| {
            let reason = outcome.reason.unwrap_or_default();
            format!(
                "{} of {} samples were not stored: {reason}",
                outcome.rejected,
                outcome.rejected + outcome.samples
            )
        });
        Ok(PartialSuccess {
            rejected_profiles: left_out.profiles(),
            message: rejected.or(left_out.first).unwrap_or_default(),
        })
    }
}

impl Exports {
    /// Unpacks and decodes in turn, off the network threads unless it is a matter of a moment.
    async fn read(&self, export: Export, mut room: Held) -> Result<(Mapped, LeftOut, Held), Refusal> {
        let turn = timeout(TURN_TIME, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(turn) = turn else {
            let message = format!("no turn to be read within {TURN_TIME:?}");
            return Err(Refusal::Overloaded(message, BUSY_PAUSE));
        };
        let turn = turn.expect("the semaphore is never closed");
        let small = if export.is_packed() { LARGE_MESSAGE / 8 } else { LARGE_MESSAGE };
        if export.packed_len() <= small {
            let (mapped, left_out) = read(export, &mut room)?;
            return Ok((mapped, left_out, room));
        }
        // The turn ends when the work does, even when nobody waits for it any more.
        let work = move || {
            let _turn = turn;
            let (mapped, left_out) = read(export, &mut room)?;
            Ok((mapped, left_out, room))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Refusal::Internal(format!("decoding ended early: {error}")))?
    }

    fn refusal(&self, error: &store::Error) -> Refusal {
        match error {
            store::Error::Overloaded { .. } => Refusal::Overloaded(error.to_string(), BUSY_PAUSE),
            store::Error::Unavailable { .. } => Refusal::Unavailable(error.to_string(), AWAY_PAUSE),
            _ if error.is_retryable() => Refusal::Unavailable(error.to_string(), FULL_PAUSE),
            _ => {
                if let Some(times) = self.told.lost.due() {
                    tracing::error!(%error, times, "exports could not be written and are lost unless their senders keep them");
                }
                Refusal::Internal("the store cannot write; the log of the collector says why".into())
            }
        }
    }
}

/// Unpacks, decodes and maps. Holds room for the worst that the message can become, then for what it became.
fn read(export: Export, room: &mut Held) -> Result<(Mapped, LeftOut), Refusal> {
    let package = export.package;
    let message = export.unpack(room)?;
    room.grow(weight::most_while_decoding(message.len()))?;
    let decoded = match package {
        Package::Development => decode(&message),
        Package::Experimental => decode_experimental(&message),
    };
    let Decoded { batch, left_out, .. } = decoded.map_err(|error| Refusal::Malformed(error.to_string()))?;
    let mapped = mapping::documents(&batch);
    drop((batch, message));
    room.0.shrink_to(weight::of(&mapped.documents));
    Ok((mapped, left_out))
}

/// The words of a refusal.
fn words(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Malformed(text)
        | Refusal::TooLarge(text)
        | Refusal::Unpackable(text)
        | Refusal::Late(text)
        | Refusal::Cut(text)
        | Refusal::Overloaded(text, _)
        | Refusal::Unavailable(text, _)
        | Refusal::Internal(text) => text,
    }
}
