//! How a region's tasks are shared out: each thread has its own neighbours, which it takes one after
//! the other, so that it reads memory in one stream; and a thread that has done its own takes half of
//! what another has left.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::OwnLines;

/// A thread's tasks that are left: the first in the low half, the end in the high one.
type Share = OwnLines<AtomicU64>;

fn pack(first: u32, end: u32) -> u64 {
    u64::from(end) << 32 | u64::from(first)
}

fn unpack(share: u64) -> (u32, u32) {
    (share as u32, (share >> 32) as u32)
}

/// Does some neighbouring tasks, up to `chunk` at a time.
pub(super) fn in_chunks(some: Range<usize>, chunk: usize, tasks: &impl Fn(Range<usize>)) {
    some.clone().step_by(chunk).for_each(|first| tasks(first..some.end.min(first + chunk)));
}

/// The tasks of one region.
pub(super) struct Shares {
    shares: Box<[Share]>,
}

/// The first task of a thread, and the end of those of the one before.
pub(super) fn border(tasks: usize, thread: usize, threads: usize) -> usize {
    tasks * thread / threads
}

impl Shares {
    pub(super) fn new(threads: usize) -> Shares {
        let shares = (0..threads).map(|_| Share::default()).collect();
        Shares { shares }
    }

    /// Shares out tasks 0 to `count`, whose number fits 32 bits. Nobody may be taking any.
    pub(super) fn set(&self, count: usize) {
        let threads = self.shares.len();
        let border = |thread| border(count, thread, threads) as u32;
        for (thread, share) in self.shares.iter().enumerate() {
            share.0.store(pack(border(thread), border(thread + 1)), Ordering::Relaxed);
        }
    }

    /// Does tasks until there are none left to take, up to `chunk` neighbours at a time, those of thread
    /// `own` first.
    pub(super) fn work(&self, own: usize, chunk: u32, tasks: &(impl Fn(Range<usize>) + Sync)) {
        loop {
            while let Some((first, end)) = self.take(own, chunk) {
                in_chunks(first as usize..end as usize, chunk as usize, tasks);
            }
            if !self.steal(own, chunk) {
                return;
            }
        }
    }

    /// The next tasks of a thread's own: a quarter of what it has, so that others find enough. Fewer at a time
    /// would cost more: a CPU takes a share only when it has read all that it was about to read.
    fn take(&self, own: usize, chunk: u32) -> Option<(u32, u32)> {
        let some =
            |first: u32, end: u32| first + ((end - first) / 4 / chunk * chunk).max(chunk).min(end - first);
        let next = |share| {
            let (first, end) = unpack(share);
            (first < end).then(|| pack(some(first, end), end))
        };
        let before = self.shares[own].0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        let (first, end) = unpack(before);
        Some((first, some(first, end)))
    }

    /// Makes the second half of another's tasks a thread's own, which has none. A task stands in one
    /// share only, and is never put back once taken: so a share with the same bits is the same share.
    fn steal(&self, own: usize, chunk: u32) -> bool {
        let threads = self.shares.len();
        (1..threads).any(|step| {
            let other = &self.shares[(own + step) % threads].0;
            let keep =
                |first: u32, end: u32| if end - first <= chunk { first } else { first + (end - first) / 2 };
            let halve = |share| {
                let (first, end) = unpack(share);
                (first < end).then(|| pack(first, keep(first, end)))
            };
            let Ok(before) = other.fetch_update(Ordering::Relaxed, Ordering::Relaxed, halve) else {
                return false;
            };
            let (first, end) = unpack(before);
            self.shares[own].0.store(pack(keep(first, end), end), Ordering::Relaxed);
            true
        })
    }
}
