//! Life of tables and processes, seen through recorded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

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

/// What happens to tables and processes.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Retire(prop::sample::Index),
    /// A process with these mappings, each of the table that was published at this place.
    Map(u32, Vec<prop::sample::Index>),
    End(u32),
    Wait(u64),
    /// A program finds the mapping of an address, and is slow.
    Read(u32, usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (0..IMAGES).prop_map(Step::Publish),
        3 => index().prop_map(Step::Retire),
        4 => (1..5_u32, prop::collection::vec(index(), 0..6)).prop_map(|(pid, tables)| Step::Map(pid, tables)),
        2 => (1..5_u32).prop_map(Step::End),
        4 => prop_oneof![1..400_u64, 900..2500_u64].prop_map(Step::Wait),
        8 => (1..5_u32, 0..6_usize, 0..0x2000_u64).prop_map(|(pid, mapping, offset)| Step::Read(pid, mapping, offset)),
    ];
    prop::collection::vec(step, 1..120)
}

/// Large ones, three of which fill the pool, and small ones that share leaves.
const IMAGES: usize = 12;

fn images() -> &'static [TableImage] {
    static IMAGES_MADE: std::sync::OnceLock<Vec<TableImage>> = std::sync::OnceLock::new();
    IMAGES_MADE.get_or_init(|| {
        let rows = |n: usize| if n.is_multiple_of(2) { 280_000 } else { 40 + n as u32 * 25 };
        (0..IMAGES).map(|n| TableImage::new(&table(rows(n), n as i32 * 1000))).collect()
    })
}

/// A program that found a mapping and has not finished its search.
struct Reader {
    since: u64,
    root: u32,
    offset: u64,
    expected: Option<[u32; 4]>,
}

impl Reader {
    fn search(&self, memory: &Recorded) -> Option<[u32; 4]> {
        let found = search::find(&|id, word| memory.pages[&id][word], self.root, self.offset)?;
        Some(memory.rules[&found.rule])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever comes and goes: an address leads to the rule of its own table or to none, and a program that began its
    /// search before a change still finds what it would have found, for as long as any walk may take.
    #[test]
    fn pages_are_never_another_tables_while_a_program_may_read_them(steps in steps()) {
        let (mut tables, millis) = tables(PART_BYTES);
        // Tables published and not retired: image and id.
        let mut published: Vec<(usize, TableId)> = Vec::new();
        let mut mapped: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut readers: Vec<Reader> = Vec::new();
        let grace = GRACE.as_millis() as u64;
        let start = |n: usize| 0x5500_0000_0000 + n as u64 * 0x1000_0000;
        for step in steps {
            match step {
                Step::Publish(n) => {
                    if let Ok(id) = tables.publish_image(&images()[n]) {
                        published.push((n, id));
                    }
                }
                Step::Retire(which) if !published.is_empty() => {
                    let (_, id) = published.swap_remove(which.index(published.len()));
                    tables.retire(id);
                }
                Step::Map(pid, which) if !published.is_empty() => {
                    let chosen: Vec<_> = which.iter().map(|which| published[which.index(published.len())]).collect();
                    let mappings: Vec<_> =
                        chosen.iter().enumerate().map(|(n, (_, id))| mapping(start(n), Some(*id))).collect();
                    if tables.set_process(pid, &mappings).is_ok() {
                        mapped.insert(pid, chosen.iter().map(|(image, _)| *image).collect());
                    }
                }
                Step::End(pid) => {
                    tables.remove_process(pid);
                    mapped.remove(&pid);
                }
                Step::Wait(time) => {
                    millis.fetch_add(time, Ordering::Relaxed);
                }
                Step::Read(pid, n, offset) => {
                    let Some(image) = mapped.get(&pid).and_then(|images| images.get(n)) else { continue };
                    // The address is that of a row of this table: `table` has one each 8 bytes from 0x1000 on.
                    let pc = start(n) + offset;
                    let [stamp, page, levels, program] = tables.memory.processes[&pid];
                    let row = abi::Process { stamp, page, levels, program };
                    let entry = processes::mirror::find(&tables.memory.pages, row, pc).unwrap();
                    let since = millis.load(Ordering::Relaxed);
                    let mut reader = Reader { since, root: entry.root, offset: pc.wrapping_sub(entry.bias), expected: None };
                    reader.expected = reader.search(&tables.memory);
                    let row = images()[*image].rows().filter(|row| u64::from(row.offset) <= offset).last();
                    prop_assert_eq!(reader.expected, row.map(|row| row.rule.words()));
                    readers.push(reader);
                }
                Step::Retire(_) | Step::Map(..) => {}
            }
            let now = millis.load(Ordering::Relaxed);
            readers.retain(|reader| now - reader.since < grace);
            for reader in &readers {
                prop_assert_eq!(reader.search(&tables.memory), reader.expected);
            }
        }
    }
}

#[test]
fn small_tables_share_a_leaf_and_give_it_back() {
    let (mut tables, millis) = tables(PART_BYTES);
    let ids: Vec<_> = (0..8).map(|n| tables.publish(&table(90, n * 1000)).unwrap()).collect();
    // Page 0, which stands for none, and the leaf.
    assert_eq!(tables.usage().used_bytes, 2 * 4096);
    let mappings: Vec<_> =
        ids.iter().enumerate().map(|(n, id)| mapping((n as u64 + 1) * 0x100_0000, Some(*id))).collect();
    tables.set_process(7, &mappings).unwrap();
    for n in 0..8_u64 {
        for address in [0x1000_u64, 0x1007, 0x1008, 0x1000 + 89 * 8, 0x9_0000] {
            let expected = table(90, n as i32 * 1000).find(ElfAddr(address));
            let expected = expected.map(|rule| rules::encode(&rule).unwrap().words());
            assert_eq!(
                find(&tables, 7, (n + 1) * 0x100_0000 - 0x1000 + address),
                expected,
                "table {n} at {address:#x}"
            );
        }
    }
    tables.remove_process(7);
    for id in ids {
        tables.retire(id);
    }
    millis.store(5000, Ordering::Relaxed);
    // Every page is needed: the small ones go, and their leaf with them.
    tables.publish(&table(917_700, 1)).unwrap();
    assert_eq!((tables.usage().tables, tables.usage().evicted_tables), (1, 8));
}
