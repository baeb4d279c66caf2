//! The row model: from each address on, one rule says how to step to the caller.

use crate::model::ElfAddr;

/// How the canonical frame address (the caller's stack pointer) is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CfaRule {
    /// Stack pointer + offset.
    Sp(i32),
    /// Frame pointer + offset.
    Fp(i32),
    /// Lazy-binding PLT stub: `sp + 8`, and 8 more from byte `threshold` of each 16-byte entry on.
    Plt {
        /// 10 or 11, by linker.
        threshold: u8,
    },
    /// `*(sp + offset) + add`.
    DerefSp {
        /// Added before the dereference.
        offset: i32,
        /// Added after it.
        add: i32,
    },
    /// `*(fp + offset) + add` (DRAP: realigned stacks).
    DerefFp {
        /// Added before the dereference.
        offset: i32,
        /// Added after it.
        add: i32,
    },
    /// Another register + offset, DWARF numbering. Known for the sampled frame; the kernel side believes it for the frame
    /// above, as a guess, where it leads to a place not far up the stack.
    Register {
        /// DWARF register number.
        register: u8,
        /// Added to it.
        offset: i32,
    },
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpRule {
    /// Still in the register.
    Unchanged,
    /// In memory at CFA + offset.
    AtCfa(i32),
    /// In memory at frame pointer + offset (DRAP).
    AtFp(i32),
    /// Not to be known: the caller's frame pointer must not be used (0 serves).
    Unknown,
}

/// Where the return address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RaRule {
    /// In memory at CFA + offset: -8 on x86-64.
    AtCfa(i32),
    /// In the link register (arm64), known for the sampled frame only.
    LinkRegister,
    /// In another register, DWARF numbering, known for the sampled frame only (x86-64 `vfork` keeps it in rdi).
    Register(u8),
}

/// How to step from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// By the three parts.
    Frame {
        /// Caller's stack pointer.
        cfa: CfaRule,
        /// Caller's frame pointer.
        fp: FpRule,
        /// Return address.
        ra: RaRule,
    },
    /// By the three parts, which were read off the code because nothing describes it. Right as a rule, not for certain.
    Guess {
        /// Caller's stack pointer.
        cfa: CfaRule,
        /// Caller's frame pointer.
        fp: FpRule,
        /// Return address.
        ra: RaRule,
    },
    /// `[fp]` = caller's fp, `[fp + 8]` = return address, sp = fp + 16.
    FramePointer,
    /// The same where the frame pointer is the caller's, which is passed over: Go's runtime before 1.21 on another stack.
    BorrowedFramePointer,
    /// Go's `morestack` on the stack of the system: the goroutine that asked for more has its registers in its own record.
    Goroutine(Goroutine),
    /// Signal trampoline: all registers lie in the signal frame.
    Signal,
    /// Outermost frame: nothing above.
    Stop,
    /// No information, or one that we cannot express.
    Unknown,
}

/// The way to the registers of the goroutine that Go's runtime works for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Goroutine {
    /// g of the thread, from its thread pointer. On arm64 it is in x28 and this is 0.
    pub g: i32,
    /// m in g.
    pub m: u16,
    /// The goroutine in m; zero there while none runs.
    pub goroutine: u16,
    /// Its stack pointer in it; its program counter follows.
    pub saved: u16,
    /// Its frame pointer in it.
    pub saved_fp: u16,
}

impl Rule {
    /// Whether the caller it leads to is approximate.
    #[must_use]
    pub fn is_guess(&self) -> bool {
        matches!(self, Self::Guess { .. } | Self::BorrowedFramePointer)
    }
}

/// From `address` on, up to the next row, `rule` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Bytes from [`UnwindTable::base`].
    pub offset: u32,
    /// Index in [`UnwindTable::rules`].
    pub rule: u16,
}

/// What was left out of a table, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Entries that could not be parsed.
    pub malformed: u64,
    /// Entries outside the 4 GiB that a table spans.
    pub out_of_range: u64,
    /// Rows whose rule cannot be expressed (they become [`Rule::Unknown`]).
    pub unsupported: u64,
    /// Entries beyond a limit: of rows, of rules, of entries.
    pub over_limit: u64,
    /// Entries hidden or cut by another one of the same section that starts at or after the same address.
    pub overlapping: u64,
}

/// All rows of one executable, sorted by offset, no two with the same offset, no two neighbours with the same rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnwindTable {
    /// ELF address of offset 0.
    pub base: ElfAddr,
    /// Rows.
    pub rows: Vec<Row>,
    /// Distinct rules.
    pub rules: Vec<Rule>,
    /// What is missing.
    pub skipped: Skipped,
}

impl Skipped {
    /// Everything left out.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.malformed + self.out_of_range + self.unsupported + self.over_limit + self.overlapping
    }
}

impl std::ops::AddAssign for Skipped {
    fn add_assign(&mut self, other: Self) {
        self.malformed += other.malformed;
        self.out_of_range += other.out_of_range;
        self.unsupported += other.unsupported;
        self.over_limit += other.over_limit;
        self.overlapping += other.overlapping;
    }
}

impl UnwindTable {
    /// Rule that holds at `address`; `None` before the first row.
    #[must_use]
    pub fn find(&self, address: ElfAddr) -> Option<Rule> {
        let offset = u32::try_from(address.0.checked_sub(self.base.0)?).ok()?;
        let at = self.rows.partition_point(|row| row.offset <= offset);
        self.rules.get(usize::from(self.rows.get(at.checked_sub(1)?)?.rule)).copied()
    }
}
