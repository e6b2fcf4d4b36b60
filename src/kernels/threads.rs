//! A small pool of threads for the hot path: a region starts in well under a microsecond while
//! the pool is hot, and costs nothing while it is idle.
//!
//! [`Pool::run`] calls one closure on every thread, the caller's included, and returns when all
//! are done. Workers spin for about 50 µs after their last region, then park. Work is shared out
//! by the closure itself, usually through [`Pool::for_each`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

const SPIN: Duration = Duration::from_micros(50);

type Region = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts regions; a change is the signal to start.
    generation: AtomicUsize,
    /// Workers that have not finished the region at hand.
    running: AtomicUsize,
    /// The region at hand. Written before `generation` rises, read after.
    region: Mutex<Option<SendRegion>>,
    parked: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
    spin: Duration,
}

#[derive(Clone, Copy)]
struct SendRegion(Region);
// SAFETY: the closure behind the pointer is `Sync`, and `run` keeps it alive until every worker is done.
unsafe impl Send for SendRegion {}

/// Threads that wait for regions of work.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// One region at a time, whoever asks.
    busy: Mutex<()>,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller's among them.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.max(1);
        // More threads than CPUs must not spin: they would take time from those that work.
        let spin = if threads <= available_threads() { SPIN } else { Duration::ZERO };
        let shared = Arc::new(Shared {
            generation: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            region: Mutex::new(None),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spin,
        });
        let workers = (1..threads)
            .map_while(|index| {
                let shared = shared.clone();
                // A system that refuses another thread leaves a smaller pool, which works as well.
                let handle = std::thread::Builder::new()
                    .name(format!("attend-{index}"))
                    .spawn(move || work(&shared, index))
                    .ok()?;
                let thread = handle.thread().clone();
                Some((handle, thread))
            })
            .collect();
        Pool { shared, workers, busy: Mutex::new(()) }
    }

    /// How many threads work in a region.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `region(thread)` on every thread at once, thread 0 being the caller's.
    ///
    /// # Panics
    /// If the region panics on any thread; the pool stays usable.
    pub fn run(&self, region: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return region(0);
        }
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let erased: *const (dyn Fn(usize) + Sync + '_) = region;
        // SAFETY: only the lifetime changes; this function does not return, or unwind, before
        // every worker has finished with the closure.
        let erased: Region = unsafe { std::mem::transmute(erased) };
        *shared.region.lock().unwrap_or_else(PoisonError::into_inner) = Some(SendRegion(erased));
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.generation.fetch_add(1, Ordering::SeqCst);
        for ((_, thread), parked) in self.workers.iter().zip(&shared.parked) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| region(0)));
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if shared.spin.is_zero() || spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        if let Err(panic) = own {
            shared.panicked.store(false, Ordering::Relaxed);
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a kernel panicked on a worker thread");
    }

    /// Calls `task(i)` for every `i` below `count`, each once, `chunk` neighbours at a time.
    pub fn for_each(&self, count: usize, chunk: usize, task: impl Fn(usize) + Sync) {
        let chunk = chunk.max(1);
        if count <= chunk || self.workers.is_empty() {
            return (0..count).for_each(task);
        }
        let next = AtomicUsize::new(0);
        self.run(&|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= count {
                    break;
                }
                (start..count.min(start + chunk)).for_each(&task);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches every panic of its regions, so there is nothing to report here.
            let _ = handle.join();
        }
    }
}

/// The CPUs that this process may use (affinity and container limits respected).
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = wait_for_region(shared, index, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let region = *shared.region.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(SendRegion(region)) = region {
            // SAFETY: `run` keeps the closure alive until `running` is 0.
            let region = unsafe { &*region };
            if catch_unwind(AssertUnwindSafe(|| region(index))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// Spins, then parks, until the generation is no longer `seen`; answers the new one.
fn wait_for_region(shared: &Shared, index: usize, seen: usize) -> usize {
    let started = Instant::now();
    let mut spins = 0u32;
    loop {
        let generation = shared.generation.load(Ordering::SeqCst);
        if generation != seen {
            return generation;
        }
        spins += 1;
        if spins.is_multiple_of(64) && started.elapsed() >= shared.spin {
            let parked = &shared.parked[index - 1];
            parked.store(true, Ordering::SeqCst);
            // Looked at again after the flag: either `run` sees the flag, or we see its generation.
            while shared.generation.load(Ordering::SeqCst) == seen {
                std::thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// A mutable slice that several threads write, each its own part.
pub(crate) struct SharedSlice<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: access goes through `part`, whose caller promises disjoint ranges.
unsafe impl<T: Send> Sync for SharedSlice<T> {}

impl<T> SharedSlice<T> {
    pub(crate) fn new(slice: &mut [T]) -> SharedSlice<T> {
        SharedSlice { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// # Safety
    /// No two parts in use at the same time may overlap, and the slice must outlive them.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part outside the slice");
        // SAFETY: in bounds (just checked) and disjoint (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_visited_once_with_any_number_of_threads() {
        for threads in [1, 2, 3, 8, 64] {
            let pool = Pool::new(threads);
            for count in [0, 1, 7, 100] {
                let visits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(count, 3, |i| {
                    visits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(visits.iter().all(|v| v.load(Ordering::Relaxed) == 1), "{threads} threads, {count}");
            }
        }
    }

    #[test]
    fn a_parked_pool_wakes() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            let threads = AtomicUsize::new(0);
            pool.run(&|_| {
                threads.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(threads.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|thread| assert_ne!(thread, 1, "on purpose"));
        }));
        assert!(caught.is_err());
        let done = AtomicUsize::new(0);
        pool.run(&|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }
}
