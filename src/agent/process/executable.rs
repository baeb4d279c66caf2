//! One file with code: who it is and where its parts lie. Does not change once made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table_use::Heat;
use crate::model::FileId;
use crate::symbols::elf::Elf;
use crate::symbols::file_id;
use crate::symbols::mapped::ImageFile;

/// Size of a page as mappings are rounded to it. Larger pages (arm64) are multiples, for which the sums below hold too.
const PAGE_BYTES: u64 = 4096;

/// A file with code.
#[derive(Debug)]
pub(crate) struct Executable {
    /// Identity by content.
    pub(crate) file_id: FileId,
    /// Base name.
    pub(crate) name: Arc<str>,
    /// GNU build ID in hex; empty when there is none.
    pub(crate) build_id: Arc<str>,
    /// Path as the first process saw it that mapped the file.
    pub(crate) path: PathBuf,
    /// The process that this was.
    pub(crate) seen_in: u32,
    /// Inode by which mappings name the file.
    pub(crate) key: FileKey,
    /// Size and time of change when it was read.
    pub(crate) stamp: Stamp,
    /// Made up to give memory of no file a table; nothing that is reported may name it.
    pub(crate) is_stand_in: bool,
    /// Samples that lie in it.
    pub(crate) heat: Heat,
    /// `PT_LOAD` segments.
    loads: Box<[Load]>,
}

/// A file as mappings name it. Unique while somebody holds the file open or maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    /// Device as major and minor number.
    pub(crate) device: (u32, u32),
    /// Inode.
    pub(crate) inode: u64,
}

/// Tells two contents of one inode apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes.
    pub(crate) size: u64,
    /// Time of the last change of content: seconds, nanoseconds.
    pub(crate) changed: (i64, i64),
}

#[derive(Clone, Copy, Debug)]
struct Load {
    offset: u64,
    address: u64,
    file_bytes: u64,
    executable: bool,
}

/// Who and where, besides the content.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Path as the process sees it.
    pub(crate) path: PathBuf,
    /// Process.
    pub(crate) pid: u32,
    /// Inode by which mappings name the file.
    pub(crate) key: FileKey,
    /// Size and time of change.
    pub(crate) stamp: Stamp,
    /// See [`Executable::is_stand_in`].
    pub(crate) is_stand_in: bool,
}

impl Executable {
    /// Reads identity and segments.
    ///
    /// # Errors
    /// When the file is no ELF file or cannot be read.
    pub(crate) fn read(image: ImageFile, origin: Origin) -> crate::symbols::Result<Self> {
        let elf = Elf::open(image)?;
        let loads = elf.segments().iter().filter(|segment| segment.is_load()).map(|segment| Load {
            offset: segment.offset.0,
            address: segment.address.0,
            file_bytes: segment.file_bytes,
            executable: segment.is_executable(),
        });
        Ok(Self {
            file_id: file_id::of_file(elf.image())?,
            name: base_name(&origin.path).into(),
            build_id: file_id::build_ids(&elf)?.gnu_hex().into(),
            loads: loads.collect(),
            path: origin.path,
            seen_in: origin.pid,
            key: origin.key,
            stamp: origin.stamp,
            is_stand_in: origin.is_stand_in,
            heat: Heat::default(),
        })
    }

    /// Runtime address minus ELF address (wrapping) of a mapping that begins at `start` with byte `file_offset` of the
    /// file. `None` when no segment holds that byte: the file is mapped by hand, not by a loader.
    pub(crate) fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        let holds = |load: &&Load| {
            let first = load.offset & !(PAGE_BYTES - 1);
            first <= file_offset && file_offset < load.offset.saturating_add(load.file_bytes)
        };
        let load = self
            .loads
            .iter()
            .filter(|load| load.executable)
            .find(holds)
            .or_else(|| self.loads.iter().find(holds))?;
        let elf_address = load.address.wrapping_sub(load.offset).wrapping_add(file_offset);
        Some(start.wrapping_sub(elf_address))
    }
}

/// Last component of a path as text; the whole path when there is none.
pub(crate) fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;

    use super::*;

    pub(crate) fn origin(path: &str) -> Origin {
        Origin {
            path: path.into(),
            pid: 1,
            key: FileKey { device: (0, 0), inode: 1 },
            stamp: Stamp { size: 0, changed: (0, 0) },
            is_stand_in: false,
        }
    }

    fn own() -> Executable {
        let path = std::env::current_exe().unwrap();
        let image = ImageFile::open(File::open(&path).unwrap()).unwrap();
        Executable::read(image, origin(path.to_str().unwrap())).unwrap()
    }

    #[test]
    fn bias_of_this_program_leads_back_to_its_symbols() {
        let executable = own();
        let here = bias_of_this_program_leads_back_to_its_symbols as *const () as u64;
        let maps = crate::agent::process::procfs::maps(std::process::id()).unwrap();
        let range = maps.ranges.iter().find(|range| range.start <= here && here < range.end).unwrap();
        let bias = executable.bias(range.start, range.file_offset).unwrap();
        assert_eq!(bias % 4096, 0);
        // A static-pie or pie program has its first segment at 0, so the bias is where the file begins.
        let elf_address = here.wrapping_sub(bias);
        let text = executable.loads.iter().find(|load| load.executable).unwrap();
        assert!(elf_address >= text.address && elf_address < text.address + text.file_bytes);
    }

    #[test]
    fn bias_counts_from_the_segment_that_holds_the_byte() {
        let mut executable = own();
        executable.loads = Box::new([
            Load { offset: 0, address: 0x40_0000, file_bytes: 0x1fff, executable: false },
            // lld: text begins in the middle of a page that it shares with the segment before.
            Load { offset: 0x1ff0, address: 0x40_2ff0, file_bytes: 0x5000, executable: true },
        ]);
        assert_eq!(executable.bias(0x7000_0000, 0x1000), Some(0x7000_0000 - 0x40_2000));
        assert_eq!(executable.bias(0x40_2000, 0x1000), Some(0));
        // Second half of a split mapping.
        assert_eq!(executable.bias(0x7000_3000, 0x4000), Some(0x7000_3000 - 0x40_5000));
        assert_eq!(executable.bias(0x7000_0000, 0x10_0000), None);
    }

    #[test]
    fn base_names_of_odd_paths() {
        assert_eq!(base_name(Path::new("/usr/bin/sed")), "sed");
        assert_eq!(base_name(Path::new("[vdso]")), "[vdso]");
        assert_eq!(base_name(Path::new("/")), "/");
    }
}
