//! User registers of one thread, as the kernel lays them out for each architecture.

use everflame::unwind::Architecture;

/// `struct user_regs` of `bpf/core.h`, x86-64; behind it what the kernel keeps elsewhere.
const X86_64: [&str; 22] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base",
];
/// The same of arm64 behind x0 to x30; the last word's lower half is the number of the system call.
const AARCH64_OTHERS: [&str; 5] = ["sp", "pc", "pstate", "orig_x0", "syscallno"];

/// Names of the words, in order.
pub(crate) fn names(architecture: Architecture) -> Vec<String> {
    match architecture {
        Architecture::X86_64 => X86_64.map(str::to_owned).to_vec(),
        Architecture::Aarch64 => {
            (0..31).map(|n| format!("x{n}")).chain(AARCH64_OTHERS.map(str::to_owned)).collect()
        }
    }
}

/// One thread's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) architecture: Architecture,
    words: Vec<u64>,
}

impl Registers {
    /// All zero, but for what marks 64-bit user code outside of system calls.
    pub(crate) fn new(architecture: Architecture) -> Self {
        let mut registers = Self { architecture, words: vec![0; names(architecture).len()] };
        match architecture {
            Architecture::X86_64 => {
                registers.set("cs", 0x33);
                registers.set("orig_rax", u64::MAX);
            }
            Architecture::Aarch64 => registers.set("syscallno", u64::from(u32::MAX)),
        }
        registers
    }

    fn index(&self, name: &str) -> usize {
        let known = names(self.architecture);
        known.iter().position(|known| known == name).unwrap_or_else(|| panic!("no register {name}"))
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.words[self.index(name)]
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) {
        let index = self.index(name);
        self.words[index] = value;
    }

    /// Name and value of each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (String, u64)> {
        names(self.architecture).into_iter().zip(self.words.clone())
    }

    pub(crate) fn pc(&self) -> u64 {
        self.get(if self.architecture == Architecture::X86_64 { "rip" } else { "pc" })
    }

    pub(crate) fn sp(&self) -> u64 {
        self.get(if self.architecture == Architecture::X86_64 { "rsp" } else { "sp" })
    }

    /// The thread stands in a system call: the kernel then finds these registers on its own stack.
    pub(crate) fn in_system_call(&self) -> bool {
        match self.architecture {
            Architecture::X86_64 => self.get("orig_rax") as i64 >= 0,
            Architecture::Aarch64 => (self.get("syscallno") as u32) >> 31 == 0,
        }
    }

    /// As the kernel side reads them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}
