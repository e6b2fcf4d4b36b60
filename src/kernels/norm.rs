//! Norms of each token's vector, and of single heads.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;

use super::elementwise::ROWS_PER_TASK;
use super::memory::written;
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::{Isa, Pool};

/// What is taken out of a vector before its weight is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Its root mean square (Zhang and Sennrich 2019): x / √(mean(x²) + ε).
    Rms,
    /// Its mean and its standard deviation (Ba et al. 2016): (x − mean) / √(variance + ε).
    Layer,
}

/// A norm's numbers: the normed vector is multiplied by `weight`, and `bias` is added.
#[derive(Clone, Copy)]
pub struct NormArgs<'a> {
    pub kind: NormKind,
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

impl<'a> NormArgs<'a> {
    /// Norms one vector of `x`'s length with the numbers from `at` on.
    ///
    /// # Safety
    /// `out` is as long as `x`, and weight and bias reach that far.
    unsafe fn row(&self, isa: Isa, at: usize, x: &[f32], out: &mut [MaybeUninit<f32>]) {
        let part = |values: &'a [f32]| &values[at..at + x.len()];
        let (weight, bias) = (part(self.weight), self.bias.map(part));
        match self.kind {
            NormKind::Rms => rms_norm_row(isa, x, weight, self.epsilon, out),
            NormKind::Layer => layer_norm_row(isa, x, weight, self.epsilon, out),
        }
        if let Some(bias) = bias {
            // SAFETY: the norm has been written.
            out.iter_mut().zip(bias).for_each(|(out, bias)| *unsafe { out.assume_init_mut() } += bias);
        }
    }
}

/// The norm of each row of `input`, `[tokens, weight.len()]`.
///
/// # Panics
/// If the lengths disagree.
pub fn norm(isa: Isa, pool: &Pool, input: &[f32], norm: NormArgs<'_>) -> Vec<f32> {
    let width = norm.weight.len();
    assert!(input.len().is_multiple_of(width));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let shared = SharedSlice::new(out);
        pool.for_each(input.len() / width, ROWS_PER_TASK, |row| {
            let x = &input[row * width..(row + 1) * width];
            // SAFETY: each row is written by one thread; all slices are equally long.
            unsafe { norm.row(isa, 0, x, shared.part(row * width, width)) };
        });
    };
    // SAFETY: every row is written.
    unsafe { written(input.len(), write) }
}

/// The norm of single heads, in place: in each row of `rows`, `row_len` long, the `heads` heads of
/// `size` values from `at` on. The weight serves every head, or has `size` values for each.
///
/// # Panics
/// If a row is too short, or the weight has another length.
pub fn norm_heads(
    isa: Isa,
    rows: &mut [f32],
    row_len: usize,
    at: usize,
    heads: usize,
    size: usize,
    norm: NormArgs<'_>,
) {
    let own = norm.weight.len() == heads * size;
    assert!(own || norm.weight.len() == size);
    let mut normed = vec![MaybeUninit::uninit(); size];
    for row in rows.chunks_exact_mut(row_len) {
        for (index, head) in row[at..at + heads * size].chunks_exact_mut(size).enumerate() {
            let from = if own { index * size } else { 0 };
            // SAFETY: the slices are equally long, and the weight reaches as far.
            unsafe { norm.row(isa, from, head, &mut normed) };
            // SAFETY: it has just been written.
            head.copy_from_slice(unsafe { normed.assume_init_ref() });
        }
    }
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn rms_norm_row = self::rms_norm_body [] (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>])
);

#[inline(always)]
unsafe fn rms_norm_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>]) {
    let whole = x.len() / S::LANES * S::LANES;
    let mut squares = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let value = S::load(x.as_ptr().add(at));
        squares = S::fma(value, value, squares);
    }
    let mut sum = S::sum(squares);
    for value in &x[whole..] {
        sum += value * value;
    }
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        out.write(x * scale * weight);
    }
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn layer_norm_row = self::layer_norm_body [] (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>])
);

#[inline(always)]
unsafe fn layer_norm_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>]) {
    let whole = x.len() / S::LANES * S::LANES;
    let mut total = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        total = S::add(total, S::load(x.as_ptr().add(at)));
    }
    let mean = (S::sum(total) + x[whole..].iter().sum::<f32>()) / x.len() as f32;
    let mut squares = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let value = S::add(S::load(x.as_ptr().add(at)), S::splat(-mean));
        squares = S::fma(value, value, squares);
    }
    let mut sum = S::sum(squares);
    for value in &x[whole..] {
        sum += (value - mean) * (value - mean);
    }
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        out.write((x - mean) * scale * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::super::elementwise::tests::{assert_near, values};
    use super::*;

    /// A norm by its definition, in f64.
    fn defined(x: &[f32], norm: &NormArgs<'_>) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = match norm.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().map(|x| f64::from(*x)).sum::<f64>() / count,
        };
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        let scale = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        let bias = |i: usize| norm.bias.map_or(0.0, |bias| f64::from(bias[i]));
        (0..x.len()).map(|i| (f64::from(x[i]) - mean) * scale * f64::from(norm.weight[i]) + bias(i)).collect()
    }

    #[test]
    fn norms_agree_with_their_definitions() {
        let pool = Pool::new(2);
        for isa in Isa::available() {
            for kind in [NormKind::Rms, NormKind::Layer] {
                for width in [1, 7, 16, 33, 576] {
                    let (x, weight) = (values(3 * width), values(width));
                    let biases = values(2 * width);
                    for bias in [None, Some(&biases[width..])] {
                        let args = NormArgs { kind, weight: &weight, bias, epsilon: 1e-5 };
                        let out = norm(isa, &pool, &x, args);
                        let expected: Vec<f64> =
                            x.chunks_exact(width).flat_map(|x| defined(x, &args)).collect();
                        assert_near(&out, &expected, &format!("{isa} {kind:?} {width}"));
                    }
                }
            }
        }
    }

    #[test]
    fn heads_are_normed_alone_with_shared_weights_or_their_own() {
        let (heads, size, at, row_len) = (3, 5, 2, 20);
        for own in [false, true] {
            let weight = values(if own { heads * size } else { size });
            let args = NormArgs { kind: NormKind::Layer, weight: &weight, bias: None, epsilon: 1e-5 };
            let before = values(2 * row_len);
            let mut rows = before.clone();
            norm_heads(Isa::available()[0], &mut rows, row_len, at, heads, size, args);
            for (row, old) in rows.chunks_exact(row_len).zip(before.chunks_exact(row_len)) {
                assert_eq!((&row[..at], &row[at + heads * size..]), (&old[..at], &old[at + heads * size..]));
                for head in 0..heads {
                    let from = if own { head * size } else { 0 };
                    let head = at + head * size..at + (head + 1) * size;
                    let expected = defined(&old[head.clone()], &NormArgs { weight: &weight[from..], ..args });
                    assert_near(&row[head], &expected, "head");
                }
            }
        }
    }
}
