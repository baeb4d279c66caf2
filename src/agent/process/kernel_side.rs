//! What the process room asks of the kernel side. `agent::tables` answers; tests may record.

use crate::agent::tables::TableImage;
use crate::model::{ElfAddr, RuntimeAddr};
use crate::unwind::{Rule, UnwindTable};

/// A published unwind table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// One executable mapping of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMapping {
    /// First address.
    pub start: RuntimeAddr,
    /// Length in bytes.
    pub len: u64,
    /// Runtime address minus ELF address, wrapping.
    pub bias: u64,
    /// Unwind table; `None` while there is none: the kernel side then follows frame pointers.
    pub table: Option<TableId>,
    /// There will be a table soon.
    pub pending: bool,
}

/// Why the kernel side could not take a table or a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelSideError {
    /// The pool is at its byte budget and nothing can be evicted.
    #[error("unwind table pool is full: {used_bytes} of {budget_bytes} bytes in use")]
    PoolFull {
        /// Bytes in use.
        used_bytes: u64,
        /// Budget in bytes.
        budget_bytes: u64,
    },
    /// No more distinct unwind rules fit.
    #[error("unwind rule table is full: {limit} distinct rules")]
    RulesFull {
        /// Largest number of rules.
        limit: u32,
    },
    /// No more processes fit.
    #[error("process table is full: {limit} processes")]
    ProcessesFull {
        /// Largest number of processes.
        limit: u32,
    },
    /// The system refused a map operation.
    #[error("kernel refused a table update: errno {0}")]
    Kernel(i32),
}

/// Tables and mappings as the sampling program sees them.
pub trait KernelSide {
    /// Publishes a table. The same content published twice gives the same id, counted.
    fn publish(&mut self, table: &UnwindTable) -> Result<TableId, KernelSideError>;

    /// The same for a table that was made ready elsewhere.
    fn publish_image(&mut self, image: &TableImage) -> Result<TableId, KernelSideError>;

    /// Gives one use of a table back; its pages are reused when nobody uses them.
    fn retire(&mut self, table: TableId);

    /// The rule at an address of a published table, as the kernel side would find it; [`Rule::Unknown`] where there is
    /// none.
    fn rule(&self, table: TableId, address: ElfAddr) -> Rule;

    /// Replaces all mappings of a process. `mappings` are sorted by start and do not overlap.
    /// From the next sample on no cached rule of this process is used any more.
    fn set_process(&mut self, pid: u32, mappings: &[ProcessMapping]) -> Result<(), KernelSideError>;

    /// Forgets a process.
    fn remove_process(&mut self, pid: u32);
}
