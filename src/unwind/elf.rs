//! Where in an ELF file the unwind information lies.
//!
//! Follows section headers where there are any and program headers where not. Sees the mapped bytes of a whole file but
//! touches only what it needs; a broken part is left out, not fatal.

use std::borrow::Cow;
use std::ops::Range;

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{CompressionFormat, LittleEndian as LE};

use super::compact::{CodeRanges, Frames, Spans};
use super::eh_frame::{self, Format, PointerEncoding, Section};
use super::gopclntab::{self, GoTable};
use super::reader::Reader;
use super::rows::{Rule, UnwindTable};
use super::{
    Architecture, Error, MAX_GUESSED_BYTES, MAX_SECTIONS, MAX_SEGMENTS, MAX_UNCOMPRESSED_BYTES, entry, guess,
};

/// Code without any entry is scanned for known bytes only when there is no more of it than this.
const SCANNED_BYTES: u64 = 1 << 20;

/// Shorter gaps are padding.
const SMALLEST_GUESSED: u64 = 16;

/// Step of the search for Go's table in files without section headers: its alignment is at least this.
const GO_TABLE_ALIGNMENT: usize = 8;

/// Builds the table of an executable, shared library or vDSO image from its bytes.
///
/// # Errors
/// Only when nothing of it can be read: see [`Error`]. A file without unwind information gives a table without rows,
/// or with those few that its code shows.
pub fn from_elf(bytes: &[u8]) -> Result<UnwindTable, Error> {
    from_elf_and_debug_file(bytes, None)
}

/// Like [`from_elf`], with the separate debug file of the executable (`.gnu_debuglink`, build ID), whose `.debug_frame`
/// serves where the executable itself says nothing.
///
/// # Errors
/// See [`from_elf`]. A debug file that cannot be read is ignored.
pub fn from_elf_and_debug_file(bytes: &[u8], debug: Option<&[u8]>) -> Result<UnwindTable, Error> {
    let file = File::parse(bytes)?;
    let debug = debug.and_then(|bytes| File::parse(bytes).ok());
    let mut spans = Spans::new(file.code_ranges()?);

    let code_at = |address, len| file.code(address, len);
    let mut go = file.go_table(&code_at);
    if let Some(table) = &mut go
        && !table.locate_text(&file.go_text_candidates(), file.go_text())
    {
        spans.skipped.malformed += u64::from(table.len());
        go = None;
    }
    if let Some(go) = &mut go {
        go.read_runtime();
        for index in 0..go.len() {
            match go.range(index) {
                Some(range) if range.is_empty() => {}
                // A return address is looked up one byte before it.
                Some(range) if go.is_signal_return(index) => {
                    spans.add_fixed(range.start.saturating_sub(1), range.end, Rule::Signal);
                }
                Some(range) => spans.add_go(range.start, range.end, index),
                None => spans.skipped.malformed += 1,
            }
        }
    }

    let own_debug_frame = file.debug_frame();
    let other_debug_frame = debug.as_ref().and_then(File::debug_frame);
    let sections = [
        file.eh_frame(),
        other_debug_frame.as_deref().map(debug_section),
        own_debug_frame.as_deref().map(debug_section),
    ];
    let mut frames = Vec::new();
    for section in sections.into_iter().flatten() {
        add_section(&mut spans, &mut frames, section, &file);
    }
    add_known_code(&mut spans, &file);
    Ok(spans.into_table(file.architecture, &frames, go.as_ref(), &code_at))
}

/// Code that no entry of a file describes, by offsets in the file: what `from_elf` will read beyond tables, headers and
/// known places. Empty for Go programs, of which it reads everything, and where it would be too much.
///
/// # Errors
/// See [`from_elf`].
pub fn undescribed(bytes: &[u8]) -> Result<Vec<Range<u64>>, Error> {
    let file = File::parse(bytes)?;
    if file.is_go() {
        return Ok(Vec::new());
    }
    let mut spans = Spans::new(file.code_ranges()?);
    let debug_frame = file.debug_frame();
    for section in [file.eh_frame(), debug_frame.as_deref().map(debug_section)].into_iter().flatten() {
        let _ = eh_frame::walk(&section, file.architecture, |fde, _| spans.add_fde(fde, section.format, 0));
    }
    spans.settle();
    let gaps = file.in_code_sections(spans.gaps());
    if gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>() > MAX_GUESSED_BYTES {
        return Ok(Vec::new());
    }
    Ok(gaps.into_iter().filter_map(|gap| file.in_file(gap)).collect())
}

fn debug_section(bytes: &[u8]) -> Section<'_> {
    Section { format: Format::DebugFrame, bytes, address: 0, ends_at_zero: false }
}

