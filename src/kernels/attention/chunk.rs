//! What one chunk of keys gives a tile of rows: scores, their softmax within the chunk, and the sum
//! of the values that it weights; and how chunks are put together.

// As in `product`.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;

use super::super::PANEL;
use super::super::simd::{Isa, Simd, dispatch, prefetch_lines};
use super::product::{AHEAD, FEW_ROWS, Product, kernels};
use super::{CHUNK, TILE_ROWS};
use crate::kernels::cache::CacheType;

/// A chunk of keys for the rows of a tile. Positions count from the chunk's first key; pointers
/// into the cache are those of its first key too.
pub(super) struct ChunkArgs<'a> {
    pub rows: usize,
    /// Keys and values of this many positions are read, at most [`CHUNK`].
    pub keys: usize,
    pub head_dim: usize,
    /// `[head_dim][rows]`, scaled.
    pub queries: *const f32,
    pub key_panels: *const u8,
    pub key_panel_bytes: usize,
    pub value_panels: *const u8,
    pub value_panel_bytes: usize,
    /// First and end of what each row sees; none where they are equal.
    pub seen: [(usize, usize); TILE_ROWS],
    pub cap: Option<f32>,
    /// Added to each row's scores, from the chunk's first key on.
    pub bias: Option<[&'a [f32]; TILE_ROWS]>,
}

/// Where a chunk's results go.
pub(super) struct ChunkOut<'a> {
    /// Of each row: its largest score, −∞ if it sees nothing.
    pub maximum: &'a mut [f32],
    /// Of each row: Σ exp(score − maximum).
    pub sum: &'a mut [f32],
    /// Of each row, `width` apart: Σ exp(score − maximum) · value, in whole panels.
    pub values: &'a mut [f32],
    /// Of each row, if maps are captured: where the exponentials of what it sees go.
    pub exponentials: Option<[*mut f32; TILE_ROWS]>,
}

/// Takes a chunk.
///
/// # Safety
/// The pointers of `args` are valid for its keys, and those of exponentials for what each row sees; slices
/// have `rows` rows; every row sees at most `keys`.
pub(super) unsafe fn chunk(isa: Isa, held: CacheType, args: &ChunkArgs<'_>, out: ChunkOut<'_>) {
    let (scores, weighted_sums) = kernels(held);
    let rows = args.rows;
    let mut buffer = MaybeUninit::<[f32; TILE_ROWS * CHUNK]>::uninit();
    let weights = buffer.as_mut_ptr().cast::<f32>();
    // Panels of positions that no row sees are left out, in front and behind.
    let seen = &args.seen[..rows];
    let first = seen.iter().filter(|seen| seen.0 < seen.1).map(|seen| seen.0).min().unwrap_or(0);
    let first_panel = first / PANEL;
    let (first, panels) = (first_panel * PANEL, args.keys.div_ceil(PANEL));
    let value_panels = args.head_dim.div_ceil(PANEL);
    let values = args.value_panels.add(first * held.head_bytes(PANEL));
    let asks_ahead = isa.asks_ahead();
    if rows <= FEW_ROWS && asks_ahead {
        // Each panel of values is another place in memory: its start comes while scores are computed.
        let bytes = AHEAD.min((args.keys - first) * held.head_bytes(PANEL));
        for panel in 0..value_panels {
            prefetch_lines(values.wrapping_add(panel * args.value_panel_bytes), bytes);
        }
    }
    scores(
        isa,
        Product {
            rows,
            depth: args.head_dim,
            x: args.queries,
            panel: args.key_panels.add(first_panel * args.key_panel_bytes),
            panels: panels - first_panel,
            panel_bytes: args.key_panel_bytes,
            out: weights.add(first),
            out_row: CHUNK,
            asks_ahead,
        },
    );
    for row in 0..rows {
        // Written whole by the product.
        let weights = std::slice::from_raw_parts_mut(weights.add(row * CHUNK), panels * PANEL);
        let (start, end) = seen[row];
        (out.maximum[row], out.sum[row]) = if start == end {
            weights[first..].fill(0.0);
            (f32::NEG_INFINITY, 0.0)
        } else {
            if let Some(bias) = &args.bias {
                weights[start..end].iter_mut().zip(&bias[row][start..end]).for_each(|(w, b)| *w += b);
            }
            if let Some(cap) = args.cap {
                soft_cap(isa, &mut weights[first..], cap);
            }
            weights[first..start].fill(f32::NEG_INFINITY);
            weights[end..].fill(f32::NEG_INFINITY);
            softmax(isa, &mut weights[first..])
        };
        if let Some(exponentials) = &out.exponentials {
            std::ptr::copy_nonoverlapping(weights.as_ptr().add(start), exponentials[row], end - start);
        }
    }
    weighted_sums(
        isa,
        Product {
            rows,
            depth: args.keys - first,
            x: weights.add(first),
            panel: values,
            panels: value_panels,
            panel_bytes: args.value_panel_bytes,
            out: out.values.as_mut_ptr(),
            out_row: value_panels * PANEL,
            asks_ahead,
        },
    );
}

