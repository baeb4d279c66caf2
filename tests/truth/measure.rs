//! What the stacks of a row amount to: how many are complete, how many right, and why the rest is not.

use std::collections::HashMap;

use crate::against_gdb::most_first;
use crate::chain::{Matcher, Part};
use crate::names::Names;
use crate::recorder::{Recorded, Stacks};
use crate::row::{Oracle, Row};

/// Least share of complete stacks of a row.
pub(crate) const COMPLETE_AIM: f64 = 0.99;
/// Least share of right ones among those compared.
pub(crate) const RIGHT_AIM: f64 = 0.995;
/// Samples below which a row says nothing.
const LEAST_SAMPLES: u64 = 200;

/// Stacks beside gdb's that are shown of a row: they are long.
const GDB_EXAMPLES: usize = 3;

/// Begins the example of a stack that its program cannot have.
const NOT_A_CHAIN: &str = "not a chain";

/// Functions that a thread begins with: nobody calls them.
const ROOTS: &[&str] = &[
    // C libraries: a process, a thread, a context made by makecontext.
    "_start",
    "_dl_start_user",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "__start_context",
    // Go: a goroutine, a thread of the runtime, the scheduler's own stack, a process.
    "runtime.goexit",
    "runtime.goexit.abi0",
    "runtime.mstart",
    "runtime.mstart.abi0",
    "runtime.mcall",
    "runtime.rt0_go",
    "runtime.rt0_go.abi0",
    "_rt0_amd64_linux",
    "_rt0_amd64",
    "_rt0_arm64_linux",
];

/// Go's way to the system stack when a goroutine wants more room or is told to pause: what it calls ends there once the
/// goroutine was put aside by one of these. Without them a goroutine still waits below.
const MORESTACK: [&str; 2] = ["runtime.morestack", "runtime.morestack.abi0"];
const PUTS_ASIDE: [&str; 3] = ["runtime.schedule", "runtime.goschedImpl", "runtime.preemptPark"];

/// What a comparison with gdb gave.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Stacks walked by both.
    pub(crate) stacks: u64,
    pub(crate) complete: u64,
    /// Complete ones that are right.
    pub(crate) right: u64,
    /// Why stacks are not complete.
    pub(crate) incomplete: HashMap<String, u64>,
    /// Why complete ones are not right.
    pub(crate) wrong: HashMap<String, u64>,
    /// Stacks that are not as they should be, for a person.
    pub(crate) examples: Vec<String>,
    /// What went wrong on the way.
    pub(crate) problem: Option<String>,
}

/// A row with its figures.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) samples: u64,
    pub(crate) complete: u64,
    pub(crate) compared: u64,
    pub(crate) right: u64,
    /// Why stacks are not complete, with the number of samples of each; most first. Then why some are not right.
    pub(crate) reasons: Vec<(String, u64)>,
    /// Complete stacks that are no chain of the program, and incomplete ones, by names; most first.
    examples: Vec<(String, u64)>,
    /// Why the row has no figures.
    pub(crate) not_run: Option<String>,
    /// Why the oracle judged nothing.
    pub(crate) oracle_problem: Option<String>,
}

impl Measured {
    /// A row that could not run.
    pub(crate) fn not_run(row: &Row, why: String) -> Self {
        Self {
            name: row.name.to_string(),
            samples: 0,
            complete: 0,
            compared: 0,
            right: 0,
            reasons: Vec::new(),
            examples: Vec::new(),
            not_run: Some(why),
            oracle_problem: None,
        }
    }

    /// Judges the stacks of a row.
    pub(crate) fn new(row: &Row, stacks: &Stacks, names: &Names) -> Self {
        let matcher = match &row.oracle {
            Oracle::Chains(chains) => Some(Matcher::new(chains)),
            Oracle::Gdb | Oracle::Stepped(..) => None,
        };
        let mut measured = Self { not_run: None, ..Self::not_run(row, String::new()) };
        let (mut reasons, mut examples) = (HashMap::new(), HashMap::new());
        for (stack, count) in stacks {
            measured.samples += count;
            let parts = named(stack, names);
            if let Some(why) = incomplete(stack, &parts) {
                *reasons.entry(why.clone()).or_default() += count;
                *examples.entry(format!("{why}: {}", line(&parts))).or_default() += count;
                continue;
            }
            measured.complete += count;
            if let Some(right) = matcher.as_ref().and_then(|matcher| matcher.is_right(&parts)) {
                measured.compared += count;
                measured.right += if right { *count } else { 0 };
                if !right {
                    *examples.entry(format!("{NOT_A_CHAIN}: {}", line(&parts))).or_default() += count;
                }
            }
        }
        measured.reasons = most_first(&reasons);
        if measured.right < measured.compared {
            measured.reasons.push((NOT_A_CHAIN.to_owned(), measured.compared - measured.right));
        }
        measured.examples = most_first(&examples);
        measured
    }

