//! From a mapping to the file under it, and to a wish for its table.

use std::sync::Arc;

use crate::agent::process::address_space::Content;
use crate::agent::process::events::MappedRange;
use crate::agent::process::executable::base_name;
use crate::agent::process::executables::{Executables, Resolved};
use crate::agent::process::procfs;
use crate::agent::process::table::Resolver;
use crate::agent::process::table_builder::TableBuilder;

/// Finds files and asks for their tables.
pub(super) struct FileResolver<'f> {
    pub(super) executables: &'f Executables,
    pub(super) builder: &'f mut TableBuilder,
    pub(super) heat: i64,
    /// Whether tables are wanted already.
    pub(super) ask: bool,
}

impl Resolver for FileResolver<'_> {
    fn resolve(&mut self, pid: u32, range: &MappedRange) -> Content {
        let resolved = if range.is_vdso() {
            self.executables.resolve_vdso(pid, range)
        } else if range.is_file() {
            self.executables.resolve(pid, range)
        } else if let Some((executable, offset)) = self.executables.resolve_stand_in(pid, range) {
            if self.ask {
                self.builder.ask(&executable, self.heat);
            }
            return Content::Executable(executable, range.start.wrapping_sub(offset));
        } else {
            Resolved::NotElf
        };
        if let Resolved::Executable(executable) = resolved
            && let Some(bias) = executable.bias(range.start, range.file_offset)
        {
            if self.ask {
                self.builder.ask(&executable, self.heat);
            }
            return Content::Executable(executable, bias);
        }
        Content::Nameless(nameless(range))
    }

    fn still_runs(&self, pid: u32) -> bool {
        procfs::still_runs(pid)
    }
}

/// What memory without a readable file is called in marks such as `[truncated: no unwind table for JIT code]`.
fn nameless(range: &MappedRange) -> Arc<str> {
    match base_name(procfs::strip_deleted(&range.path)) {
        name if name.is_empty() => "JIT code".into(),
        name => name.into(),
    }
}
