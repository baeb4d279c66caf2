//! The verifier's work, compared with what was written down in `tests/kernels/verifier.tsv`.

use everflame::agent::bpf::{Features, Object, VerifierWork};

/// Kernel line, architecture, object, variant, program, instructions, states; tabs between them.
const KEPT: &str = include_str!("../kernels/verifier.tsv");
/// No program may come near the kernel's limit of 1,000,000, nor near what old kernels take seconds for.
const MOST_INSTRUCTIONS: u64 = 20_000;

/// Fails when the verifier walked more than the limit, or half as much again as it did when the figure was kept.
pub(crate) fn check(object: Object, variant: &str, work: &VerifierWork) {
    let release = Features::probe().kernel;
    let line: Vec<&str> = release.split(['.', '-']).take(2).collect();
    let key = [&*line.join("."), std::env::consts::ARCH, object.name(), variant, &*work.program];
    // Read by tests/kernels/run, which makes the table of all kernels.
    println!("verifier: {}\t{}\t{}", key.join("\t"), work.instructions, work.states);
    let limit = match kept(&key) {
        Some(instructions) => MOST_INSTRUCTIONS.min(instructions + instructions / 2),
        None => MOST_INSTRUCTIONS,
    };
    assert!(
        work.instructions <= limit,
        "{release}: {} object, {variant}: {} instructions walked, at most {limit} expected",
        object.name(),
        work.instructions
    );
}

/// Instructions written down for this kernel line, architecture, object, variant and program.
fn kept(key: &[&str; 5]) -> Option<u64> {
    let rows = KEPT.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split('\t').collect::<Vec<_>>())
        .find(|row| row.starts_with(key))
        .map(|row| row[5].parse().expect("tests/kernels/verifier.tsv: instructions are a number"))
}
