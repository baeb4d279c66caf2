//! Names of addresses, for comparing: symbol tables read by the `object` crate, not by the code under test.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use everflame::model::FileId;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Functions of one file.
#[derive(Debug, Default)]
struct Functions {
    /// Start, size (0 = up to the next), name; sorted by start.
    all: Vec<(u64, u64, String)>,
    file: String,
}

impl Functions {
    fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let mut all = Vec::new();
        // glibc and libstdc++ keep their full tables in packages of their own.
        let debug =
            file.build_id().ok().flatten().and_then(debug_file).and_then(|path| std::fs::read(path).ok());
        let debug = debug.as_deref().and_then(|bytes| object::File::parse(bytes).ok());
        for file in std::iter::once(&file).chain(&debug) {
            for symbol in file.symbols().chain(file.dynamic_symbols()) {
                // Parts that were moved away, and code written in assembly, have no type.
                let is_code = match symbol.kind() {
                    SymbolKind::Text => true,
                    SymbolKind::Unknown | SymbolKind::Label => symbol
                        .section_index()
                        .and_then(|index| file.section_by_index(index).ok())
                        .is_some_and(|section| section.kind() == SectionKind::Text),
                    _ => false,
                };
                if is_code && symbol.is_definition() {
                    let name = symbol.name().unwrap_or_default();
                    all.push((
                        symbol.address(),
                        symbol.size(),
                        name.split('@').next().unwrap_or_default().to_owned(),
                    ));
                }
            }
        }
        // Stripped programs keep the place where they begin.
        if file.entry() != 0 && !all.iter().any(|(_, _, name)| name == "_start") {
            all.push((file.entry(), 64, "_start".to_owned()));
        }
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            all.extend(thread_start(section.address(), section.data().unwrap_or_default()));
        }
        all.sort();
        all.dedup();
        let file = path.file_name()?.to_string_lossy().into_owned();
        Some(Self { all, file })
    }

    /// Whether nothing says where the function at an address ends.
    fn has_no_end(&self, address: u64) -> bool {
        let end = self.all.partition_point(|(start, ..)| *start <= address);
        self.all[..end].last().is_some_and(|(_, size, _)| *size == 0)
    }

    /// All names of the function that covers an address.
    fn at(&self, address: u64) -> Vec<&str> {
        let end = self.all.partition_point(|(start, ..)| *start <= address);
        let Some((first, ..)) = self.all[..end].last() else { return Vec::new() };
        let from = self.all[..end].partition_point(|(start, ..)| start < first);
        let covers = |(start, size, _): &&(u64, u64, String)| *size == 0 || address - start < *size;
        self.all[from..end].iter().filter(covers).map(|(.., name)| name.as_str()).collect()
    }
}

/// Where musl's threads begin, which has no name in a stripped library: a call whose return ends the thread.
fn thread_start(section: u64, code: &[u8]) -> Option<(u64, u64, String)> {
    // xor ebp, ebp; pop rdi; call r9; mov edi, eax; xor eax, eax; mov al, SYS_exit; syscall
    const CODE: &[u8] = b"\x31\xed\x5f\x41\xff\xd1\x89\xc7\x31\xc0\xb0\x3c\x0f\x05";
    let at = code.windows(CODE.len()).position(|window| window == CODE)?;
    Some((section + at as u64, CODE.len() as u64, "__clone".to_owned()))
}

fn debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    let mut path = format!("/usr/lib/debug/.build-id/{first:02x}/");
    for byte in rest {
        write!(path, "{byte:02x}").ok()?;
    }
    Some(PathBuf::from(path + ".debug"))
}

/// Names by file.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    files: HashMap<FileId, Functions>,
    seen: HashSet<PathBuf>,
}

impl Names {
    /// Reads the files that a process has mapped as code.
    pub(crate) fn learn(&self, pid: u32) {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let is_code = fields.next().is_some_and(|flags| flags.contains('x'));
            if let Some(path) = fields.nth(3).filter(|path| is_code && path.starts_with('/')) {
                self.learn_file(Path::new(path));
            }
        }
    }

    /// Reads one file.
    pub(crate) fn learn_file(&self, path: &Path) {
        let mut tables = self.0.lock().unwrap();
        if !tables.seen.insert(path.to_owned()) {
            return;
        }
        let Ok(bytes) = std::fs::read(path) else { return };
        let id = everflame::symbols::file_id::of_bytes(&bytes);
        if let Some(functions) = Functions::read(path) {
            tables.files.insert(id, functions);
        }
    }

    /// Every name that an address goes by, raw and as Rust writes it; at least one, made of file and address.
    pub(crate) fn of(&self, file: FileId, file_name: &str, address: u64) -> Vec<String> {
        let tables = self.0.lock().unwrap();
        let functions = tables.files.get(&file);
        let mut names: Vec<String> = Vec::new();
        // A return address was lowered by one. Where code that nobody calls begins, that is the byte before it.
        let found = functions.map(|functions| match &functions.at(address)[..] {
            [] => functions.at(address + 1),
            found => found.to_vec(),
        });
        for name in found.unwrap_or_default() {
            names.push(name.to_owned());
            if let Ok(demangled) = rustc_demangle::try_demangle(name) {
                names.push(format!("{demangled:#}"));
            }
        }
        let file = functions.map_or(file_name, |functions| functions.file.as_str());
        match names.last() {
            None => names.push(format!("{file}+{address:#x}")),
            // A label of hand-written code reaches to the next one: the place says more to who looks for a mistake.
            Some(name) if functions.is_some_and(|functions| functions.has_no_end(address)) => {
                names.push(format!("{name} ({file}+{address:#x})"));
            }
            Some(_) => {}
        }
        names
    }
}
