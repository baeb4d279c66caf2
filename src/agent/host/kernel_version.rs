//! Kernels that must not be used, by version: one of them would freeze the machine, and no probe can ask for that.
//!
//! Everything else is decided by asking the kernel (`agent::bpf::Features`), never by its number. Pure but for [`read`].

use std::fmt;

/// First fixed releases: `copy_from_user_nofault` could wait for a lock that the interrupted code held. The fault came
/// with 5.19.
const FAULTY_FROM: [u32; 3] = [5, 19, 0];
const FIXED_6_1: [u32; 3] = [6, 1, 36];
const FIXED_6_3: [u32; 3] = [6, 3, 10];
const FIXED: [u32; 3] = [6, 4, 0];

/// Oldest kernel that anything is promised for.
const OLDEST: [u32; 3] = if cfg!(target_arch = "aarch64") { [5, 5, 0] } else { [5, 4, 0] };

/// Why a kernel is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfitKernel {
    /// Before the oldest one that is promised.
    TooOld {
        /// Its version.
        found: [u32; 3],
    },
    /// Can freeze while a profiler reads the memory of a process.
    Freezes {
        /// Its version.
        found: [u32; 3],
    },
}

impl UnfitKernel {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::TooOld { .. } => "update the kernel, or try all the same with -no-kernel-version-check",
            Self::Freezes { .. } => {
                "update the kernel; where the vendor has brought the repair to this version, start with -no-kernel-version-check"
            }
        }
    }
}

impl fmt::Display for UnfitKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted = |[major, minor, patch]: [u32; 3]| format!("{major}.{minor}.{patch}");
        match self {
            Self::TooOld { found } => {
                let [major, minor, _] = OLDEST;
                write!(
                    f,
                    "host agent requires kernel version {major}.{minor} or newer but got {}",
                    dotted(*found)
                )
            }
            Self::Freezes { found } => write!(
                f,
                "kernel {} can freeze while a profiler reads the memory of processes (copy_from_user_nofault, repaired in \
                 6.1.36, 6.3.10 and 6.4)",
                dotted(*found)
            ),
        }
    }
}

/// Version of the running kernel; `None` when nobody can tell.
#[must_use]
pub fn read() -> Option<[u32; 3]> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    version(&text("/proc/sys/kernel/osrelease"), &text("/proc/version"), &text("/proc/version_signature"))
}

/// Distributions number their builds, and tell the release below elsewhere: Debian in the version text, Ubuntu in a file.
fn version(release: &str, text: &str, signature: &str) -> Option<[u32; 3]> {
    let ubuntu =
        signature.trim().rsplit(' ').next().filter(|_| signature.starts_with("Ubuntu ")).and_then(parse);
    let debian = text.split_once(" Debian ").and_then(|(_, rest)| parse(rest));
    ubuntu.or(debian).or_else(|| parse(release))
}

/// `6.1.106-3` and everything that begins like it.
fn parse(text: &str) -> Option<[u32; 3]> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some([major, minor, numbers.next().flatten().unwrap_or(0)])
}

/// Refuses a kernel that must not be used.
///
/// # Errors
/// Says which rule it breaks.
pub fn check(version: [u32; 3]) -> Result<(), UnfitKernel> {
    if version < OLDEST {
        return Err(UnfitKernel::TooOld { found: version });
    }
    let repaired = match version {
        [6, 1, _] => version >= FIXED_6_1,
        [6, 3, _] => version >= FIXED_6_3,
        _ => version >= FIXED,
    };
    if version >= FAULTY_FROM && !repaired {
        return Err(UnfitKernel::Freezes { found: version });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_tell_the_release_below_their_build() {
        assert_eq!(version("6.18.44-fc\n", "Linux version 6.18.44", ""), Some([6, 18, 44]));
        let debian = "Linux version 6.1.0-9-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP \
                      PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)";
        assert_eq!(version("6.1.0-9-amd64", debian, ""), Some([6, 1, 27]));
        let ubuntu = "Ubuntu 6.2.0-26.26~22.04.1-generic 6.2.13\n";
        assert_eq!(version("6.2.0-26-generic", "", ubuntu), Some([6, 2, 13]));
        assert_eq!(version("5.10", "", ""), Some([5, 10, 0]));
        assert_eq!(version("mine", "", ""), None);
    }

    #[test]
    fn kernels_that_freeze_are_refused_and_their_neighbours_are_not() {
        for bad in [[5, 19, 0], [5, 19, 17], [6, 0, 19], [6, 1, 35], [6, 2, 16], [6, 3, 9]] {
            assert_eq!(check(bad), Err(UnfitKernel::Freezes { found: bad }));
        }
        for good in [[5, 10, 0], [5, 18, 19], [6, 1, 36], [6, 3, 10], [6, 4, 0], [6, 18, 44], [7, 0, 0]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        let old = check([3, 10, 0]).unwrap_err().to_string();
        assert!(
            old.starts_with("host agent requires kernel version 5.") && old.ends_with("but got 3.10.0"),
            "{old}"
        );
    }
}
