//! One export on its way in: its bytes as they arrived, the memory it may take, and why it may be refused.

use std::time::Duration;

use bytes::Bytes;

use super::compression::{self, Packing, unpack};
use super::json;
use super::limits::MAX_MESSAGE_BYTES;

/// Which family of messages the sender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// `v1development`: 1.4 and later.
    Development,
    /// `v1experimental`: 1.3.
    Experimental,
}

/// How an export came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// gRPC.
    Grpc,
    /// HTTP with a protobuf body.
    Http,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Binary.
    Protobuf,
    /// Text, over HTTP only.
    Json,
}

/// Memory that one export may take. Everything is given back when this is dropped.
pub trait Room: Send + 'static {
    /// Asks for `bytes` more before they are held.
    ///
    /// # Errors
    /// The answer to the sender when there is no room.
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal>;
}

/// Why an export was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message says something impossible; never send it again.
    Malformed(String),
    /// Larger than what is taken; never send it again.
    TooLarge(String),
    /// Packed in a way that is not known here.
    Unpackable(String),
    /// It did not arrive in time.
    Late(String),
    /// The connection ended before it was whole; nobody will read the answer.
    Cut(String),
    /// Too much work right now; come back after the pause.
    Overloaded(String, Duration),
    /// Cannot work right now; come back after the pause.
    Unavailable(String, Duration),
    /// Something broke here.
    Internal(String),
}

/// A whole message, as it was packed.
#[derive(Debug)]
pub struct Export {
    pub(super) body: Bytes,
    pub(super) packing: Packing,
    pub(super) form: Form,
    /// Family of messages.
    pub package: Package,
    /// How it came.
    pub transport: Transport,
}

impl Export {
    /// Bytes as they arrived.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.body.len()
    }

    /// Whether it grows, or takes more than a moment, before it can be decoded.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.packing != Packing::None || self.form == Form::Json
    }

    /// The message itself, in binary form.
    ///
    /// # Errors
    /// When it is packed badly, comes out too large, is no JSON where it should be, or `room` has no room for it.
    pub fn unpack(self, room: &mut impl Room) -> Result<Bytes, Refusal> {
        let message = match unpack(self.packing, &self.body, MAX_MESSAGE_BYTES, |bytes| room.grow(bytes)) {
            Ok(None) => self.body,
            Ok(Some(unpacked)) => unpacked.into(),
            Err(compression::Error::NoRoom(refusal)) => return Err(refusal),
            Err(error @ compression::Error::TooLarge { .. }) => {
                return Err(Refusal::TooLarge(error.to_string()));
            }
            Err(error @ compression::Error::Broken { .. }) => {
                return Err(Refusal::Malformed(error.to_string()));
            }
        };
        if self.form == Form::Protobuf {
            return Ok(message);
        }
        // The binary form is never larger, but a buffer that grows holds up to twice what is in it.
        room.grow(2 * message.len())?;
        json::to_protobuf(&message).map(Bytes::from).map_err(|error| {
            Refusal::Malformed(format!("body: expected an export as JSON, found something else: {error}"))
        })
    }
}
