//! What writes to a real Elasticsearch, while all kinds of things go wrong between the two.

#![cfg(feature = "elastic")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../cannot_run/mod.rs"]
mod cannot_run;
#[path = "../elasticsearch/mod.rs"]
mod elasticsearch;
mod faults;
mod outage;
mod program;
#[path = "../elasticsearch/fault.rs"]
mod proxy;
mod scene;
mod tls;
