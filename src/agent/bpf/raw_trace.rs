//! One sample as the kernel side recorded it, before anybody knows what its addresses mean.

use crate::unwind::Registers;

/// Address of a user frame with what the unwinder knows of it.
///
/// User addresses leave the top bits free; the kernel side puts two flags there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct UserFrame(pub u64);

impl UserFrame {
    /// The address follows a call, so the code that ran lies before it.
    pub const RETURN_ADDRESS: u64 = 1 << 63;
    /// Found by following the frame pointer, not by a rule.
    pub const APPROXIMATE: u64 = 1 << 62;

    /// Runtime address in bytes, as found.
    #[must_use]
    pub fn address(self) -> u64 {
        self.0 & !(Self::RETURN_ADDRESS | Self::APPROXIMATE)
    }

    /// Runtime address inside the instruction that ran: return addresses lowered by one.
    #[must_use]
    pub fn code_address(self) -> u64 {
        self.address() - u64::from(self.is_return_address() && self.address() > 0)
    }

    /// Whether the address follows a call.
    #[must_use]
    pub fn is_return_address(self) -> bool {
        self.0 & Self::RETURN_ADDRESS != 0
    }

    /// Whether the frame was found by frame pointer.
    #[must_use]
    pub fn is_approximate(self) -> bool {
        self.0 & Self::APPROXIMATE != 0
    }
}

impl std::fmt::Debug for UserFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}{}", self.address(), if self.is_return_address() { "r" } else { "" })
    }
}

/// Why the walk over the user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// At the thread's real entry.
    Complete,
    /// Kernel thread: there is no user stack.
    KernelThread,
    /// Thread of a process that works in the kernel only, for io_uring or a virtual machine: there is no user stack.
    UserWorker,
    /// The process has no mappings in the kernel side yet.
    UnknownProcess,
    /// No executable mapping covers the last address.
    NoMapping,
    /// The mapping has no unwind table, and the frame pointer led nowhere.
    NoTable,
    /// The table has no rule for the last address, and the frame pointer led nowhere.
    NoRule,
    /// Stack memory could not be read.
    UnreadableStack,
    /// The stack pointer did not grow: damaged stack or wrong rule.
    NotGrowing,
    /// The return address is no code address.
    BadReturnAddress,
    /// 32-bit process.
    Compat,
    /// A table page was replaced while it was read.
    TableMoved,
    /// Deeper than the frame limit; both ends are kept.
    TooDeep,
    /// The unwind table of the last mapping was still being made, and the frame pointer led nowhere.
    TablePending,
    /// The process is between two programs or at its end: the memory that its registers speak of is gone.
    NoMemory,
    /// Walked in user space, up to the end of the stack copy.
    StackCopyEnded,
}

impl EndReason {
    /// Whether nothing of the stack is missing.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Complete | Self::KernelThread | Self::UserWorker)
    }
}

/// One sample, borrowed from the ring buffer.
#[derive(Clone, Copy, Debug)]
pub struct RawTrace<'r> {
    /// Process (thread group).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// CPU.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Thread name, NUL-padded.
    pub comm: [u8; 16],
    /// Kernel addresses, leaf first; all but the first are return addresses.
    pub kernel: &'r [u64],
    /// User frames, leaf first.
    pub user: &'r [UserFrame],
    /// Frames left out between `user[gap_at - 1]` and `user[gap_at]`; 0 = none. Only with [`EndReason::TooDeep`]
    /// or when the outermost frames of a deep stack were kept.
    pub gap_at: u32,
    /// Why the user stack ends where it ends.
    pub end: EndReason,
    /// What a later walk needs, where the kernel side had not been told enough.
    pub stack_copy: Option<&'r StackCopy>,
}

/// Registers and stack of a sample, to be walked in user space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackCopy {
    /// Registers of the sampled frame.
    pub registers: Registers,
    /// First address of the copy.
    pub start: u64,
    /// Memory from there on.
    pub bytes: Vec<u8>,
}

impl StackCopy {
    /// The word at an address, where it was copied.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }
}
