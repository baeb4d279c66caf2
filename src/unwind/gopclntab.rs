//! Go's own tables (`.gopclntab`, Go 1.12 to 1.27) to rules.
//!
//! Go writes for each function how far the stack pointer has moved at every instruction, so rows are exact. Functions
//! that move to another stack are followed through their frame pointer. Names are read only to find those few.

use super::Architecture;
use super::MAX_ENTRIES;
use super::reader::Reader;
use super::rows::{CfaRule, FpRule, Goroutine, RaRule, Rule};
use super::{entry, goroutine};

const MAGIC_1_2: u32 = 0xffff_fffb;
const MAGIC_1_16: u32 = 0xffff_fffa;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;

const FLAG_TOP_FRAME: u8 = 1;
const FLAG_WRITES_SP: u8 = 2;
const FLAG_ASSEMBLY: u8 = 4;

/// Where the map of functions begins in the oldest tables: behind magic, sizes and their number.
const MAP_AT_1_2: u64 = 16;

/// Functions whose bytes are compared with their tables to see that the start of the text is right.
const VERIFIED_FUNCTIONS: u32 = 256;

/// Bytes of code in front of Go's own that are searched for its start: a C runtime, when an external linker put one there.
const SEARCHED_BYTES: u64 = 4 << 20;

/// Steps of a stack table until the first frame is built: none at entry, then the frame.
const FIRST_MOVES: usize = 16;

/// Longest name that is looked at: those of interest are short.
const NAME_BYTES: usize = 128;

/// Longest code of one function that is looked at for a change of stacks.
const LOOKED_AT_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// Since Go 1.2; everything hangs off the beginning of the table.
    Go1_2,
    Go1_16,
    Go1_18,
    Go1_20,
}

/// Gives the code at an ELF address: at most so many bytes, fewer where they end.
pub(super) type CodeAt<'a> = &'a (dyn Fn(u64, u64) -> &'a [u8] + 'a);

/// The tables of one binary, not yet walked.
#[derive(Clone, Copy)]
pub(super) struct GoTable<'a> {
    version: Version,
    architecture: Architecture,
    quantum: u64,
    functions: u32,
    /// Address of entry offset 0; set by [`GoTable::locate_text`], 0 for versions with absolute addresses.
    text_start: u64,
    /// The way from `morestack` to its goroutine; set by [`GoTable::read_runtime`].
    goroutine: Option<Goroutine>,
    names: &'a [u8],
    values: &'a [u8],
    records: &'a [u8],
    code_at: CodeAt<'a>,
}

impl std::fmt::Debug for GoTable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoTable")
            .field("version", &self.version)
            .field("functions", &self.functions)
            .field("text_start", &self.text_start)
            .finish_non_exhaustive()
    }
}

/// What a table says about one function.
#[derive(Clone, Copy, Debug)]
struct Function<'a> {
    start: u64,
    end: u64,
    name: &'a [u8],
    /// Offset of its stack table; 0 when it has none (C code linked in).
    stack_table: u32,
    flags: u8,
}

/// Tables that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Whether these bytes start like a table for this architecture.
pub(super) fn has_magic(bytes: &[u8], architecture: Architecture) -> bool {
    let quantum = match architecture {
        Architecture::X86_64 => 1,
        Architecture::Aarch64 => 4,
    };
    matches!(bytes, [0xfa | 0xfb | 0xf0 | 0xf1, 0xff, 0xff, 0xff, 0, 0, q, 8, ..] if *q == quantum)
}

impl<'a> GoTable<'a> {
    /// Reads the header. The start of the text is still to be found.
    pub(super) fn parse(bytes: &'a [u8], architecture: Architecture, code_at: CodeAt<'a>) -> Option<Self> {
        if !has_magic(bytes, architecture) {
            return None;
        }
        let mut reader = Reader::new(bytes);
        let version = match reader.u32()? {
            MAGIC_1_2 => Version::Go1_2,
            MAGIC_1_16 => Version::Go1_16,
            MAGIC_1_18 => Version::Go1_18,
            MAGIC_1_20 => Version::Go1_20,
            _ => return None,
        };
        reader.u16()?;
        let quantum = u64::from(reader.u8()?);
        reader.u8()?;
        let functions = reader.u64()?;
        let (text_start, names, values, records) = if version == Version::Go1_2 {
            (0, bytes, bytes, bytes)
        } else {
            reader.u64()?; // files
            let text_start = if version == Version::Go1_16 { 0 } else { reader.u64()? };
            let mut part = || bytes.get(usize::try_from(reader.u64()?).ok()?..);
            let names = part()?;
            part()?; // compilation units
            part()?; // files
            (text_start, names, part()?, part()?)
        };
        if functions == 0 || functions > MAX_ENTRIES as u64 {
            return None;
        }
        let functions = functions as u32;
        let table = Self {
            version,
            architecture,
            quantum,
            functions,
            text_start,
            goroutine: None,
            names,
            values,
            records,
            code_at,
        };
        table.map_entry(functions)?; // the end of the last function: so the whole map is there
        Some(table)
    }

