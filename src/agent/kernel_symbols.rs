//! Names of kernel addresses: reads `/proc/kallsyms`, follows BPF programs as they come and go, identifies the image
//! and its modules by build ID.
//!
//! The list itself is parsed by `symbols::kallsyms`. Read again only when an address is unknown, and seldom: the kernel
//! needs some 50 ms to print 120,000 lines.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;

use crate::model::FileId;
use crate::symbols::file_id;
use crate::symbols::kallsyms::{BPF, Builder, KERNEL_IMAGE, KernelSymbols};

/// Shortest time between two readings, in nanoseconds: 60 s.
const READ_AGAIN_NS: u64 = 60_000_000_000;
/// Longest line that is taken, in bytes: address, kind, a name of 511 and a module of 56.
const MAX_LINE_BYTES: usize = 1024;
/// Largest notes file that is read.
const MAX_NOTES_BYTES: u64 = 64 << 10;
/// Most programs that are followed by side-band records; a host with Cilium runs some thousands.
const MAX_PROGRAMS: usize = 65_536;

/// What is known about one kernel address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelPlace {
    /// Image or module; `None` for BPF programs, trampolines and unknown addresses.
    pub(crate) module: Option<KernelModule>,
    /// Offset from the start of `module`, else 0 (known function) or the address itself (nothing known).
    pub(crate) address: u64,
    /// Function; `None` when nothing covers the address.
    pub(crate) function: Option<Arc<str>>,
}

/// The kernel image or a module as an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelModule {
    /// `vmlinux` or the module's name.
    pub(crate) name: Arc<str>,
    /// Identity by build ID; `None` when a module has none.
    pub(crate) file_id: Option<FileId>,
    /// GNU build ID in hex; empty when unknown.
    pub(crate) build_id: Arc<str>,
}

/// Symbols of the running kernel. An unreadable or hidden list leaves all names unknown; [`KernelNames::problem`] says so.
#[derive(Debug, Default)]
pub(crate) struct KernelNames {
    table: KernelSymbols,
    modules: BTreeMap<Arc<str>, Option<KernelModule>>,
    /// Programs and trampolines reported since the last reading: start → (bytes, name).
    programs: BTreeMap<u64, (u32, Arc<str>)>,
    generation: u32,
    /// When the list was read last; `None` = not yet.
    read_ns: Option<u64>,
}

impl KernelNames {
    /// Reads the list. Without this call it is read when the first name is wanted.
    #[cfg(test)]
    pub(crate) fn read(now_ns: u64) -> Self {
        let mut names = Self::default();
        names.read_again(now_ns);
        names
    }

    /// Why kernel frames stay without names, with the cure.
    pub(crate) fn problem(&self) -> Option<(&'static str, &'static str)> {
        (self.read_ns.is_some() && self.table.is_empty()).then_some((
            "kernel symbols are hidden: /proc/kallsyms has no addresses",
            "run as root or with CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1",
        ))
    }

    /// A program or trampoline appeared.
    pub(crate) fn add_program(&mut self, start: u64, bytes: u32, name: Arc<str>) {
        if self.programs.len() >= MAX_PROGRAMS {
            return;
        }
        let known = self.programs.range(..start.saturating_add(u64::from(bytes))).next_back();
        if known.is_some_and(|(old, (old_bytes, old_name))| {
            start < old + u64::from(*old_bytes) && (*old, old_name) != (start, &name)
        }) {
            self.generation = self.generation.wrapping_add(1);
        }
        self.programs.insert(start, (bytes, name));
    }

    /// Changes whenever an address may have another name than before.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// A program or trampoline went away. Its name stays until another takes the place: samples may be older.
    pub(crate) fn remove_program(&mut self, start: u64) {
        if self.programs.len() > MAX_PROGRAMS / 2 {
            self.programs.remove(&start);
        }
    }

    /// What lies at `address` (return addresses lowered by the caller).
    pub(crate) fn place(&mut self, address: u64, now_ns: u64) -> KernelPlace {
        if let Some(place) = self.known_place(address) {
            return place;
        }
        if self.read_ns.is_none_or(|read_ns| now_ns.saturating_sub(read_ns) >= READ_AGAIN_NS) {
            self.read_again(now_ns);
            if let Some(place) = self.known_place(address) {
                return place;
            }
        }
        KernelPlace { module: None, address, function: None }
    }

