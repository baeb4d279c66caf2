//! ELF files made by hand for tests: exactly the sections asked for, at known places.

/// One section to be.
#[derive(Clone, Debug, Default)]
pub(super) struct SectionSpec {
    pub(super) name: &'static str,
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) link: u32,
    pub(super) entry_bytes: u64,
    pub(super) content: Vec<u8>,
}

/// Start of the code of [`file`].
pub(super) const CODE: u64 = 0x40_1000;

/// A symbol table entry: name offset, type and binding, section, address, size.
pub(super) fn symbol(name: u32, info: u8, section: u16, value: u64, bytes: u64) -> Vec<u8> {
    let mut entry = Vec::new();
    entry.extend(name.to_le_bytes());
    entry.extend([info, 0]);
    entry.extend(section.to_le_bytes());
    entry.extend(value.to_le_bytes());
    entry.extend(bytes.to_le_bytes());
    entry
}

/// A 64-bit x86 executable of these sections, with one program header for all of it.
/// Order: file header, program header, contents (8-byte aligned), section names, section headers.
pub(super) fn file(sections: &[SectionSpec]) -> Vec<u8> {
    let mut all = vec![SectionSpec::default()];
    all.extend_from_slice(sections);
    all.push(SectionSpec { name: ".shstrtab", kind: 3, ..SectionSpec::default() });
    let mut names = Vec::new();
    let name_offsets: Vec<u32> = all
        .iter()
        .map(|section| {
            let at = names.len() as u32;
            names.extend(section.name.as_bytes());
            names.push(0);
            at
        })
        .collect();
    all.last_mut().unwrap().content = names;

    let mut file = vec![0; 64 + 56];
    let mut headers = Vec::new();
    for (section, name) in all.iter().zip(&name_offsets) {
        file.resize(file.len().next_multiple_of(8), 0);
        let offset = if section.kind == 0 { 0 } else { file.len() as u64 };
        file.extend(&section.content);
        headers.extend(name.to_le_bytes());
        headers.extend(section.kind.to_le_bytes());
        for word in [section.flags, section.address, offset, section.content.len() as u64] {
            headers.extend(word.to_le_bytes());
        }
        headers.extend(section.link.to_le_bytes());
        headers.extend(0u32.to_le_bytes());
        for word in [8, section.entry_bytes] {
            headers.extend(u64::to_le_bytes(word));
        }
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let section_offset = file.len() as u64;
    file.extend(headers);

    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend(2u16.to_le_bytes());
    head.extend(62u16.to_le_bytes());
    head.extend(1u32.to_le_bytes());
    for word in [CODE, 64, section_offset] {
        head.extend(word.to_le_bytes());
    }
    head.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, all.len() as u16, all.len() as u16 - 1] {
        head.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable
    head.extend(1u32.to_le_bytes());
    head.extend(5u32.to_le_bytes());
    for word in [0, 0x40_0000, 0x40_0000, file.len() as u64, file.len() as u64, 0x1000] {
        head.extend(word.to_le_bytes());
    }
    file[..head.len()].copy_from_slice(&head);
    file
}

/// Code, a full symbol table with its strings, and more sections behind.
pub(super) fn with_symbols(strings: &[u8], symbols: &[Vec<u8>], more: &[SectionSpec]) -> Vec<u8> {
    let mut sections = vec![
        SectionSpec {
            name: ".text",
            kind: 1,
            flags: 6,
            address: CODE,
            content: vec![0x90; 256],
            ..SectionSpec::default()
        },
        SectionSpec {
            name: ".symtab",
            kind: 2,
            link: 3,
            entry_bytes: 24,
            content: symbols.concat(),
            ..SectionSpec::default()
        },
        SectionSpec { name: ".strtab", kind: 3, content: strings.to_vec(), ..SectionSpec::default() },
    ];
    sections.extend_from_slice(more);
    file(&sections)
}

/// A table of Go 1.20 for two functions of 16 bytes at [`CODE`]: `main.main`, then `main.spin`, in `/src/main.go`.
pub(super) fn go_table() -> Vec<u8> {
    let names = b"main.main\0main.spin\0";
    let files = b"/src/main.go\0";
    let units = 0u32.to_le_bytes();
    // Offset 0 means "none"; then at 1: file 0 for 16 bytes; at 4: line 7 for 8 bytes, line 9 for 8 bytes.
    let values = [0, 2, 16, 0, 16, 8, 4, 8, 0];
    let head = 8 + 8 * 8;
    let names_at = head as u64;
    let units_at = names_at + names.len() as u64;
    let files_at = units_at + units.len() as u64;
    let values_at = files_at + files.len() as u64;
    let map_at = (values_at + values.len() as u64).next_multiple_of(8);
    let mut table = 0xffff_fff1u32.to_le_bytes().to_vec();
    table.extend([0, 0, 1, 8]);
    for word in [2, 1, CODE, names_at, units_at, files_at, values_at, map_at] {
        table.extend(word.to_le_bytes());
    }
    table.extend(names);
    table.extend(units);
    table.extend(files);
    table.extend(values);
    table.resize(map_at as usize, 0);
    let record = |entry: u32, name: u32| {
        let mut record = entry.to_le_bytes().to_vec();
        // name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit, start line; then id, flags, padding, nfuncdata
        for field in [name, 0, 0, 0, 1, 4, 0, 0, 5] {
            record.extend(field.to_le_bytes());
        }
        record.extend([0, 0, 0, 0]);
        record
    };
    // Map: two entries and the end, five words; the records follow.
    let first = 5 * 4u32;
    for word in [0, first, 16, first + 44, 32] {
        table.extend(word.to_le_bytes());
    }
    table.extend(record(0, 0));
    table.extend(record(16, 10));
    table
}
