//! How much work an object gives the kernel's verifier: loads it once more with the verifier's statistics on.
//!
//! For tests and diagnosis only: the agent itself never asks. The text is the verifier's own, one line a program.

use libbpf_rs::{AsRawLibbpf, libbpf_sys};

use super::load::{self, Error, Object, SamplerSettings};

/// `BPF_LOG_STATS`, from `linux/bpf_verifier.h`: figures only, no trace (5.2).
const LOG_STATISTICS: u32 = 4;
/// The figures take a few lines; what does not fit would make the kernel refuse the program.
const LOG_BYTES: usize = 256 << 10;

/// What the verifier says it did for one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierWork {
    /// Program, as the C source names it.
    pub program: String,
    /// Instructions walked, of all paths together. The kernel gives up at 1,000,000.
    pub instructions: u64,
    /// States remembered.
    pub states: u64,
}

/// Loads `object` and throws it away again. Programs whose figures the kernel does not tell are left out.
pub fn verifier_work(object: Object, settings: &SamplerSettings) -> Result<Vec<VerifierWork>, Error> {
    let mut open = load::open_object(object, settings)?;
    let mut logs: Vec<(String, Vec<u8>)> = Vec::new();
    for mut program in open.progs_mut() {
        program.set_log_level(LOG_STATISTICS);
        let mut log = vec![0_u8; LOG_BYTES];
        // SAFETY: the program is alive in `open`, the buffer has the size given and lives in `logs` (whose growth moves
        // the vector, not its buffer) until `open` and what was loaded from it are gone.
        let ret = unsafe {
            libbpf_sys::bpf_program__set_log_buf(
                program.as_libbpf_object().as_ptr(),
                log.as_mut_ptr().cast(),
                LOG_BYTES as _,
            )
        };
        if ret == 0 {
            logs.push((program.name().to_string_lossy().into_owned(), log));
        }
    }
    drop(load::load_open(object, open)?);
    let told = logs.into_iter().filter_map(|(program, log)| parse(program, &String::from_utf8_lossy(&log)));
    Ok(told.collect())
}

/// Reads `processed N insns (limit …) … total_states M …`.
fn parse(program: String, log: &str) -> Option<VerifierWork> {
    let line = log.lines().find(|line| line.starts_with("processed "))?;
    let mut words = line.split_whitespace().skip(1);
    let instructions = words.next()?.parse().ok()?;
    let states = words.skip_while(|word| *word != "total_states").nth(1)?.parse().ok()?;
    Some(VerifierWork { program, instructions, states })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_verifiers_figures() {
        let log = "verification time 1731 usec\nstack depth 40+96\nprocessed 1207 insns (limit 1000000) \
                   max_states_per_insn 4 total_states 81 peak_states 80 mark_read 5\n\0\0";
        let work = parse("sample".to_owned(), log).unwrap();
        assert_eq!((work.instructions, work.states), (1207, 81));
        assert_eq!(parse("sample".to_owned(), "verification time 3 usec\n"), None);
    }
}
