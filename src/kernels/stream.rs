//! Reading memory as fast as it goes, to know what a token could cost at best.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::sync::Mutex;

use super::simd::{Simd, dispatch};
use super::{Isa, Pool};

/// Reads all of `values` once, each thread its own contiguous part; answers their sum, so that the
/// reading cannot be left out.
pub fn read_all(isa: Isa, pool: &Pool, values: &[f32]) -> f64 {
    let threads = pool.threads();
    let part = values.len().div_ceil(threads);
    let total = Mutex::new(0.0);
    pool.for_each(threads, 1, |thread| {
        let values = &values[(thread * part).min(values.len())..((thread + 1) * part).min(values.len())];
        // SAFETY: the kernel reads inside the slice.
        let sum = unsafe { sum(isa, values) };
        *total.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += f64::from(sum);
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

dispatch!(
    /// # Safety
    /// None beyond the tier's instructions.
    fn sum = self::sum_body [] (values: &[f32]) -> f32
);

#[inline(always)]
unsafe fn sum_body<S: Simd>(values: &[f32]) -> f32 {
    // Eight sums, so that no addition waits for the one before.
    let mut sums = [S::splat(0.0); 8];
    let blocks = values.chunks_exact(8 * S::LANES);
    let tail = blocks.remainder();
    for block in blocks {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = S::add(*sum, S::load(block.as_ptr().add(at * S::LANES)));
        }
    }
    let mut total = S::splat(0.0);
    for sum in sums {
        total = S::add(total, sum);
    }
    S::sum(total) + tail.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_once() {
        for isa in Isa::available() {
            for threads in [1, 3] {
                for len in [0usize, 1, 127, 128, 1000] {
                    let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
                    let expected = (len * len.saturating_sub(1) / 2) as f64;
                    assert_eq!(
                        read_all(isa, &Pool::new(threads), &values),
                        expected,
                        "{isa} {threads} {len}"
                    );
                }
            }
        }
    }
}
