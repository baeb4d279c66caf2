//! OTLP profiles: exports to and from [`crate::model::Batch`].
//!
//! Reading takes every revision of the messages from 1.3 to 1.11, writing gives the newest. No code is generated:
//! reading borrows from the message, writing appends to one buffer. `client` and `server` carry raw bytes, so that a
//! message is read once.

mod attributes;
mod decode;
mod dictionary;
mod encode;
mod error;
mod fields;
pub mod limits;
mod revision;

pub use decode::{Decoded, LeftOut, decode, decode_experimental};
pub use encode::{Encoded, encode, encode_within};
pub use error::{Error, Result};
