//! `.eh_frame` and `.debug_frame`: finds the entries and says how each is to be read.
//!
//! One pass in file order collects headers only; instructions are run later, in the order of addresses, by `compact`.
//! Own code instead of gimli's because it is twice the speed; gimli is the oracle of the tests.

use super::cfi::{self, Dialect, State};
use super::reader::Reader;
use super::rows::Skipped;
use super::{Architecture, MAX_CIES};

/// Which of the two formats a section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `.eh_frame`.
    EhFrame,
    /// `.debug_frame`.
    DebugFrame,
}

/// One section of call frame information.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    /// ELF address of the first byte; relative pointers start from it.
    pub(super) address: u64,
    /// A zero length ends the section. So it is when only its start is known; in a section of known size a linker may
    /// have left a terminator in the middle.
    pub(super) ends_at_zero: bool,
}

/// `DW_EH_PE`: how a pointer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PointerEncoding(pub(super) u8);

impl PointerEncoding {
    pub(super) const ABSOLUTE: Self = Self(0);
    const OMIT: Self = Self(0xff);

    /// Reads a pointer whose first byte lies at ELF address `here`.
    #[inline]
    pub(super) fn read(self, reader: &mut Reader<'_>, here: u64) -> Option<u64> {
        // Indirect, text-, data- and function-relative or aligned pointers do not occur for code on these
        // architectures.
        let base = match self.0 & 0xf0 {
            0x00 => 0,
            0x10 => here,
            _ => return None,
        };
        self.value(reader).map(|value| base.wrapping_add(value))
    }

    /// Reads a length: the format counts, what it is relative to does not.
    #[inline]
    pub(super) fn value(self, reader: &mut Reader<'_>) -> Option<u64> {
        match self.0 & 0x0f {
            0x00 | 0x04 | 0x0c => reader.u64(),
            0x01 => reader.uleb(),
            0x02 => reader.u16().map(u64::from),
            0x03 => reader.u32().map(u64::from),
            0x09 => reader.sleb().map(|value| value as u64),
            0x0a => reader.u16().map(|value| value as i16 as u64),
            0x0b => reader.u32().map(|value| value as i32 as u64),
            _ => None,
        }
    }
}

/// A common information entry, its instructions already run.
#[derive(Clone, Debug)]
pub(super) struct Cie {
    /// Where it lies in its section: how entries refer to it.
    offset: u64,
    pub(super) dialect: Dialect,
    pub(super) initial: State,
    /// `z`: each entry carries augmentation data with its length in front.
    sized_augmentation: bool,
    /// `S`.
    pub(super) is_signal: bool,
}

/// What one entry says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fde {
    pub(super) start: u64,
    /// Exclusive.
    pub(super) end: u64,
    /// Index in [`Entries::cies`].
    pub(super) cie: u32,
    /// Where its instructions lie in the section.
    pub(super) instructions: u32,
    pub(super) instructions_len: u32,
}

/// Common entries met so far, in the order of the section.
#[derive(Debug, Default)]
pub(super) struct Cies {
    pub(super) list: Vec<Cie>,
    /// Most neighbours share theirs.
    last: usize,
}

impl Cies {
    fn find(&mut self, offset: u64) -> Option<usize> {
        if self.list.get(self.last).is_none_or(|cie| cie.offset != offset) {
            self.last = self.list.binary_search_by_key(&offset, |cie| cie.offset).ok()?;
        }
        Some(self.last)
    }
}

/// Reads all headers of a section and hands out each entry that describes code. Returns the CIEs they refer to
/// and what could not be read.
///
/// Linear in the size of the section: an entry can only refer to a CIE that was met before it as one, and each CIE
/// is run once.
pub(super) fn walk(
    section: &Section<'_>,
    architecture: Architecture,
    mut entry: impl FnMut(Fde, &Cie),
) -> (Cies, Skipped) {
    let mut cies = Cies::default();
    let mut skipped = Skipped::default();
    // Offsets of instructions are kept in 32 bits.
    let bytes = section.bytes.get(..u32::MAX as usize).unwrap_or(section.bytes);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let offset = reader.position() as u64;
        let body = match next_entry(&mut reader, section.format) {
            Some(Next::Entry(body)) => body,
            Some(Next::Terminator) if section.ends_at_zero => break,
            Some(Next::Terminator) => continue,
            None => {
                // The length is all that leads to the next entry.
                skipped.malformed += 1;
                break;
            }
        };
        let parsed = match body.kind {
            Kind::Cie if cies.list.len() >= MAX_CIES => {
                skipped.over_limit += 1;
                continue;
            }
            Kind::Cie => parse_cie(section, architecture, offset, &body).map(|cie| cies.list.push(cie)),
            Kind::Fde { cie } => cies.find(cie).and_then(|index| {
                let fde = parse_fde(section, &body, &cies.list[index], index)?;
                // An empty range describes nothing; linkers leave such entries for discarded functions.
                if fde.start < fde.end {
                    entry(fde, &cies.list[index]);
                }
                Some(())
            }),
        };
        skipped.malformed += u64::from(parsed.is_none());
    }
    (cies, skipped)
}

enum Kind {
    Cie,
    Fde { cie: u64 },
}

