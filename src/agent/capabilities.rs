//! What this process may do, what the agent needs of it, and giving up the rest.
//!
//! Root inside a container often has less than its name says: the bits decide, not the user.

use std::io;

use super::bpf::capset;

/// One capability the agent knows about, numbered as in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Capability {
    DacReadSearch = 2,
    SysPtrace = 19,
    SysAdmin = 21,
    SysResource = 24,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
    CheckpointRestore = 40,
}

impl Capability {
    const ALL: [Self; 8] = [
        Self::DacReadSearch,
        Self::SysPtrace,
        Self::SysAdmin,
        Self::SysResource,
        Self::Syslog,
        Self::Perfmon,
        Self::Bpf,
        Self::CheckpointRestore,
    ];

    /// Name as manuals and container settings write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// A capability that is missing, with what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Which.
    pub capability: Capability,
    /// What does not work, and what still does.
    pub effect: &'static str,
    /// Whether no sampling is possible at all.
    pub fatal: bool,
}

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is missing: {}", self.capability.name(), self.effect)
    }
}

/// Set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those in effect for the calling thread.
    pub fn effective() -> io::Result<Self> {
        capset::effective().map(Self)
    }

    /// Whether `capability` is in the set. `CAP_SYS_ADMIN` stands for the three that were split off from it in 5.8 and
    /// 5.9.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        let split_off =
            matches!(capability, Capability::Bpf | Capability::Perfmon | Capability::CheckpointRestore);
        self.0 & capability.bit() != 0 || (split_off && self.0 & Capability::SysAdmin.bit() != 0)
    }

    /// What the agent lacks, worst first.
    #[must_use]
    pub fn lacking(self) -> Vec<Lacking> {
        let needs = [
            (Capability::Bpf, true, "no BPF program can be loaded, nothing can be sampled"),
            (
                Capability::Perfmon,
                true,
                "no CPU clock can be opened for all processes, nothing can be sampled",
            ),
            (
                Capability::SysPtrace,
                false,
                "mappings of other users' processes cannot be read; their stacks are followed by frame pointers only",
            ),
            (
                Capability::DacReadSearch,
                false,
                "executables that only their owners may read have no unwind tables and no names",
            ),
            (
                Capability::CheckpointRestore,
                false,
                "executables that were deleted or lie in other mount namespaces may have no unwind tables",
            ),
            (
                Capability::Syslog,
                false,
                "kernel frames may have no names; their addresses are still recorded",
            ),
        ];
        let absent = needs.into_iter().filter(|(capability, ..)| !self.has(*capability));
        absent.map(|(capability, fatal, effect)| Lacking { capability, effect, fatal }).collect()
    }

    /// Gives up everything the agent does not need once it samples, for the calling thread and those it starts
    /// afterwards. What is kept: reading processes and files, BPF maps, clocks of CPUs that come later, kernel symbols.
    /// Returns what is left.
    pub fn drop_unneeded(self) -> io::Result<Self> {
        let mut keep = 0;
        for capability in Capability::ALL {
            let only_to_start = matches!(capability, Capability::SysResource | Capability::SysAdmin);
            if !only_to_start {
                keep |= capability.bit();
            }
        }
        // Before 5.8, or where the container hands out nothing finer, it stands for the others.
        let fine = [Capability::Bpf, Capability::Perfmon].iter().all(|c| self.0 & c.bit() != 0);
        if !fine {
            keep |= Capability::SysAdmin.bit();
        }
        capset::keep_only(keep)?;
        Self::effective()
    }
}

impl std::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = Capability::ALL.into_iter().filter(|c| self.0 & c.bit() != 0);
        f.debug_set().entries(known.map(Capability::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing() {
        assert_eq!(Capabilities(u64::MAX).lacking(), []);
    }

    #[test]
    fn admin_stands_for_what_was_split_off() {
        let admin = Capabilities(Capability::SysAdmin.bit());
        assert!(admin.has(Capability::Bpf) && admin.has(Capability::CheckpointRestore));
        assert!(admin.lacking().iter().all(|lacking| !lacking.fatal));
        assert!(!admin.has(Capability::SysPtrace));
    }

    #[test]
    fn says_what_follows_in_one_sentence() {
        let lacking = Capabilities(0).lacking();
        assert!(lacking[0].fatal && lacking[1].fatal);
        assert_eq!(
            lacking[0].to_string(),
            "CAP_BPF is missing: no BPF program can be loaded, nothing can be sampled"
        );
    }

    #[test]
    fn gives_up_what_it_does_not_need() {
        // On a thread of its own: capabilities belong to threads.
        let left = std::thread::spawn(|| Capabilities::effective().unwrap().drop_unneeded().unwrap());
        let left = left.join().unwrap();
        let chown = 1;
        assert_eq!(left.0 & chown, 0);
        assert_eq!(left.0 & Capability::SysResource.bit(), 0);
    }
}
