//! What Elasticsearch's profiling interface answers: stack traces, flame graphs and functions, with what they cost a year.
//!
//! [`Scene::read`] asks the store, everything else is a function of what it found. The numbers follow the interface's
//! rules: one tree level for executables and one for threads, one node per inlined function, identities that are hashes
//! of names. Knows no JSON and no route; `web::profiling` does.

pub mod carbon;
pub mod cost;
pub mod flamegraph;
pub mod functions;
pub mod identity;
pub mod resample;
mod scene;
pub mod stacktraces;

pub use cost::{Annual, Prices};
pub use scene::{Frame, Question, Sample, Scene};

#[cfg(test)]
mod tests;
