//! Reading memory as fast as it goes, to know what a token could cost at best.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::io;
use std::sync::Mutex;

use memmap2::MmapMut;

use super::simd::{Simd, dispatch, prefetch};
use super::{Isa, Pool, memory};

/// Memory to read from.
pub struct Block(MmapMut);

impl Block {
    /// Of at least so many bytes, all of them in memory.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn new(bytes: usize) -> io::Result<Block> {
        let mut memory = memory::zeroed(bytes.next_multiple_of(size_of::<f32>()))?;
        for one in memory.as_chunks_mut().0 {
            *one = 1f32.to_ne_bytes();
        }
        Ok(Block(memory))
    }

    pub fn values(&self) -> &[f32] {
        // SAFETY: the mapping starts at a page and is initialised, and any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / size_of::<f32>()) }
    }
}

/// How a thread goes through its part of the memory. Which is the fastest differs from CPU to CPU, and
/// from moment to moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From start to end.
    Plain,
    /// The same, and asks for what it will need soon.
    Prefetch,
    /// In two halves at the same time, and asks for what it will need soon.
    TwoStreams,
    /// In four quarters at the same time.
    FourStreams,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::Plain, Way::Prefetch, Way::TwoStreams, Way::FourStreams];
}

/// Reads all of `values` once, each thread its own contiguous part; answers their sum, so that the
/// reading cannot be left out.
pub fn read_all(isa: Isa, pool: &Pool, way: Way, values: &[f32]) -> f64 {
    let threads = pool.threads();
    let part = values.len().div_ceil(threads);
    let total = Mutex::new(0.0);
    pool.for_each(threads, 1, |thread| {
        let values = &values[(thread * part).min(values.len())..((thread + 1) * part).min(values.len())];
        // SAFETY: the kernel reads inside the slice.
        let sum = unsafe { sum(isa, way, values) };
        *total.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += f64::from(sum);
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

dispatch!(
    /// # Safety
    /// None beyond the tier's instructions.
    fn sum = self::sum_body [] (way: Way, values: &[f32]) -> f32
);

#[inline(always)]
unsafe fn sum_body<S: Simd>(way: Way, values: &[f32]) -> f32 {
    match way {
        Way::Plain => streams::<S, 1, 8>(values, None),
        Way::Prefetch => streams::<S, 1, 8>(values, Some(1024)),
        Way::TwoStreams => streams::<S, 2, 4>(values, Some(1024)),
        Way::FourStreams => streams::<S, 4, 4>(values, None),
    }
}

/// Sums of `STREAMS` parts of the values, `VECTORS` vectors of each by turns; asks for the cache lines
/// that lie `ahead` bytes ahead.
#[inline(always)]
unsafe fn streams<S: Simd, const STREAMS: usize, const VECTORS: usize>(
    values: &[f32],
    ahead: Option<usize>,
) -> f32 {
    let step = VECTORS * S::LANES;
    let len = values.len() / STREAMS / step * step;
    // As many sums, so that no addition waits for the one before.
    let mut sums = [[S::splat(0.0); VECTORS]; STREAMS];
    for at in (0..len).step_by(step) {
        for (stream, sums) in sums.iter_mut().enumerate() {
            let from = values.as_ptr().add(stream * len + at);
            for (vector, sum) in sums.iter_mut().enumerate() {
                let from = from.add(vector * S::LANES);
                if let Some(ahead) = ahead {
                    prefetch(from.wrapping_byte_add(ahead));
                }
                *sum = S::add(*sum, S::load(from));
            }
        }
    }
    let mut total = S::splat(0.0);
    for sum in sums.as_flattened() {
        total = S::add(total, *sum);
    }
    S::sum(total) + values[STREAMS * len..].iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_once() {
        for isa in Isa::available() {
            for threads in [1, 3] {
                for len in [0usize, 1, 127, 128, 1000, 3001] {
                    let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
                    let expected = (len * len.saturating_sub(1) / 2) as f64;
                    for way in Way::ALL {
                        assert_eq!(
                            read_all(isa, &Pool::new(threads), way, &values),
                            expected,
                            "{isa} {threads} {way:?} {len}"
                        );
                    }
                }
            }
        }
    }
}
