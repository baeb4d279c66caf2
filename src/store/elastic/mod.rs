//! Elasticsearch as the store: documents out in bulk, questions as searches, the indices it needs.
//!
//! Shapes, names and identifiers are those of Elastic's Universal Profiling, so its own readers read what is written
//! here and the other way round. Nothing outside this folder speaks HTTP to Elasticsearch.

pub mod bulk;
mod bulk_body;
mod client;
pub mod encode;
pub mod generation;
mod names;
pub mod queue;
mod read;
pub mod setup;

pub use bulk_body::{BulkBody, Item, Kind};
pub use client::{Answer, CallError, Cause, Client, ClientError, HostProblem};
pub use encode::{Encoder, Shape};
pub use names::{Generation, LEVELS, Names};
pub use read::{ElasticReader, ReadLimits};
