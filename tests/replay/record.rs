//! From a stopped thread to a case file.

use super::case::{Case, CaseFrame, CaseMapping};
use super::compare::{Row, Session};
use super::machine::{Build, Machine};
use everflame::agent::bpf::Object;
use everflame::model::ElfAddr;
use everflame::unwind::UnwindTable;

/// The thread of this row as a case. The process must still stand as it did.
pub(crate) fn case(session: &mut Session, row: &Row, story: &str, pac_mask: u64) -> Result<Case, String> {
    let memory = session.memory_of(&row.ours)?;
    let mut mappings = Vec::new();
    for mapping in &session.view.mappings {
        let inside = |address: &u64| address.wrapping_sub(mapping.start) < mapping.len;
        let met: Vec<u64> = row.ours.frames.iter().map(|frame| frame.code_address()).filter(inside).collect();
        if met.is_empty() {
            continue;
        }
        let rows = mapping.file.table.as_ref().map(|table| {
            let addresses: Vec<u64> = met.iter().map(|address| address.wrapping_sub(mapping.bias)).collect();
            rows_around(table, &addresses)
        });
        // People want the file's name, not the folder of whoever recorded it.
        let name = mapping.name.rsplit('/').next().unwrap_or_default();
        mappings.push(CaseMapping {
            start: mapping.start,
            len: mapping.len,
            bias: mapping.bias,
            name: format!("{name} {}", mapping.file.build_id).trim().to_owned(),
            rows,
        });
    }
    let name = |n: usize| {
        let frame = row.ours.frames[n];
        let oracle =
            row.gdb.frames.iter().find(|known| known.pc == frame.address() && !known.name.is_empty());
        let own = session.view.name(frame.code_address());
        oracle.map(|known| known.name.as_str()).or(own).unwrap_or_default().to_owned()
    };
    let frames = row.ours.frames.iter().enumerate();
    let mut case = Case {
        story: story.to_owned(),
        mode: row.sample.mode,
        registers: row.sample.registers.clone(),
        pac_mask,
        known: true,
        mappings,
        memory: memory
            .into_iter()
            .map(|(start, words)| (start, words.into_iter().map(Some).collect()))
            .collect(),
        end: row.ours.end.clone(),
        skipped: row.ours.skipped,
        frames: frames.map(|(n, frame)| CaseFrame { frame: *frame, name: name(n) }).collect(),
    };
    let architecture = case.registers.architecture;
    let mut machine =
        Machine::start(architecture, Object::Modern, Build::Fast).ok_or("no C compiler (cc) found")?;
    let again = case.differences(&case.run(&mut machine));
    if !again.is_empty() {
        return Err(format!("walked again from the case, it differs: {again}"));
    }
    case.minimise(&mut machine);
    Ok(case)
}

/// The rows that hold at these ELF addresses, each with the row behind it.
fn rows_around(table: &UnwindTable, addresses: &[u64]) -> Vec<(u64, everflame::unwind::Rule)> {
    let ElfAddr(base) = table.base;
    let mut wanted = Vec::new();
    for address in addresses {
        let Some(offset) = address.checked_sub(base) else { continue };
        let behind = table.rows.partition_point(|row| u64::from(row.offset) <= offset);
        wanted.extend(behind.checked_sub(1));
        wanted.extend((behind < table.rows.len()).then_some(behind));
    }
    wanted.sort_unstable();
    wanted.dedup();
    let row = |at: usize| {
        let row = table.rows[at];
        let rule =
            table.rules.get(usize::from(row.rule)).copied().unwrap_or(everflame::unwind::Rule::Unknown);
        (base + u64::from(row.offset), rule)
    };
    wanted.into_iter().map(row).collect()
}
