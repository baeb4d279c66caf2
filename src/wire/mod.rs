//! Foreign bytes to and from [`crate::model`]: the only room that knows protobuf, OTLP and gRPC framing.
//!
//! Knows nothing of roles, stores or pages. Everything that arrives here is untrusted: a length is compared with a
//! named limit first and memory is taken after.

pub mod otlp;
mod protobuf;
