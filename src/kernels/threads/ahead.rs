//! What threads do while they have nothing to do: they read the memory that the next region reads first.
//!
//! One generated token reads the same matrices in the same order as the next. So after the first it is
//! known what comes behind each of them, and a thread that waits, while the caller does alone what cannot
//! be shared out, brings the beginning of its share into its second cache. It reads: what a CPU is only
//! asked for it may leave out, and AMD's do while much else is on the way.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::OwnLines;
use super::shares::border;
use crate::kernels::memory::Memory;

/// Bytes of its share that a thread reads ahead: some of its second cache, which holds more besides.
const MOST: usize = 256 << 10;
/// Bytes that are read between two looks at whether the region has come.
const STEP: usize = 512;
const CACHE_LINE: usize = 64;

/// Memory of which each task of a region reads a piece. It is not kept from being dropped.
#[derive(Clone)]
struct Stretch {
    memory: Weak<Memory>,
    bytes: usize,
    pieces: usize,
}

/// The place behind another of so many; the first is behind the last.
fn behind(place: usize, places: usize) -> usize {
    if place + 1 < places { place + 1 } else { 0 }
}

/// The place in [`Ahead::last`].
fn place(last: u64) -> usize {
    last as u32 as usize
}

/// In which order memory is read, and so what comes next.
#[derive(Default)]
pub(super) struct Ahead {
    /// In the order in which they were read when they came for the first time. Who reads ahead looks here only
    /// when it has changed: a lock that two threads take by turns costs both.
    order: OwnLines<Mutex<Vec<Stretch>>>,
    /// How often the order has changed.
    changes: AtomicUsize,
    /// How often something was read, in the upper half, and the place of what was read last: written under the
    /// order's lock.
    last: AtomicU64,
}

impl Ahead {
    /// The region that opens now reads this memory, each of its tasks one of so many equal pieces.
    pub fn reads(&self, memory: &Arc<Memory>, pieces: usize) {
        let mut stretches = self.order.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last.load(Ordering::Relaxed);
        let is = |stretch: &Stretch| std::ptr::eq(stretch.memory.as_ptr(), &**memory);
        let expected = behind(place(last), stretches.len());
        let now = match stretches.get(expected) {
            Some(stretch) if is(stretch) => expected,
            _ => stretches.iter().position(is).unwrap_or_else(|| {
                stretches.retain(|stretch| stretch.memory.strong_count() > 0);
                let (bytes, memory) = (memory.len(), Arc::downgrade(memory));
                stretches.push(Stretch { memory, bytes, pieces });
                self.changes.fetch_add(1, Ordering::Relaxed);
                stretches.len() - 1
            }),
        };
        self.last.store(((last >> 32) + 1) << 32 | now as u64, Ordering::Release);
    }
}

/// How far a thread has read ahead.
#[derive(Default)]
pub(super) struct Done {
    /// The order as it was after so many changes.
    stretches: Vec<Stretch>,
    changes: usize,
    /// What was read last when it was looked for.
    last: u64,
    /// The place of what comes next, and what is left to read of it.
    next: usize,
    at: usize,
    end: usize,
}

impl Done {
    /// Goes on with what comes next, as it is known now, in a thread's share of it.
    pub fn go_on<'a>(&'a mut self, ahead: &Ahead, thread: usize, threads: usize) -> Reading<'a> {
        let last = ahead.last.load(Ordering::Acquire);
        if last != self.last && self.is_up_to_date(ahead) {
            self.last = last;
            self.next = behind(place(last), self.stretches.len());
            (self.at, self.end) = self.stretches.get(self.next).map_or((0, 0), |stretch| {
                let of_piece = stretch.bytes / stretch.pieces.max(1);
                let start = |thread| of_piece * border(stretch.pieces, thread, threads);
                let at = start(thread) & !(CACHE_LINE - 1);
                (at, start(thread + 1).min(at + MOST))
            });
        }
        let next = self.stretches.get(self.next).filter(|_| self.at < self.end);
        Reading { memory: next.and_then(|next| next.memory.upgrade()), done: self }
    }

    /// Looks at the order if it has changed, unless somebody else is at it.
    fn is_up_to_date(&mut self, ahead: &Ahead) -> bool {
        let changes = ahead.changes.load(Ordering::Relaxed);
        if changes != self.changes {
            let Ok(order) = ahead.order.0.try_lock() else { return false };
            self.changes = ahead.changes.load(Ordering::Relaxed);
            self.stretches.clone_from(&order);
        }
        true
    }
}

