//! What meets a real Elasticsearch: set-up, documents, questions. The server is started by `tests/elasticsearch`.
//!
//! Each test takes a clean cluster and keeps it to itself. Where none can be started, it says so.

#![cfg(feature = "elastic")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod accepted;
#[path = "../cannot_run/mod.rs"]
mod cannot_run;
#[cfg(all(feature = "embedded", feature = "web"))]
mod contract;
mod documents;
#[path = "../elasticsearch/mod.rs"]
mod elasticsearch;
mod generation;
mod harness;
mod program;
mod reading;
mod setup;
mod sizing;
