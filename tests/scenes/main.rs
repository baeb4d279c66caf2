//! Whole scenes: the real program, real processes, a real kernel, a real disk. Each prints the whole scene when it fails.
//!
//! What needs root or a kernel feature says so when it cannot run; with `CI=true` that is a failure.

#![allow(clippy::print_stdout, reason = "scenes tell what they saw")]

mod all_in_one;
mod browser;
#[path = "../cannot_run/mod.rs"]
mod cannot_run;
mod collector;
mod http;
mod programs;
mod roles;
mod scene;
mod shares;