/// Reads ahead, step by step. Keeps the memory from being dropped until it is through.
pub(super) struct Reading<'a> {
    memory: Option<Arc<Memory>>,
    done: &'a mut Done,
}

impl Reading<'_> {
    /// Reads a little; `false` if there is nothing left that should be read.
    pub fn step(&mut self) -> bool {
        let Some(memory) = &self.memory else { return false };
        let Done { at, end, .. } = &mut *self.done;
        let to = (*at + STEP).min(*end);
        black_box(memory[*at..to].iter().step_by(CACHE_LINE).fold(0, |all, byte| all ^ byte));
        *at = to;
        if to == *end {
            self.memory = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::memory::shared;

    /// What a thread of two reads now: where, and up to where.
    fn read_ahead(ahead: &Ahead, done: &mut Done, thread: usize) -> Option<(Arc<Memory>, usize, usize)> {
        let mut reading = done.go_on(ahead, thread, 2);
        let memory = reading.memory.clone();
        let from = reading.done.at;
        while reading.step() {}
        memory.map(|memory| (memory, from, done.at))
    }

    #[test]
    fn what_came_behind_comes_next_and_each_thread_reads_its_share() {
        let memory = [12 << 10, 1 << 20, 3 * 64].map(|bytes| Arc::new(shared(bytes).unwrap()));
        let [first, large, small] = &memory;
        let (ahead, mut done) = (Ahead::default(), [Done::default(), Done::default()]);
        let mut both = |ahead: &Ahead| [0, 1].map(|thread| read_ahead(ahead, &mut done[thread], thread));
        memory.iter().for_each(|memory| ahead.reads(memory, 3));
        // Of three pieces the first thread has one.
        let is = |found: Option<(Arc<Memory>, usize, usize)>, memory: &Arc<Memory>, from, to| {
            let (found, found_from, found_to) = found.unwrap();
            assert!(Arc::ptr_eq(&found, memory));
            assert_eq!((found_from, found_to), (from, to));
        };
        ahead.reads(first, 3);
        let third = (1 << 20) / 3;
        let [one, two] = both(&ahead);
        is(one, large, 0, MOST);
        is(two, large, third & !63, (third & !63) + MOST);
        assert!(both(&ahead).iter().all(Option::is_none), "it has been read");
        ahead.reads(large, 3);
        let [one, two] = both(&ahead);
        is(one, small, 0, 64);
        is(two, small, 64, 192);
        // Behind the last comes the first, and one that is out of its turn is found.
        ahead.reads(small, 3);
        is(both(&ahead)[0].take(), first, 0, 4 << 10);
        ahead.reads(large, 3);
        is(both(&ahead)[0].take(), small, 0, 64);
    }

    #[test]
    fn memory_that_is_dropped_is_not_read() {
        let [first, second] = [1 << 20, 1 << 20].map(|bytes| Arc::new(shared(bytes).unwrap()));
        let (ahead, mut done) = (Ahead::default(), Done::default());
        for memory in [&first, &second, &first] {
            ahead.reads(memory, 2);
        }
        assert!(done.go_on(&ahead, 1, 2).step());
        let left = Arc::downgrade(&second);
        drop(second);
        assert!(left.upgrade().is_none(), "kept by one who read some of it");
        assert!(!done.go_on(&ahead, 1, 2).step());
    }
}
