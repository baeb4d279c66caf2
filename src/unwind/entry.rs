//! Code that is known by its bytes: process entry, thread start, signal return, lazy-binding stubs.
//!
//! For files whose call frame information is silent about it. Looks at few bytes: the entry point, small functions,
//! and code without any entry as long as there is little of it.

use super::Architecture;
use super::rows::{CfaRule, FpRule, RaRule, Rule};

/// A stretch of code with one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Bytes from the start of the code that was given.
    pub(super) range: std::ops::Range<usize>,
    pub(super) rule: Rule,
}

/// `mov rax, 15; syscall` in its two encodings, `mov x8, 139; svc 0`.
const SIGNAL_RETURN_X86_64: [&[u8]; 2] = [b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05", b"\xb8\x0f\0\0\0\x0f\x05"];
const SIGNAL_RETURN_AARCH64: [&[u8]; 1] = [b"\x68\x11\x80\xd2\x01\0\0\xd4"];

/// Length of the signal trampoline that `code` starts with.
pub(super) fn signal_return(code: &[u8], architecture: Architecture) -> Option<usize> {
    let patterns: &[&[u8]] = match architecture {
        Architecture::X86_64 => &SIGNAL_RETURN_X86_64,
        Architecture::Aarch64 => &SIGNAL_RETURN_AARCH64,
    };
    patterns.iter().find(|pattern| code.starts_with(pattern)).map(|pattern| pattern.len())
}

/// Longest start code that is looked at.
pub(super) const START_BYTES: usize = 64;

/// Length of the start stub that `code`, which the entry point leads to, begins with; `None` when it does not look
/// like one. At most [`START_BYTES`].
pub(super) fn process_start(code: &[u8], architecture: Architecture) -> Option<usize> {
    let code = code.get(..START_BYTES).unwrap_or(code);
    match architecture {
        Architecture::X86_64 => {
            let body = code.strip_prefix(b"\xf3\x0f\x1e\xfa").unwrap_or(code);
            // xor ebp, ebp marks the outermost frame; the loader starts with mov rdi, rsp; call.
            let starts = [&b"\x31\xed"[..], b"\x48\x31\xed", b"\x48\x89\xe7\xe8", b"\x48\x89\xe0\xe8"];
            starts.iter().any(|start| body.starts_with(start)).then(|| {
                // glibc: ends with hlt. musl: ends with a call to the next instruction, which tail-calls onwards.
                let halt = code.iter().position(|&byte| byte == 0xf4).map(|at| at + 1);
                let call = code.windows(5).position(|five| five == b"\xe8\0\0\0\0").map(|at| at + 5);
                call.or(halt).unwrap_or(code.len())
            })
        }
        Architecture::Aarch64 => {
            let words =
                || code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            // bti c; mov x29, 0; mov x30, 0, the last two in either order.
            let zeroed = words().take(3).filter(|&word| matches!(word, 0xd280_001d | 0xd280_001e)).count();
            (zeroed == 2).then(|| {
                let is_branch = |word: u32| matches!(word >> 26, 0b00_0101 | 0b10_0101);
                let second = words().enumerate().filter(|&(_, word)| is_branch(word)).nth(1);
                second.map_or(code.len(), |(at, _)| (at + 1) * 4)
            })
        }
    }
}

/// Finds signal trampolines and thread starts in code without entries (musl has none at all).
pub(super) fn scan(code: &[u8], architecture: Architecture, mut found: impl FnMut(Known)) {
    if architecture == Architecture::Aarch64 {
        for (at, _) in code.chunks_exact(4).enumerate() {
            if let Some(len) = signal_return(&code[at * 4..], architecture) {
                // A return address is looked up one byte before it.
                found(Known { range: (at * 4).saturating_sub(1)..at * 4 + len, rule: Rule::Signal });
            }
        }
        return;
    }
    for at in code.windows(2).enumerate().filter(|(_, two)| *two == b"\x0f\x05").map(|(at, _)| at) {
        for pattern in SIGNAL_RETURN_X86_64 {
            let start = (at + 2).checked_sub(pattern.len());
            if let Some(start) = start.filter(|&start| code[start..].starts_with(pattern)) {
                found(Known { range: start.saturating_sub(1)..at + 2, rule: Rule::Signal });
            }
        }
        if let Some(range) = thread_start(&code[at..]) {
            found(Known { range: at + range.start..at + range.end, rule: Rule::Stop });
        }
    }
}

/// What the child does after `syscall` in musl's `clone`: `test eax, eax; jnz; xor ebp, ebp; pop rdi; call`, to the
/// end of the call. `code` starts at the system call.
fn thread_start(code: &[u8]) -> Option<std::ops::Range<usize>> {
    let rest = code.strip_prefix(b"\x0f\x05\x85\xc0\x75")?;
    let rest = rest.get(1..)?.strip_prefix(b"\x31\xed\x5f")?;
    let call = if rest.starts_with(b"\x41\xff") { 3 } else { 2 };
    let start = 6;
    let end = start + 3 + call;
    (end <= code.len() && rest.get(call - 2) == Some(&0xff)).then_some(start..end)
}

/// Sections that linkers make and often no entry describes.
pub(super) const LINKER_MADE: [&[u8]; 6] = [b".plt", b".plt.got", b".plt.sec", b".iplt", b".init", b".fini"];

/// Rules of a section that linkers make and often no entry describes: (offset, rule), x86-64 only. Stubs for lazy
/// binding as lld writes them, and the frames of `_init` and `_fini`.
pub(super) fn linker_made(name: &[u8], code: &[u8]) -> Vec<(u64, Rule)> {
    let frame = |cfa| Rule::Frame { cfa, fp: FpRule::Unchanged, ra: RaRule::AtCfa(-8) };
    // With branch tracking each stub starts with endbr64 and pushes its index right behind it.
    let tracked = code.get(16..).is_some_and(|second| second.starts_with(b"\xf3\x0f\x1e\xfa"));
    let lazy = frame(CfaRule::Plt { threshold: if tracked { 9 } else { 11 } });
    match name {
        // The header is reached with the index pushed, and pushes the link map in its first six bytes.
        b".plt" => vec![(0, frame(CfaRule::Sp(16))), (6, frame(CfaRule::Sp(24))), (16, lazy)],
        b".plt.got" | b".plt.sec" | b".iplt" => vec![(0, frame(CfaRule::Sp(8)))],
        b".init" | b".fini" => {
            // sub rsp, 8; …; add rsp, 8; ret
            let body = code.windows(4).position(|four| four == b"\x48\x83\xec\x08").map(|at| at as u64 + 4);
            let end = code.strip_suffix(b"\x48\x83\xc4\x08\xc3").map(|rest| rest.len() as u64 + 4);
            match (body, end) {
                (Some(body @ 4..=8), Some(end)) => {
                    vec![
                        (0, frame(CfaRule::Sp(8))),
                        (body, frame(CfaRule::Sp(16))),
                        (end, frame(CfaRule::Sp(8))),
                    ]
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, linker_made, process_start, scan, signal_return};
    use crate::unwind::{Architecture, CfaRule, Rule};

    const X86: Architecture = Architecture::X86_64;

    #[test]
    fn knows_signal_trampolines() {
        assert_eq!(signal_return(b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05\xc3", X86), Some(9));
        assert_eq!(signal_return(b"\xb8\x0f\0\0\0\x0f\x05", X86), Some(7));
        assert_eq!(signal_return(b"\xb8\x0e\0\0\0\x0f\x05", X86), None);
        assert_eq!(signal_return(b"\x68\x11\x80\xd2\x01\0\0\xd4", Architecture::Aarch64), Some(8));
    }

    #[test]
    fn knows_start_code_of_both_libraries() {
        let glibc = b"\x31\xed\x49\x89\xd1\x5e\x48\x89\xe2\x48\x83\xe4\xf0\x50\x54\x45\x31\xc0\x31\xc9\
            \x48\x8d\x3d\xce\0\0\0\xff\x15\x9f\x2e\0\0\xf4\x66\x2e\x0f\x1f";
        assert_eq!(process_start(glibc, X86), Some(34));
        let musl = b"\x48\x31\xed\x48\x89\xe7\x48\x8d\x35\x01\x02\x03\0\x48\x83\xe4\xf0\xe8\0\0\0\0\x8b\x37";
        assert_eq!(process_start(musl, X86), Some(22));
        assert_eq!(process_start(b"\x55\x48\x89\xe5", X86), None);
        let arm: Vec<u8> = [0xd280_001d_u32, 0xd280_001e, 0x9100_03e0, 0x9400_0001, 0x9400_0002, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(process_start(&arm, Architecture::Aarch64), Some(20));
    }

    #[test]
    fn finds_them_inside_other_code() {
        let mut code = vec![0x90; 40];
        code.extend_from_slice(b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05");
        code.extend_from_slice(&[0x90; 5]);
        code.extend_from_slice(b"\x0f\x05\x85\xc0\x75\x0f\x31\xed\x5f\x41\xff\xd1\x89\xc7");
        let mut all = Vec::new();
        scan(&code, X86, |known| all.push(known));
        let expected =
            [Known { range: 39..49, rule: Rule::Signal }, Known { range: 60..66, rule: Rule::Stop }];
        assert_eq!(all, expected);
    }

    #[test]
    fn tells_lazy_binding_stubs_with_branch_tracking_from_those_without() {
        let mut code = vec![0; 48];
        assert!(matches!(
            linker_made(b".plt", &code)[2].1,
            Rule::Frame { cfa: CfaRule::Plt { threshold: 11 }, .. }
        ));
        code[16..20].copy_from_slice(b"\xf3\x0f\x1e\xfa");
        assert!(matches!(
            linker_made(b".plt", &code)[2].1,
            Rule::Frame { cfa: CfaRule::Plt { threshold: 9 }, .. }
        ));
        assert!(linker_made(b".text", &code).is_empty());
        let fini = b"\xf3\x0f\x1e\xfa\x48\x83\xec\x08\x48\x83\xc4\x08\xc3";
        let at: Vec<_> = linker_made(b".fini", fini).iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [0, 8, 12]);
    }
}
