//! How the programs speak about themselves: log lines, metrics and their pages.
//!
//! Levels by consequence: INFO an action worked, WARN nothing was lost, ERROR data was lost or someone must act,
//! DEBUG never per sample.
//!
//! To add a number: name it in [`Metric`], then either keep what [`Metrics::counter`] gives and add to it, or keep the
//! number where it is and let [`Metrics::ask`] read it when somebody looks. Both show on every page at once.

mod log;
mod metrics;
mod names;
mod page;
mod process;
mod seldom;

pub use log::{LogStyle, init};
pub use metrics::{Answers, Counter, Gauge, Histogram, Metrics};
pub use names::{Metric, Shape};
pub use page::{Format, Page};
pub use seldom::Seldom;
