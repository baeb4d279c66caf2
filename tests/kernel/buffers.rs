//! Both ways out of the kernel: one ring for all CPUs, and the perf buffer of each CPU that kernels before 5.8 have.

use std::time::{Duration, Instant};

use everflame::agent::bpf::{Buffers, Sampler, SamplerSettings};
use everflame::agent::process::KernelSide;
use everflame::agent::tables::Tables;

use super::scene::{DEADLINE, Frames, POOL_BYTES, Program, Scene, at_the_leaf, check_chain, objects, turn};

#[test]
fn whole_chain_through_buffers_of_each_cpu() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "60", "3"]);
        let settings = SamplerSettings {
            frequency_hz: 997,
            object,
            buffers: Buffers::PerCpu,
            only_pid: Some(program.pid()),
            ..SamplerSettings::default()
        };
        let mut scene = Scene::with(&settings);
        scene.know(program.pid(), |_| true);
        for sample in scene.collect(300, |sample| at_the_leaf(&program, sample)) {
            check_chain(&program, &sample, 60, "run");
        }
        scene.check_counters();
    }
}

#[test]
fn stack_copies_come_through_buffers_of_each_cpu() {
    let Some(_turn) = turn() else { return };
    for object in objects() {
        let program = Program::start(Frames::Omitted, &["user", "30"]);
        let settings = SamplerSettings {
            frequency_hz: 997,
            object,
            buffers: Buffers::PerCpu,
            only_pid: Some(program.pid()),
            ..SamplerSettings::default()
        };
        let mut scene = Scene::with(&settings);
        for sample in scene.collect(50, |sample| sample.pid == program.pid()) {
            let copy = sample.stack_copy.expect("nobody told of the process");
            let sp = copy.registers.sp;
            assert!(copy.start <= sp && sp < copy.start + copy.bytes.len() as u64, "{sp:#x}");
        }
    }
}

#[test]
fn full_buffers_are_counted() {
    let Some(_turn) = turn() else { return };
    for buffers in [Buffers::Shared, Buffers::PerCpu] {
        let program = Program::start(Frames::Omitted, &["user", "500", "2"]);
        let settings =
            SamplerSettings { frequency_hz: 5000, buffers, ring_bytes: 1, ..SamplerSettings::default() };
        let mut sampler = Sampler::load(&settings).unwrap();
        let mut tables = Tables::new(sampler.maps().unwrap(), POOL_BYTES);
        tables.set_process(program.pid(), &[]).unwrap();
        sampler.follow_cpus().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while sampler.counter("dropped.ring_full") <= 100 {
            assert!(Instant::now() < deadline, "{buffers:?}: {:?}", sampler.counters());
            std::thread::sleep(Duration::from_millis(20));
        }
        sampler.stop();
        let drained = sampler.drain(|_| ());
        let mut scene = Scene { sampler, tables };
        assert_eq!(scene.check_counters()["stored"], drained);
    }
}
