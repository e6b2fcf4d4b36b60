//! How fast the memory can be read: the floor under the time of a generated token.

use std::hint::black_box;
use std::time::Instant;

use crate::kernels::stream::read_all;
use crate::kernels::{Isa, Pool};

/// Bytes read in one go: far more than any cache holds.
pub const SIZE: usize = 1 << 30;
const ROUNDS: usize = 5;

/// Bytes a second that `threads` threads read sequentially from 1 GiB: the best of five.
pub fn measure(isa: Isa, threads: usize) -> f64 {
    let pool = Pool::new(threads);
    let values = vec![1f32; SIZE / size_of::<f32>()];
    let best = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            black_box(read_all(isa, &pool, black_box(&values)));
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    SIZE as f64 / best
}
