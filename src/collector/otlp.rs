//! Exports from the network: token, decoding, the store, and the answer that fits what happened.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;

use super::auth::is_authorized;
use super::counters::Counter;
use super::ingest::Ingest;
use super::mapping::{self, Mapped};
use crate::net::Token;
use crate::store;
use crate::wire::otlp::{
    self, Decoded, LeftOut, Package, PartialSuccess, Receiver, Refusal, decode, decode_experimental,
};

/// Messages beyond this leave the network threads: decoding runs at some 100 MB/s, so 256 KiB are 2 to 3 ms.
const LARGE_MESSAGE: usize = 256 << 10;
/// Pause asked of senders while the store has too much to do.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Pause asked of senders while the store is away; it may be back at any moment.
const AWAY_PAUSE: Duration = Duration::from_secs(5);
/// Pause asked of senders while the store cannot write at all.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// Takes exports for one [`Ingest`].
#[derive(Debug)]
pub(super) struct Exports {
    pub(super) ingest: Arc<Ingest>,
    pub(super) token: Option<Token>,
}

#[async_trait]
impl Receiver for Exports {
    fn authorize(&self, headers: &HeaderMap) -> bool {
        let authorized = is_authorized(self.token.as_ref(), headers);
        if !authorized {
            self.ingest.counters().add(Counter::Unauthorized, 1);
        }
        authorized
    }

    async fn receive(&self, message: Bytes, package: Package) -> Result<PartialSuccess, Refusal> {
        let counters = self.ingest.counters();
        counters.add(Counter::BatchesReceived, 1);
        let read = if message.len() > LARGE_MESSAGE {
            tokio::task::spawn_blocking(move || read(&message, package))
                .await
                .map_err(|error| Refusal::Internal(format!("decoding ended early: {error}")))?
        } else {
            read(&message, package)
        };
        let (mapped, left_out) = read.map_err(|error| {
            counters.add(Counter::BatchesMalformed, 1);
            // Per export, so only for those who look: senders are told, and the counter tells everybody.
            tracing::debug!(%error, "export refused");
            Refusal::Malformed(error.to_string())
        })?;
        counters.add(Counter::ProfilesOtherType, left_out.profiles_of_other_type);
        counters.add(Counter::ProfilesOtherPeriod, left_out.profiles_of_other_period);
        counters.add(Counter::EntriesOfOtherProfiles, left_out.samples);
        counters.add(Counter::NegativeValues, left_out.negative_values);
        counters.add(Counter::UnreadableFileIds, left_out.unreadable_file_ids);
        let outcome = self.ingest.write(mapped).await.map_err(|error| refusal(&error))?;
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

fn read(message: &[u8], package: Package) -> otlp::Result<(Mapped, LeftOut)> {
    let Decoded { batch, left_out, .. } = match package {
        Package::Development => decode(message)?,
        Package::Experimental => decode_experimental(message)?,
    };
    Ok((mapping::documents(&batch), left_out))
}

fn refusal(error: &store::Error) -> Refusal {
    match error {
        store::Error::Overloaded { .. } => Refusal::Overloaded(error.to_string(), BUSY_PAUSE),
        store::Error::Unavailable { .. } => Refusal::Unavailable(error.to_string(), AWAY_PAUSE),
        _ if error.is_retryable() => Refusal::Unavailable(error.to_string(), FULL_PAUSE),
        _ => {
            tracing::error!(%error, "an export could not be written and is lost unless its sender keeps it");
            Refusal::Internal("the store cannot write; the log of the collector says why".into())
        }
    }
}
