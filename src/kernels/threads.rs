//! A small pool of threads for the hot path: a region starts in well under a microsecond while
//! the pool is hot, and costs nothing while it is idle.
//!
//! [`Pool::for_each`] opens a region, in which every thread that is free takes pieces of the work,
//! the caller's among them. When the work is used up the caller closes the region and waits only
//! for the threads that are inside: one that the system has taken from its CPU, and that never
//! came, is not waited for. Workers spin for about 50 µs after their last region, then park; first they
//! read [`ahead`].
//!
//! A thread that is none of the pool's and has much to do beside it asks for a CPU ([`Pool::lend`]):
//! a worker then stays away, instead of being taken from its CPU in the middle of a region, where
//! everybody would wait for it.

mod ahead;
mod shared_rows;
mod shares;

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use ahead::{Ahead, Done};
pub use shared_rows::{ClaimedRow, SharedRows};
use shares::{Shares, in_chunks};

use super::memory::Memory;

const SPIN: Duration = Duration::from_micros(50);

/// In the state: whether the region can be entered.
const OPEN: u64 = 1 << 15;
/// In the state: how many workers are inside.
const INSIDE: u64 = OPEN - 1;
/// In the state, above the rest: the region's number.
const GENERATION: u64 = 1 << 16;

/// Called with the number of the thread: 0 is the region's caller.
type Region = *const (dyn Fn(usize) + Sync);

/// In a cache line of its own: two, for CPUs that fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct OwnLines<T>(T);

struct Shared {
    /// Number of the region, whether it is open, and how many workers are inside.
    state: AtomicU64,
    /// The region at hand: written while none is open, read by workers that have entered.
    region: UnsafeCell<Option<Region>>,
    parked: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
    spin: Duration,
    /// Whether the first worker's CPU is lent.
    lent: AtomicBool,
    ahead: Ahead,
}

// SAFETY: `region` is written only by the one caller of `run` (which holds `busy`), while no region
// is open and nobody inside; workers read it only inside. The closure behind it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

/// Threads that wait for regions of work.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// The tasks of the region at hand: one at a time, whoever asks.
    busy: Mutex<Busy>,
    /// Whether there is a worker on every CPU, so that any other thread would take one from it.
    lends: bool,
}

/// What the caller of a region has for itself.
struct Busy {
    shares: Shares,
    done: Done,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller's among them.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, INSIDE as usize);
        // More threads than CPUs must not spin: they would take time from those that work.
        let available = available_threads();
        let spin = if threads <= available { SPIN } else { Duration::ZERO };
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            region: UnsafeCell::new(None),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spin,
            lent: AtomicBool::new(false),
            ahead: Ahead::default(),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let shared = shared.clone();
                // A system that refuses another thread leaves a smaller pool, which works as well.
                let handle = std::thread::Builder::new()
                    .name(format!("attend-{index}"))
                    .spawn(move || work(&shared, index - 1))
                    .ok()?;
                let thread = handle.thread().clone();
                Some((handle, thread))
            })
            .collect::<Vec<_>>();
        let busy = Mutex::new(Busy { shares: Shares::new(workers.len() + 1), done: Done::default() });
        let lends = !workers.is_empty() && workers.len() + 1 >= available;
        Pool { shared, workers, busy, lends }
    }

    /// How many threads work in a region.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Leaves a CPU to some other thread until [`take_back`](Pool::take_back): a worker stays out of
    /// regions that it has not entered yet. Where the pool has fewer threads than there are CPUs,
    /// nothing changes.
    pub fn lend(&self) {
        if self.lends && !self.shared.lent.load(Ordering::Relaxed) {
            self.shared.lent.store(true, Ordering::SeqCst);
        }
    }

    /// The CPU is free again.
    pub fn take_back(&self) {
        if self.shared.lent.load(Ordering::Relaxed)
            && self.shared.lent.swap(false, Ordering::SeqCst)
            && let Some((_, thread)) = self.workers.first()
        {
            thread.unpark();
        }
    }

    /// Calls `region` here, and on every worker that comes before this call of it returns.
    ///
    /// # Safety
    /// The caller holds `busy`.
    unsafe fn run(&self, region: &(dyn Fn(usize) + Sync), done: &mut Done) {
        let shared = &*self.shared;
        let erased: *const (dyn Fn(usize) + Sync + '_) = region;
        // SAFETY: only the lifetime changes; this function does not return, or unwind, before the
        // region is closed and everybody has left it.
        let erased: Region = unsafe { std::mem::transmute(erased) };
        // SAFETY: no region is open, nobody is inside, and `busy` keeps other callers out.
        unsafe { *shared.region.get() = Some(erased) };
        let generation = shared.state.load(Ordering::Relaxed) / GENERATION + 1;
        shared.state.store((generation * GENERATION) | OPEN, Ordering::SeqCst);
        for ((_, thread), parked) in self.workers.iter().zip(&shared.parked) {
            if parked.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| region(0)));
        shared.state.fetch_and(!OPEN, Ordering::SeqCst);
        let (mut spins, mut reading) = (0u32, done.go_on(&shared.ahead, 0, self.threads()));
        while shared.state.load(Ordering::Acquire) & INSIDE != 0 {
            if reading.step() {
                continue;
            }
            spins = spins.wrapping_add(1);
            if shared.spin.is_zero() || spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        let worker_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!worker_panicked, "a kernel panicked on a worker thread");
    }

    /// Says that the region that opens now reads this memory, each of its tasks one of so many equal pieces.
    /// What was read behind it the last time is read ahead by threads that have nothing else to do.
    pub(super) fn reads(&self, memory: &Arc<Memory>, pieces: usize) {
        if !self.shared.spin.is_zero() && !self.workers.is_empty() {
            self.shared.ahead.reads(memory, pieces);
        }
    }

    /// Calls `task(i)` for every `i` below `count`, each once. Each thread goes through neighbours, as
    /// long as no other has nothing left to do, and takes up to `chunk` of them at a time: so memory is
    /// read in long streams, and all finish together. A task must not call this on the same pool: it
    /// would wait for itself.
    ///
    /// # Panics
    /// If a task panics, on whichever thread (the pool stays usable), or if there are 2³² tasks.
    pub fn for_each(&self, count: usize, chunk: usize, task: impl Fn(usize) + Sync) {
        let chunk = chunk.max(1);
        if count <= chunk {
            return (0..count).for_each(task);
        }
        self.for_each_few(count, chunk, |few| few.for_each(&task));
    }

    /// The same, with up to `few` neighbours in one call.
    ///
    /// # Panics
    /// As [`for_each`](Pool::for_each), or if `few` is 0.
    pub fn for_each_few(&self, count: usize, few: usize, tasks: impl Fn(Range<usize>) + Sync) {
        if self.workers.is_empty() {
            return in_chunks(0..count, few, &tasks);
        }
        assert!(u32::try_from(count).is_ok(), "too many tasks");
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let Busy { shares, done } = &mut *busy;
        shares.set(count);
        let shares = &*shares;
        // SAFETY: `busy` is held.
        unsafe { self.run(&|thread| shares.work(thread, few as u32, &tasks), done) };
    }
}

