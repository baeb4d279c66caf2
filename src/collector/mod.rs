//! Authenticated OTLP exports in, documents out.
//!
//! Knows nothing of agents, engines or pages. Pure, except `otlp` (network) and `seen` (memory). Called by `run`,
//! calls [`crate::store::Writer`]. Loses nothing silently: what is not written is refused or counted under a reason.

mod auth;
#[cfg(test)]
mod captures;
mod config;
mod counters;
mod ingest;
pub mod mapping;
mod otlp;
pub mod seen;
mod service;
#[cfg(test)]
mod tests;
pub mod weight;

pub use auth::is_authorized;
pub use config::Config;
pub use counters::{Counter, Counters};
pub use ingest::{Ingest, IngestOutcome};
pub use service::{Collector, Error};