    /// Address of the function and offset of its record. One more entry than functions: the last one ends the text.
    fn map_entry(&self, index: u32) -> Option<(u64, u64)> {
        let wide = self.version <= Version::Go1_16;
        let size = if wide { 16 } else { 8 };
        let start = if self.version == Version::Go1_2 { MAP_AT_1_2 } else { 0 };
        let mut reader = Reader::at(self.records, start + u64::from(index) * size)?;
        if wide {
            let address = reader.u64()?;
            // The last entry is an address alone.
            Some((address, reader.u64().unwrap_or(0)))
        } else {
            let address = self.text_start.wrapping_add(u64::from(reader.u32()?));
            Some((address, reader.u32().map_or(0, u64::from)))
        }
    }

    fn function(&self, index: u32) -> Option<Function<'a>> {
        let (start, record) = self.map_entry(index)?;
        let (end, _) = self.map_entry(index.checked_add(1)?)?;
        let mut reader = Reader::at(self.records, record)?;
        reader.skip(if self.version <= Version::Go1_16 { 8 } else { 4 })?;
        let name = reader.u32()?;
        reader.skip(8)?; // argument size, deferreturn
        let stack_table = reader.u32()?;
        reader.skip(12)?; // files, lines, number of tables
        if self.version > Version::Go1_2 {
            reader.skip(4)?; // compilation unit
        }
        if self.version == Version::Go1_20 {
            reader.skip(4)?; // first line
        }
        reader.u8()?; // well-known number, other in each version
        let flags = reader.u8()?;
        let name = self.names.get(name as usize..).unwrap_or_default();
        let name = &name[..name.len().min(NAME_BYTES)];
        let name = Reader::new(name).c_string().unwrap_or_default();
        Some(Function { start, end, name, stack_table, flags })
    }

    /// Number of functions.
    pub(super) fn len(&self) -> u32 {
        self.functions
    }

    /// Code of function `index`; `None` when it is broken, an empty range when the tables do not speak about it.
    pub(super) fn range(&self, index: u32) -> Option<std::ops::Range<u64>> {
        let function = self.function(index)?;
        if function.start > function.end {
            return None;
        }
        Some(function.start..if function.stack_table == 0 { function.start } else { function.end })
    }

    /// Whether function `index` is what signal handlers return to.
    pub(super) fn is_signal_return(&self, index: u32) -> bool {
        self.function(index).is_some_and(|function| self.is_signal(&function))
    }

    /// Finds where the text starts, since Go 1.26 no longer says it and a PIE says it in a relocation: by trying
    /// `candidates` and then all of `text`, and comparing prologues with the tables.
    pub(super) fn locate_text(&mut self, candidates: &[u64], text: std::ops::Range<u64>) -> bool {
        if self.version <= Version::Go1_16 {
            return true;
        }
        let said = (self.text_start != 0).then_some(self.text_start);
        let prologues = self.prologues();
        let fits = |start: &u64| self.fits(*start, &prologues);
        let search = (text.start..text.end.min(text.start.saturating_add(SEARCHED_BYTES))).step_by(16);
        let likely = said.into_iter().chain(candidates.iter().copied()).chain(std::iter::once(text.start));
        let found = likely.chain(search).find(fits);
        if let Some(start) = found {
            self.text_start = start;
        }
        found.is_some()
    }

    /// Reads off the runtime's code what rules need to know of it. The text must have been found.
    pub(super) fn read_runtime(&mut self) {
        let named = |wanted: &[u8]| {
            let mut functions = (0..self.functions).filter_map(|index| self.function(index));
            let function = functions.find(|function| plain_name(function) == wanted)?;
            let len = function.end.saturating_sub(function.start).min(LOOKED_AT_BYTES);
            Some((self.code_at)(function.start, len))
        };
        self.goroutine = named(b"runtime.systemstack")
            .zip(named(b"runtime.morestack"))
            .and_then(|(systemstack, morestack)| goroutine::find(self.architecture, systemstack, morestack));
    }

    /// Where some functions, spread over the whole text (C code may lie in between), build their frames: bytes from the
    /// start of the text, and size of the frame then.
    fn prologues(&self) -> Vec<(u64, i64)> {
        let relative = Self { text_start: 0, ..*self };
        let step = (self.functions / VERIFIED_FUNCTIONS).max(1);
        (0..self.functions)
            .step_by(step as usize)
            .filter_map(|index| relative.first_move(&relative.function(index)?))
            .collect()
    }

    /// Whether instructions that move the stack pointer stand where the tables say so, were the text to start here.
    fn fits(&self, text_start: u64, prologues: &[(u64, i64)]) -> bool {
        let (mut right, mut wrong) = (0, 0);
        for &(offset, moved_by) in prologues {
            let code = (self.code_at)(text_start.wrapping_add(offset).wrapping_sub(7), 7);
            if self.is_prologue(code, moved_by) {
                right += 1;
            } else {
                wrong += 1;
            }
            if wrong > 8 && wrong > right / 8 {
                return false;
            }
        }
        right > 0 && wrong <= right / 8
    }

    /// Whether `code` ends with an instruction that grows a frame by so many bytes.
    fn is_prologue(&self, code: &[u8], moved_by: i64) -> bool {
        match self.architecture {
            // push; sub rsp, byte; sub rsp, int; add rsp, -128 is written where sub 128 would be longer
            Architecture::X86_64 => match (moved_by, code) {
                (8, [.., 0x50..=0x57 | 0x9c]) => true,
                (_, [.., 0x48, 0x83, 0xec, byte]) => i64::from(*byte as i8) == moved_by,
                (_, [.., 0x48, 0x83, 0xc4, byte]) => -i64::from(*byte as i8) == moved_by,
                (_, [0x48, 0x81, 0xec, a, b, c, d]) => {
                    i64::from(i32::from_le_bytes([*a, *b, *c, *d])) == moved_by
                }
                _ => false,
            },
            // str x30, [sp, -n]!; sub sp, sp, n; mov sp, x20
            Architecture::Aarch64 => match code {
                [.., a, b, c, d] => {
                    let word = u32::from_le_bytes([*a, *b, *c, *d]);
                    word & 0xffe0_0fff == 0xf800_0ffe
                        || word & 0xff80_03ff == 0xd100_03ff
                        || word & 0xffff_fc1f == 0x9100_001f
                }
                _ => false,
            },
        }
    }

    /// Address behind the first instruction that moves the stack pointer, and by how much.
    fn first_move(&self, function: &Function<'a>) -> Option<(u64, i64)> {
        let moves = self.stack_moves(function, function.end).ok()?;
        moves
            .take(FIRST_MOVES)
            .find_map(|step| step.ok().filter(|&(at, moved)| moved > 0 && at > function.start))
    }

    /// Walks the stack table up to `end`: from each address on, so many bytes lie between the stack pointer and where it
    /// was at entry.
    fn stack_moves(&self, function: &Function<'a>, end: u64) -> Result<StackMoves<'a>, Malformed> {
        if function.stack_table == 0 {
            return Err(Malformed);
        }
        Ok(StackMoves {
            reader: Reader::at(self.values, u64::from(function.stack_table)).ok_or(Malformed)?,
            quantum: self.quantum,
            at: function.start,
            end: end.min(function.end),
            value: -1,
            is_first: true,
        })
    }

    /// Gives the rules of function `index` in the order of addresses, up to `end`. On an error the rows before it have
    /// been given and `Err` carries the address from which nothing is known.
    pub(super) fn rows(&self, index: u32, end: u64, mut row: impl FnMut(u64, Rule)) -> Result<(), u64> {
        let function = self.function(index).ok_or(0_u64)?;
        let end = end.min(function.end);
        let treatment = self.treatment(&function, end);
        match treatment {
            Treatment::Stop => {
                row(function.start, Rule::Stop);
                return Ok(());
            }
            Treatment::Signal => {
                row(function.start, Rule::Signal);
                return Ok(());
            }
            Treatment::Exact
            | Treatment::EndFrom(..)
            | Treatment::Borrowed { .. }
            | Treatment::FramePointer => {}
        }
        let saves = self.saves_frame_pointer(&function);
        // The frame pointer is set by the instruction behind the one that saves the old one.
        let set_by = match self.architecture {
            Architecture::X86_64 => 3,
            Architecture::Aarch64 => 4,
        };
        let kept = if treatment == Treatment::FramePointer { self.kept_stack(&function, end) } else { None };
        let exact_end = if let Treatment::EndFrom(address, _) = treatment { address } else { end };
        let borrowed = if let Treatment::Borrowed { from, to } = treatment { from..to } else { end..end };
        let mut pointer_from = None;
        let mut moves = self.stack_moves(&function, exact_end).map_err(|Malformed| function.start)?;
        let mut known_to = function.start;
        while let Some(step) = moves.next() {
            let (address, moved) = step.map_err(|Malformed| known_to)?;
            if let Some(kept) = kept.as_ref().filter(|kept| address < kept.end && kept.start < moves.at) {
                if address < kept.start {
                    row(address, self.exact(moved, saves));
                }
                row(address.max(kept.start), Self::by_kept_stack(moved, saves));
                if kept.end < moves.at {
                    row(kept.end, self.exact(moved, saves));
                }
            } else if treatment == Treatment::FramePointer && moved > 0 && saves {
                let from = *pointer_from.get_or_insert(address.saturating_add(set_by));
                if address < from {
                    row(address, self.exact(moved, saves));
                }
                if from < moves.at {
                    row(from.max(address), Rule::FramePointer);
                }
            } else if address < borrowed.end && borrowed.start < moves.at {
                let rule = self.exact(moved, saves);
                if address < borrowed.start {
                    row(address, rule);
                }
                row(address.max(borrowed.start), Rule::BorrowedFramePointer);
                if borrowed.end < moves.at {
                    row(borrowed.end, rule);
                }
            } else {
                row(address, self.exact(moved, saves));
            }
            known_to = moves.at;
        }
        if let Treatment::EndFrom(address, rule) = treatment
            && address < end
        {
            row(address, rule);
        }
        Ok(())
    }

    /// The rule while the stack pointer is `moved` bytes below its place at entry.
    fn exact(&self, moved: i64, saves_frame_pointer: bool) -> Rule {
        let Ok(moved) = i32::try_from(moved) else { return Rule::Unknown };
        if !(0..=i32::MAX - 16).contains(&moved) {
            return Rule::Unknown;
        }
        let framed = moved >= 8 && saves_frame_pointer;
        match self.architecture {
            Architecture::X86_64 => Rule::Frame {
                cfa: CfaRule::Sp(moved + 8),
                fp: if framed { FpRule::AtCfa(-16) } else { FpRule::Unchanged },
                ra: RaRule::AtCfa(-8),
            },
            // The link register is saved at the stack pointer, the frame pointer right below it.
            Architecture::Aarch64 => Rule::Frame {
                cfa: CfaRule::Sp(moved),
                fp: if framed { FpRule::AtCfa(-moved - 8) } else { FpRule::Unchanged },
                ra: if moved == 0 { RaRule::LinkRegister } else { RaRule::AtCfa(-moved) },
            },
        }
    }

    /// Where, before Go 1.17, the frame pointer holds the stack pointer of the time before a change of stacks: between
    /// `mov rbp, rsp` and `mov rsp, rbp`.
    fn kept_stack(&self, function: &Function<'a>, end: u64) -> Option<std::ops::Range<u64>> {
        if self.version > Version::Go1_16 || self.architecture != Architecture::X86_64 {
            return None;
        }
        let len = end.saturating_sub(function.start).min(LOOKED_AT_BYTES);
        let code = (self.code_at)(function.start, len);
        let from = code.windows(3).position(|three| three == b"\x48\x89\xe5")? as u64 + 3;
        let to = code.windows(3).rposition(|three| three == b"\x48\x89\xec")? as u64 + 3;
        (from < to).then(|| function.start + from..function.start + to)
    }

    /// The rule there.
    fn by_kept_stack(moved: i64, saves_frame_pointer: bool) -> Rule {
        let Some(offset) = i32::try_from(moved).ok().and_then(|moved| moved.checked_add(8)) else {
            return Rule::Unknown;
        };
        let fp = if saves_frame_pointer { FpRule::AtCfa(-16) } else { FpRule::Unknown };
        Rule::Frame { cfa: CfaRule::Fp(offset), fp, ra: RaRule::AtCfa(-8) }
    }

    /// Compiled functions with a frame always save it. Assembly may not, so its code is asked.
    fn saves_frame_pointer(&self, function: &Function<'a>) -> bool {
        let is_known_compiled = self.version > Version::Go1_16 && function.flags & FLAG_ASSEMBLY == 0;
        if is_known_compiled || self.architecture == Architecture::Aarch64 {
            return true;
        }
        let Some((address, moved)) = self.first_move(function) else { return false };
        // push rbp before, or mov [rsp + moved - 8], rbp behind
        if (self.code_at)(address - 1, 1) == [0x55] {
            return true;
        }
        match (self.code_at)(address, 8) {
            [0x48, 0x89, 0x6c, 0x24, at, ..] => i64::from(*at as i8) == moved - 8,
            [0x48, 0x89, 0xac, 0x24, a, b, c, d] => {
                i64::from(i32::from_le_bytes([*a, *b, *c, *d])) == moved - 8
            }
            _ => false,
        }
    }

    /// `end` is where this function's code ends, or where another one takes over.
    fn treatment(&self, function: &Function<'a>, end: u64) -> Treatment {
        let flags = function.flags;
        let has_flags = self.version > Version::Go1_16;
        if has_flags && flags & (FLAG_TOP_FRAME | FLAG_WRITES_SP | FLAG_ASSEMBLY) == 0 {
            return Treatment::Exact;
        }
        let name = plain_name(function);
        if name.starts_with(b"_rt0_") {
            return Treatment::Stop;
        }
        match name {
            b"runtime.goexit" | b"runtime.mstart" | b"runtime.rt0_go" => return Treatment::Stop,
            // Marked as topmost frame, but the kernel called it and its tables lead to the signal frame.
            b"runtime.sigtramp" | b"runtime.cgoSigtramp" => return Treatment::Exact,
            b"runtime.morestack" => {
                let rule = self.goroutine.map_or(Rule::Stop, Rule::Goroutine);
                return self.ends_at_stack_switch(function, end, rule);
            }
            b"runtime.mcall" | b"runtime.switchToCrashStack0" | b"runtime.gogo" | b"gogo" => {
                return self.stop_from_stack_switch(function, end);
            }
            b"runtime.systemstack"
            | b"runtime.asmcgocall"
            | b"runtime.cgocallback"
            | b"runtime.cgocallback_gofunc" => {
                return self.crossing(function, end);
            }
            b"runtime.nanotime1"
            | b"runtime.nanotime"
            | b"runtime.walltime1"
            | b"runtime.walltime"
            | b"time.now"
            | b"runtime.vgetrandom1" => return Treatment::FramePointer,
            _ => {}
        }
        if self.is_signal(function) {
            return Treatment::Signal;
        }
        if has_flags && flags & FLAG_TOP_FRAME != 0 {
            return Treatment::Stop;
        }
        if has_flags && flags & FLAG_WRITES_SP != 0 {
            // A frame survives the change of stacks through its frame pointer; without one all is lost.
            return if self.saves_frame_pointer(function) {
                Treatment::FramePointer
            } else {
                self.stop_from_stack_switch(function, end)
            };
        }
        Treatment::Exact
    }

    fn is_signal(&self, function: &Function<'a>) -> bool {
        if function.name.starts_with(b"runtime.sigreturn") {
            return true;
        }
        // Names may have been made unreadable.
        function.flags & FLAG_ASSEMBLY != 0
            && entry::signal_return((self.code_at)(function.start, 16), self.architecture).is_some()
    }

    /// How a function that goes on with another stack is left again: through its frame pointer, which leads back across.
    /// Before Go 1.21 some of them have no frame of their own; the frame pointer is then their caller's, so that the
    /// caller itself is passed over. That is less wrong than to end there.
    fn crossing(&self, function: &Function<'a>, end: u64) -> Treatment {
        if self.saves_frame_pointer(function) {
            return Treatment::FramePointer;
        }
        let mut switches = self.stack_switches(function, end);
        match (switches.next(), switches.last()) {
            (Some(from), Some(to)) => Treatment::Borrowed { from, to },
            (Some(from), None) => Treatment::Borrowed { from, to: end },
            (None, _) => Treatment::Exact,
        }
    }

    /// Exact up to the instruction that loads another stack pointer: who called is unknown from there on.
    fn stop_from_stack_switch(&self, function: &Function<'a>, end: u64) -> Treatment {
        self.ends_at_stack_switch(function, end, Rule::Stop)
    }

    /// The same, and this rule from there on.
    fn ends_at_stack_switch(&self, function: &Function<'a>, end: u64, rule: Rule) -> Treatment {
        let switch = self.stack_switches(function, end).next();
        switch.map_or(Treatment::Exact, |from| Treatment::EndFrom(from, rule))
    }

    /// Addresses within the instructions that load another stack pointer. The rows of the instruction itself still hold;
    /// those behind it do not.
    fn stack_switches(&self, function: &Function<'a>, end: u64) -> impl Iterator<Item = u64> {
        let len = end.saturating_sub(function.start).min(LOOKED_AT_BYTES);
        let code = (self.code_at)(function.start, len);
        let (architecture, start) = (self.architecture, function.start);
        let step = if architecture == Architecture::X86_64 { 1 } else { 4 };
        let is_switch = move |code: &[u8]| match (architecture, code) {
            // mov rsp, [reg + offset] or mov rsp, reg
            (Architecture::X86_64, [0x48 | 0x49, 0x8b, modrm, ..]) => modrm & 0x38 == 0x20,
            (Architecture::X86_64, [0x48 | 0x4c, 0x89, modrm, ..]) => modrm & 0xc7 == 0xc4,
            // mov sp, reg
            (Architecture::Aarch64, &[a, b, c, d, ..]) => {
                u32::from_le_bytes([a, b, c, d]) & 0xffff_fc1f == 0x9100_001f
            }
            _ => false,
        };
        // Three bytes in is within it.
        (0..code.len())
            .step_by(step)
            .filter(move |&at| is_switch(&code[at..]))
            .map(move |at| start + at as u64 + 3)
    }
}

