//! Whom the kernel side samples: `bpf/filter.h` in words of user space.

use std::fmt;

use super::abi;

/// Where the kernel side looks for the cgroup of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hierarchy {
    /// The one of version 2.
    Unified,
    /// That of version 1 with the memory controller.
    Memory,
    /// That of version 1 with the CPU controller.
    Cpu,
    /// That of version 1 with the controller of process numbers.
    Pids,
}

impl Hierarchy {
    fn abi(self) -> u32 {
        match self {
            Self::Unified => abi::HIERARCHY_UNIFIED,
            Self::Memory => abi::HIERARCHY_MEMORY,
            Self::Cpu => abi::HIERARCHY_CPU,
            Self::Pids => abi::HIERARCHY_PIDS,
        }
    }
}

/// How the kernel side decides; fixed when it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSettings {
    /// Processes are sampled once they are this old, in nanoseconds.
    pub min_age_ns: u64,
    /// Only what was chosen is sampled ([`super::Sampler::choose`]).
    pub choose: bool,
    /// Where cgroups are looked for; `None` = no cgroup will be chosen.
    pub hierarchy: Option<Hierarchy>,
    /// Idle CPUs are sampled too.
    pub idle: bool,
}

impl FilterSettings {
    pub(super) fn abi(self) -> abi::Filter {
        abi::Filter {
            min_age_ns: self.min_age_ns,
            choose: self.choose.into(),
            hierarchy: self.hierarchy.map_or(abi::HIERARCHY_NONE, Hierarchy::abi),
            idle: self.idle.into(),
            reserved: 0,
        }
    }
}

/// Something that is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Choice {
    /// A process by its number, not what it starts.
    Process(u32),
    /// Processes by the name of their first thread, NUL-padded.
    Name([u8; 16]),
    /// Processes in a cgroup or below, by the inode number of its directory.
    Cgroup(u64),
}

impl Choice {
    /// Processes of a name; the kernel keeps 15 bytes of it.
    #[must_use]
    pub fn name(text: &str) -> Self {
        let mut name = [0; 16];
        let bytes = text.as_bytes();
        let length = bytes.len().min(15);
        name[..length].copy_from_slice(&bytes[..length]);
        Self::Name(name)
    }

    /// `struct abi_choice`.
    pub(super) fn key(self) -> [u8; abi::CHOICE_BYTES as usize] {
        let numbered = |number: u64, kind: u32| {
            let mut key = [0; abi::CHOICE_BYTES as usize];
            key[..8].copy_from_slice(&number.to_ne_bytes());
            key[8..].copy_from_slice(&(u64::from(kind) << abi::CHOICE_KIND_SHIFT).to_ne_bytes());
            key
        };
        match self {
            Self::Process(pid) => numbered(u64::from(pid), abi::CHOICE_PROCESS),
            Self::Name(name) => name,
            Self::Cgroup(id) => numbered(id, abi::CHOICE_CGROUP),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Name(name) => {
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                write!(f, "processes named {}", String::from_utf8_lossy(&name[..end]))
            }
            Self::Cgroup(id) => write!(f, "cgroup {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_cannot_be_taken_for_each_other() {
        let name = Choice::name("a name of more than fifteen bytes");
        assert_eq!(name.key()[15], 0);
        assert_eq!(name.to_string(), "processes named a name of more ");
        let keys = [Choice::Process(1), Choice::Cgroup(1), Choice::name("\u{1}")].map(Choice::key);
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }
}
