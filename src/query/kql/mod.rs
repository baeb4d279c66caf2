//! KQL, the filter language: text to [`Filter`] and back.
//!
//! ```text
//! process: nginx and not thread: w*          fields and aliases of `Dimension`
//! host: ("a b" or c*) and pid: 12            several values of one field; quoted text is literal
//! container: *                               the field is there
//! ```
//!
//! `not` binds tighter than `and`, `and` tighter than `or`; keywords in any case. `*` stands for any run of characters
//! in unquoted values; `\` makes the next character ordinary. Knows no store: engines evaluate or translate the tree.

mod lexer;
mod parser;
mod print;

use std::fmt;

pub use parser::parse;
pub use print::print;

/// Longest filter in characters. A page's filter has some hundreds; the limit bounds parsing and evaluation.
pub const MAX_CHARS: usize = 8192;
/// Deepest nesting of parentheses and `not`. Bounds the recursion of parser and evaluators.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KqlError {
    /// 0-based character where the text goes wrong.
    pub position: usize,
    /// What would have been right there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to write instead, when it can be guessed.
    pub hint: Option<String>,
}

impl fmt::Display for KqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for KqlError {}

#[cfg(test)]
mod tests;
