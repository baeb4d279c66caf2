//! everflame: whole-system continuous profiling.
//!
//! Rooms in reading order, with the arrows of `docs/architecture.md`: a room imports only rooms below it.

#[cfg(test)]
#[path = "../tests/cannot_run/mod.rs"]
mod cannot_run;

#[cfg(feature = "agent")]
pub mod agent;
pub mod cli;
pub mod collector;
pub mod config;
pub mod model;
pub mod net;
pub mod query;
pub mod run;
pub mod store;
pub mod symbolizer;
pub mod symbols;
pub mod telemetry;
pub mod unwind;
#[cfg(feature = "web")]
pub mod web;
pub mod wire;
