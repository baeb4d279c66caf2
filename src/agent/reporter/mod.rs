//! What was sampled, window by window, to whoever takes it.

mod delivery;
mod otlp;
mod window;

use async_trait::async_trait;

pub(crate) use delivery::{Delivery, Outbox, channel, random};
pub use otlp::OtlpSink;
pub(crate) use window::{Frame, Window};

use crate::model::Batch;

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// May succeed later: overload, connection lost, disk full.
    #[error("{0}")]
    Retryable(String),
    /// Will never succeed: malformed, beyond a limit.
    #[error("{0}")]
    Refused(String),
    /// Nor will anything else that this agent sends: its token or its version is wrong.
    #[error("{0}")]
    Barred(String),
}

/// Takes the batch of a finished window. `Ok` means the receiver answers for it.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands over one batch.
    async fn report(&self, batch: &Batch) -> Result<(), ReportError>;
}
