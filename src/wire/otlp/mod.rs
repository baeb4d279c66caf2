//! OTLP profiles: exports to and from [`crate::model::Batch`].
//!
//! Reading takes every revision of the messages from 1.3 to 1.11, writing gives the newest. No code is generated:
//! reading borrows from the message, writing appends to one buffer. `client` and `server` carry raw bytes, so that a
//! message is read once.

mod attributes;
mod client;
mod codec;
mod compression;
mod decode;
mod dictionary;
mod encode;
mod error;
mod export;
mod fields;
mod gather;
mod json;
pub mod limits;
mod messages;
mod revision;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientOptions, Compression, Connect, Protected, SendError, Stream};
pub use decode::{Decoded, LeftOut, decode, decode_experimental};
pub use encode::{Encoded, encode, encode_within};
pub use error::{Error, Result};
pub use export::{Export, Package, Refusal, Room, Transport};
pub use messages::PartialSuccess;
pub use server::{Answer, AnswerBody, Receiver, Server, grpc_code};

/// gRPC method of exports, revisions 1.4 and later.
pub const EXPORT_PATH: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// gRPC method of exports, revision 1.3.
pub const EXPERIMENTAL_EXPORT_PATH: &str =
    "/opentelemetry.proto.collector.profiles.v1experimental.ProfilesService/Export";
/// Path of exports over HTTP.
pub const HTTP_EXPORT_PATH: &str = "/v1development/profiles";
/// Metadata key under which agents send their token, without a scheme.
pub const TOKEN_METADATA: &str = "secrettoken";
