//! The embedded store from outside: exact counts, reopening, crashes, full disks, damage, upkeep.
#![cfg(feature = "embedded")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../cannot_run/mod.rs"]
mod cannot_run;
mod counts;
mod crash;
mod damage;
mod full_disk;
mod model;
mod names;
mod scene;
mod upkeep;
