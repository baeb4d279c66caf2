//! The embedded store from outside: exact counts, reopening, crashes, full disks, damage, upkeep.
#![cfg(feature = "embedded")]

mod counts;
mod model;
mod scene;
