//! Batches to a collector over OTLP.

use async_trait::async_trait;
use bytes::Bytes;

use super::{ReportError, Sink};
use crate::model::Batch;
use crate::wire::otlp::{Client, ClientOptions, SendError, encode};

/// Sends each batch as one export, or several when it is beyond the message limit.
#[derive(Debug)]
pub struct OtlpSink {
    client: Client,
}

impl OtlpSink {
    /// Prepares the connection; opened with the first batch. Must be called inside a runtime.
    ///
    /// # Errors
    /// When address or token cannot be used.
    pub fn new(options: &ClientOptions) -> Result<Self, SendError> {
        Ok(Self { client: Client::new(options)? })
    }
}

#[async_trait]
impl Sink for OtlpSink {
    async fn report(&self, batch: &Batch) -> Result<(), ReportError> {
        let encoded = encode(batch);
        if encoded.too_large > 0 {
            tracing::error!(samples = encoded.too_large, "samples beyond the message limit left out");
        }
        for message in encoded.messages {
            let answer = self.client.send(Bytes::from(message)).await.map_err(|error| match error {
                SendError::Retryable { .. } => ReportError::Retryable(error.to_string()),
                SendError::Refused { bars: true, hint, .. } => {
                    ReportError::Barred(hint.map_or(error.to_string(), |hint| format!("{error}; {hint}")))
                }
                SendError::Refused { .. } => ReportError::Refused(error.to_string()),
            })?;
            if answer.rejected_profiles > 0 {
                tracing::error!(
                    profiles = answer.rejected_profiles,
                    "receiver took only a part: {}",
                    answer.message
                );
            }
        }
        Ok(())
    }
}
