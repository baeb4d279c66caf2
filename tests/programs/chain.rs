//! A program of known call chains and known shares; see chain.c.
//!
//! Build: rustc -O -C force-frame-pointers=no chain.rs -o chain-rust
//! Usage: chain-rust SECONDS THREADS

use std::hint::black_box;
use std::time::{Duration, Instant};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

/// CPU time of this thread in seconds: preemption must not count.
fn cpu_time() -> f64 {
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a live Timespec with the layout of the C type on 64-bit Linux.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

#[inline(never)]
fn leaf_spin(mut seed: u64, rounds: u32) -> u64 {
    for _ in 0..rounds {
        seed = black_box(seed).wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }
    seed
}

#[inline(never)]
fn gamma_step(seed: u64, rounds: u32) -> u64 {
    black_box(leaf_spin(seed, rounds)) + 1
}

#[inline(never)]
fn beta(seed: u64, rounds: u32) -> u64 {
    black_box(gamma_step(seed, rounds)) >> 1
}

#[inline(never)]
fn alpha(seed: u64, rounds: u32) -> u64 {
    black_box(beta(seed, rounds)) ^ 2
}

#[inline(never)]
fn delta(seed: u64, rounds: u32) -> u64 {
    black_box(leaf_spin(seed, rounds)) ^ 3
}

#[inline(never)]
fn run(thread: u64, length: Duration) -> (f64, f64) {
    let (mut seed, start) = (thread + 1, Instant::now());
    let (mut a, mut d) = (0.0, 0.0);
    while start.elapsed() < length {
        let rounds = 100_000 + (seed >> 50) as u32;
        let before = cpu_time();
        seed = black_box(alpha(seed, rounds / 5 * 6));
        let middle = cpu_time();
        seed = black_box(delta(seed, rounds / 5 * 4)).rotate_left(17);
        a += middle - before;
        d += cpu_time() - middle;
    }
    (a, d)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(10.0);
    let threads: u64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(2);
    let length = Duration::from_secs_f64(seconds);
    let workers: Vec<_> = (0..threads)
        .map(|t| std::thread::Builder::new().name(format!("worker-{t}")).spawn(move || run(t, length)).expect("a thread"))
        .collect();
    let (mut a, mut d) = (0.0, 0.0);
    for worker in workers {
        let (wa, wd) = worker.join().expect("a worker ends");
        a += wa;
        d += wd;
    }
    println!("{{\"alpha\": {:.6}, \"delta\": {:.6}, \"cpu_seconds\": {:.3}}}", a / (a + d), d / (a + d), a + d);
}
