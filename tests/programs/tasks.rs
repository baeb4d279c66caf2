//! Async Rust without a runtime crate: a small executor drives futures that await each other and yield; beside them
//! closures behind trait objects, panics that are caught, and threads.
//!
//! Build: rustc --edition 2024 -O tasks.rs
//! Usage: tasks SECONDS

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn spin(mut seed: u64) -> u64 {
    for _ in 0..3000 {
        seed = black_box(seed).wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }
    seed
}

/// Pending once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A future whose own frame is visible: what it awaits is polled through a box.
type Boxed = Pin<Box<dyn Future<Output = u64> + Send>>;

fn innermost(seed: u64) -> Boxed {
    Box::pin(async move {
        let first = black_box(spin(seed));
        Yield(false).await;
        black_box(spin(first)) + 1
    })
}

fn middle(seed: u64) -> Boxed {
    Box::pin(async move {
        let a = innermost(seed).await;
        let b = innermost(black_box(spin(a))).await;
        a ^ b
    })
}

fn outermost(seed: u64) -> Boxed {
    Box::pin(async move { black_box(middle(seed).await) >> 1 })
}

struct Nothing;
impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

/// Polls every future in turn until all are done.
#[unsafe(no_mangle)]
#[inline(never)]
fn execute(count: u64) -> u64 {
    let waker = Waker::from(Arc::new(Nothing));
    let mut context = Context::from_waker(&waker);
    let mut queue: VecDeque<Boxed> = (0..count).map(outermost).collect();
    let mut sum = 0_u64;
    while let Some(mut task) = queue.pop_front() {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(value) => sum = sum.wrapping_add(value),
            Poll::Pending => queue.push_back(task),
        }
    }
    sum
}

trait Shape {
    fn size(&self, seed: u64) -> u64;
}

struct Round;
struct Square(u64);

impl Shape for Round {
    #[inline(never)]
    fn size(&self, seed: u64) -> u64 {
        black_box(spin(seed)) + 3
    }
}

impl Shape for Square {
    #[inline(never)]
    fn size(&self, seed: u64) -> u64 {
        black_box(spin(seed + self.0)) + 4
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn sizes(shapes: &[Box<dyn Shape>], seed: u64) -> u64 {
    shapes.iter().map(|shape| black_box(shape.size(seed))).fold(0, u64::wrapping_add)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn panics(seed: u64, depth: u32) -> u64 {
    if depth == 0 {
        std::panic::resume_unwind(Box::new(black_box(spin(seed))));
    }
    let kept = vec![seed; 4];
    black_box(panics(seed + 1, depth - 1)) + kept[0]
}

#[unsafe(no_mangle)]
#[inline(never)]
fn catches(seed: u64) -> u64 {
    match std::panic::catch_unwind(|| black_box(panics(seed, 5))) {
        Ok(value) => value,
        Err(thrown) => *thrown.downcast::<u64>().expect("what was thrown"),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn work(length: Duration) -> u64 {
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Round), Box::new(Square(3))];
    let (start, mut seed) = (Instant::now(), 1);
    while start.elapsed() < length {
        for turn in 0..50 {
            seed = black_box(execute(seed & 7)) ^ black_box(sizes(&shapes, seed));
            // Seldom, for while the unwinder lands, the true callers are not in memory (see exceptions.cpp).
            if turn % 5 == 0 {
                seed ^= black_box(catches(seed & 0xffff));
            }
        }
    }
    seed
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    let length = Duration::from_secs(seconds);
    let other = std::thread::spawn(move || work(length));
    black_box(work(length));
    black_box(other.join().expect("the thread ends"));
}
