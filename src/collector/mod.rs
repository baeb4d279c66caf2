//! Authenticated OTLP exports in, documents out.
//!
//! Knows nothing of agents, engines or pages.

pub mod mapping;
pub mod seen;