impl Pool {
    /// Calls `task(i, &mut items[i])` for every item, each once, as [`for_each`](Pool::for_each) does.
    ///
    /// # Panics
    /// If a task panics.
    pub fn for_each_mut<T: Send>(&self, items: &mut [T], task: impl Fn(usize, &mut T) + Sync) {
        let count = items.len();
        let shared = SharedSlice::new(items);
        self.for_each(count, 1, |index| {
            // SAFETY: each item belongs to one task, and `items` is borrowed until all have ended.
            task(index, unsafe { &mut shared.part(index, 1)[0] });
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.state.fetch_add(GENERATION, Ordering::SeqCst);
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

fn work(shared: &Shared, worker: usize) {
    let (mut seen, mut done) = (0, Done::default());
    loop {
        seen = wait_for_region(shared, worker, seen, &mut done);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        if !enter(shared, seen) {
            continue;
        }
        // SAFETY: inside, so the region's caller has written this and waits for us.
        if let Some(region) = unsafe { *shared.region.get() } {
            // SAFETY: likewise the closure is alive.
            let region = unsafe { &*region };
            if catch_unwind(AssertUnwindSafe(|| region(worker + 1))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.state.fetch_sub(1, Ordering::Release);
    }
}

/// Enters the region of a generation, unless it is closed or another one has come.
fn enter(shared: &Shared, generation: u64) -> bool {
    let open = |state: u64| state / GENERATION == generation && state & OPEN != 0;
    shared
        .state
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| open(state).then_some(state + 1))
        .is_ok()
}

/// Parks; the system need not keep tiles meanwhile.
fn park() {
    #[cfg(target_arch = "x86_64")]
    super::amx::release();
    std::thread::park();
}

/// Reads ahead, spins, then parks, until the generation is no longer `seen`; answers the new one.
fn wait_for_region(shared: &Shared, worker: usize, seen: u64, done: &mut Done) -> u64 {
    let parked = &shared.parked[worker];
    let mut started = Instant::now();
    let mut spins = 0u32;
    let mut reading = done.go_on(&shared.ahead, worker + 1, shared.parked.len() + 1);
    let generation = || shared.state.load(Ordering::SeqCst) / GENERATION;
    let lent = || worker == 0 && shared.lent.load(Ordering::SeqCst) && !shared.stop.load(Ordering::SeqCst);
    loop {
        // Not `parked`: regions do not wake it.
        while lent() {
            park();
            started = Instant::now();
        }
        if generation() != seen {
            return generation();
        }
        if reading.step() {
            continue;
        }
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(64) && started.elapsed() >= shared.spin {
            parked.store(true, Ordering::SeqCst);
            // Looked at again after the flag: either `run` sees the flag, or we see its generation.
            while generation() == seen {
                park();
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

    /// Where the slice starts.
    pub(crate) fn start(&self) -> *mut T {
        self.start
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
mod tests;
