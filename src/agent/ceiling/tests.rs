//! The control loop against made-up machines.

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn governor(cpu_share: f64) -> Governor {
    let ceilings = Ceilings { cpu_share: Some(cpu_share), ..Ceilings::default() };
    Governor::new(ceilings, 2, 20)
}

/// Runs for `seconds` with the share of the machine that `share` says for each level. Returns the levels taken.
fn run(
    governor: &mut Governor,
    now_ns: &mut u64,
    cpu_ns: &mut u64,
    seconds: u64,
    share: impl Fn(CpuLevel) -> f64,
) -> Vec<CpuLevel> {
    let mut levels = Vec::new();
    for _ in 0..seconds {
        *now_ns += SECOND_NS;
        *cpu_ns += (share(governor.cpu_level()) * 2.0 * SECOND_NS as f64) as u64;
        levels.extend(governor.observe(*now_ns, Cost { cpu_ns: *cpu_ns, memory_bytes: 0 }).cpu);
    }
    levels
}

#[test]
fn gives_up_in_order_and_no_more_than_needed() {
    let mut governor = governor(0.01);
    let (mut now, mut cpu) = (0, 0);
    // Without looks and descriptions it would fit.
    let cost = |level| if level >= CpuLevel::NoDescriptions { 0.009 } else { 0.02 };
    let levels = run(&mut governor, &mut now, &mut cpu, 120, cost);
    assert_eq!(levels, [CpuLevel::SlowLooks, CpuLevel::NoDescriptions]);
    assert_eq!(governor.notes().len(), 1);
    assert_eq!(governor.changes(), 2);
    assert!((governor.share().unwrap() - 0.009).abs() < 1e-6);
}

#[test]
fn rate_is_halved_until_it_fits_and_never_below_one() {
    let mut governor = governor(0.01);
    let (mut now, mut cpu) = (0, 0);
    let levels = run(&mut governor, &mut now, &mut cpu, 300, |level| 0.001 * f64::from(level.frequency(20)));
    assert_eq!(levels.last(), Some(&CpuLevel::SlowerBy(1)));
    assert_eq!(CpuLevel::SlowerBy(1).frequency(20), 10);
    let levels = run(&mut governor, &mut now, &mut cpu, 300, |_| 1.0);
    // 20, 10, 5, 2, 1.
    assert_eq!(levels.last(), Some(&CpuLevel::SlowerBy(4)));
    assert_eq!(CpuLevel::SlowerBy(4).frequency(20), 1);
}

#[test]
fn takes_back_when_there_is_room_and_waits_longer_after_each_failure() {
    let mut governor = governor(0.01);
    let (mut now, mut cpu) = (0, 0);
    run(&mut governor, &mut now, &mut cpu, 12, |_| 0.02);
    assert_eq!(governor.cpu_level(), CpuLevel::NoDescriptions);
    let levels = run(&mut governor, &mut now, &mut cpu, 300, |_| 0.001);
    assert_eq!(levels, [CpuLevel::SlowLooks, CpuLevel::Everything]);
    // A load that fits only without looks, and then takes less than half: it must not swing for ever.
    let cost = |level| if level == CpuLevel::Everything { 0.02 } else { 0.003 };
    let swings = |levels: &[CpuLevel]| levels.iter().filter(|l| **l == CpuLevel::Everything).count();
    let first = swings(&run(&mut governor, &mut now, &mut cpu, 1800, cost));
    let second = swings(&run(&mut governor, &mut now, &mut cpu, 1800, cost));
    let third = swings(&run(&mut governor, &mut now, &mut cpu, 1800, cost));
    assert!(first <= 5 && second <= 1 && third <= 1, "{first} {second} {third}");
}

#[test]
fn near_the_ceiling_nothing_changes() {
    let mut governor = governor(0.01);
    let (mut now, mut cpu) = (0, 0);
    assert_eq!(run(&mut governor, &mut now, &mut cpu, 600, |_| 0.0099), []);
    assert_eq!(governor.notes(), [] as [String; 0]);
}

#[test]
fn memory_is_given_back_step_by_step() {
    let ceilings = Ceilings { memory_bytes: Some(100), ..Ceilings::default() };
    let mut governor = Governor::new(ceilings, 2, 20);
    assert!(governor.is_needed() && !Governor::new(Ceilings::default(), 2, 20).is_needed());
    let mut levels = Vec::new();
    for second in 1..200_u64 {
        let memory_bytes = if governor.memory_level() >= MemoryLevel::NoGrowth { 90 } else { 130 };
        let cost = Cost { cpu_ns: 0, memory_bytes };
        levels.extend(governor.observe(second * SECOND_NS, cost).memory);
    }
    // At 90 % there is no room to take anything back.
    assert_eq!(levels, [MemoryLevel::SmallCaches, MemoryLevel::NoGrowth]);
    for second in 200..400_u64 {
        let cost = Cost { cpu_ns: 0, memory_bytes: 60 };
        levels.extend(governor.observe(second * SECOND_NS, cost).memory);
    }
    assert_eq!(levels[2..], [MemoryLevel::SmallCaches, MemoryLevel::Everything]);
}
