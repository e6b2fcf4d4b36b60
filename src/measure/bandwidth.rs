//! How fast the memory can be read: the floor under the time of a generated token.

use std::hint::black_box;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::kernels::stream::{Block, Way, read_all};
use crate::kernels::{Isa, Pool};

/// Bytes read in one go: far more than any cache holds.
pub const SIZE: usize = 1 << 30;
const ROUNDS: usize = 5;

/// Bytes a second that `threads` threads read sequentially from 1 GiB in huge pages: the best of five
/// rounds, in each of which several [ways](Way) of reading take turns.
///
/// # Errors
/// If the system has no memory for it.
pub fn measure(isa: Isa, threads: usize) -> Result<f64> {
    let pool = Pool::new(threads);
    let what = "the block that the memory's speed is measured on";
    let block = Block::new(SIZE).map_err(|cause| Error::Memory { what, cause })?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        for way in Way::ALL {
            let started = Instant::now();
            black_box(read_all(isa, &pool, way, black_box(block.values())));
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(SIZE as f64 / best)
}
