//! What the running kernel can do, found by asking it, never by its version.

use std::ffi::CStr;
use std::path::Path;

use libbpf_rs::libbpf_sys;

use super::restrictions::{Lockdown, Restrictions};

/// Something the kernel or the container lacks, in sentences for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: &'static str,
    /// What does not work without it, and what still does.
    pub effect: &'static str,
    /// What to do about it.
    pub cure: &'static str,
    /// Whether no sampling is possible at all.
    pub fatal: bool,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.effect)
    }
}

/// What the kernel offers to the sampling program. `false` also where the question was not answered.
#[expect(clippy::struct_excessive_bools, reason = "one answer per question")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Release, as `uname -r` prints it. For people; nothing is decided by it.
    pub kernel: String,
    /// Type information at `/sys/kernel/btf/vmlinux`: places of kernel fields.
    pub kernel_types: bool,
    /// `perf_event` programs can be loaded.
    pub perf_event_program: bool,
    /// Ring buffer map (5.8).
    pub ring_buffer: bool,
    /// Safe reads of user memory (5.5).
    pub probe_read_user: bool,
    /// Safe reads of kernel memory (5.5); lockdown for confidentiality takes them away.
    pub probe_read_kernel: bool,
    /// `bpf_loop` (5.17).
    pub loops: bool,
    /// `bpf_task_pt_regs` and typed task pointers (5.15).
    pub task_registers: bool,
    /// `kernel.perf_event_paranoid`, if readable.
    pub perf_event_paranoid: Option<i32>,
    /// What is forbidden here although the kernel could do it.
    pub restrictions: Restrictions,
}

impl Features {
    /// Asks the running kernel.
    #[must_use]
    pub fn probe() -> Self {
        let helper = |id| {
            // SAFETY: takes two numbers and no options.
            let answer = unsafe {
                libbpf_sys::libbpf_probe_bpf_helper(
                    libbpf_sys::BPF_PROG_TYPE_PERF_EVENT,
                    id,
                    std::ptr::null(),
                )
            };
            answer == 1
        };
        // SAFETY: takes a number and no options.
        let program = unsafe {
            libbpf_sys::libbpf_probe_bpf_prog_type(libbpf_sys::BPF_PROG_TYPE_PERF_EVENT, std::ptr::null())
        };
        // SAFETY: takes a number and no options.
        let ring = unsafe {
            libbpf_sys::libbpf_probe_bpf_map_type(libbpf_sys::BPF_MAP_TYPE_RINGBUF, std::ptr::null())
        };
        Self {
            kernel: release(),
            kernel_types: Path::new("/sys/kernel/btf/vmlinux").exists(),
            perf_event_program: program == 1,
            ring_buffer: ring == 1,
            probe_read_user: helper(libbpf_sys::BPF_FUNC_probe_read_user),
            probe_read_kernel: helper(libbpf_sys::BPF_FUNC_probe_read_kernel),
            loops: helper(libbpf_sys::BPF_FUNC_loop),
            task_registers: helper(libbpf_sys::BPF_FUNC_task_pt_regs)
                && helper(libbpf_sys::BPF_FUNC_get_current_task_btf),
            perf_event_paranoid: std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
            restrictions: Restrictions::read(),
        }
    }

    /// Whether the modern object can be loaded.
    #[must_use]
    pub fn allows_modern(&self) -> bool {
        // Interpreted programs may have no callbacks, and bpf_loop takes one.
        self.loops && self.task_registers && self.kernel_types && !self.restrictions.jit_off
    }