    fn known_place(&mut self, address: u64) -> Option<KernelPlace> {
        if let Some((start, (bytes, name))) = self.programs.range(..=address).next_back()
            && address - start < u64::from(*bytes)
        {
            return Some(KernelPlace { module: None, address: 0, function: Some(Arc::clone(name)) });
        }
        let symbol = self.table.find(address)?;
        let (name, start, function) =
            (Arc::clone(&symbol.module.name), symbol.module.start, symbol.name.into());
        if &*name == BPF || name.starts_with("__builtin__") {
            return Some(KernelPlace { module: None, address: 0, function: Some(function) });
        }
        let module = self.modules.entry(name).or_insert_with_key(|name| Some(identify(name)));
        Some(KernelPlace {
            module: module.clone(),
            address: address.saturating_sub(start),
            function: Some(function),
        })
    }

    fn read_again(&mut self, now_ns: u64) {
        self.read_ns = Some(now_ns);
        self.generation = self.generation.wrapping_add(1);
        match read_table() {
            Ok(table) => self.table = table,
            Err(error) => tracing::warn!("cannot read /proc/kallsyms: {error}"),
        }
        self.modules.clear();
    }
}

fn read_table() -> io::Result<KernelSymbols> {
    let mut builder = Builder::default();
    // Absent on kernels without modules.
    for line in fs::read_to_string("/proc/modules").unwrap_or_default().lines() {
        builder.module_line(line);
    }
    let mut reader = BufReader::with_capacity(64 << 10, File::open("/proc/kallsyms")?);
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(builder.finish());
        }
        if line.len() <= MAX_LINE_BYTES {
            builder.line(&line);
        }
    }
}

/// Identity of the image or a module, from the notes that the kernel exports.
fn identify(name: &Arc<str>) -> KernelModule {
    let is_image = &**name == KERNEL_IMAGE;
    let path = if is_image {
        "/sys/kernel/notes".to_owned()
    } else {
        format!("/sys/module/{name}/notes/.note.gnu.build-id")
    };
    let notes = read_bounded(&path).unwrap_or_default();
    let ids = file_id::in_notes(&notes);
    let file_id = match ids.gnu.as_deref() {
        Some(build_id) if build_id.len() >= 8 => Some(FileId::of_kernel(build_id)),
        // One constant for all would join frames of different modules; without identity their names keep them apart.
        _ => is_image.then_some(FileId::UNKNOWN_KERNEL),
    };
    KernelModule { name: Arc::clone(name), file_id, build_id: ids.gnu_hex().into() }
}

fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_NOTES_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_kernel_has_names_or_says_why_not() {
        let mut names = KernelNames::read(1);
        if let Some((problem, _)) = names.problem() {
            eprintln!("kernel names not tested: {problem}");
            return;
        }
        let text = fs::read_to_string("/proc/kallsyms").unwrap();
        let line =
            text.lines().find(|line| line.ends_with(" T vfs_read")).expect("every kernel has vfs_read");
        let address = u64::from_str_radix(&line[..16], 16).unwrap();
        let place = names.place(address + 4, 2);
        assert_eq!(place.function.as_deref(), Some("vfs_read"));
        let module = place.module.unwrap();
        assert_eq!(&*module.name, "vmlinux");
        assert!(module.file_id.is_some());
        assert!(place.address > 0 && place.address < 1 << 30);
    }

    #[test]
    fn programs_come_and_go() {
        let mut names = KernelNames { read_ns: Some(1), ..KernelNames::default() };
        names.add_program(0xffff_ffff_c000_1000, 0x100, "bpf_prog_1".into());
        let place = names.place(0xffff_ffff_c000_10ff, 2);
        assert_eq!((place.function.as_deref(), place.address, place.module), (Some("bpf_prog_1"), 0, None));
        assert_eq!(names.place(0xffff_ffff_c000_1100, 2).function, None);
        names.add_program(0xffff_ffff_c000_1000, 0x100, "bpf_prog_2".into());
        assert_eq!(names.place(0xffff_ffff_c000_1000, 2).function.as_deref(), Some("bpf_prog_2"));
    }
}
