//! Activations in bytes: what quantised weights are multiplied by.
//!
//! Each row is cut into groups of 32 neighbours; a group has a scale, its largest value / 127, and
//! its integers, the nearest to value / scale. Rounding changes a value by at most 1/254 of its
//! group's largest.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use super::quantized_panel::GROUP;
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::tile::TILE_ROWS;
use super::{Isa, Pool};

/// Rows in tiles of up to 12. In a tile of *r* rows, integers are `[depth/4][r][4]`, scales and sums
/// `[depth/32][r]`.
pub(super) struct QuantizedRows {
    pub integers: Vec<i8>,
    pub scales: Vec<f32>,
    /// scale · Σ of a group's integers.
    pub sums: Vec<f32>,
    /// Σ of a group's integers.
    pub integer_sums: Vec<i32>,
}

impl QuantizedRows {
    /// Quantises `input`, `[tokens, depth]`.
    ///
    /// # Panics
    /// If `depth` is no whole number of groups.
    pub fn new(isa: Isa, pool: &Pool, input: &[f32], depth: usize) -> QuantizedRows {
        assert!(depth.is_multiple_of(GROUP) && input.len().is_multiple_of(depth));
        let (tokens, groups) = (input.len() / depth, depth / GROUP);
        let mut rows = QuantizedRows {
            integers: vec![0; tokens * depth],
            scales: vec![0.0; tokens * groups],
            sums: vec![0.0; tokens * groups],
            integer_sums: vec![0; tokens * groups],
        };
        let integers = SharedSlice::new(&mut rows.integers);
        let scales = SharedSlice::new(&mut rows.scales);
        let sums = SharedSlice::new(&mut rows.sums);
        let integer_sums = SharedSlice::new(&mut rows.integer_sums);
        pool.for_each(tokens.div_ceil(TILE_ROWS), 1, |tile| {
            let first = tile * TILE_ROWS;
            let count = TILE_ROWS.min(tokens - first);
            let input = &input[first * depth..(first + count) * depth];
            let (at, len) = (first * groups, count * groups);
            // SAFETY: each tile's parts are written by one thread; their lengths are those of its rows.
            unsafe {
                let out = Tile {
                    integers: integers.part(first * depth, count * depth),
                    scales: scales.part(at, len),
                    sums: sums.part(at, len),
                    integer_sums: integer_sums.part(at, len),
                };
                quantize_tile(isa, input, count, out);
            }
        });
        rows
    }
}

/// The parts of one tile's rows.
struct Tile<'a> {
    integers: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    integer_sums: &'a mut [i32],
}

dispatch!(
    /// # Safety
    /// `input` is `count` rows of whole groups, and `out` as long as they are.
    fn quantize_tile = self::quantize_tile_body [] (input: &[f32], count: usize, out: Tile<'_>)
);

#[inline(always)]
unsafe fn quantize_tile_body<S: Simd>(input: &[f32], count: usize, out: Tile<'_>) {
    let depth = input.len() / count;
    for (row, values) in input.chunks_exact(depth).enumerate() {
        for (group, values) in values.chunks_exact(GROUP).enumerate() {
            let (scale, integers) = quantize_group(values);
            let sum = integers.iter().map(|integer| i32::from(*integer)).sum::<i32>();
            let at = group * count + row;
            (out.scales[at], out.integer_sums[at], out.sums[at]) = (scale, sum, scale * sum as f32);
            for (quad, four) in integers.chunks_exact(4).enumerate() {
                let at = ((group * GROUP / 4 + quad) * count + row) * 4;
                out.integers[at..at + 4].copy_from_slice(four);
            }
        }
    }
}

/// The scale and the integers of a group; values that are not finite make the scale NaN, so that
/// they are not lost.
#[inline(always)]
fn quantize_group(values: &[f32]) -> (f32, [i8; GROUP]) {
    // Sizes compare as their bits do; NaN and infinity are the largest.
    let largest = values.iter().fold(0u32, |largest, value| largest.max(value.abs().to_bits()));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return (f32::NAN, [0; GROUP]);
    }
    let scale = largest / 127.0;
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let mut integers = [0i8; GROUP];
    for (integer, value) in integers.iter_mut().zip(values) {
        let rounded = (value * inverse).round_ties_even().clamp(-127.0, 127.0);
        // SAFETY: finite, and within i32's range.
        *integer = unsafe { rounded.to_int_unchecked::<i32>() } as i8;
    }
    (scale, integers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_near_and_lie_where_tiles_read_them() {
        let (tokens, depth) = (14, 96);
        let input: Vec<f32> = (0..tokens * depth).map(|i| (i * 7919 % 1013) as f32 / 70.0 - 7.0).collect();
        for isa in Isa::available() {
            let rows = QuantizedRows::new(isa, &Pool::new(2), &input, depth);
            for token in 0..tokens {
                let first = token / TILE_ROWS * TILE_ROWS;
                let (row, count) = (token - first, TILE_ROWS.min(tokens - first));
                for group in 0..depth / GROUP {
                    let values = &input[token * depth + group * GROUP..][..GROUP];
                    let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
                    let at = first * (depth / GROUP) + group * count + row;
                    assert_eq!(rows.scales[at], largest / 127.0);
                    let mut sum = 0;
                    for (column, value) in values.iter().enumerate() {
                        let column = group * GROUP + column;
                        let at_integer = first * depth + (column / 4 * count + row) * 4 + column % 4;
                        let integer = rows.integers[at_integer];
                        sum += i32::from(integer);
                        let difference = (f32::from(integer) * rows.scales[at] - value).abs();
                        assert!(difference <= largest / 253.9, "{isa}: {value} became {integer}");
                    }
                    assert_eq!(rows.integer_sums[at], sum);
                    assert_eq!(rows.sums[at], rows.scales[at] * sum as f32);
                }
            }
        }
    }

    #[test]
    fn zeros_subnormal_and_infinite_values() {
        let pool = Pool::new(1);
        let isa = Isa::available()[0];
        let with = |value: f32| {
            let mut input = vec![0f32; 32];
            input[5] = value;
            QuantizedRows::new(isa, &pool, &input, 32)
        };
        let zero = with(0.0);
        assert!(zero.scales == [0.0] && zero.integers.iter().all(|integer| *integer == 0));
        let tiny = with(1e-44);
        assert!(tiny.scales[0] < 1e-44 && tiny.integers.iter().all(|integer| *integer == 0));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(with(value).scales[0].is_nan(), "{value} must not be lost");
        }
        assert_eq!(with(f32::MAX).integers[5], 127);
    }
}
