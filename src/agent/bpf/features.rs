//! What the running kernel can do, found by asking it, never by its version.

use std::ffi::CStr;
use std::path::Path;

use libbpf_rs::libbpf_sys;

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
    /// `bpf_loop` (5.17).
    pub loops: bool,
    /// `bpf_task_pt_regs` and typed task pointers (5.15).
    pub task_registers: bool,
    /// `kernel.perf_event_paranoid`, if readable.
    pub perf_event_paranoid: Option<i32>,
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
            loops: helper(libbpf_sys::BPF_FUNC_loop),
            task_registers: helper(libbpf_sys::BPF_FUNC_task_pt_regs)
                && helper(libbpf_sys::BPF_FUNC_get_current_task_btf),
            perf_event_paranoid: std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// Whether the modern object can be loaded.
    #[must_use]
    pub fn allows_modern(&self) -> bool {
        self.loops && self.task_registers && self.kernel_types
    }

    /// What is missing, worst first.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut check = |present: bool, absent: Missing| {
            if !present {
                missing.push(absent);
            }
        };
        check(
            self.perf_event_program,
            Missing {
                what: "programs on perf events cannot be loaded",
                effect: "nothing can be sampled",
                cure: "run as root or with CAP_BPF and CAP_PERFMON, on a kernel with CONFIG_BPF_EVENTS",
                fatal: true,
            },
        );
        check(
            self.ring_buffer && self.probe_read_user,
            Missing {
                what: "the kernel has no BPF ring buffer or no safe user reads",
                effect: "nothing can be sampled",
                cure: "use a kernel of 5.8 or later",
                fatal: true,
            },
        );
        check(
            self.kernel_types,
            Missing {
                what: "the kernel carries no type information (/sys/kernel/btf/vmlinux)",
                effect: "nothing can be sampled until it is handed over",
                cure: "use a kernel with CONFIG_DEBUG_INFO_BTF, or name a BTF file for it in the settings",
                fatal: true,
            },
        );
        check(
            self.loops && self.task_registers,
            Missing {
                what: "the kernel has no bpf_loop or no bpf_task_pt_regs",
                effect: "the legacy object is used: everything works, loading takes longer",
                cure: "none needed; kernels from 5.17 on have both",
                fatal: false,
            },
        );
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
            loops: true,
            task_registers: true,
            perf_event_paranoid: Some(2),
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
    fn no_permission_is() {
        assert!(Features { perf_event_program: false, ..all() }.missing()[0].fatal);
    }
}