    /// Takes over how gdb judged stacks; those that were not complete there are no part of what was recorded.
    pub(crate) fn judged_by(&mut self, compared: Compared) {
        self.compared += compared.complete;
        self.right += compared.right;
        self.examples.extend(compared.examples.into_iter().take(GDB_EXAMPLES).map(|text| (text, 1)));
        self.reasons.extend(most_first(&compared.wrong));
        self.oracle_problem = compared.problem.filter(|_| compared.complete == 0);
    }

    /// A row that gdb alone measured.
    pub(crate) fn by(row: &Row, compared: Compared) -> Self {
        let mut measured = Self { not_run: None, ..Self::not_run(row, String::new()) };
        (measured.samples, measured.complete) = (compared.stacks, compared.complete);
        measured.reasons = most_first(&compared.incomplete);
        measured.judged_by(compared);
        measured
    }

    /// Share of complete stacks.
    pub(crate) fn complete_share(&self) -> f64 {
        self.complete as f64 / self.samples.max(1) as f64
    }

    /// Share of right stacks among those compared; `None` when none was.
    pub(crate) fn right_share(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.right as f64 / self.compared as f64)
    }

    /// Whether the contract holds. A row that could not run is said elsewhere.
    pub(crate) fn meets_the_aims(&self) -> bool {
        self.not_run.is_some()
            || self.samples >= LEAST_SAMPLES
                && self.complete_share() >= COMPLETE_AIM
                && self.right_share().is_some_and(|share| share >= RIGHT_AIM)
    }

    /// The most frequent stacks that are not as they should be.
    pub(crate) fn scene(&self) -> String {
        // Wrong stacks first: they say nothing of themselves.
        let (wrong, cut): (Vec<_>, Vec<_>) =
            self.examples.iter().partition(|(text, _)| text.starts_with(NOT_A_CHAIN));
        let lines =
            wrong.into_iter().chain(cut).take(15).map(|(text, count)| format!("  {count:>5} × {text}"));
        let problem = self.oracle_problem.iter().map(|why| format!("  oracle: {why}"));
        let lines: Vec<String> = problem.chain(lines).collect();
        format!("{}: {} samples\n{}", self.name, self.samples, lines.join("\n"))
    }
}

fn named(stack: &[Recorded], names: &Names) -> Vec<Part> {
    stack
        .iter()
        .map(|frame| match frame {
            Recorded::Code(file, name, address) => Part::Frame(names.of(*file, name, *address)),
            Recorded::Bare(address) => Part::Frame(vec![format!("{address:#x}")]),
            Recorded::Marker(text) if text.starts_with("[frames left out") => Part::Gap,
            Recorded::Marker(text) => Part::Frame(vec![text.to_string()]),
        })
        .collect()
}

/// Why a stack is not complete: its mark, or what it ends in.
fn incomplete(stack: &[Recorded], parts: &[Part]) -> Option<String> {
    if let Some(Recorded::Marker(text)) = stack.last() {
        return Some(text.to_string());
    }
    match parts.last() {
        // Only kernel frames: the process was on its way in or out and has no user memory.
        None => None,
        Some(Part::Frame(names)) if names.iter().any(|name| ROOTS.contains(&name.as_str())) => None,
        Some(Part::Frame(names))
            if MORESTACK.contains(&names[0].as_str())
                && parts.iter().any(|part| is_one_of(part, &PUTS_ASIDE)) =>
        {
            None
        }
        Some(Part::Frame(names)) => Some(format!("ends in {}", names[0])),
        Some(Part::Gap) => Some("ends where frames are left out".to_owned()),
    }
}

fn is_one_of(part: &Part, wanted: &[&str]) -> bool {
    matches!(part, Part::Frame(names) if names.iter().any(|name| wanted.contains(&name.as_str())))
}

fn line(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Frame(names) => names.last().cloned().unwrap_or_default(),
        Part::Gap => "…".to_owned(),
    };
    let all: Vec<String> = parts.iter().map(text).collect();
    match all.len() {
        0..=40 => all.join(" < "),
        more => {
            format!("{} < [{} more] < {}", all[..20].join(" < "), more - 40, all[more - 20..].join(" < "))
        }
    }
}
