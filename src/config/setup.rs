//! `setup`: only where Elasticsearch is.

use super::{OutputSection, Section, Settings};

/// Settings of the role that prepares a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct SetupSection {
    /// Where documents will go.
    pub output: OutputSection,
}

impl Section for SetupSection {
    fn read(settings: &Settings) -> Self {
        Self { output: OutputSection::read(settings) }
    }
}
