//! The kernel's own symbol list, from the text of `/proc/kallsyms` and `/proc/modules` to a compact table.
//!
//! Pure: whoever calls reads the files (`agent::kernel_symbols`). A table of 120,000 text symbols takes about 4 MB.

use std::sync::Arc;

/// Most symbols that are kept: the largest distribution kernels have about 300,000 of all kinds.
const MAX_SYMBOLS: usize = 2_000_000;
/// Longest symbol name that is kept, in bytes (`KSYM_NAME_LEN` is 512).
const MAX_NAME_BYTES: usize = 511;
/// Most modules that are kept.
const MAX_MODULES: usize = 8192;
/// How far a symbol reaches when nothing follows it: 1 MiB.
const OPEN_END_BYTES: u64 = 1 << 20;

/// Name that stands for the kernel image itself.
pub const KERNEL_IMAGE: &str = "vmlinux";
/// What kallsyms writes in place of a module for BPF programs.
pub const BPF: &str = "bpf";

/// One loaded module, the kernel image, or a pseudo module such as `bpf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name: `vmlinux`, `ext4`, `bpf`, `__builtin__ftrace`.
    pub name: Arc<str>,
    /// First address. `_stext` for the image, the load address for modules, the lowest symbol for the rest.
    pub start: u64,
    /// First address behind; 0 when unknown.
    pub end: u64,
}

/// A symbol that covers an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSymbol<'t> {
    /// Name as the kernel spells it.
    pub name: &'t str,
    /// First address of the symbol.
    pub start: u64,
    /// Where it belongs.
    pub module: &'t Module,
}

/// Text symbols of a running kernel, sorted by address.
#[derive(Clone, Debug, Default)]
pub struct KernelSymbols {
    modules: Vec<Module>,
    addresses: Vec<u64>,
    /// Start of each name in `names`; its end is the next one's start minus nothing: names stand without separator.
    name_starts: Vec<u32>,
    module_of: Vec<u16>,
    names: String,
    skipped: u64,
}

impl KernelSymbols {
    /// The symbol that covers `address`, if any.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let at = self.addresses.partition_point(|start| *start <= address).checked_sub(1)?;
        let module = self.modules.get(usize::from(*self.module_of.get(at)?))?;
        let start = self.addresses[at];
        let last = self.addresses.get(at + 1).is_none();
        let behind = module.end != 0 && address >= module.end;
        if behind || (last && module.end == 0 && address - start >= OPEN_END_BYTES) {
            return None;
        }
        Some(KernelSymbol { name: self.name(at)?, start, module })
    }

    /// Modules, the image first when it has symbols.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are none, as with addresses hidden by `kptr_restrict`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Lines left out: malformed or beyond a limit.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn name(&self, at: usize) -> Option<&str> {
        let start = *self.name_starts.get(at)? as usize;
        let end = self.name_starts.get(at + 1).map_or(self.names.len(), |end| *end as usize);
        self.names.get(start..end)
    }
}

/// Collects lines into a [`KernelSymbols`].
#[derive(Debug, Default)]
pub struct Builder {
    modules: Vec<Module>,
    /// (address, module, rank, start of name, length of name)
    symbols: Vec<Entry>,
    names: String,
    last_module: usize,
    skipped: u64,
    image_start: u64,
    image_end: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    name_start: u32,
    name_len: u16,
    module: u16,
    rank: u8,
}

impl Builder {
    /// Takes one line of `/proc/kallsyms`, with or without its line end.
    pub fn line(&mut self, line: &[u8]) {
        let Some(parsed) = parse_line(line) else {
            self.skipped += 1;
            return;
        };
        if parsed.address == 0 || !matches!(parsed.kind, b't' | b'T' | b'w' | b'W') {
            return;
        }
        match (parsed.module, parsed.name) {
            (None, "_stext") => self.image_start = parsed.address,
            (None, "_text") if self.image_start == 0 => self.image_start = parsed.address,
            (None, "_etext") => {
                self.image_end = parsed.address;
                return;
            }
            _ => {}
        }
        let Some(module) = self.module(parsed.module.unwrap_or(KERNEL_IMAGE)) else {
            self.skipped += 1;
            return;
        };
        if self.symbols.len() >= MAX_SYMBOLS || parsed.name.len() > MAX_NAME_BYTES {
            self.skipped += 1;
            return;
        }
        self.symbols.push(Entry {
            address: parsed.address,
            name_start: self.names.len() as u32,
            name_len: parsed.name.len() as u16,
            module,
            rank: rank(parsed.kind, parsed.name),
        });
        self.names.push_str(parsed.name);
    }

