//! Questions and their answers: KQL and relative times to a selection, then pure reduction of what a store counted.
//!
//! Knows no engine (only [`crate::store::Reader`]), no route and no JSON; clocks are arguments. [`pipeline`] is the
//! one place that awaits; every reducer below it is a function of its arguments. Called by `web`.

pub mod cancel;
mod cut;
mod error;
pub mod flamegraph;
pub mod functions;
pub mod kql;
mod names;
pub mod nearest;
pub mod pipeline;
pub mod profiling;
pub mod sandwich;
pub mod selection;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod timeline;
mod tree;
mod weights;

pub use cancel::Cancel;
pub use error::{Error, Result};
pub use names::{Function, FunctionKey, FunctionNames, NodeKind};
pub use tree::{DrawnFunction, FlameTree, Fold};
pub use weights::Weights;
