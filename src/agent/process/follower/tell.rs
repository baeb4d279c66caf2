//! What the kernel side is told of tables and processes, and when.

use super::Follower;
use crate::agent::host::clock::monotonic_ns;
use crate::agent::process::address_space::Content;
use crate::agent::process::kernel_side::{KernelSide, KernelSideError};
use crate::agent::process::table::Image;
use crate::model::FileId;

/// How long an image lives before the kernel side is told of it, in nanoseconds: 20 ms. Until then its samples come with
/// stack copies, or with the row of the process it was forked from.
pub(super) const YOUNG_NS: u64 = 20_000_000;

impl Follower {
    /// Publishes finished tables; processes that map them are to be told of anew.
    pub(super) fn publish(&mut self, kernel: &mut dyn KernelSide) {
        let table = &self.table;
        let is_mapped = |file_id: FileId| table.all_live().any(|image| maps_any(image, &[file_id]));
        let settled = self.builder.publish(kernel, is_mapped);
        if settled.is_empty() {
            return;
        }
        for image in self.table.all_live().filter(|image| maps_any(image, &settled)) {
            self.changes.changed.insert(image.pid);
        }
    }

    /// Tells the kernel side what changed. Of young images nothing: most end before it would have paid. Nor of restless
    /// ones before they rested; until then their samples come with stack copies.
    pub(super) fn flush(&mut self, kernel: &mut dyn KernelSide, now_ns: u64) {
        for pid in self.changes.gone.drain() {
            kernel.remove_process(pid);
        }
        let mut due: Vec<u32> = Vec::new();
        for pid in self.changes.changed.drain() {
            let Some(from_ns) = self.table.live(pid).map(|image| image.from_ns) else { continue };
            // What was there before anybody looked is not young.
            let grown_ns = if from_ns == 0 { 0 } else { from_ns + YOUNG_NS };
            let rested_ns = self.shares.publish_at(pid);
            let due_ns = grown_ns.max(rested_ns);
            if due_ns <= now_ns {
                due.push(pid);
                continue;
            }
            self.counts.paced += u64::from(grown_ns <= now_ns);
            self.young.insert((due_ns, pid));
            // What it was before: another program, or other mappings.
            kernel.remove_process(pid);
            if let Some(told) = self.table.told(pid) {
                told.removed(monotonic_ns());
            }
        }
        let later = self.young.split_off(&(now_ns + 1, 0));
        due.extend(std::mem::replace(&mut self.young, later).into_iter().map(|(_, pid)| pid));
        for pid in due {
            let Some(image) = self.table.live(pid).filter(|image| !image.kernel_thread) else { continue };
            let builder = &self.builder;
            image.space.for_kernel(|executable| builder.table(executable), &mut self.mappings);
            match kernel.set_process(pid, &self.mappings) {
                Ok(()) => {
                    self.shares.published(pid, self.mappings.len(), now_ns);
                    if let Some(told) = self.table.told(pid) {
                        told.published(monotonic_ns(), now_ns);
                    }
                }
                Err(KernelSideError::ProcessesFull { .. }) => self.counts.refused += 1,
                Err(error) => {
                    self.counts.refused += 1;
                    tracing::warn!(pid, mappings = self.mappings.len(), "process not published: {error}");
                }
            }
        }
    }
}

fn maps_any(image: &Image, files: &[FileId]) -> bool {
    image.space.live().iter().any(|mapping| {
        matches!(&mapping.content, Content::Executable(executable, _) if files.contains(&executable.file_id))
    })
}