/// Adds all entries of a section, those of signal trampolines as what they are.
fn add_section<'a>(spans: &mut Spans, frames: &mut Vec<Frames<'a>>, section: Section<'a>, file: &File<'_>) {
    let number = frames.len() as u8;
    let mut signals = Vec::new();
    let (cies, skipped) = eh_frame::walk(&section, file.architecture, |fde, cie| {
        // musl describes its trampoline as if it were a function.
        let may_be_trampoline =
            section.format == Format::DebugFrame && (7..=10).contains(&(fde.end - fde.start));
        if cie.is_signal || may_be_trampoline {
            signals.push(fde);
        }
        spans.add_fde(fde, section.format, number);
    });
    spans.skipped += skipped;
    let frames_of_section = Frames { section, cies };
    for fde in signals {
        let starts_with_it = |at| entry::signal_return(file.code(at, 16), file.architecture).is_some();
        if starts_with_it(fde.start) {
            // A return address is looked up one byte before it.
            spans.add_fixed(fde.start.saturating_sub(1), fde.end, Rule::Signal);
        } else if starts_with_it(fde.start.saturating_add(1)) || frames_of_section.is_computed_signal(&fde) {
            spans.add_fixed(fde.start, fde.end, Rule::Signal);
        }
    }
    frames.push(frames_of_section);
}

/// Adds what the code itself shows: entry point, stubs for lazy binding, signal and thread code without entries.
fn add_known_code(spans: &mut Spans, file: &File<'_>) {
    for name in entry::LINKER_MADE.into_iter().filter(|_| file.architecture == Architecture::X86_64) {
        let Some(section) = file.section(name) else { continue };
        let code = file.section_bytes(section).unwrap_or_default();
        let rules = entry::linker_made(name, code);
        let ends = rules.iter().skip(1).map(|&(at, _)| at).chain(std::iter::once(code.len() as u64));
        for (&(at, rule), end) in rules.iter().zip(ends) {
            let address = section.sh_addr(LE);
            spans.add_guess(address.saturating_add(at), address.saturating_add(end), rule);
        }
    }
    if let Some(start) = file.entry_point() {
        let stub = entry::process_start(file.code(start, entry::START_BYTES as u64), file.architecture);
        // Only in a program the entry point is certain to be one: old linkers set it to any code in a library.
        let len = stub.or(file.is_program().then_some(entry::START_BYTES));
        if let Some(len) = len {
            let range = spans.covering(start).unwrap_or(start..start.saturating_add(len as u64));
            spans.add_fixed(range.start, range.end, Rule::Stop);
        }
    }
    spans.settle();
    let gaps: Vec<_> = spans.gaps().filter(|gap| gap.end - gap.start >= 7).collect();
    if gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>() <= SCANNED_BYTES {
        for gap in gaps {
            let code = file.code(gap.start, gap.end - gap.start);
            entry::scan(code, file.architecture, |known| {
                let at = |offset| gap.start.saturating_add(offset as u64);
                spans.add_fixed(at(known.range.start), at(known.range.end), known.rule);
            });
        }
        spans.settle();
    }
    add_guesses(spans, file);
    spans.settle();
}

/// Reads what nothing speaks about. All of it or nothing: more than the limit is a program whose compiler was told to
/// leave frame pointers instead.
fn add_guesses(spans: &mut Spans, file: &File<'_>) {
    let gaps = file.in_code_sections(spans.gaps());
    if gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>() > MAX_GUESSED_BYTES {
        spans.skipped.over_limit += gaps.len() as u64;
        return;
    }
    for gap in gaps {
        let code = file.code(gap.start, gap.end - gap.start);
        spans.add_guessed(gap.start, gap.start + code.len() as u64, |row| {
            guess::rows(code, gap.start, file.architecture, row);
        });
    }
}

