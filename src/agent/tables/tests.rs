//! Life of tables and processes, seen through recorded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::recorded::Recorded;
use super::*;
use crate::model::{ElfAddr, RuntimeAddr};
use crate::unwind::{CfaRule, FpRule, RaRule, Row, Rule};

const PART_BYTES: u64 = 4 << 20;

/// Tables over recorded memory and a clock in milliseconds.
fn tables(budget: u64) -> (Tables<Recorded>, Arc<AtomicU64>) {
    let (start, millis) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let hand = Arc::clone(&millis);
    let clock = move || start + Duration::from_millis(hand.load(Ordering::Relaxed));
    (Tables::new(Recorded::default(), budget).with_clock(clock), millis)
}

/// A table of `rows` rows 8 bytes apart; `salt` makes it differ from others.
fn table(rows: u32, salt: i32) -> UnwindTable {
    let rule = |n: i32| Rule::Frame {
        cfa: CfaRule::Sp(n * 8 + salt),
        fp: FpRule::AtCfa(-16),
        ra: RaRule::AtCfa(-8),
    };
    UnwindTable {
        base: ElfAddr(0x1000),
        rows: (0..rows).map(|n| Row { offset: n * 8, rule: (n % 7) as u16 }).collect(),
        rules: (0..7).map(rule).collect(),
        ..UnwindTable::default()
    }
}

fn mapping(start: u64, table: Option<TableId>) -> ProcessMapping {
    ProcessMapping {
        start: RuntimeAddr(start),
        len: 0x10_0000,
        bias: start.wrapping_sub(0x1000),
        table,
        pending: false,
    }
}

/// What the sampling program would find for a code address.
fn find(tables: &Tables<Recorded>, pid: u32, pc: u64) -> Option<[u32; 4]> {
    let memory = &tables.memory;
    let [stamp, page, levels, program] = *memory.processes.get(&pid)?;
    let row = abi::Process { stamp, page, levels, program };
    let entry = processes::mirror::find(&memory.pages, row, pc)?;
    let found = search::find(&|id, word| memory.pages[&id][word], entry.root, pc.wrapping_sub(entry.bias))?;
    let [head, cfa_offset, fp_offset, ra_offset] = memory.rules[&found.rule];
    let [cfa, fp, ra, slot] = head.to_ne_bytes();
    let [cfa_offset, fp_offset, ra_offset] = [cfa_offset, fp_offset, ra_offset].map(|word| word as i32);
    let rule = abi::Rule { cfa, fp, ra, slot, cfa_offset, fp_offset, ra_offset };
    Some(rule.at(found.passed).words())
}

#[test]
fn leads_from_a_code_address_to_its_rule() {
    let (mut tables, _) = tables(PART_BYTES);
    let source = table(5000, 0);
    let id = tables.publish(&source).unwrap();
    tables.set_process(7, &[mapping(0x5500_0000, Some(id)), mapping(0x7f00_0000_0000, None)]).unwrap();
    for address in [0x1000_u64, 0x1007, 0x1008, 0x2345, 0x1000 + 4999 * 8, 0x9_0000] {
        let expected = source.find(ElfAddr(address)).map(|rule| rules::encode(&rule).unwrap().words());
        assert_eq!(find(&tables, 7, 0x5500_0000 - 0x1000 + address), expected, "at {address:#x}");
    }
    assert_eq!(find(&tables, 7, 0x7f00_0000_0000), None);
    assert_eq!(find(&tables, 8, 0x5500_0000), None);
}

#[test]
fn same_content_is_stored_once() {
    let (mut tables, _) = tables(PART_BYTES);
    let first = tables.publish(&table(3000, 0)).unwrap();
    let used = tables.usage().used_bytes;
    assert_eq!(tables.publish(&table(3000, 0)).unwrap(), first);
    assert_eq!(tables.usage().used_bytes, used);
    assert_ne!(tables.publish(&table(3000, 1)).unwrap(), first);
    assert_eq!(tables.usage().tables, 2);
}

#[test]
fn every_change_of_a_process_has_a_new_stamp() {
    let (mut tables, _) = tables(PART_BYTES);
    let mut stamps = Vec::new();
    for pid in [1, 1, 2, 1] {
        tables.set_process(pid, &[mapping(0x1000, None)]).unwrap();
        stamps.push(tables.memory.processes[&pid][0]);
    }
    stamps.sort_unstable();
    stamps.dedup();
    assert_eq!(stamps.len(), 4);
    assert!(!stamps.contains(&0));
}

#[test]
fn retired_table_stays_while_a_process_leads_to_it() {
    let (mut tables, millis) = tables(PART_BYTES);
    let id = tables.publish(&table(900_000, 0)).unwrap();
    tables.set_process(7, &[mapping(0x5500_0000, Some(id))]).unwrap();
    tables.retire(id);
    millis.store(10_000, Ordering::Relaxed);
    assert!(matches!(tables.publish(&table(900_000, 1)), Err(KernelSideError::PoolFull { .. })));
    assert!(find(&tables, 7, 0x5500_0000).is_some());

    // Without the process it is idle, and after its rest it makes room.
    tables.remove_process(7);
    assert!(matches!(tables.publish(&table(900_000, 1)), Err(KernelSideError::PoolFull { .. })));
    millis.store(11_000, Ordering::Relaxed);
    let other = tables.publish(&table(900_000, 1)).unwrap();
    assert_ne!(other, id);
    assert_eq!((tables.usage().tables, tables.usage().evicted_tables), (1, 1));
}

#[test]
fn idle_table_is_there_again_at_no_cost() {
    let (mut tables, millis) = tables(PART_BYTES);
    let id = tables.publish(&table(500_000, 0)).unwrap();
    tables.retire(id);
    millis.store(60_000, Ordering::Relaxed);
    assert_eq!(tables.publish(&table(500_000, 0)).unwrap(), id);
    // In use again: nothing may throw it out.
    assert!(matches!(tables.publish(&table(900_000, 1)), Err(KernelSideError::PoolFull { .. })));
}

#[test]
fn mappings_find_room_when_tables_do_not() {
    let (mut tables, _) = tables(PART_BYTES);
    let mut salt = 0;
    while tables.publish(&table(20_000, salt)).is_ok() {
        salt += 8;
    }
    tables.set_process(7, &[mapping(0x1000, None)]).unwrap();
}

#[test]
fn refuses_a_process_too_many_but_not_a_known_one() {
    let (mut tables, _) = tables(PART_BYTES);
    for pid in 1..=100 {
        tables.set_process(pid, &[]).unwrap();
    }
    assert_eq!(tables.set_process(101, &[]), Err(KernelSideError::ProcessesFull { limit: 100 }));
    tables.set_process(50, &[mapping(0x1000, None)]).unwrap();
    tables.remove_process(50);
    tables.set_process(101, &[]).unwrap();
}

#[test]
fn changes_without_end_leak_no_page() {
    let (mut tables, millis) = tables(PART_BYTES);
    for round in 0..20_000_u64 {
        millis.fetch_add(2, Ordering::Relaxed);
        tables.set_process((round % 10) as u32 + 1, &[mapping(0x1000, None)]).unwrap();
    }
    assert!(tables.usage().used_bytes < 700 * 4096, "{:?}", tables.usage());
}