    /// Takes one line of `/proc/modules`: load address and size of a module.
    pub fn module_line(&mut self, line: &str) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(name), Some(size)) =
            (fields.next(), fields.next().and_then(|size| size.parse::<u64>().ok()))
        else {
            self.skipped += 1;
            return;
        };
        let start =
            fields.find_map(|field| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok()).unwrap_or(0);
        if start == 0 {
            return;
        }
        if let Some(index) = self.module(name) {
            let module = &mut self.modules[usize::from(index)];
            (module.start, module.end) = (start, start.saturating_add(size));
        }
    }

    /// The finished table. Of several names for one address the plainest stays.
    #[must_use]
    pub fn finish(mut self) -> KernelSymbols {
        self.symbols.sort_by_key(|entry| (entry.address, entry.rank));
        self.symbols.dedup_by_key(|entry| entry.address);
        let mut table =
            KernelSymbols { modules: self.modules, skipped: self.skipped, ..KernelSymbols::default() };
        table.addresses.reserve_exact(self.symbols.len());
        table.name_starts.reserve_exact(self.symbols.len());
        table.module_of.reserve_exact(self.symbols.len());
        table.names.reserve_exact(self.symbols.iter().map(|entry| usize::from(entry.name_len)).sum());
        for entry in &self.symbols {
            table.addresses.push(entry.address);
            table.module_of.push(entry.module);
            table.name_starts.push(table.names.len() as u32);
            let start = entry.name_start as usize;
            table.names.push_str(&self.names[start..start + usize::from(entry.name_len)]);
            let module = &mut table.modules[usize::from(entry.module)];
            if module.start == 0 {
                module.start = entry.address;
            }
        }
        if let Some(image) = table.modules.iter_mut().find(|module| &*module.name == KERNEL_IMAGE) {
            if self.image_start != 0 {
                image.start = self.image_start;
            }
            // Text of the image also lies behind `_etext` (`.init.text`, alternatives), freed after boot: no end then.
            image.end = if self.image_end > image.start { self.image_end } else { 0 };
        }
        table
    }

    fn module(&mut self, name: &str) -> Option<u16> {
        // Lines of one module stand together, so the last one is nearly always right.
        if self.modules.get(self.last_module).is_some_and(|module| &*module.name == name) {
            return Some(self.last_module as u16);
        }
        let index = match self.modules.iter().position(|module| &*module.name == name) {
            Some(index) => index,
            None if self.modules.len() < MAX_MODULES => {
                self.modules.push(Module { name: name.into(), start: 0, end: 0 });
                self.modules.len() - 1
            }
            None => return None,
        };
        self.last_module = index;
        Some(index as u16)
    }
}

struct Line<'l> {
    address: u64,
    kind: u8,
    name: &'l str,
    module: Option<&'l str>,
}

/// `ffffffff81000000 T _stext` or `ffffffffc0201000 t ext4_init\t[ext4]`.
fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let kind = *fields.next().filter(|kind| kind.len() == 1)?.as_bytes().first()?;
    let name = fields.next()?;
    let module = match fields.next() {
        Some(text) => Some(text.strip_prefix('[')?.strip_suffix(']')?),
        None => None,
    };
    Some(Line { address, kind, name, module })
}

/// Which of several names for one address is shown: smaller is better. Section marks and position-independent copies
/// come last, fewer leading underscores first, global before local before weak.
fn rank(kind: u8, name: &str) -> u8 {
    let mark =
        u8::from(name.starts_with("__pi_") || matches!(name, "_stext" | "_text" | "__entry_text_start"));
    let underscores = name.bytes().take_while(|byte| *byte == b'_').count().min(7) as u8;
    let binding = match kind {
        b'T' => 0,
        b't' => 1,
        _ => 2,
    };
    mark << 7 | underscores << 2 | binding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kallsyms: &str, modules: &str) -> KernelSymbols {
        let mut builder = Builder::default();
        modules.lines().for_each(|line| builder.module_line(line));
        kallsyms.lines().for_each(|line| builder.line(line.as_bytes()));
        builder.finish()
    }

    const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 T do_one_initcall
ffffffff81000100 W weak_name
ffffffff81000100 t local_name
ffffffff81000200 D some_data
ffffffff81002000 T _etext
ffffffffc0201000 t ext4_open\t[ext4]
ffffffffc0201100 t ext4_read\t[ext4]
ffffffffc0300000 t bpf_prog_0011223344556677_probe\t[bpf]
";

    fn name(table: &KernelSymbols, address: u64) -> Option<String> {
        table.find(address).map(|symbol| format!("{}!{}", symbol.module.name, symbol.name))
    }

    #[test]
    fn finds_the_symbol_that_covers_an_address() {
        let table = table(KALLSYMS, "ext4 8192 1 jbd2, Live 0xffffffffc0200000\n");
        assert_eq!(name(&table, 0xffff_ffff_8100_0044).as_deref(), Some("vmlinux!do_one_initcall"));
        assert_eq!(name(&table, 0xffff_ffff_8100_0fff).as_deref(), Some("vmlinux!local_name"));
        assert_eq!(name(&table, 0xffff_ffff_c020_1100).as_deref(), Some("ext4!ext4_read"));
        assert_eq!(
            name(&table, 0xffff_ffff_c030_0010).as_deref(),
            Some("bpf!bpf_prog_0011223344556677_probe")
        );
        assert_eq!(table.find(0xffff_ffff_8100_0044).unwrap().module.start, 0xffff_ffff_8100_0000);
        assert_eq!(table.find(0xffff_ffff_c020_1100).unwrap().module.start, 0xffff_ffff_c020_0000);
    }

    #[test]
    fn addresses_outside_of_all_modules_stay_unknown() {
        let table = table(KALLSYMS, "ext4 8192 1 jbd2, Live 0xffffffffc0200000\n");
        assert_eq!(name(&table, 0), None);
        assert_eq!(name(&table, 0xffff_ffff_8100_2000), None);
        assert_eq!(name(&table, 0xffff_ffff_c020_2000), None);
        assert_eq!(name(&table, u64::MAX), None);
    }

    #[test]
    fn hidden_addresses_give_an_empty_table() {
        let table = table(
            "0000000000000000 T _stext\n0000000000000000 t x [y]\n",
            "ext4 8192 1 - Live 0x0000000000000000",
        );
        assert!(table.is_empty());
        assert_eq!(table.find(0x1000), None);
    }

    #[test]
    fn nonsense_is_counted_and_left_out() {
        let table = table("zz T x\nffff\n\nffffffff81000000 TT two\nffffffff81000000 T a b\n", "x\n");
        assert_eq!((table.len(), table.skipped()), (0, 6));
        let mut builder = Builder::default();
        builder.line(&[0xff, 0xfe]);
        assert_eq!(builder.finish().skipped(), 1);
    }
}
