//! How fast the machine is at the moment: multiplies and adds on some threads for a moment, all in registers, and
//! prints GFLOP/s. Two runs that differ tell that the machine was slowed by others, or by its clock, in between.
//!
//!     rustc -C opt-level=3 -C target-cpu=native canary.rs && ./canary THREADS

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Numbers of a vector.
const LANES: usize = if cfg!(target_feature = "avx512f") { 16 } else { 8 };
/// Enough independent sums for the latency of an addition; they fit the registers.
const SUMS: usize = 10;
const STEPS: usize = 100_000;
const DURATION: Duration = Duration::from_millis(200);

#[cfg(not(target_feature = "avx512f"))]
fn multiply_and_add(sums: &mut [[f32; LANES]; SUMS], factor: [f32; LANES], term: [f32; LANES]) {
    for _ in 0..STEPS {
        for sum in sums.iter_mut() {
            for lane in 0..LANES {
                sum[lane] = sum[lane].mul_add(factor[lane], term[lane]);
            }
        }
    }
}

/// The compiler prefers vectors of 256 bits on Intel's CPUs, which multiply half as much.
#[cfg(target_feature = "avx512f")]
fn multiply_and_add(sums: &mut [[f32; LANES]; SUMS], factor: [f32; LANES], term: [f32; LANES]) {
    use std::arch::x86_64::*;
    // SAFETY: an array of 16 is a vector's 64 bytes.
    unsafe {
        let (factor, term) = (_mm512_loadu_ps(factor.as_ptr()), _mm512_loadu_ps(term.as_ptr()));
        let mut vectors = [_mm512_setzero_ps(); SUMS];
        for (vector, sum) in vectors.iter_mut().zip(&*sums) {
            *vector = _mm512_loadu_ps(sum.as_ptr());
        }
        for _ in 0..STEPS {
            for vector in &mut vectors {
                *vector = _mm512_fmadd_ps(*vector, factor, term);
            }
        }
        for (vector, sum) in vectors.iter().zip(sums) {
            _mm512_storeu_ps(sum.as_mut_ptr(), *vector);
        }
    }
}

fn main() {
    let Some(threads) = std::env::args().nth(1).and_then(|threads| threads.parse().ok()).filter(|n| *n > 0)
    else {
        eprintln!("usage: canary THREADS");
        std::process::exit(2);
    };
    let barrier = Barrier::new(threads);
    let speeds: Vec<f64> = std::thread::scope(|scope| {
        let spin = || {
            let mut sums = [[1.0; LANES]; SUMS];
            barrier.wait();
            let started = Instant::now();
            let mut rounds = 0;
            while started.elapsed() < DURATION {
                multiply_and_add(black_box(&mut sums), black_box([0.5; LANES]), black_box([0.5; LANES]));
                rounds += 1;
            }
            black_box(sums);
            (2 * LANES * SUMS * STEPS * rounds) as f64 / started.elapsed().as_secs_f64()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(spin)).collect();
        running.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    println!("{:.1}", speeds.iter().sum::<f64>() / 1e9);
}
