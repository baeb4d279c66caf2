//! Threads that parse: few, of low priority, with a stack of known size.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Stack of a thread: 4 MiB. The deepest consumer is the C++ demangler with about 400 KiB.
const STACK_BYTES: usize = 4 << 20;
/// Niceness: names may come later, the profiled programs may not.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A handful of threads and their jobs. Threads end when the pool is dropped, each after its job.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    jobs: mpsc::Sender<Job>,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = Arc::clone(&receiver);
            let thread =
                std::thread::Builder::new().name(format!("symbolizer-{number}")).stack_size(STACK_BYTES);
            thread.spawn(move || {
                // Of this thread only (Linux counts niceness per thread). Without the right to change it, work goes on.
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::debug!(%error, "symbolizer thread keeps its priority");
                }
                loop {
                    // The lock is held while waiting and released before the job runs.
                    let job = receiver.lock().recv();
                    match job {
                        Ok(job) => job(),
                        Err(mpsc::RecvError) => break,
                    }
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job on one of the threads. `None` when the pool is gone.
    ///
    /// Jobs that wait are bounded by the caller.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waits any more when the symbolizer is stopping.
            let _ = answer.send(job());
        });
        self.jobs.send(job).ok()?;
        result.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_threads_of_low_priority() {
        let own = rustix::process::getpriority_process(None).unwrap();
        let pool = Pool::start(2).unwrap();
        let niceness = pool.run(|| rustix::process::getpriority_process(None).unwrap()).await;
        assert_eq!(niceness, Some(NICENESS));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), own, "other threads keep theirs");
    }
}
