//! Separate debug files installed on this host, by build ID.

use std::fs::File;
use std::path::PathBuf;

use crate::symbols::elf::Elf;
use crate::symbols::file_id::{BuildIds, build_ids};
use crate::symbols::mapped::ImageFile;

/// Folders with a `.build-id` tree.
#[derive(Clone, Debug)]
pub(super) struct DebugFiles {
    folders: Vec<PathBuf>,
}

impl DebugFiles {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The debug file of the executable with these build IDs, if one is installed that really carries the same.
    ///
    /// The path is made of hex digits below configured folders; nothing in a file can lead elsewhere.
    pub(super) fn open(&self, ids: &BuildIds) -> Option<Elf> {
        let id = ids.gnu_hex();
        let (first, rest) = id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty())?;
        let below = format!(".build-id/{first}/{rest}.debug");
        self.folders.iter().find_map(|folder| {
            let file = File::open(folder.join(&below)).ok()?;
            let elf = Elf::open(ImageFile::open(file).ok()?).ok()?;
            let found = build_ids(&elf).ok()?;
            (found.gnu == ids.gnu).then_some(elf)
        })
    }
}
