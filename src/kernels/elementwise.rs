//! What happens to each token's vector between the matrix products, besides [`norm`](super::norm) and
//! [`activation`](super::activation): rotary positions, sums, and the check that everything is a finite
//! number.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Pool;
use super::threads::SharedSlice;

/// Tokens that one task takes: a prompt's rows are short, a task should not be.
pub(super) const ROWS_PER_TASK: usize = 8;

/// Which values of a head turn together (Su et al. 2021).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotaryLayout {
    pub head_dim: usize,
    /// Values of each head that turn, from its first on.
    pub dims: usize,
    /// Pair *i* is values 2i and 2i + 1, instead of i and i + dims/2.
    pub interleaved: bool,
}

/// Turns pair *i* of each head by its position's angle *i*.
///
/// `rows` is `[tokens, row_len]`; the first `heads · head_dim` values of each row are heads.
/// `cosines` and `sines` are `[tokens, dims/2]`.
///
/// # Panics
/// If the lengths disagree.
pub fn rotary(
    pool: &Pool,
    rows: &mut [f32],
    row_len: usize,
    heads: usize,
    layout: RotaryLayout,
    cosines: &[f32],
    sines: &[f32],
) {
    let RotaryLayout { head_dim, dims, interleaved } = layout;
    let half = dims / 2;
    assert!(dims <= head_dim && heads * head_dim <= row_len && cosines.len() == sines.len());
    assert_eq!(rows.len() / row_len * half, cosines.len());
    let turn = |a: &mut f32, b: &mut f32, cosine: f32, sine: f32| {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    };
    let count = rows.len() / row_len;
    let shared = SharedSlice::new(rows);
    pool.for_each(count, ROWS_PER_TASK, |index| {
        // SAFETY: each row is turned by one thread.
        let row = unsafe { shared.part(index * row_len, row_len) };
        let (cosines, sines) = (&cosines[index * half..][..half], &sines[index * half..][..half]);
        for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
            let angles = cosines.iter().zip(sines);
            if interleaved {
                for (pair, (cosine, sine)) in head[..dims].chunks_exact_mut(2).zip(angles) {
                    let (a, b) = pair.split_at_mut(1);
                    turn(&mut a[0], &mut b[0], *cosine, *sine);
                }
            } else {
                let (first, second) = head[..dims].split_at_mut(half);
                for ((a, b), (cosine, sine)) in first.iter_mut().zip(second).zip(angles) {
                    turn(a, b, *cosine, *sine);
                }
            }
        }
    });
}

/// `sum += other`, in rows of `width`.
///
/// # Panics
/// If the lengths disagree.
pub fn add(pool: &Pool, sum: &mut [f32], other: &[f32], width: usize) {
    assert!(sum.len() == other.len() && sum.len().is_multiple_of(width));
    let rows = sum.len() / width;
    let shared = SharedSlice::new(sum);
    pool.for_each(rows, ROWS_PER_TASK, |row| {
        // SAFETY: each row is written by one thread.
        let sum = unsafe { shared.part(row * width, width) };
        sum.iter_mut().zip(&other[row * width..]).for_each(|(sum, other)| *sum += other);
    });
}

/// Whether no value is infinite or NaN.
pub fn all_finite(pool: &Pool, values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    const VALUES_PER_TASK: usize = 16 << 10;
    let found = AtomicBool::new(false);
    pool.for_each(values.len().div_ceil(VALUES_PER_TASK), 1, |task| {
        let values = &values[task * VALUES_PER_TASK..values.len().min((task + 1) * VALUES_PER_TASK)];
        // Folded without a branch, so that the compiler makes vectors of it.
        if values.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT)) {
            found.store(true, Ordering::Relaxed);
        }
    });
    !found.into_inner()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of −4 to 4.
    pub(in crate::kernels) fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 125.0).collect()
    }

    pub(in crate::kernels) fn assert_near(ours: &[f32], expected: &[f64], what: &str) {
        assert_eq!(ours.len(), expected.len());
        for (ours, expected) in ours.iter().zip(expected) {
            assert!(
                (f64::from(*ours) - expected).abs() <= 2e-6 * (1.0 + expected.abs()),
                "{what}: {ours} {expected}"
            );
        }
    }

    #[test]
    fn rotary_turns_each_pair_by_its_angle() {
        // The last value of each head does not turn.
        let (head_dim, heads) = (5, 2);
        let angles = [0.0f32, 0.0, 0.5, 2.0];
        let (cosines, sines) = (angles.map(f32::cos), angles.map(f32::sin));
        for interleaved in [false, true] {
            let mut rows = values(2 * 11);
            let before = rows.clone();
            let layout = RotaryLayout { head_dim, dims: 4, interleaved };
            rotary(&Pool::new(2), &mut rows, 11, heads, layout, &cosines, &sines);
            assert_eq!(rows[..11], before[..11], "an angle of 0 turns nothing");
            assert_eq!(rows[21], before[21], "values behind the heads stay");
            for head in 0..heads {
                let start = 11 + head * head_dim;
                assert_eq!(rows[start + 4], before[start + 4], "values that do not turn stay");
                for i in 0..2 {
                    let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + 2) };
                    let (a, b) = (start + a, start + b);
                    let (cosine, sine) = (angles[2 + i].cos(), angles[2 + i].sin());
                    assert_eq!(rows[a], before[a] * cosine - before[b] * sine);
                    assert_eq!(rows[b], before[b] * cosine + before[a] * sine);
                }
            }
        }
    }

    #[test]
    fn one_infinity_or_nan_is_found() {
        let mut x = values(100);
        assert!(all_finite(&Pool::new(2), &x));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[77] = bad;
            assert!(!all_finite(&Pool::new(2), &x));
        }
    }
}
