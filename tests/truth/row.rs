//! What a row of the matrix says. Data only: who builds and runs it is elsewhere.

use std::borrow::Cow;

/// A text of a row: written down, or put together from a list of compilers and flags.
pub(crate) type Text = Cow<'static, str>;

/// One program of the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Name in the table and, for programs of our own, of the executable: at most 15 bytes, for the kernel keeps no more.
    pub(crate) name: Text,
    /// How it comes to be.
    pub(crate) build: Build,
    /// Arguments behind the seconds (own programs), or the script that runs and loads an installed one.
    pub(crate) load: Load,
    /// Which stacks are true.
    pub(crate) oracle: Oracle,
    /// Part of the short run.
    pub(crate) short: bool,
}

/// Where the executable comes from.
#[derive(Clone, Debug)]
pub(crate) enum Build {
    /// A C or C++ source of `tests/programs` with a compiler and its flags.
    Compiled { compiler: &'static str, source: &'static str, flags: Vec<&'static str> },
    /// The same, trained: compiled to learn, run, compiled with what was learned.
    Trained { compiler: &'static str, source: &'static str, flags: Vec<&'static str> },
    /// A Rust source.
    Rust { source: &'static str, flags: Vec<&'static str> },
    /// A Go source with the Go of a suite of the distribution, or the one on the path.
    Go { from: Option<(&'static str, &'static str)>, source: &'static str, cgo: bool },
    /// Programs of the distribution; the first that exists counts, `*` stands for one path component.
    Installed(&'static [&'static str]),
}

/// How the program gets something to do.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// Its own loop; these arguments follow the seconds.
    Own(&'static [&'static str]),
    /// A shell script. `$P` is the program, `$D` a folder that only this row has, `$PORT` a free port. It runs until it
    /// is ended, together with all it started.
    Script(&'static str),
}

/// How a stack is judged.
#[derive(Clone, Debug)]
pub(crate) enum Oracle {
    /// Every recorded stack against the program's own call chains.
    Chains(Chains),
    /// gdb, at random moments of the running program.
    Gdb,
    /// gdb and the chains, at each instruction of these functions. Nothing is recorded: where a sample falls is chance.
    Stepped(Chains, &'static [&'static str]),
}

/// The call chains that a program can have, as words: see `chain`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chains {
    /// Leaf first, one line per chain.
    pub(crate) paths: &'static [&'static str],
    /// What follows each of them towards the root.
    pub(crate) below: &'static [&'static str],
    /// Chains that may stand on top of any part of the others: signal handlers.
    pub(crate) interrupts: &'static [&'static str],
}

impl Row {
    /// Part of the short run, which every test run makes.
    pub(crate) fn short(mut self) -> Self {
        self.short = true;
        self
    }
}
