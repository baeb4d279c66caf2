//! How the programs speak about themselves: log lines.
//!
//! Levels by consequence: INFO an action worked, WARN nothing was lost, ERROR data was lost or someone must act,
//! DEBUG never per sample.

mod log;

pub use log::{LogStyle, init};