    /// What is missing, worst first.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let Restrictions { lockdown, seccomp, jit_off } = self.restrictions;
        let confidential = lockdown == Lockdown::Confidentiality;
        let fatal = |what, effect, cure| Missing { what, effect, cure, fatal: true };
        let bearable = |what, effect, cure| Missing { what, effect, cure, fatal: false };
        let nothing = "nothing can be sampled";
        let mut missing = Vec::new();
        if !self.perf_event_program {
            // Asking for the rest was refused in the same way, so nothing more is known.
            missing.push(if seccomp {
                fatal(
                    "a seccomp filter, as containers have, refuses the bpf system call, or a capability is missing",
                    "nothing can be sampled; stores, pages and collectors in this process work",
                    "run the container privileged, or with CAP_BPF, CAP_PERFMON and a seccomp profile that allows \
                     bpf and perf_event_open",
                )
            } else {
                fatal(
                    "programs on perf events cannot be loaded",
                    nothing,
                    "run as root or with CAP_BPF and CAP_PERFMON, on a kernel with CONFIG_BPF_EVENTS",
                )
            });
            return missing;
        }
        if confidential {
            missing.push(fatal(
                "the kernel is locked down for confidentiality: BPF programs may not read its memory",
                "nothing can be sampled; stores, pages and collectors in this process work",
                "boot with lockdown=integrity, under which everything works",
            ));
        } else if !self.probe_read_user || !self.probe_read_kernel {
            missing.push(fatal(
                "the kernel has no safe reads of memory",
                nothing,
                "use a kernel of 5.5 or later",
            ));
        }
        if !self.kernel_types {
            missing.push(fatal(
                "the kernel carries no type information (/sys/kernel/btf/vmlinux)",
                "nothing can be sampled until it is handed over",
                "use a kernel with CONFIG_DEBUG_INFO_BTF, or name a BTF file made for it as kernel-types",
            ));
        }
        if jit_off {
            missing.push(bearable(
                "BPF programs are interpreted (net.core.bpf_jit_enable is 0)",
                "the legacy object is used and each sample costs several times as much; stacks are the same",
                "set net.core.bpf_jit_enable to 1",
            ));
        }
        if !self.ring_buffer {
            missing.push(bearable(
                "the kernel has no BPF ring buffer",
                "samples come through a buffer of each CPU: everything works, draining costs a copy more",
                "none needed; kernels from 5.8 on have one",
            ));
        }
        if !self.loops || !self.task_registers {
            missing.push(bearable(
                "the kernel has no bpf_loop or no bpf_task_pt_regs",
                "the legacy object is used: everything works, loading takes longer",
                "none needed; kernels from 5.17 on have both",
            ));
        }
        missing
    }
}

/// `uname -r`.
fn release() -> String {
    // SAFETY: utsname is plain bytes, for which zero is valid.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is valid for writing.
    if unsafe { libc::uname(&raw mut names) } != 0 {
        return String::new();
    }
    // SAFETY: the kernel has filled the field with a NUL-terminated string.
    unsafe { CStr::from_ptr(names.release.as_ptr()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Features {
        Features {
            kernel: "6.18.0".to_owned(),
            kernel_types: true,
            perf_event_program: true,
            ring_buffer: true,
            probe_read_user: true,
            probe_read_kernel: true,
            loops: true,
            task_registers: true,
            perf_event_paranoid: Some(2),
            restrictions: Restrictions::default(),
        }
    }

    #[test]
    fn says_nothing_when_nothing_is_missing() {
        assert!(all().allows_modern());
        assert_eq!(all().missing(), []);
    }

    #[test]
    fn old_kernel_is_no_reason_to_stop() {
        let old = Features { loops: false, task_registers: false, ..all() };
        assert!(!old.allows_modern());
        assert!(old.missing().iter().all(|missing| !missing.fatal));
        assert_eq!(old.missing().len(), 1);
    }

    #[test]
    fn a_kernel_without_ring_buffer_has_another_way() {
        let old = Features { ring_buffer: false, ..all() }.missing();
        assert!(old.len() == 1 && !old[0].fatal && old[0].effect.contains("each CPU"));
    }

    #[test]
    fn no_permission_is() {
        let refused = Features { perf_event_program: false, ..all() };
        assert!(refused.missing()[0].fatal);
        let restrictions = Restrictions { seccomp: true, ..Restrictions::default() };
        let filtered = Features { restrictions, ..refused };
        assert!(filtered.missing()[0].what.contains("seccomp"));
    }

    #[test]
    fn each_restriction_has_its_sentence() {
        let with = |restrictions| Features { restrictions, ..all() }.missing();
        let none = Restrictions::default();
        assert_eq!(with(Restrictions { lockdown: Lockdown::Integrity, seccomp: true, ..none }), []);
        let locked = with(Restrictions { lockdown: Lockdown::Confidentiality, ..none });
        assert!(locked.len() == 1 && locked[0].fatal && locked[0].what.contains("locked down"));
        let interpreted = with(Restrictions { jit_off: true, ..none });
        assert!(interpreted.len() == 1 && !interpreted[0].fatal);
        assert!(!Features { restrictions: Restrictions { jit_off: true, ..none }, ..all() }.allows_modern());
        let untyped = Features { kernel_types: false, ..all() }.missing();
        assert!(untyped[0].fatal && untyped[0].cure.contains("kernel-types"));
    }
}