/// An ELF file by its headers.
struct File<'a> {
    bytes: &'a [u8],
    header: &'a FileHeader64<LE>,
    architecture: Architecture,
    segments: &'a [ProgramHeader64<LE>],
    sections: &'a [SectionHeader64<LE>],
    /// Names of sections, each ended by a zero byte.
    section_names: &'a [u8],
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (class, encoding) = match bytes {
            [0x7f, b'E', b'L', b'F', class, encoding, ..] => (*class, *encoding),
            _ => return Err(Error::NotElf),
        };
        if class != elf::ELFCLASS64.0 || encoding != elf::ELFDATA2LSB.0 {
            return Err(Error::Class { class, encoding });
        }
        let header = FileHeader64::<LE>::parse(bytes).map_err(|_| Error::NotElf)?;
        let architecture = match header.e_machine(LE) {
            elf::EM_X86_64 => Architecture::X86_64,
            elf::EM_AARCH64 => Architecture::Aarch64,
            other => return Err(Error::Machine(other.0)),
        };
        let segments = header.program_headers(LE, bytes).unwrap_or_default();
        let sections = header.section_headers(LE, bytes).unwrap_or_default();
        let names = header.shstrndx(LE, bytes).ok().and_then(|index| sections.get(index as usize));
        Ok(Self {
            bytes,
            header,
            architecture,
            segments: &segments[..segments.len().min(MAX_SEGMENTS)],
            sections: &sections[..sections.len().min(MAX_SECTIONS)],
            section_names: names.and_then(|names| names.data(LE, bytes).ok()).unwrap_or_default(),
        })
    }

    /// Executable segments, sorted, overlaps removed.
    fn code_ranges(&self) -> Result<CodeRanges, Error> {
        let mut ranges: Vec<_> = self
            .segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD && segment.p_flags(LE).0 & elf::PF_X.0 != 0)
            .map(|segment| {
                // No more than the file holds: so its size bounds all work.
                let held = (self.bytes.len() as u64).saturating_sub(segment.p_offset(LE));
                let len = segment.p_filesz(LE).min(held);
                segment.p_vaddr(LE)..segment.p_vaddr(LE).saturating_add(len)
            })
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        let mut last = 0;
        ranges.retain_mut(|range| {
            range.start = range.start.max(last);
            last = last.max(range.end);
            range.start < range.end
        });
        if ranges.is_empty() {
            return Err(Error::NoExecutableSegment);
        }
        Ok(CodeRanges { ranges })
    }

    /// Bytes of the file that are mapped at `address`, up to the end of what the file holds of that segment.
    fn mapped(&self, address: u64) -> &'a [u8] {
        self.segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
            .find_map(|segment| {
                let inside = address.checked_sub(segment.p_vaddr(LE))?;
                if inside >= segment.p_filesz(LE) {
                    return None;
                }
                let start = segment.p_offset(LE).checked_add(inside)?;
                let end =
                    segment.p_offset(LE).checked_add(segment.p_filesz(LE))?.min(self.bytes.len() as u64);
                self.bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
            })
            .unwrap_or_default()
    }

    /// Where code of these addresses lies in the file.
    fn in_file(&self, range: Range<u64>) -> Option<Range<u64>> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find_map(|segment| {
            let inside = range.start.checked_sub(segment.p_vaddr(LE))?;
            let left = segment.p_filesz(LE).checked_sub(inside)?;
            let start = segment.p_offset(LE).checked_add(inside)?;
            Some(start..start.checked_add(left.min(range.end - range.start))?)
        })
    }

    /// At most `len` bytes at `address`.
    fn code(&self, address: u64, len: u64) -> &'a [u8] {
        let mapped = self.mapped(address);
        usize::try_from(len).ok().and_then(|len| mapped.get(..len)).unwrap_or(mapped)
    }

    fn section(&self, wanted: &[u8]) -> Option<&'a SectionHeader64<LE>> {
        self.sections.iter().find(|section| {
            let name = self.section_names.get(section.sh_name(LE) as usize..).unwrap_or_default();
            name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    fn section_bytes(&self, section: &SectionHeader64<LE>) -> Option<&'a [u8]> {
        section.data(LE, self.bytes).ok().filter(|bytes| !bytes.is_empty())
    }

    fn eh_frame(&self) -> Option<Section<'a>> {
        let by_section = self.section(b".eh_frame").and_then(|section| {
            let bytes = self.section_bytes(section)?;
            let address = section.sh_addr(LE);
            Some(Section { format: Format::EhFrame, bytes, address, ends_at_zero: false })
        });
        by_section.or_else(|| self.eh_frame_by_header())
    }

    /// Through the search table's header, which every loader can find. Its table itself is not needed.
    fn eh_frame_by_header(&self) -> Option<Section<'a>> {
        let segment = self.segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_EH_FRAME)?;
        let header_address = segment.p_vaddr(LE);
        let mut reader = Reader::new(self.mapped(header_address));
        if reader.u8()? != 1 {
            return None;
        }
        let encoding = PointerEncoding(reader.u8()?);
        reader.u16()?; // encodings of the table
        let address = encoding.read(&mut reader, header_address.wrapping_add(4))?;
        let bytes = self.mapped(address);
        (!bytes.is_empty()).then_some(Section { format: Format::EhFrame, bytes, address, ends_at_zero: true })
    }

    fn debug_frame(&self) -> Option<Cow<'a, [u8]>> {
        let section = self.section(b".debug_frame")?;
        let Some((header, offset, size)) = section.compression(LE, self.bytes).ok()? else {
            return self.section_bytes(section).map(Cow::Borrowed);
        };
        let (kind, len) = (header.ch_type.get(LE), header.ch_size.get(LE));
        let format = match kind {
            elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
            _ => return None,
        };
        if len > MAX_UNCOMPRESSED_BYTES {
            return None;
        }
        let from = usize::try_from(offset).ok()?;
        let data = self.bytes.get(from..from.checked_add(usize::try_from(size).ok()?)?)?;
        object::CompressedData { format, data, uncompressed_size: len }.decompress().ok()
    }

    /// What of `gaps`, which are sorted, lies in sections of code and is more than padding.
    fn in_code_sections(&self, gaps: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
        let sections = self.code_sections();
        let mut parts = Vec::new();
        for gap in gaps {
            let first = sections.partition_point(|section| section.end <= gap.start);
            for section in sections[first..].iter().take_while(|section| section.start < gap.end) {
                let part = gap.start.max(section.start)..gap.end.min(section.end);
                if part.end - part.start >= SMALLEST_GUESSED {
                    parts.push(part);
                }
            }
        }
        parts
    }

    /// Where code lies, sorted and disjoint: old linkers put headers and constants into the same segment. Nothing in files
    /// without section headers.
    fn code_sections(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = self
            .sections
            .iter()
            .filter(|section| section.sh_type(LE) == elf::SHT_PROGBITS)
            .filter(|section| section.sh_flags(LE).0 & elf::SHF_EXECINSTR.0 != 0)
            .map(|section| section.sh_addr(LE)..section.sh_addr(LE).saturating_add(section.sh_size(LE)))
            .collect();
        ranges.sort_by_key(|range| range.start);
        let mut last = 0;
        ranges.retain_mut(|range| {
            range.start = range.start.max(last);
            last = last.max(range.end);
            range.start < range.end
        });
        ranges
    }

    /// The entry point; libraries have none.
    fn entry_point(&self) -> Option<u64> {
        Some(self.header.e_entry(LE)).filter(|&address| address != 0)
    }

    /// Whether this file is started as a program.
    fn is_program(&self) -> bool {
        self.header.e_type(LE) == elf::ET_EXEC
            || self.segments.iter().any(|segment| segment.p_type(LE) == elf::PT_INTERP)
    }

    fn go_table(&self, code_at: gopclntab::CodeAt<'a>) -> Option<GoTable<'a>> {
        let names: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];
        let by_section = names
            .iter()
            .filter_map(|name| self.section(name))
            .find_map(|section| GoTable::parse(self.section_bytes(section)?, self.architecture, code_at));
        by_section.or_else(|| self.is_go().then(|| self.go_table_by_magic(code_at)).flatten())
    }

    /// Go's linker leaves a note that survives the removal of section headers.
    fn is_go(&self) -> bool {
        self.section(b".go.buildinfo").is_some()
            || self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_NOTE).any(|segment| {
                let note = segment.data(LE, self.bytes).unwrap_or_default();
                note.windows(8).take(4096).any(|bytes| bytes == b"\x04\0\0\0Go\0\0")
            })
    }

    fn go_table_by_magic(&self, code_at: gopclntab::CodeAt<'a>) -> Option<GoTable<'a>> {
        self.segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
            .filter_map(|segment| segment.data(LE, self.bytes).ok())
            .flat_map(|data| (0..data.len()).step_by(GO_TABLE_ALIGNMENT).map(move |at| &data[at..]))
            .filter(|bytes| gopclntab::has_magic(bytes, self.architecture))
            .find_map(|bytes| GoTable::parse(bytes, self.architecture, code_at))
    }

    /// Where Go's text may start: its module data says so, as long as no relocation is to write it.
    fn go_text_candidates(&self) -> Vec<u64> {
        const TEXT_FIELD: u64 = 22 * 8;
        let module = self.section(b".go.module").and_then(|section| self.section_bytes(section));
        module
            .and_then(|bytes| Reader::at(bytes, TEXT_FIELD)?.u64())
            .filter(|&address| address != 0)
            .into_iter()
            .collect()
    }

    /// Code in which Go's text lies.
    fn go_text(&self) -> std::ops::Range<u64> {
        let section = self.section(b".text").map(|section| section.sh_addr(LE));
        let ranges = self.code_ranges().unwrap_or_default();
        let start = section.or_else(|| ranges.ranges.first().map(|range| range.start)).unwrap_or(0);
        start..ranges.containing(start).map_or(start, |range| range.end)
    }
}