struct Body<'a> {
    kind: Kind,
    /// Everything behind length and CIE pointer.
    bytes: &'a [u8],
    /// Section offset of `bytes`.
    offset: u64,
}

enum Next<'a> {
    Entry(Body<'a>),
    Terminator,
}

/// The next entry; `None` when its length is broken.
fn next_entry<'a>(reader: &mut Reader<'a>, format: Format) -> Option<Next<'a>> {
    let short = reader.u32()?;
    let is_long = short == u32::MAX;
    let length = match short {
        0 => return Some(Next::Terminator),
        u32::MAX => reader.u64()?,
        0xffff_fff0..0xffff_ffff => return None,
        _ => u64::from(short),
    };
    let start = reader.position() as u64;
    let bytes = reader.take(length)?;
    let mut inner = Reader::new(bytes);
    let wide_id = is_long && format == Format::DebugFrame;
    let id = if wide_id { inner.u64() } else { inner.u32().map(u64::from) };
    // Too short for an identifier: counts as an entry that refers to no CIE.
    let Some(id) = id else {
        return Some(Next::Entry(Body { kind: Kind::Fde { cie: u64::MAX }, bytes: &[], offset: start }));
    };
    let kind = match (format, id) {
        (Format::EhFrame, 0) => Kind::Cie,
        (Format::EhFrame, _) => Kind::Fde { cie: start.checked_sub(id).unwrap_or(u64::MAX) },
        (Format::DebugFrame, 0xffff_ffff) if !wide_id => Kind::Cie,
        (Format::DebugFrame, u64::MAX) => Kind::Cie,
        (Format::DebugFrame, _) => Kind::Fde { cie: id },
    };
    let at = inner.position();
    Some(Next::Entry(Body { kind, bytes: bytes.get(at..)?, offset: start + at as u64 }))
}

fn parse_cie(section: &Section<'_>, architecture: Architecture, offset: u64, body: &Body<'_>) -> Option<Cie> {
    let mut reader = Reader::new(body.bytes);
    let version = reader.u8()?;
    if !matches!(version, 1 | 3 | 4) {
        return None;
    }
    let augmentation = reader.c_string()?;
    if augmentation == b"eh" {
        reader.u64()?; // gcc 2 put a pointer to its exception table here
    }
    if version == 4 {
        let address_size = reader.u8()?;
        let segment_size = reader.u8()?;
        if address_size != 8 || segment_size != 0 {
            return None;
        }
    }
    let code_alignment = reader.uleb()?;
    let data_alignment = reader.sleb()?;
    let return_register = if version == 1 { u64::from(reader.u8()?) } else { reader.uleb()? };
    let sized_augmentation = augmentation.first() == Some(&b'z');
    let mut encoding = PointerEncoding::ABSOLUTE;
    let mut is_signal = false;
    if sized_augmentation {
        let length = reader.uleb()?;
        let data_at = reader.position();
        let data = reader.take(length)?;
        let mut data_reader = Reader::new(data);
        for letter in &augmentation[1..] {
            match letter {
                b'L' => {
                    data_reader.u8()?;
                }
                b'R' => encoding = PointerEncoding(data_reader.u8()?),
                b'P' => {
                    let personality = PointerEncoding(data_reader.u8()?);
                    if personality != PointerEncoding::OMIT {
                        let at = body.offset + (data_at + data_reader.position()) as u64;
                        skip_pointer(personality, &mut data_reader, section.address.wrapping_add(at))?;
                    }
                }
                b'S' => is_signal = true,
                // AArch64: key of pointer authentication, tagged stack.
                b'B' | b'G' => {}
                // Unknown letters may carry data, but its whole length is known.
                _ => break,
            }
        }
    } else if !matches!(augmentation, b"" | b"eh") {
        return None;
    }
    let dialect = Dialect { architecture, code_alignment, data_alignment, return_register, encoding };
    let instructions = body.bytes.get(reader.position()..)?;
    let initial = cfi::initial_state(instructions, &dialect).ok()?;
    Some(Cie { offset, dialect, initial, sized_augmentation, is_signal })
}

/// A pointer whose value does not matter.
fn skip_pointer(encoding: PointerEncoding, reader: &mut Reader<'_>, here: u64) -> Option<()> {
    if encoding.0 & 0x70 == 0x50 {
        // Aligned to its size.
        reader.skip(here.wrapping_neg() & 7)?;
        return reader.skip(8);
    }
    encoding.value(reader).map(|_| ())
}

#[inline]
fn parse_fde(section: &Section<'_>, body: &Body<'_>, cie: &Cie, index: usize) -> Option<Fde> {
    let mut reader = Reader::new(body.bytes);
    let encoding = match section.format {
        Format::EhFrame => cie.dialect.encoding,
        Format::DebugFrame => PointerEncoding::ABSOLUTE,
    };
    let start = encoding.read(&mut reader, section.address.wrapping_add(body.offset))?;
    let length = encoding.value(&mut reader)?;
    if cie.sized_augmentation {
        let length = reader.uleb()?;
        reader.skip(length)?;
    }
    let at = reader.position();
    Some(Fde {
        start,
        end: start.checked_add(length)?,
        cie: index as u32,
        instructions: u32::try_from(body.offset + at as u64).ok()?,
        instructions_len: (body.bytes.len() - at) as u32,
    })
}