/// Its name without marks of the compiler for the way it is called.
fn plain_name<'a>(function: &Function<'a>) -> &'a [u8] {
    let name = function.name.strip_suffix(b".abi0").unwrap_or(function.name);
    name.split(|&byte| byte == b'<').next().unwrap_or_default()
}

/// A stack table being read. Each step moves on by an instruction, so a table that many functions share costs each of
/// them no more than its code is long.
#[derive(Debug)]
struct StackMoves<'a> {
    reader: Reader<'a>,
    quantum: u64,
    at: u64,
    end: u64,
    value: i64,
    is_first: bool,
}

impl StackMoves<'_> {
    /// `None` when malformed; the end of the table leaves `at` at `end`.
    fn step(&mut self) -> Option<(u64, i64)> {
        let delta = self.reader.uleb()?;
        let from = self.at;
        if delta == 0 && !self.is_first {
            self.at = self.end;
            return Some((from, self.value));
        }
        self.is_first = false;
        // Zig-zag.
        self.value = self.value.checked_add((delta >> 1) as i64 ^ -((delta & 1) as i64))?;
        let run = self.reader.uleb()?.checked_mul(self.quantum).filter(|&run| run > 0)?;
        self.at = self.at.checked_add(run)?;
        Some((from, self.value))
    }
}

impl Iterator for StackMoves<'_> {
    type Item = Result<(u64, i64), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let step = self.step().ok_or(Malformed);
        if step.is_err() {
            self.at = self.end;
        }
        Some(step)
    }
}

/// How a function's rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// By its stack table.
    Exact,
    /// By its stack table up to here, by one rule from there on.
    EndFrom(u64, Rule),
    /// By its stack table, but between these through its caller's frame pointer.
    Borrowed {
        from: u64,
        to: u64,
    },
    /// Through the frame pointer once it is set.
    FramePointer,
    Stop,
    Signal,
}
