//! Which processes run and what they have mapped: `/proc` at start, perf side-band events afterwards.
//!
//! Answers who a process was at a given time and what lay at an address then ([`Follower`]), and keeps the kernel side
//! informed through [`KernelSide`]. Knows nothing of samples and reports.

mod address_space;
mod byte_budget;
mod container_names;
mod debug_file;
mod describe;
mod events;
mod executable;
mod executables;
mod follower;
mod jit;
mod kernel_side;
mod maps;
mod procfs;
pub mod remote_memory;
mod shares;
mod table;
mod table_builder;
mod table_cache;
mod table_maker;
mod table_use;
mod told;
mod trampolines;
mod unwind_image;

pub(crate) use address_space::{Content, Mapping};
pub(crate) use describe::Description;
pub(crate) use executable::{Executable, base_name};
pub use executables::Executables;
pub(crate) use follower::{Code, FollowSettings, Follower, GivenUp};
pub(crate) use jit::{JitCounts, JitNames, Name};
pub use kernel_side::{KernelSide, KernelSideError, ProcessMapping, TableId};
pub(crate) use table::Image;
pub use table_cache::CacheError;
pub use table_maker::TableMaker;
pub use unwind_image::NoTable;

/// When a process began, in ticks of 10 ms since boot; `None` when there is none of this number.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    procfs::stat(pid).map(|stat| stat.start_ticks)
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::table_builder::tests::Notes;
}