dispatch!(
    /// Replaces scores by cap · tanh(score / cap), tanh(x) = 1 − 2 / (1 + e²ˣ).
    ///
    /// # Safety
    /// The slice is a whole number of vectors long.
    fn soft_cap = self::soft_cap_body [] (scores: &mut [f32], cap: f32)
);

#[inline(always)]
unsafe fn soft_cap_body<S: Simd>(scores: &mut [f32], cap: f32) {
    let (one, double, cap) = (S::splat(1.0), S::splat(2.0 / cap), S::splat(cap));
    for scores in scores.chunks_exact_mut(S::LANES) {
        let power = S::exp(S::mul(S::load(scores.as_ptr()), double));
        let tanh = S::add(one, S::div(S::splat(-2.0), S::add(one, power)));
        S::store(scores.as_mut_ptr(), S::mul(cap, tanh));
    }
}

dispatch!(
    /// Replaces scores by exp(score − maximum); answers the maximum and the sum of the results.
    ///
    /// # Safety
    /// The slice is a whole number of vectors long.
    fn softmax = self::softmax_body [] (scores: &mut [f32]) -> (f32, f32)
);

#[inline(always)]
unsafe fn softmax_body<S: Simd>(scores: &mut [f32]) -> (f32, f32) {
    let mut largest = S::splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        largest = S::max(S::load(scores.as_ptr()), largest);
    }
    let maximum = S::maximum(largest);
    let shift = S::splat(-maximum);
    let mut sum = S::splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let weight = S::exp_below(S::add(S::load(scores.as_ptr()), shift));
        S::store(scores.as_mut_ptr(), weight);
        sum = S::add(sum, weight);
    }
    (maximum, S::sum(sum))
}

dispatch!(
    /// `values = values · old + next · new`
    ///
    /// # Safety
    /// The slices are equally long, a multiple of 32.
    pub(super) fn add_scaled = self::add_scaled_body [] (values: &mut [f32], old: f32, next: &[f32], new: f32)
);

#[inline(always)]
unsafe fn add_scaled_body<S: Simd>(values: &mut [f32], old: f32, next: &[f32], new: f32) {
    let (old, new) = (S::splat(old), S::splat(new));
    for (values, next) in values.chunks_exact_mut(S::LANES).zip(next.chunks_exact(S::LANES)) {
        let value = S::mul(S::load(values.as_ptr()), old);
        S::store(values.as_mut_ptr(), S::fma(S::load(next.as_ptr()), new, value));
    }
}

dispatch!(
    /// `out = values · factor`, as far as `out` goes.
    ///
    /// # Safety
    /// None besides the tier's.
    pub(super) fn scaled = self::scaled_body [] (values: &[f32], factor: f32, out: &mut [f32])
);

#[inline(always)]
unsafe fn scaled_body<S: Simd>(values: &[f32], factor: f32, out: &mut [f32]) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value * factor);
}

dispatch!(
    /// `values = values · factor`
    ///
    /// # Safety
    /// None besides the tier's.
    pub(super) fn scale = self::scale_body [] (values: &mut [f32], factor: f32)
);

#[inline(always)]
unsafe fn scale_body<S: Simd>(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}
